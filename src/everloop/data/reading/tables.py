"""Tables of any origin in one shape: named columns, and the number of every row as a user counts it.

Each reader here turns one format into a `Table` and knows nothing about inputs and targets.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from everloop.data._say import count, names_of

# Names that columns of texts and of labels usually have, the surest first.
INPUT_NAMES = (
    *("text", "sentence", "review", "content", "comment", "message", "tweet", "body", "document", "post"),
    *("utterance", "query", "question", "description", "summary", "headline", "title", "input"),
    *("文本", "内容", "正文", "评论", "评价", "句子", "留言", "问题", "标题"),
)
TARGET_NAMES = (
    *("label", "target", "class", "category", "sentiment", "polarity", "y", "tag", "topic", "intent"),
    *("emotion", "rating", "stars", "score", "output"),
    *("标签", "类别", "分类", "情感", "情绪", "极性", "评分"),
)

_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
_LONGEST_NAME = 64
_UNCLOSED = "not CSV: unexpected end of data"  # what the csv module says when the text ends inside quotes
_SAMPLE = 200


@dataclass(frozen=True)
class Table:
    source: str
    names: list[str]
    rows: Sequence[int]
    column: Callable[[str], Sequence[object]]  # made on request: a wide table costs only what is read
    notes: tuple[str, ...] = ()


@dataclass
class BadRows:
    """What happens to an unreadable row: "stop" raises at once, "skip" remembers it for one note."""

    source: str
    policy: Literal["stop", "skip"]
    noun: str = "row"
    found: list[str] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        if self.policy == "stop":
            raise ValueError(f"{self.source}, {where}: {reason}; --bad-rows skip leaves such {self.noun}s out")
        self.found.append(f"{where} ({reason})")

    def notes(self) -> tuple[str, ...]:
        if not self.found:
            return ()
        shown = "; ".join(self.found[:3]) + ("; ..." if len(self.found) > 3 else "")
        return (f"{count(len(self.found), f'unreadable {self.noun}')} left out: {shown}",)


class Columns(Protocol):
    """Where the fields of a table's records go, and are found again by the place of the column."""

    def add(self, fields: list[str]) -> None: ...
    def column(self, i: int) -> Sequence[str]: ...


class ListColumns:
    def __init__(self) -> None:
        self.records: list[list[str]] = []

    def add(self, fields: list[str]) -> None:
        self.records.append(fields)

    def column(self, i: int) -> list[str]:
        return [fields[i] for fields in self.records]


def csv_table(text: str, source: str, delimiter: str | None, asked: Sequence[str], bad: BadRows) -> Table:
    """Read delimited text.

    delimiter: the one that the file's name promises, or None to find it from the data.
    asked: column names that the user gave, which only a header can hold.
    """
    delimiter, notes = (delimiter, []) if delimiter else find_delimiter(text)
    with long_fields(len(text)):
        return csv_lines_table(
            lambda: io.StringIO(text, newline=""), source, delimiter, asked, bad, notes, ListColumns(), []
        )


def csv_lines_table(
    lines: Callable[[], Iterable[str]],
    source: str,
    delimiter: str,
    asked: Sequence[str],
    bad: BadRows,
    notes: list[str],
    columns: Columns,
    rows: MutableSequence[int],
    head: int | None = None,
) -> Table:
    """Read lines of delimited text. lines: begins again at every call. columns, rows: filled. head: by how many records
    it is judged whether the first is a header; None: all."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
    if delimiter == "\t" and any(isinstance(r.fields, str) for r in _records(lines(), delimiter, quoting)):
        # Tab-separated text often has no quoting at all, and then a lone " is a plain character.
        quoting = csv.QUOTE_NONE
        notes.append("quotation marks do not pair up as CSV quoting: read as plain characters")
    records = _records(lines(), delimiter, quoting)
    first_ones = list(islice(records, head))
    if not first_ones:
        raise ValueError(f"{source} is empty; expected a header line and one line per example")
    first = first_ones[0]
    if isinstance(first.fields, str):
        raise ValueError(f"{source}, {first.where}: {first.fields}; expected the header")

    data_sign = _sign_of_data(first.fields, first_ones[1:], asked)
    width = len(first.fields)
    if data_sign:
        names = [str(i + 1) for i in range(width)]
        notes.append(f"no header (in the first line {data_sign}): columns are called {names_of(names)}")
    else:
        names = [name.strip() or str(i + 1) for i, name in enumerate(first.fields)]
    check_names(names, source)

    of_what = f"the {'first row' if data_sign else 'header'} has {width} ({names_of(names)})"
    for record in chain(first_ones[0 if data_sign else 1 :], records):
        if record.fields == _UNCLOSED:
            # Never skipped: every line after the quote is in this record, and who knows how many are meant.
            raise ValueError(
                f"{source}, row {record.row}: a quotation mark opened here is never closed, which takes in "
                f'everything up to line {record.last}; close it, or write "" for a quotation mark in a text'
            )
        if isinstance(record.fields, str):
            bad.add(record.where, record.fields)
        elif len(record.fields) != width:
            hint = f"; a field that holds a {_DELIMITERS[delimiter]} needs quotation marks around it"
            came = "field" if len(record.fields) == 1 else "fields"
            bad.add(record.where, f"{len(record.fields)} {came} came, {of_what}{hint}")
        else:
            columns.add(record.fields)
            rows.append(record.row)
    return Table(source, names, rows, lambda name: columns.column(names.index(name)), tuple(notes))


def json_lines_table(text: str, source: str, bad: BadRows) -> Table:
    records: list[tuple[int, dict[str, object]]] = []
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(f"row {row}", f"not JSON: {_json_trouble(error)}")
            continue
        if isinstance(value, dict):
            records.append((row, value))
        else:
            bad.add(f"row {row}", f'a JSON {_json_kind(value)} came, an object like {{"text": "..."}} expected')
    return _records_table(records, source)


def json_table(text: str, source: str, bad: BadRows) -> Table:
    """Read a JSON list of objects; a row's number is its place in the list, from 1."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "; for one object per line, name the file .jsonl" if "Extra data" in str(error) else ""
        raise ValueError(f"{source}: not JSON: {_json_trouble(error)}{hint}") from None
    if not isinstance(value, list):
        raise ValueError(
            f"{source}: a JSON {_json_kind(value)} came; "
            'expected a list of objects like [{"text": "...", "label": "..."}]'
        )
    return objects_table(value, bad)


def objects_table(items: Sequence[object], bad: BadRows) -> Table:
    records: list[tuple[int, dict[str, object]]] = []
    for row, item in enumerate(items, start=1):
        if isinstance(item, dict):
            records.append((row, item))
        else:
            bad.add(f"row {row}", f"a {type(item).__name__} came, an object (dict) expected")
    return _records_table(records, bad.source)


def parquet_table(path: Path, source: str) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"{source}: reading parquet needs pyarrow: pip install 'everloop[train]'") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{source}: not a readable parquet file: {error}") from None
    return arrow_table(table, source)


def arrow_table(table: Any, source: str | None = None) -> Table:
    names = list(table.column_names)
    return _columns_table(names, table.num_rows, lambda i: table.column(i).to_pylist(), source)


def pandas_table(frame: Any) -> Table:
    names = [str(name) for name in frame.columns]

    def column(i: int) -> list[object]:
        values = frame.iloc[:, i]
        return values.astype(object).where(values.notna(), None).tolist()

    return _columns_table(names, len(frame), column)


def polars_table(frame: Any) -> Table:
    return _columns_table(list(frame.columns), frame.height, lambda i: frame.to_series(i).to_list())


def dict_table(columns: dict[Any, Any]) -> Table:
    names = [str(name) for name in columns]
    lists = [plain_list(column) for column in columns.values()]
    for name, values, came in zip(names, lists, columns.values(), strict=True):
        if values is None:
            raise TypeError(
                f'column "{name}" of the dict is a {type(came).__name__}; expected a list with one value per example'
            )
    lengths = {name: len(values or ()) for name, values in zip(names, lists, strict=True)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f'"{name}" has {n:,}' for name, n in lengths.items())
        raise ValueError(f"the columns of the dict have different lengths: {told}; expected equal lengths")
    return _columns_table(names, next(iter(lengths.values()), 0), lambda i: lists[i] or [])


def plain_list(values: Any) -> list[object] | None:
    """The list in a list, tuple, NumPy array or series; None for anything else."""
    for method in ("tolist", "to_list", "to_pylist"):
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    return list(values) if isinstance(values, list | tuple) else None


def rows_of(values: Any) -> list[Any] | None:
    """The items of a list, tuple, array or series; those of an array of numbers with several axes stay arrays."""
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return list(values)
    return plain_list(values)


def is_numeric(value: Any) -> bool:
    """Whether this is an array or a list of numbers, of any depth."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and value.dtype.kind in "iufb"
    while isinstance(value, list | tuple) and len(value):
        value = value[0]
        if isinstance(value, int | float | np.number):
            return True
        if isinstance(value, np.ndarray):
            return is_numeric(value)
    return False


@dataclass(frozen=True)
class _Record:
    row: int  # the line where it starts
    last: int  # the line where it ends
    fields: list[str] | str  # or why it cannot be read

    @property
    def where(self) -> str:
        return f"row {self.row}" if self.last <= self.row else f"rows {self.row}-{self.last}"


def _records(lines: Iterable[str], delimiter: str, quoting: Literal[0, 3]) -> Iterator[_Record]:
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        row = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Record(row, reader.line_num, f"not CSV: {error}")
            continue
        if fields:
            yield _Record(row, reader.line_num, fields)


def find_delimiter(text: str) -> tuple[str, list[str]]:
    """The delimiter that cuts most records into as many fields as the first one, which has at least two."""
    shares: dict[str, float] = {}
    start = text[:1_000_000]
    with long_fields(len(start)):
        for delimiter in _DELIMITERS:
            widths = [
                len(record.fields) if isinstance(record.fields, list) else 0
                for record in islice(_records(io.StringIO(start, newline=""), delimiter, csv.QUOTE_MINIMAL), _SAMPLE)
            ]
            if widths and widths[0] > 1:
                shares[delimiter] = widths.count(widths[0]) / len(widths)
    best = max(shares, key=lambda d: shares[d], default=",")
    return best, [] if best == "," else [f"fields are separated by a {_DELIMITERS[best]}"]


def _sign_of_data(first: list[str], later: list[_Record], asked: Sequence[str]) -> str:
    """Why the first record is data and not a header; "" for a header.

    A record that holds a usual or an asked-for column name is a header (but to ask for column "1" is to ask
    for a place). Any other is data when one of its fields is a number, is longer than a name, ends like a
    sentence, or comes again in its own column.
    """
    stripped = [name.strip() for name in first]
    words = [name for name in asked if not name.isdigit()]
    if any(name in words or name.casefold() in (*INPUT_NAMES, *TARGET_NAMES) for name in stripped):
        return ""
    for name in stripped:
        if _is_number(name):
            return f'"{name}" is a number'
        if len(name) > _LONGEST_NAME:
            return f'"{name[:20]}..." is {len(name)} characters long'
        if name.endswith((".", "!", "?", "。", "！", "？", "…")):
            return f'"{name}" ends like a sentence'
    for i, name in enumerate(stripped):
        rest = (r.fields for r in later if isinstance(r.fields, list) and len(r.fields) == len(first))
        if name and any(fields[i].strip() == name for fields in rest):
            return f'"{name}" comes again in its column'
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def check_names(names: list[str], source: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(
                f'{source}: columns {names.index(name) + 1} and {i + 1} are both called "{name}"; rename one'
            )


def _records_table(records: list[tuple[int, dict[str, object]]], source: str) -> Table:
    names = list(dict.fromkeys(str(name) for _, record in records for name in record))
    rows = [row for row, _ in records]
    return Table(source, names, rows, lambda name: [record.get(name) for _, record in records])


def _columns_table(
    names: list[str], height: int, column: Callable[[int], list[object]], source: str | None = None
) -> Table:
    source = source or f"a table of {count(len(names), 'column')} and {count(height, 'row')}"
    check_names(names, source)
    return Table(source, names, list(range(1, height + 1)), lambda name: column(names.index(name)))


def _json_trouble(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else "nested too deeply"


def _json_kind(value: object) -> str:
    kinds = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


@contextmanager
def long_fields(longest: int) -> Iterator[None]:
    """Let the csv module take a field as long as the text: its limit is global, and is put back."""
    before = csv.field_size_limit(min(max(longest, 131_072), 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
