"""Reading examples: from a file, a folder, a table or Python lists to inputs and their targets.

What is read, by the file's name (any of the text formats may also end in .gz):

- `.csv`, `.tsv`: a header and one example per record; the delimiter of a .csv is found from the data
- `.jsonl`, `.ndjson`: one object per line; `.json`: one list of objects
- `.parquet`
- what a modality reads by itself (`everloop.data.codecs`: `.ts`, `.conllu`, `.mid` ...)
- any other file: one long text
- a folder with one subfolder of files per class; a folder of recordings or pictures, each beside a `.txt` of the
  same name; a folder of a train and a test file, or of a train and a test folder, each of any of these forms
- a pandas or polars DataFrame, a pyarrow Table, a dict of columns, a list of dicts
- lists, by this rule: a tuple of two sequences (neither a string) is `(inputs, targets)`; a list whose first item is
  a string is texts alone; a list whose first item is a list or tuple of more than numbers is `(input, target)` pairs

Columns of paths are read as what the files are: those of recordings make recordings. A path is looked for beside the
table. Text is UTF-8 (UTF-16 when it starts with a byte order mark) unless `encoding` says otherwise.
"""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from everloop.data import codecs
from everloop.data._asked import Asked, BadRowPolicy, WantTarget
from everloop.data._say import count, names_of
from everloop.data.examples import PARTS, Examples, drop_duplicates
from everloop.data.reading import large, tables
from everloop.data.reading.columns import choose_columns, texts_of
from everloop.data.reading.folders import read_folder
from everloop.data.reading.lists import inputs_and_targets
from everloop.data.reading.tables import BadRows, Table
from everloop.data.reading.text_files import UnreadableText, plain_newlines, read_text
from everloop.data.stored import taken

__all__ = ["Asked", "BadRowPolicy", "Examples", "drop_duplicates", "read_examples"]


def read_examples(
    source: Any,
    *,
    input: str | None = None,
    target: str | None = None,
    part: str | None = None,
    group: str | None = None,
    modality: str = "auto",
    encoding: str | None = None,
    bad_rows: BadRowPolicy = "stop",
    want_target: WantTarget = "if there",
) -> Examples:
    """Read examples from a path, a table or lists (see the top of this file for what is accepted); `Examples` are given
    back as they came.

    input, target: column names; left out, they are guessed and the guess is in the notes. Several columns are one
    input if their names are given with commas between them. part: the column that says "train", "valid" or "test".
    group: the column whose equal values stay in one split. modality: text, audio, image ...; auto looks at the data.
    bad_rows: "stop" raises ValueError at an unreadable row, "skip" leaves it out, and a note counts them.
    want_target: "yes" raises ValueError when there is no target, "no" reads none, "if there" takes it if any.
    """
    return read_asked(source, Asked(input, target, encoding, bad_rows, want_target, part, group, modality))


def read_asked(source: Any, asked: Asked) -> Examples:
    """What `read_examples` does, asked in one piece."""
    _check_one_of("bad_rows", asked.bad_rows, get_args(BadRowPolicy))
    _check_one_of("want_target", asked.want_target, get_args(WantTarget))
    _check_one_of("modality", asked.modality, ("auto", *codecs.names()))
    if isinstance(source, Examples):
        asked.refuse_columns("the data is Examples")
        return source
    if isinstance(source, str | Path):
        return _from_path(Path(source).expanduser(), str(source), asked)
    if asked.encoding is not None:
        raise ValueError(f'encoding "{asked.encoding}" came with a {type(source).__name__}; it is for text files only')
    table = _table_in_memory(source)
    return _from_lists(source, asked) if table is None else _from_table(table, asked)


TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")


def is_readable(path: Path) -> bool:
    """Whether a file of that name would be read as examples: for telling names of files from texts."""
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    known = (*TABLES, ".txt")
    return (
        extension in known or codecs.by_extension(extension) is not None or codecs.dataset_reader(extension) is not None
    )


def is_there(text: str) -> bool:
    """Whether a text is the name of a file or folder; no text is too long to be asked."""
    try:
        return bool(text) and Path(text).exists()
    except OSError:
        return False


def names_a_file(text: str) -> bool:
    """Whether a text, where a file may be given as well, stands for one: it is there, or is written like one."""
    return is_there(text) or (" " not in text and is_readable(Path(text)))


def _from_path(path: Path, name: str, asked: Asked) -> Examples:
    if path.is_dir():
        return _not_empty(read_folder(path, name, asked, _from_path))
    if not path.exists():
        raise FileNotFoundError(_not_found(path, name))
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    reader = codecs.dataset_reader(extension)
    if reader is not None:
        return _not_empty(reader(path, name, asked))
    modality = codecs.by_extension(extension)
    if modality is not None:
        asked.refuse_columns(f"{name} is one example")
        return Examples([path], None, name, "lists", [1], modality=modality)
    if extension in (".parquet", ".pq"):
        if asked.encoding is not None:
            raise ValueError(f"{name} is parquet, which has no encoding; leave --encoding out")
        parquet_table = large.parquet_table if large.is_large(path) else tables.parquet_table
        return _from_table(parquet_table(path, name), asked, folder=path.parent)
    if large.is_large(path) and extension not in (".jsonl", ".ndjson", ".json"):
        return _from_large_text_file(path, name, extension, asked)
    return _from_text_file(path, name, extension, asked)


def _from_text_file(path: Path, name: str, extension: str, asked: Asked) -> Examples:
    try:
        text = read_text(path, asked.encoding)
    except ValueError as error:
        raise ValueError(f"{name}, {error}") from None
    if not text.strip():
        raise ValueError(f"{name} is empty; expected examples, or a text")
    bad = BadRows(name, asked.bad_rows)
    if extension == ".csv":
        return _from_table(tables.csv_table(text, name, None, asked.columns, bad), asked, bad, path.parent)
    if extension in (".tsv", ".tab"):
        return _from_table(tables.csv_table(text, name, "\t", asked.columns, bad), asked, bad, path.parent)
    if extension in (".jsonl", ".ndjson"):
        return _from_table(tables.json_lines_table(text, name, bad), asked, bad, path.parent)
    if extension == ".json":
        return _from_table(tables.json_table(text, name, bad), asked, bad, path.parent)
    _check_may_be_one_text(name, asked)
    return Examples([plain_newlines(text)], None, name, "text", [1])


def _from_large_text_file(path: Path, name: str, extension: str, asked: Asked) -> Examples:
    """A text comes as pieces that follow each other; they are one example all the same."""
    bad = BadRows(name, asked.bad_rows)
    try:
        if extension in (".csv", ".tsv", ".tab"):
            delimiter = None if extension == ".csv" else "\t"
            table = large.csv_table(path, name, asked.encoding, delimiter, asked.columns, bad)
            return _from_table(table, asked, bad, path.parent)
        _check_may_be_one_text(name, asked)
        pieces = large.text_pieces(path, asked.encoding)
    except UnreadableText as error:
        raise ValueError(f"{name}, {error}") from None
    return Examples(pieces, None, name, "text", range(1, len(pieces) + 1))


def _check_may_be_one_text(name: str, asked: Asked) -> None:
    asked.refuse_columns(f"{name} is read as one text")
    if asked.want_target == "yes":
        raise ValueError(
            f"{name} is read as one text and has no labels; expected a .csv, .tsv, .jsonl, .json or .parquet "
            "with a column of labels, or a folder with one subfolder per class"
        )


def _from_table(table: Table, asked: Asked, bad: BadRows | None = None, folder: Path | None = None) -> Examples:
    """bad: the unreadable rows that the reader of the table met, if it can meet any. folder: where paths begin."""
    bad = bad or BadRows(table.source, asked.bad_rows)
    if not len(table.rows):
        left_out = "".join(f"; {note}" for note in bad.notes())
        columns = f"columns {names_of(table.names)}" if table.names else "no columns"
        raise ValueError(f"{table.source} has {columns} and no rows; expected at least one example{left_out}")
    of_modality = getattr(codecs.modules().get(asked.modality), "from_table", None)
    if of_modality is not None:
        return _not_empty(of_modality(table, asked, bad))
    choice = choose_columns(table, asked)
    labels = None if choice.target is None else table.column(choice.target)
    columns = [table.column(name) for name in choice.inputs]
    inputs, targets, kept = texts_of(columns, labels, table.rows, bad, choice.inputs, choice.target)
    examples = Examples(
        inputs,
        targets,
        table.source,
        "table",
        taken(table.rows, kept),
        (*table.notes, *choice.notes, *bad.notes()),
        ",".join(choice.inputs),
        choice.target,
        parts=None if asked.part is None else _parts(table, asked.part, kept),
        groups=None if asked.group is None else [str(value) for value in taken(table.column(asked.group), kept)],
    )
    return _not_empty(_of_paths(examples, asked, folder or Path()))


def _parts(table: Table, column: str, kept: Sequence[int]) -> list[str]:
    values = table.column(column)
    found = [PARTS.get(str(values[k]).strip().lower()) for k in kept]
    if None in found:
        k = kept[found.index(None)]
        raise ValueError(
            f'{table.source}, row {table.rows[k]}: column "{column}" holds {values[k]!r}; expected train, valid or test'
        )
    return [part for part in found if part is not None]


def _of_paths(examples: Examples, asked: Asked, folder: Path) -> Examples:
    """Inputs that name files of a modality are those files; others stay the texts they are."""
    if asked.modality == "text" or not all(isinstance(value, str) for value in examples.inputs[:20]):
        return examples
    ends = {Path(value.strip()).suffix.lower() for value in examples.inputs[:20]}
    kinds = {codecs.by_extension(end) for end in ends} if max(map(len, ends), default=0) <= 8 else {None}
    if asked.modality != "auto":
        kinds = {asked.modality}
    if len(kinds) != 1 or None in kinds:
        return examples
    paths = [folder / value.strip() for value in examples.inputs]
    for path, row in zip(paths, examples.rows, strict=True):
        if not path.exists():
            raise FileNotFoundError(f"{examples.source}, row {row}: there is no file {path}")
    (modality,) = kinds
    return replace(examples, inputs=paths, modality=str(modality))


def _from_lists(source: Any, asked: Asked) -> Examples:
    items = tables.rows_of(source)
    if items is None:
        raise TypeError(
            f"a {type(source).__name__} came; expected a path, a pandas or polars DataFrame, "
            "a pyarrow Table, a dict of columns, a list of texts, a tuple (texts, labels), "
            "or a list of (text, label) pairs"
        )
    if not len(items):
        raise ValueError("an empty list came; expected at least one text")
    if isinstance(items[0], dict):
        bad = BadRows(f"a list of {count(len(items), 'object')}", asked.bad_rows)
        return _from_table(tables.objects_table(items, bad), asked, bad)
    asked.refuse_columns("the data is lists")
    bad = BadRows("lists", asked.bad_rows)
    inputs, targets, rows = inputs_and_targets(source, items, bad)
    if asked.want_target == "no":
        targets = None
    if asked.want_target == "yes" and targets is None:
        raise ValueError(
            f"{count(len(items), 'text')} came without labels; expected a tuple (texts, labels) "
            "or a list of (text, label) pairs"
        )
    modality = _modality_of(inputs[0]) if asked.modality == "auto" else asked.modality
    if modality != "text":
        of_modality = getattr(codecs.modules()[modality], "from_lists", None)
        if of_modality is not None:
            return _not_empty(of_modality(inputs, targets, asked))
        return Examples(list(inputs), targets, "lists", "lists", rows, modality=modality)
    texts, labels, kept = texts_of([inputs], targets, rows, bad)
    return _not_empty(Examples(texts, labels, "lists", "lists", [rows[k] for k in kept], bad.notes()))


def _modality_of(value: Any) -> str:
    """That of one input of Python data."""
    if isinstance(value, Path):
        return codecs.by_extension(value.suffix.lower()) or "text"
    named = getattr(type(value), "modality", None)
    if isinstance(named, str):
        return named
    return "vectors" if tables.is_numeric(value) and "vectors" in codecs.names() else "text"


def _table_in_memory(source: Any) -> Table | None:
    """The table in a frame, a dict or a list of dicts; None for other lists."""
    if _is_a(source, "pandas", "DataFrame"):
        return tables.pandas_table(source)
    if _is_a(source, "polars", "DataFrame"):
        return tables.polars_table(source)
    if _is_a(source, "pyarrow", "Table"):
        return tables.arrow_table(source)
    if isinstance(source, dict):
        return tables.dict_table(source)
    return None


def _is_a(source: object, module: str, name: str) -> bool:
    """isinstance without importing the module: whoever holds such an object has imported it already."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(source, kind)


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
