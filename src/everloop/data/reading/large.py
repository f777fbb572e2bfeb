"""Tables and texts that are larger than memory: read once from beginning to end, their texts kept on disk.

What is refused, and how that is said, is as for small ones. Whether the first line is a header is judged by the first
10,000 records.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from everloop.data import stored
from everloop.data.reading.tables import BadRows, Table, check_names, csv_lines_table, find_delimiter, long_fields
from everloop.data.reading.text_files import plain_newlines, read_blocks, read_lines
from everloop.data.stored import StoredTexts, TextWriter

_HEAD = 10_000  # records
_PIECE = 65_536  # characters of a long text that are kept together
_LONGEST_FIELD = 100_000_000
_GZIP_GAIN = 4  # how much larger text was before, about


def is_large(path: Path) -> bool:
    gain = _GZIP_GAIN if path.name.lower().endswith(".gz") else 1
    return path.stat().st_size * gain > stored.LARGE


class StoredColumns:
    """Fields of records as texts on disk, a file for each column."""

    def __init__(self) -> None:
        self._writers: list[TextWriter] = []
        self._finished: dict[int, StoredTexts] = {}

    def add(self, fields: Sequence[str]) -> None:
        if not self._writers:
            self._writers = [TextWriter() for _ in fields]
        for writer, value in zip(self._writers, fields, strict=True):
            writer.add(value)

    def column(self, i: int) -> StoredTexts:
        if i not in self._finished:
            self._finished[i] = self._writers[i].finish()
        return self._finished[i]


def csv_table(
    path: Path, source: str, encoding: str | None, delimiter: str | None, asked: Sequence[str], bad: BadRows
) -> Table:
    """As `tables.csv_table`, of a file."""
    notes: list[str] = []
    if delimiter is None:
        delimiter, notes = find_delimiter("".join(islice(read_lines(path, encoding), _HEAD)))
    with long_fields(_LONGEST_FIELD):
        return csv_lines_table(
            lambda: read_lines(path, encoding), source, delimiter, asked, bad, notes, StoredColumns(), array("q"), _HEAD
        )


def parquet_table(path: Path, source: str) -> Table:
    """Columns of text on disk, others in memory."""
    import pyarrow
    import pyarrow.parquet

    try:
        # Without these two, whole columns of a row group, which may be the file, would be read at once.
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        schema = file.schema_arrow
        names = list(schema.names)
        check_names(names, source)
        texts = [name for name in names if _is_text(schema.field(name).type)]
        columns = StoredColumns()
        if texts:
            for batch in file.iter_batches(batch_size=4_096, columns=texts):
                for fields in zip(*(batch.column(name).to_pylist() for name in texts), strict=True):
                    columns.add([value or "" for value in fields])
    except pyarrow.ArrowException as error:
        raise ValueError(f"{source}: not a readable parquet file: {error}") from None

    def column(name: str) -> Sequence[Any]:
        if name in texts:
            return columns.column(texts.index(name))
        return pyarrow.parquet.read_table(path, columns=[name]).column(name).to_pylist()

    return Table(source, names, range(1, file.metadata.num_rows + 1), column)


def text_pieces(path: Path, encoding: str | None) -> StoredTexts:
    """A long text in pieces that follow each other, cut after line breaks where there are any."""
    writer, rest = TextWriter(), ""
    for block in read_blocks(path, encoding):
        # A carriage return at the end waits for the newline that may come.
        text, held = (rest + block[:-1], "\r") if block.endswith("\r") else (rest + block, "")
        text = plain_newlines(text)
        begin = 0
        while len(text) - begin > 2 * _PIECE:
            end = text.find("\n", begin + _PIECE, begin + 2 * _PIECE) + 1 or begin + 2 * _PIECE
            writer.add(text[begin:end])
            begin = end
        rest = text[begin:] + held
    if rest:
        writer.add(plain_newlines(rest))
    return writer.finish()


def _is_text(kind: Any) -> bool:
    """Whether the values of an Arrow type are texts."""
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
