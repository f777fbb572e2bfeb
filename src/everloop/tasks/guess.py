"""Which task fits some data: by what the file is, by what its columns hold, and said with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from everloop.data import codecs
from everloop.data.datasets import datasets
from everloop.data.files import TABLES, is_readable, read_examples
from everloop.data.reading.stamps import stamp_of
from everloop.data.tagged import form_of

_LOOKED_AT = 200
_SERIES = ("time", "series", "known")


def guess(source: str, **how: Any) -> tuple[str, str]:
    """The task that fits the data, and why. `how` as for `Task.read`."""
    for dataset in datasets():
        if dataset.name == source and not Path(source).exists():
            return dataset.task, f"the dataset {dataset.name} is made for it"
    told = [name for name in _SERIES if name in how]
    if told:
        return "forecaster", f"--{told[0]} speaks of series"
    path = Path(source).expanduser()
    if path.is_file():
        found = _by_first_lines(path, how.get("encoding"))
        if found is not None:
            return found
    examples = read_examples(source, want_target="if there", **how)
    if examples.modality == "notes":
        return "generator", "it is music"
    if examples.modality == "words":
        return "tagger", "its words have tags"
    if examples.targets is None:
        if examples.modality != "text":
            raise ValueError(
                f"{source} holds {examples.modality} and no targets: --target names a column of labels (classifier) or "
                "texts (recognizer, seq2seq); a folder can have one subfolder per class, or a .txt beside each file"
            )
        return "generator", "it is one text, without labels" if examples.kind == "text" else "there is no label column"
    if _are_texts(examples.targets):
        if examples.modality == "audio":
            return "recognizer", "every recording has a text"
        return "seq2seq", "every input has a text of its own"
    return "classifier", f"every {'text' if examples.modality == 'text' else 'one'} has a label"


def _by_first_lines(path: Path, encoding: str | None) -> tuple[str, str] | None:
    """What the beginning of a text file tells: tagged words, or a table of times and numbers."""
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    tells_itself = codecs.by_extension(extension) is not None or codecs.dataset_reader(extension) is not None
    if path.name.lower().endswith(".gz") or tells_itself or extension in (".parquet", ".pq", ".json"):
        return None
    if is_readable(path) and extension not in (*TABLES, ".txt"):
        return None
    try:
        with path.open(encoding=encoding or "utf-8-sig") as file:
            lines = [line.rstrip("\n") for line in islice(file, _LOOKED_AT)]
    except (UnicodeDecodeError, LookupError):
        return None  # reading it will say what is wrong
    if extension not in TABLES and any(line.strip() for line in lines) and form_of(lines) is not None:
        return "tagger", "its words have tags"
    if extension in (".csv", ".tsv", ".tab") and lines and _is_series(lines):
        return "forecaster", "it has a column of times, and columns of numbers"
    return None


def _is_series(lines: Sequence[str]) -> bool:
    """Whether one column holds times that are no plain numbers, and more than half of the others numbers."""
    delimiter = max(",\t;|", key=lines[0].count)
    rows = [line.split(delimiter) for line in lines[1:20] if line.strip()]
    if len(rows) < 3 or len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        return False
    columns = [[cell.strip().strip('"') for cell in column] for column in zip(*rows, strict=True)]
    times = sum(all(not _is_number(cell) and not isinstance(stamp_of(cell), str) for cell in c) for c in columns)
    numbers = sum(all(_is_number(cell) for cell in column) for column in columns)
    return times == 1 and 2 * numbers > len(columns) - 1 and numbers > 0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _are_texts(targets: Sequence[Any]) -> bool:
    """Whether targets are texts to be written, no labels or numbers: most come once, or many and of several words."""
    if all(_is_number(str(target)) for target in islice(targets, 1_000)):
        return False
    different = len({str(target) for target in islice(targets, 10_000)})
    seen = min(len(targets), 10_000)
    spaced = sum(" " in str(target).strip() for target in islice(targets, 1_000)) / min(seen, 1_000)
    return different > seen / 2 or (different > 50 and spaced > 0.5)
