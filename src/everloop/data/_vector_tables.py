"""Tables of sequences of numbers: wide, one sequence a row, or long, one step a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from everloop.data._asked import Asked
from everloop.data._say import count, did_you_mean, names_of
from everloop.data.examples import PARTS, Examples
from everloop.data.reading.columns import choose_columns, texts_of
from everloop.data.reading.tables import BadRows, Table

ID_NAMES = ("id", "sequence", "sequence_id", "series", "series_id", "case", "case_id", "sample", "track", "unique_id")
TIME_NAMES = ("time", "t", "step", "timestamp", "date", "datetime", "frame", "ds", "dim_time", "timepoint")


def vectors_of_table(table: Table, asked: Asked, bad: BadRows) -> Examples:
    """Wide: the input columns of a row are one sequence [T]; empty cells at its end are not part of it. Long: a column
    of one of `ID_NAMES` says which sequence a row belongs to, one of `TIME_NAMES` orders its rows; the input columns
    are the channels. The target, if it is not named, is guessed as for other tables."""
    plain = {name.strip().casefold(): name for name in table.names}
    identity = next((plain[name] for name in ID_NAMES if name in plain), None)
    time = next((plain[name] for name in TIME_NAMES if name in plain), None)
    if identity is not None and time is not None and len(set(table.column(identity))) < len(table.rows):
        return _long(table, asked, bad, identity, time)
    return _wide(table, asked, bad)


def _wide(table: Table, asked: Asked, bad: BadRows) -> Examples:
    values, target, notes = _columns(table, asked, ())
    steps = _numbers(table, values, bad)
    inputs, kept = [], []
    for k, row in enumerate(table.rows):
        if steps[k] is None:
            continue
        known = np.flatnonzero(~np.isnan(steps[k]))
        if not len(known):
            bad.add(f"row {row}", "no numbers came; expected a sequence")
            continue
        inputs.append(steps[k][: known[-1] + 1].astype(np.float32))
        kept.append(k)
    labels = _labels(table, target, kept, bad)
    lengths = sorted({len(value) for value in inputs}) or [0]
    told = f"{lengths[0]:,} numbers" if len(lengths) == 1 else f"{lengths[0]:,} to {lengths[-1]:,} numbers"
    note = f"one sequence a row, of {told}; channels=2 is for x1, y1, x2, y2 ..."
    return _examples(table, asked, inputs, labels, target, kept, (*notes, note), bad)


def _long(table: Table, asked: Asked, bad: BadRows, identity: str, time: str) -> Examples:
    values, target, notes = _columns(table, asked, (identity, time))
    steps = _numbers(table, values, bad)
    moments = table.column(time)
    rows_of: dict[object, list[int]] = {}
    for k, name in enumerate(table.column(identity)):
        if steps[k] is not None:
            rows_of.setdefault(name, []).append(k)
    inputs, kept = [], []
    for name, rows in rows_of.items():
        order = _ordered(rows, moments, f'{table.source}, {identity} {name!r}: column "{time}"')
        _check_constant(table, target, rows, identity, name)
        inputs.append(np.stack([steps[k] for k in order]).astype(np.float32))
        kept.append(rows[0])
    labels = _labels(table, target, kept, bad)
    note = f'one step a row: column "{identity}" says of which sequence, "{time}" when'
    return _examples(table, asked, inputs, labels, target, kept, (*notes, note), bad)


def _columns(table: Table, asked: Asked, taken: Sequence[str]) -> tuple[list[str], str | None, tuple[str, ...]]:
    """The columns of values, the target, and what was guessed."""
    named = [name.strip() for name in asked.input.split(",")] if asked.input else []
    for name in named:
        if name not in table.names:
            raise ValueError(
                f'{table.source} has no column "{name}"; it has {names_of(table.names)}'
                f"{did_you_mean(name, table.names)}"
            )
    used = [*taken, *(name for name in (asked.part, asked.group) if name is not None)]
    free = [name for name in table.names if name not in used]
    # The target is looked for beside the values, which are one input here. Where none is wanted, a column of labels
    # is none of the values all the same.
    values = "\0values"
    looked_at = replace(table, names=[values, *(name for name in table.names if name not in (*taken, *named))])
    want = "if there" if asked.want_target == "no" and asked.target is None else asked.want_target
    choice = choose_columns(looked_at, replace(asked, input=values, want_target=want))
    left = named or [name for name in free if name != choice.target]
    if not left:
        raise ValueError(f"{table.source} has no columns of values; it has {names_of(table.names)}")
    wanted = asked.want_target != "no"
    return left, choice.target if wanted else None, (*table.notes, *(choice.notes if wanted else ()))


def _numbers(table: Table, columns: Sequence[str], bad: BadRows) -> list[Any]:
    """float64 [columns] of every row, NaN for what is empty; None for a row that cannot be read."""
    found = np.full((len(table.rows), len(columns)), np.nan)
    unread: dict[int, str] = {}
    for j, name in enumerate(columns):
        for k, value in enumerate(table.column(name)):
            if value is None or (isinstance(value, str) and not value.strip()):
                continue
            try:
                found[k, j] = float(value)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                unread.setdefault(k, f'column "{name}" holds {value!r}; expected a number')
    for k, reason in unread.items():
        bad.add(f"row {table.rows[k]}", reason)
    return [None if k in unread else row for k, row in enumerate(found)]


def _ordered(rows: list[int], moments: Sequence[object], where: str) -> list[int]:
    """The rows of one sequence by time; numbers are compared as numbers, other stamps as they are written."""
    stamps: list[Any] = [moments[k] for k in rows]
    try:
        stamps = [float(stamp) for stamp in stamps]
    except (TypeError, ValueError):
        stamps = [str(stamp) for stamp in stamps]
    if len(set(stamps)) < len(stamps):
        twice = next(stamp for k, stamp in enumerate(stamps) if stamp in stamps[:k])
        raise ValueError(f"{where} holds {twice!r} twice; expected one row for each moment")
    return [rows[k] for k in sorted(range(len(rows)), key=lambda k: stamps[k])]


def _check_constant(table: Table, target: str | None, rows: Sequence[int], identity: str, name: object) -> None:
    if target is None:
        return
    values = table.column(target)
    labels = {values[k] for k in rows}
    if len(labels) > 1:
        raise ValueError(
            f"{table.source}: the rows of {identity} {name!r} have {count(len(labels), 'different value')} in column "
            f'"{target}"; expected one label per sequence'
        )


def _labels(table: Table, target: str | None, kept: list[int], bad: BadRows) -> list[str] | None:
    if target is None:
        return None
    column = table.column(target)
    strict = BadRows(bad.source, "stop")
    labels = texts_of([], [column[k] for k in kept], [table.rows[k] for k in kept], strict, (), target)[1]
    return None if labels is None else list(labels)


def _examples(
    table: Table,
    asked: Asked,
    inputs: list[np.ndarray],
    labels: list[str] | None,
    target: str | None,
    kept: list[int],
    notes: Sequence[str],
    bad: BadRows,
) -> Examples:
    parts = groups = None
    if asked.part is not None:
        column = table.column(asked.part)
        named = [PARTS.get(str(column[k]).strip().lower()) for k in kept]
        parts = [part for part in named if part is not None]
        if len(parts) < len(named):
            k = kept[named.index(None)]
            raise ValueError(
                f'{table.source}, row {table.rows[k]}: column "{asked.part}" holds {column[k]!r}; '
                "expected train, valid or test"
            )
    if asked.group is not None:
        column = table.column(asked.group)
        groups = [str(column[k]) for k in kept]
    rows = [table.rows[k] for k in kept]
    return Examples(
        inputs,
        labels,
        table.source,
        "table",
        rows,
        (*notes, *bad.notes()),
        target_name=target,
        modality="vectors",
        parts=parts,
        groups=groups,
    )
