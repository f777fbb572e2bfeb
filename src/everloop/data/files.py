"""Reading examples: from a file, a folder, a table or Python lists to texts and their labels.

What is read, by the file's name (any of the text formats may also end in .gz):

- `.csv`, `.tsv`: a header and one example per record; the delimiter of a .csv is found from the data
- `.jsonl`, `.ndjson`: one object per line; `.json`: one list of objects
- `.parquet`
- any other file: one long text
- a folder with one subfolder of text files per class
- a pandas or polars DataFrame, a pyarrow Table, a dict of columns, a list of dicts
- lists, by this rule: a tuple of two sequences (neither a string) is `(texts, labels)`; a list whose first
  item is a string is texts alone; a list whose first item is a list or tuple is `(text, label)` pairs

Text is UTF-8 (UTF-16 when it starts with a byte order mark) unless `encoding` says otherwise.
"""

import codecs
import difflib
import gzip
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from everloop.data import _tables
from everloop.data._columns import WantTarget, choose_columns, texts_of
from everloop.data._say import count, names_of
from everloop.data._tables import BadRows, Table

BadRowPolicy = Literal["stop", "skip"]


@dataclass(frozen=True)
class Examples:
    inputs: list[str]  # one text per example; for kind "text" the whole file as one
    targets: list[str] | None  # labels as text; None when there is no target column
    source: str  # for messages: the path, "a table of 3 columns and 120 rows", "lists"
    kind: Literal["table", "text", "folder", "lists"]
    rows: list[int]  # where each example starts: the line of a text file, else its place, both from 1
    notes: tuple[str, ...] = ()  # what was guessed or left out, one sentence each, to be announced
    input_name: str | None = None
    target_name: str | None = None


def read_examples(
    source: Any,
    *,
    input: str | None = None,
    target: str | None = None,
    encoding: str | None = None,
    bad_rows: BadRowPolicy = "stop",
    want_target: WantTarget = "if there",
) -> Examples:
    """Read examples from a path, a table or lists (see the top of this file for what is accepted).

    input, target: column names; left out, they are guessed and the guess is in the notes.
    bad_rows: "stop" raises ValueError at an unreadable row, "skip" leaves it out, and a note counts them.
    want_target: "yes" raises ValueError when there is no target, "no" reads none, "if there" takes it if any.
    """
    _check_one_of("bad_rows", bad_rows, get_args(BadRowPolicy))
    _check_one_of("want_target", want_target, get_args(WantTarget))
    asked = _Asked(input, target, encoding, bad_rows, want_target)
    if isinstance(source, str | Path):
        return _from_path(Path(source).expanduser(), str(source), asked)
    if encoding is not None:
        raise ValueError(f'encoding "{encoding}" came with a {type(source).__name__}; it is for text files only')
    table = _table_in_memory(source)
    return _from_lists(source, asked) if table is None else _from_table(table, asked)


def drop_duplicates(examples: Examples) -> Examples:
    """Keep the first of each text (spaces around it do not count): a text in two splits would leak."""
    first: dict[str, int] = {}
    contrary = 0
    for i, text in enumerate(examples.inputs):
        kept = first.setdefault(text.strip(), i)
        contrary += examples.targets is not None and examples.targets[kept] != examples.targets[i]
    dropped = len(examples.inputs) - len(first)
    if not dropped:
        return examples
    note = f"{count(dropped, 'duplicate row')} left out before splitting (a text that is in two splits would leak)"
    if contrary:
        note += f"; {contrary:,} of them had another label than the first"
    keep = list(first.values())
    return replace(
        examples,
        inputs=[examples.inputs[i] for i in keep],
        targets=None if examples.targets is None else [examples.targets[i] for i in keep],
        rows=[examples.rows[i] for i in keep],
        notes=(*examples.notes, note),
    )


@dataclass(frozen=True)
class _Asked:
    """What the caller of `read_examples` asked for."""

    input: str | None
    target: str | None
    encoding: str | None
    bad_rows: BadRowPolicy
    want_target: WantTarget

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.input, self.target) if name is not None]

    def refuse_columns(self, reason: str) -> None:
        if self.columns:
            raise ValueError(f"{reason} and has no columns; leave {names_of(self.columns)} out")


def _from_path(path: Path, name: str, asked: _Asked) -> Examples:
    if path.is_dir():
        asked.refuse_columns(f"{name} is a folder of texts")
        return _from_folder(path, name, asked)
    if not path.exists():
        raise FileNotFoundError(_not_found(path, name))
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    if extension in (".parquet", ".pq"):
        if asked.encoding is not None:
            raise ValueError(f"{name} is parquet, which has no encoding; leave --encoding out")
        return _from_table(_tables.parquet_table(path, name), asked)

    try:
        text = _read_text(path, asked.encoding)
    except ValueError as error:
        raise ValueError(f"{name}, {error}") from None
    if not text.strip():
        raise ValueError(f"{name} is empty; expected examples, or a text")
    bad = BadRows(name, asked.bad_rows)
    if extension == ".csv":
        return _from_table(_tables.csv_table(text, name, None, asked.columns, bad), asked, bad)
    if extension in (".tsv", ".tab"):
        return _from_table(_tables.csv_table(text, name, "\t", asked.columns, bad), asked, bad)
    if extension in (".jsonl", ".ndjson"):
        return _from_table(_tables.json_lines_table(text, name, bad), asked, bad)
    if extension == ".json":
        return _from_table(_tables.json_table(text, name, bad), asked, bad)
    asked.refuse_columns(f"{name} is read as one text")
    if asked.want_target == "yes":
        raise ValueError(
            f"{name} is read as one text and has no labels; expected a .csv, .tsv, .jsonl, .json or .parquet "
            "with a column of labels, or a folder with one subfolder per class"
        )
    return Examples([_plain_newlines(text)], None, name, "text", [1])


def _from_table(table: Table, asked: _Asked, bad: BadRows | None = None) -> Examples:
    """bad: the unreadable rows that the reader of the table met, if it can meet any."""
    bad = bad or BadRows(table.source, asked.bad_rows)
    if not table.rows:
        left_out = "".join(f"; {note}" for note in bad.notes())
        columns = f"columns {names_of(table.names)}" if table.names else "no columns"
        raise ValueError(f"{table.source} has {columns} and no rows; expected at least one example{left_out}")
    choice = choose_columns(table, asked.input, asked.target, asked.want_target)
    labels = None if choice.target is None else table.column(choice.target)
    inputs, targets, rows = texts_of(table.column(choice.input), labels, table.rows, bad, choice.input, choice.target)
    notes = (*table.notes, *choice.notes, *bad.notes())
    return _not_empty(Examples(inputs, targets, table.source, "table", rows, notes, choice.input, choice.target))


def _table_in_memory(source: Any) -> Table | None:
    """The table in a frame, a dict or a list of dicts; None for other lists."""
    if _is_a(source, "pandas", "DataFrame"):
        return _tables.pandas_table(source)
    if _is_a(source, "polars", "DataFrame"):
        return _tables.polars_table(source)
    if _is_a(source, "pyarrow", "Table"):
        return _tables.arrow_table(source)
    if isinstance(source, dict):
        return _tables.dict_table(source)
    return None


def _is_a(source: object, module: str, name: str) -> bool:
    """isinstance without importing the module: whoever holds such an object has imported it already."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(source, kind)


def _from_lists(source: Any, asked: _Asked) -> Examples:
    items = _tables.plain_list(source)
    if items is None:
        raise TypeError(
            f"a {type(source).__name__} came; expected a path, a pandas or polars DataFrame, "
            "a pyarrow Table, a dict of columns, a list of texts, a tuple (texts, labels), "
            "or a list of (text, label) pairs"
        )
    if not items:
        raise ValueError("an empty list came; expected at least one text")
    if isinstance(items[0], dict):
        bad = BadRows(f"a list of {count(len(items), 'object')}", asked.bad_rows)
        return _from_table(_tables.objects_table(items, bad), asked, bad)
    asked.refuse_columns("the data is lists")
    bad = BadRows("lists", asked.bad_rows)
    texts, labels, rows = _texts_and_labels(source, items, bad)
    if asked.want_target == "no":
        labels = None
    if asked.want_target == "yes" and labels is None:
        raise ValueError(
            f"{count(len(items), 'text')} came without labels; expected a tuple (texts, labels) "
            "or a list of (text, label) pairs"
        )
    inputs, targets, rows = texts_of(texts, labels, rows, bad)
    return _not_empty(Examples(inputs, targets, "lists", "lists", rows, bad.notes()))


def _texts_and_labels(source: Any, items: list[Any], bad: BadRows) -> tuple[list[Any], list[Any] | None, list[int]]:
    texts = _tables.plain_list(items[0])
    labels = _tables.plain_list(items[-1])
    if isinstance(source, tuple) and len(items) == 2 and texts is not None and labels is not None:
        if len(texts) != len(labels):
            raise ValueError(
                f"{count(len(texts), 'text')} and {count(len(labels), 'label')} came; expected as many labels as texts"
            )
        return texts, labels, list(range(1, len(texts) + 1))
    if isinstance(items[0], list | tuple):
        pairs = [(row, item) for row, item in enumerate(items, start=1) if _is_pair(row, item, bad)]
        return [pair[0] for _, pair in pairs], [pair[1] for _, pair in pairs], [row for row, _ in pairs]
    if isinstance(items[0], str) or items[0] is None:
        return items, None, list(range(1, len(items) + 1))
    raise TypeError(
        f"the first item of the list is a {type(items[0]).__name__}; expected a text, a pair (text, label), or a dict"
    )


def _is_pair(row: int, item: Any, bad: BadRows) -> bool:
    if isinstance(item, list | tuple) and len(item) == 2:
        return True
    size = f" of {len(item)}" if isinstance(item, list | tuple) else ""
    bad.add(
        f"row {row}",
        f"a {type(item).__name__}{size} came, a pair (text, label) expected "
        "(two long lists come as a tuple: (texts, labels))",
    )
    return False


_SPLIT_FOLDERS = {"train", "test", "valid", "validation", "val", "dev"}


def _from_folder(folder: Path, name: str, asked: _Asked) -> Examples:
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    classes = [path for path in visible if path.is_dir()]
    if not classes:
        raise ValueError(
            f"{name} has no subfolders; expected one subfolder of text files per class, "
            f"as in {name}/positive/1.txt (or point at one file)"
        )
    if all(path.name.lower() in _SPLIT_FOLDERS for path in classes):
        raise ValueError(
            f"{name} holds the folders {names_of([path.name for path in classes])}: predefined splits are "
            f"not supported yet; point at one of them, for example {name}/{classes[-1].name}"
        )
    bad = BadRows(name, asked.bad_rows, "file")
    inputs: list[str] = []
    targets: list[str] = []
    rows: list[int] = []
    notes: list[str] = []
    seen = 0
    for class_folder in classes:
        files = _visible_files(class_folder)
        if not files:
            notes.append(f'the folder "{class_folder.name}" holds no files: no such class')
        for file in files:
            seen += 1
            where = file.relative_to(folder).as_posix()
            try:
                text = _plain_newlines(_read_text(file, asked.encoding))
            except ValueError as error:
                bad.add(where, str(error))
                continue
            if not text.strip():
                bad.add(where, "the file is empty, a text expected")
                continue
            inputs.append(text)
            targets.append(class_folder.name)
            rows.append(seen)
    if not seen:
        raise ValueError(f"{name}: its subfolders hold no files; expected text files in one subfolder per class")
    loose = len(visible) - len(classes)
    if loose:
        notes.append(f"{count(loose, 'file')} beside the class folders left out")
    labels = None if asked.want_target == "no" else targets
    return _not_empty(Examples(inputs, labels, name, "folder", rows, (*notes, *bad.notes())))


def _visible_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _read_text(path: Path, encoding: str | None) -> str:
    """The text of a file, without byte order mark. Errors name the line, the caller the file."""
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


def _plain_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _not_found(path: Path, name: str) -> str:
    if not path.parent.is_dir():
        return f"there is no file {name}: there is no folder {path.parent}"
    others = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
    near = difflib.get_close_matches(path.name, others, n=3)
    return f"there is no file {name}" + (f"; similar names there: {names_of(near)}" if near else "")


def _not_empty(examples: Examples) -> Examples:
    if not examples.inputs:
        raise ValueError(": ".join([f"{examples.source} has no readable example", *examples.notes]))
    return examples


def _check_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} came; expected {' or '.join(map(repr, allowed))}")
