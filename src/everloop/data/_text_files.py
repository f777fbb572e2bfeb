"""The text of a file: its encoding, zero bytes and all that can be wrong with it. Errors name the line, the caller the
file.
"""

import codecs
import gzip
import zlib
from pathlib import Path


def read_text(path: Path, encoding: str | None) -> str:
    """The text of a file, without byte order mark."""
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"not a whole gzip file: {error}") from None
    if encoding is None and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    nul = data.find(b"\0")
    if encoding is None and nul >= 0:
        raise ValueError(
            f"byte {nul + 1}: a zero byte came, which no text has; "
            "expected a .csv, .tsv, .jsonl, .json, .parquet or text file"
        )
    try:
        text = data.decode("utf-8" if encoding is None else encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(error.encoding, "ignore").count("\n") + 1
        raise ValueError(
            f"line {line}: byte 0x{data[error.start]:02X} is not {encoding or 'UTF-8'}; "
            "name the encoding of the file, for example --encoding gb18030 (Chinese) "
            "or --encoding latin-1 (Western European)"
        ) from None
    except LookupError:
        raise ValueError(
            f'line 1: there is no text encoding "{encoding}"; '
            "examples of names are utf-8, gb18030, big5, shift_jis, latin-1"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"line {line}: a zero character came, which no text has; is {encoding} its encoding?")
    return text.removeprefix("\ufeff")


def plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
