"""The text of a file: its encoding, zero bytes and all that can be wrong with it. Errors name the line, the caller the
file.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnreadableText(ValueError):
    """What a file has in place of text, and in which line."""


def read_text(path: Path, encoding: str | None) -> str:
    """The text of a file, without byte order mark."""
    data = path.read_bytes()
    if _is_gzip(path):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableText(f"not a whole gzip file: {error}") from None
    if encoding is None and data.startswith(_UTF_16):
        encoding = "utf-16"
    nul = data.find(b"\0")
    if encoding is None and nul >= 0:
        raise UnreadableText(
            f"byte {nul + 1}: a zero byte came, which no text has; "
            "expected a .csv, .tsv, .jsonl, .json, .parquet or text file"
        )
    try:
        text = data.decode("utf-8" if encoding is None else encoding)
    except UnicodeDecodeError as error:
        raise _not_of_encoding(error, 0, encoding) from None
    except LookupError:
        raise _no_such_encoding(encoding) from None
    _check_no_zero(text, 0, encoding)
    return text.removeprefix("\ufeff")


def read_blocks(path: Path, encoding: str | None) -> Iterator[str]:
    """The same text in parts of about a million characters, one after another."""
    lines = 0
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
        try:
            block = file.read(_BLOCK)
            if encoding is None and block.startswith(_UTF_16):
                encoding = "utf-16"
            decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
            first = True
            while block or first:
                text = decoder.decode(block)
                block = file.read(_BLOCK)
                if not block:
                    text += decoder.decode(b"", final=True)
                _check_no_zero(text, lines, encoding)
                lines += text.count("\n")
                yield text.removeprefix("\ufeff") if first else text
                first = False
        except UnicodeDecodeError as error:
            raise _not_of_encoding(error, lines, encoding) from None
        except LookupError:
            raise _no_such_encoding(encoding) from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UnreadableText(f"not a whole gzip file: {error}") from None


def read_lines(path: Path, encoding: str | None) -> Iterator[str]:
    """The lines of the same text, each with its end as it is: newline, carriage return, or both."""
    rest = ""
    for block in read_blocks(path, encoding):
        *whole, rest = io.StringIO(rest + block, newline="") if rest + block else [""]
        yield from whole
    if rest:
        yield from io.StringIO(rest, newline="")


def plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _not_of_encoding(error: UnicodeDecodeError, lines: int, encoding: str | None) -> UnreadableText:
    """lines: how many there are before what could not be decoded."""
    line = lines + error.object[: error.start].decode(error.encoding, "ignore").count("\n") + 1
    return UnreadableText(
        f"line {line}: byte 0x{error.object[error.start]:02X} is not {encoding or 'UTF-8'}; "
        "name the encoding of the file, for example --encoding gb18030 (Chinese) "
        "or --encoding latin-1 (Western European)"
    )


def _no_such_encoding(encoding: str | None) -> UnreadableText:
    return UnreadableText(
        f'line 1: there is no text encoding "{encoding}"; '
        "examples of names are utf-8, gb18030, big5, shift_jis, latin-1"
    )


def _check_no_zero(text: str, lines: int, encoding: str | None) -> None:
    if "\0" in text:
        line = lines + text[: text.index("\0")].count("\n") + 1
        raise UnreadableText(
            f"line {line}: a zero character came, which no text has; is {encoding or 'UTF-8'} its encoding?"
        )
