"""Sentences whose words have tags: what is read, by what the file or the Python data look like.

- CoNLL-U (`.conllu`): the tag is UPOS; target= chooses another column (`xpos`, `lemma`, `feats`, `deprel` ...).
  Ranges of multiword tokens and empty nodes are left out: their words stand in lines of their own.
- columns: a word per line, its tag in the last column (target= gives another by its number, from 1), columns apart by
  tabs or spaces, an empty line after each sentence, as in the shared tasks of CoNLL
- lines of `word/tag word/tag`, a sentence each; the last slash of each item is the one that counts
- tables: a column of words and one of tags, as lists or as texts with spaces between
- Python: a tuple (sentences, tags) of lists of lists, a list of sentences of (word, tag) pairs, a list of
  (words, tags) pairs, or a list of lines as above. Sentences alone are lists of words, or texts with spaces.

Files may end in .gz. A text file is looked into for its form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from everloop.data._asked import Asked
from everloop.data._say import count, names_of
from everloop.data.examples import PARTS, Examples
from everloop.data.reading.folders import read_folder
from everloop.data.reading.tables import BadRows, Table
from everloop.data.reading.text_files import plain_newlines, read_text

Form = Literal["conllu", "columns", "slashes"]

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""The columns of CoNLL-U."""

_FORMS: dict[str, Form] = {".conllu": "conllu", ".conll": "columns", ".bio": "columns", ".iob": "columns"}
_LOOKED_AT = 200  # lines, by which the form of a file is told
_COLUMNS = re.compile(r"\t+|[ \t]+")


def read_tagged(path: Path, name: str, asked: Asked) -> Examples:
    """The sentences of a file, or of a folder with a train and a test file; modality "words"."""
    if path.is_dir():
        return read_folder(path, name, asked, read_tagged)
    replace(asked, target=None).refuse_columns(f"{name} is sentences of tagged words")
    try:
        text = plain_newlines(read_text(path, asked.encoding))
    except ValueError as error:
        raise ValueError(f"{name}, {error}") from None
    if not text.strip():
        raise ValueError(f"{name} is empty; expected sentences of tagged words")
    lines = text.split("\n")
    form = _FORMS.get(Path(path.name.lower().removesuffix(".gz")).suffix) or form_of(lines)
    if form is None and asked.want_target == "yes":
        raise ValueError(
            f"{name} holds no tagged words: its first line is {_short(text.strip())!r}; expected lines of "
            "`word/tag word/tag`, or a word and its tag per line with empty lines between sentences, or CoNLL-U"
        )
    found = _Found(BadRows(name, asked.bad_rows, "sentence"))
    if form is None:
        _read_plain(lines, found)
    elif form == "slashes":
        _read_slashes(lines, found)
    else:
        _read_columns(lines, _column(form, asked.target, name), form == "conllu", found)
    return found.examples(name, "table", asked)


def from_lists(source: Any, asked: Asked) -> Examples:
    """The sentences of Python data; tags where there are any."""
    found = _Found(BadRows("lists", asked.bad_rows, "sentence"))
    if isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str):
        sentences, tags = source
        if len(sentences) != len(tags):
            raise ValueError(
                f"{count(len(sentences), 'sentence')} and {count(len(tags), 'list')} of tags came; expected as many"
            )
        source = list(zip(sentences, tags, strict=True))
    if not len(source):
        raise ValueError("an empty list came; expected at least one sentence")
    for row, item in enumerate(source, start=1):
        _take_item(item, row, asked.want_target != "no", found)
    return found.examples("lists", "lists", asked)


def from_table(table: Table, asked: Asked, bad: BadRows) -> Examples:
    """The sentences of a table; the columns have usual names, or input= and target= name them."""
    found = _Found(bad)
    words = _named(table, asked.input, _WORDS, "words")
    tags = None if asked.want_target == "no" else _named(table, asked.target, _TAGS, "tags", asked.want_target == "yes")
    assert words is not None
    columns = table.column(words), None if tags is None else table.column(tags)
    for k, row in enumerate(table.rows):
        sentence, its = (None if column is None else _items(column[k]) for column in columns)
        where = f"row {row}"
        if not sentence or (columns[1] is not None and its is None):
            found.bad.add(where, "no words came; expected a list, or a text with spaces between")
        elif its is None:
            found.add(sentence, None, row)
        else:
            _take_pair(sentence, its, where, row, found)
    examples = found.examples(table.source, "table", asked)
    kept = set(found.rows)
    parts, groups = (
        None
        if name is None
        else [str(value) for row, value in zip(table.rows, table.column(name), strict=True) if row in kept]
        for name in (asked.part, asked.group)
    )
    return replace(
        examples,
        notes=(*table.notes, *examples.notes),
        input_name=words,
        target_name=tags,
        parts=None if parts is None else [_part(value, table.source) for value in parts],
        groups=groups,
    )


def form_of(lines: Sequence[str]) -> Form | None:
    """How the words of these lines are tagged; None if they are not."""
    shown = [line for line in lines[:_LOOKED_AT] if line.strip()]
    items = [item for line in shown for item in line.split()]
    if sum(_cut(item) is not None for item in items) > 0.9 * len(items):
        return "slashes"
    rows = [line.split("\t") for line in shown if not line.startswith("#")]
    if rows and all(len(row) == len(CONLLU) and row[0][:1].isdigit() for row in rows):
        return "conllu"
    widths = Counter(len(_COLUMNS.split(line.strip())) for line in shown)
    (width, times), *_ = widths.most_common(1) or [(1, 0)]
    apart = all("\t" in line for line in shown) or any(not line.strip() for line in lines[: len(shown)])
    return "columns" if apart and width > 1 and times > 0.9 * len(shown) else None


@dataclass
class _Found:
    """What has been read so far. tagged: as soon as one sentence has tags, all must."""

    bad: BadRows
    sentences: list[list[str]] = field(default_factory=list)
    tags: list[list[str] | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def add(self, words: list[str], tags: list[str] | None, row: int) -> None:
        self.sentences.append(words)
        self.tags.append(tags)
        self.rows.append(row)

    def examples(self, source: str, kind: Literal["table", "lists"], asked: Asked) -> Examples:
        if not self.sentences:
            raise ValueError(": ".join([f"{source} has no readable sentence", *self.bad.notes()]))
        untagged = [row for row, tags in zip(self.rows, self.tags, strict=True) if tags is None]
        mixed = 0 < len(untagged) < len(self.tags)
        if (mixed and asked.want_target != "no") or (untagged and asked.want_target == "yes"):
            raise ValueError(
                f"{source}, row {untagged[0]}: a sentence without tags came; expected a tag for every word, as "
                "word/tag, (word, tag), or a second list"
            )
        targets = None if untagged or asked.want_target == "no" else self.tags
        return Examples(self.sentences, targets, source, kind, self.rows, self.bad.notes(), modality="words")


# Text files


def _read_slashes(lines: Sequence[str], found: _Found) -> None:
    for row, line in enumerate(lines, start=1):
        _take_line(line, row, f"line {row}", found)


def _take_line(line: str, row: int, where: str, found: _Found) -> None:
    pairs = [(item, _cut(item)) for item in line.split()]
    wrong = [item for item, pair in pairs if pair is None]
    if wrong:
        found.bad.add(where, f"{_short(wrong[0])!r} came; expected word/tag")
    elif pairs:
        words, tags = zip(*(pair for _, pair in pairs if pair is not None), strict=True)
        found.add(list(words), list(tags), row)


def _cut(item: str) -> tuple[str, str] | None:
    word, _, tag = item.rpartition("/")
    return (word, tag) if word and tag else None


def _read_plain(lines: Sequence[str], found: _Found) -> None:
    for row, line in enumerate(lines, start=1):
        if line.strip():
            found.add(line.split(), None, row)


def _column(form: Form, target: str | None, name: str) -> int:
    """Which column holds the tags; -1 is the last."""
    if form == "conllu":
        column = (target or "upos").lower()
        if column not in CONLLU:
            raise ValueError(f"{name}: CoNLL-U has no column {target!r}; it has {', '.join(CONLLU)}")
        return CONLLU.index(column)
    if target is None:
        return -1
    if not target.isdigit() or target == "0":
        raise ValueError(f"{name}: its columns have no names; {target!r} came, expected a number from 1")
    return int(target) - 1


def _read_columns(lines: Sequence[str], column: int, conllu: bool, found: _Found) -> None:
    for row, block in _blocks(lines, conllu):
        words: list[str] = []
        tags: list[str] = []
        wrong: tuple[str, str] | None = None
        for k, line in block:
            cells = line.split("\t") if conllu else _COLUMNS.split(line.strip())
            if conllu and len(cells) == len(CONLLU) and not cells[0].isdigit():
                continue  # a range (2-3) or an empty node (2.1)
            reason = _reason(cells, column, conllu)
            if reason:
                wrong = f"line {k}", reason
                break
            words.append(cells[1] if conllu else cells[0])
            tags.append(cells[column])
        if wrong is not None:
            found.bad.add(*wrong)
        elif words:
            found.add(words, tags, row)


def _blocks(lines: Sequence[str], conllu: bool) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """The lines between empty ones with their numbers, and the number of the first; comments are left out."""
    block: list[tuple[int, str]] = []
    for row, line in enumerate([*lines, ""], start=1):
        if line.strip():
            if not (line.startswith("#") if conllu else line.startswith("-DOCSTART-")):
                block.append((row, line))
        elif block:
            yield block[0][0], block
            block = []


def _reason(cells: list[str], column: int, conllu: bool) -> str:
    """What is wrong with a line; empty if nothing is."""
    wanted = len(CONLLU) if conllu else max(2, column + 1)
    if len(cells) < wanted or (conllu and len(cells) > wanted):
        noun = "ten columns apart by tabs" if conllu else f"a word and its tag in {wanted} columns or more"
        return f"{count(len(cells), 'column')} came; expected {noun}"
    if conllu and (not cells[1] or (CONLLU[column] == "upos" and cells[column] in ("", "_"))):
        return f"the word {_short(cells[1])!r} came with the tag {cells[column]!r}"
    return ""


# Tables

_WORDS = ("words", "tokens", "sentence", "text")
_TAGS = ("tags", "upos", "xpos", "pos", "pos_tags", "ner_tags", "ner", "labels")


def _named(table: Table, asked: str | None, usual: Sequence[str], what: str, needed: bool = True) -> str | None:
    """The column that was asked for, or the first with a usual name."""
    found = asked if asked in table.names else None
    if asked is None:
        found = next((name for name in usual if name in table.names), None)
    if found is None and (needed or asked is not None):
        raise ValueError(
            f"{table.source} has no column {asked or what!r} of {what}; it has {names_of(table.names)}. "
            f"--{'input' if what == 'words' else 'target'} names it"
        )
    return found


def _part(value: str, source: str) -> str:
    found = PARTS.get(value.strip().lower())
    if found is None:
        raise ValueError(f"{source}: the part {value!r} came; expected train, valid or test")
    return found


def _items(value: Any) -> list[str] | None:
    """The words or tags of a cell; None if there are none."""
    if isinstance(value, str):
        return value.split()
    items = [] if value is None else value.tolist() if hasattr(value, "tolist") else value
    return list(map(str, items)) if isinstance(items, list | tuple) else None


# Python data


def _take_item(item: Any, row: int, tagged: bool, found: _Found) -> None:
    """A sentence, in any of the forms that a list may hold. tagged: a text may have its tags in it."""
    where = f"row {row}"
    if isinstance(item, str):
        if tagged and form_of([item]) == "slashes":
            _take_line(item, row, where, found)
        elif item.split():
            found.add(item.split(), None, row)
        else:
            found.bad.add(where, "an empty text came; expected words")
        return
    if not isinstance(item, list | tuple) or not item:
        found.bad.add(where, f"{_short(repr(item))} came; expected a sentence of one word or more, as a list")
    elif _are_texts(item):
        found.add(list(item), None, row)
    elif isinstance(item, tuple) and len(item) == 2 and all(_are_texts(part) for part in item):
        _take_pair(list(item[0]), list(item[1]), where, row, found)
    elif all(isinstance(pair, list | tuple) and len(pair) == 2 and _are_texts(pair) for pair in item):
        found.add([pair[0] for pair in item], [pair[1] for pair in item], row)
    else:
        found.bad.add(where, f"{_short(repr(item))} came; expected words, (word, tag) pairs, or (words, tags)")


def _take_pair(words: list[str], tags: list[str], where: str, row: int, found: _Found) -> None:
    if len(words) != len(tags):
        found.bad.add(where, f"{count(len(words), 'word')} and {count(len(tags), 'tag')} came; expected as many")
    elif not words:
        found.bad.add(where, "a sentence without words came")
    else:
        found.add(words, tags, row)


def _are_texts(item: Any) -> bool:
    return isinstance(item, list | tuple) and all(isinstance(part, str) and part for part in item)


def _short(text: str) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= 40 else line[:37] + "..."
