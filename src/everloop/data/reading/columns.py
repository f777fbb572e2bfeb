"""From a table to inputs and targets: which columns they are, and their values as text."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from itertools import repeat
from typing import Any

import numpy as np

from everloop.data._asked import Asked
from everloop.data._say import count, did_you_mean, names_of
from everloop.data.reading.tables import INPUT_NAMES, TARGET_NAMES, BadRows, Table
from everloop.data.stored import StoredTexts, is_stored, keep_texts

_SAMPLE = 1_000
_LARGE_SAMPLE = 100_000


@dataclass(frozen=True)
class Choice:
    inputs: list[str]
    target: str | None
    notes: tuple[str, ...]


def choose_columns(table: Table, asked: Asked) -> Choice:
    """The columns that the user named; else the usual names; else what the values look like.

    A guessed input has the longest texts on average. A guessed target has the fewest different values: two at
    least, 50 or 5 % of the rows at most (whichever is more), and fewer than there are rows. The leftmost of
    equals wins. Every guess is announced.
    """
    inputs = _named_inputs(table, asked.input)
    target, want = asked.target, asked.want_target
    for name in (*inputs, *(name for name in asked.columns if name != asked.input)):
        if name not in table.names:
            raise ValueError(
                f'{table.source} has no column "{name}"; it has {names_of(table.names)}'
                f"{did_you_mean(name, table.names)}"
            )
    if want == "no" and target is not None:
        raise ValueError(f'a target column "{target}" was named where no target is wanted; leave it out')
    if target is not None and target in inputs:
        raise ValueError(f'column "{target}" is named as input and as target; name two different ones')
    guesses: list[str] = []
    flags: list[str] = []
    free = [name for name in table.names if name not in (asked.part, asked.group)]
    if not inputs:
        found, why = _guess_input(table, [name for name in free if name != target])
        inputs = [found]
        guesses.append(f'input column "{found}" ({why})')
        flags.append("--input")
    others = [name for name in free if name not in inputs]
    notes: list[str] = []
    if target is None and want != "no" and others:
        target, why = _guess_target(table, others)
        if target is not None:
            guesses.append(f'target column "{target}" ({why})')
            flags.append("--target")
        elif want == "if there":
            notes.append(f"no target: of {names_of(others)} none looks like labels; --target names one")
    if target is None and want == "yes":
        raise ValueError(
            f"{table.source} has no column that looks like labels (different values that come again); "
            f"it has {names_of(table.names)}; name the labels with --target"
        )
    if guesses:
        verb = "chooses another" if len(flags) == 1 else "choose others"
        notes.insert(0, f"{', '.join(guesses)}: {' and '.join(flags)} {verb}")
    return Choice(inputs, target, tuple(notes))


def _named_inputs(table: Table, named: str | None) -> list[str]:
    """`passage,question` is two columns, unless there is one of that name."""
    if named is None:
        return []
    return [named] if named in table.names else [name.strip() for name in named.split(",")]


def texts_of(
    inputs: Sequence[Sequence[object]],
    targets: Sequence[object] | None,
    rows: Sequence[int],
    bad: BadRows,
    input_names: Sequence[str] = (),
    target_name: str | None = None,
) -> tuple[Sequence[Any], Sequence[str] | None, Sequence[int]]:
    """Inputs and targets of the readable rows, and the places of these. inputs: one sequence for each column; of
    several, the texts of a row come as a tuple."""
    if len(inputs) == 1 and isinstance(inputs[0], StoredTexts):
        return _stored_texts_of(inputs[0], targets, rows, bad, [*input_names, None][0], target_name)
    whole = [_floats_are_whole(column) for column in inputs]
    whole_targets = _floats_are_whole(targets or ())
    names = [*input_names, *[None] * (len(inputs) - len(input_names))]
    good: list[Any] = []
    good_targets: list[str] = []
    kept: list[int] = []
    for k, row in enumerate(rows):
        try:
            texts = [
                _input(column[k], is_whole, name) for column, is_whole, name in zip(inputs, whole, names, strict=True)
            ]
            if targets is not None:
                good_targets.append(_required(targets[k], whole_targets, "target", target_name))
        except ValueError as error:
            bad.add(f"row {row}", str(error))
            continue
        good.append(texts[0] if len(texts) == 1 else tuple(texts))
        kept.append(k)
    return good, None if targets is None else good_targets, kept


def _stored_texts_of(
    inputs: StoredTexts,
    targets: Sequence[object] | None,
    rows: Sequence[int],
    bad: BadRows,
    input_name: str | None,
    target_name: str | None,
) -> tuple[StoredTexts, Sequence[str] | None, Any]:
    """As `texts_of`; inputs stay where they are, targets become labels if few differ."""
    places = array("q")
    whole = targets is not None and not isinstance(targets, StoredTexts) and _floats_are_whole(targets)

    def good_targets() -> Iterator[str]:
        for k, (text, target) in enumerate(zip(inputs, repeat("") if targets is None else targets, strict=False)):
            try:
                _required(text, False, "input", input_name)
                label = "" if targets is None else _required(target, whole, "target", target_name)
            except ValueError as error:
                bad.add(f"row {rows[k]}", str(error))
                continue
            places.append(k)
            yield label

    labels = keep_texts(good_targets())
    kept = np.frombuffer(places, dtype=np.int64)
    whole_column = len(kept) == len(inputs)
    return inputs if whole_column else inputs.take(kept), None if targets is None else labels, kept


def _input(value: object, whole: bool, column: str | None) -> str | tuple[str, ...]:
    """A text; a tuple of texts, in lists, is one input of several columns."""
    if isinstance(value, tuple) and value:
        return tuple(_required(item, whole, "input", column) for item in value)
    return _required(value, whole, "input", column)


def _required(value: object, whole: bool, role: str, column: str | None) -> str:
    where = f'{role} column "{column}"' if column else role
    try:
        text = _as_text(value, whole)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if text is None or not text.strip():
        raise ValueError(f"{where}: empty or missing, a text expected")
    # Spaces around a label are never meant: "pos" and "pos " would be two classes.
    return text.strip() if role == "target" else text


def _as_text(value: object, whole: bool) -> str | None:
    """The text of one value, None for a missing one. whole: write 1.0 as "1"."""
    item = getattr(value, "item", None)  # NumPy's scalars
    if item is not None:
        value = item()
    if value is None or value != value:
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start + 1} is half of a surrogate pair, not a character") from None
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and whole:
        return str(int(value))
    if isinstance(value, int | float | Decimal | date | time):
        return str(value)
    raise ValueError(f"a {type(value).__name__} came, a text or a number expected")


def _floats_are_whole(values: Iterable[object]) -> bool:
    """Whether every number is whole: a column of integers with a gap is stored as floats, and 1.0 means 1."""
    return all(v.is_integer() for v in values if isinstance(v, float) and v == v)


def _guess_input(table: Table, names: list[str]) -> tuple[str, str]:
    if not names:
        raise ValueError(f"{table.source} has no column beside the target; expected one of texts")
    if len(names) == 1:
        return names[0], "the only one" if len(table.names) == 1 else "the only other one"
    usual = _usual(names, INPUT_NAMES)
    if usual is not None:
        return usual, "a usual name"
    lengths = {name: _mean_length(table.column(name)[:_SAMPLE]) for name in names}
    return max(names, key=lambda name: lengths[name]), "longest texts"


def _guess_target(table: Table, names: list[str]) -> tuple[str | None, str]:
    usual = _usual(names, TARGET_NAMES)
    if usual is not None:
        different = _different(table.column(usual))
        return usual, count(different, "different value")
    most = min(max(50, len(table.rows) // 20), len(table.rows) - 1)
    numbers = {name: _different(table.column(name)) for name in names}
    fitting = [name for name in names if 2 <= numbers[name] <= most]
    if not fitting:
        return None, ""
    best = min(fitting, key=lambda name: numbers[name])
    return best, count(numbers[best], "different value")


def _usual(names: list[str], known: Sequence[str]) -> str | None:
    by_folded = {name.strip().casefold(): name for name in reversed(names)}
    return next((by_folded[name] for name in known if name in by_folded), None)


def _mean_length(values: Sequence[object]) -> float:
    return sum(len(value) for value in values if isinstance(value, str)) / max(len(values), 1)


def _different(values: Sequence[object]) -> int:
    """How many different values there are; 0 when some cannot be labels. Of a large table, in the first rows."""
    values = values[:_LARGE_SAMPLE] if is_stored(values) else values
    plain = [value for value in values if value is not None and value == value and value != ""]
    if not all(isinstance(value, str | int | float) for value in plain):
        return 0
    return len(set(plain))
