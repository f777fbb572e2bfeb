"""Series from the rows of a table: which columns are what, and how rows come to lie on a grid of equal steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from everloop.data._say import count, did_you_mean, names_of
from everloop.data.reading.stamps import Frequency, infer_frequency, read_stamps, spell, stamp_of, to_local, to_utc
from everloop.data.reading.tables import BadRows, Table

TIME_NAMES = (
    *("ds", "time", "date", "datetime", "timestamp", "stamp", "date_time", "day", "week", "month", "quarter", "year"),
    *("时间", "日期", "时刻", "年份", "月份"),
)
SERIES_NAMES = ("unique_id", "series", "series_id", "item_id", "id", "name", "store", "shop", "sensor", "序列", "编号")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?"})

_SAMPLE = 1_000

Rows = dict[str, tuple[np.ndarray, np.ndarray]]
"""Of each series, by its name: its rows and their times, ascending."""


@dataclass(frozen=True)
class Form:
    """What all series of one table have in common. zone: "" where times are what a clock shows somewhere."""

    columns: tuple[str, ...]
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    frequency: Frequency = field(default_factory=lambda: Frequency("number"))
    zone: str = ""


@dataclass(frozen=True)
class Series:
    """One series on its grid. values [T, C] and past [T, P]: NaN where missing. known [T', K], T' >= T, has rows for
    steps beyond the end where those are known already (holidays, prices, the forecast of the weather)."""

    name: str
    start: Any
    values: np.ndarray
    known: np.ndarray
    past: np.ndarray
    form: Form

    def __len__(self) -> int:
        return len(self.values)

    def times(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """The times of steps [begin, end), which may lie beyond the end of the series."""
        return self.form.frequency.after(self.start, np.arange(begin, len(self) if end is None else end))

    def spelled(self, begin: int = 0, end: int | None = None) -> list[str]:
        """The same as they are written to a file."""
        return spell(self.times(begin, end), self.form.zone)


class Reader:
    """Reads one table; `notes` says what was guessed, filled in or left out."""

    def __init__(self, table: Table, bad: BadRows, zone: str | None) -> None:
        self.table, self.bad, self.zone = table, bad, zone
        self.source = table.source
        self.notes = list(table.notes)
        if not table.rows:
            raise ValueError(f"{self.source} has no rows; expected one per step of time")

    def read(self, time: Any, target: Any, series: Any, known: Any, past: Any) -> list[Series]:
        time = self._time_column(time)
        series = self._series_column(series, time)
        known, past = self._asked("known", known), self._asked("past", past)
        taken = {time, series, *known, *past}
        columns = self._asked("target", target) or self._number_columns(taken)
        twice = [name for name in columns if name in taken]
        if twice:
            raise ValueError(f'{self.source}: column "{twice[0]}" was named twice; expected one use of each column')
        numbers = self._numbers([*columns, *known, *past])
        form = Form(tuple(columns), tuple(known), tuple(past))
        groups = self._groups(series)
        found = self._on_grid(self._with_times(time, groups), numbers, form)
        self.notes += self.bad.notes()
        return found

    # Which columns

    def _asked(self, what: str, names: str | Sequence[str] | None) -> list[str]:
        """The columns that were named, in one string or in several."""
        if names is None or names == "":
            return []
        if isinstance(names, str):
            names = [names] if names in self.table.names else names.replace(",", " ").split()
        for name in names:
            if name not in self.table.names:
                raise ValueError(
                    f'{self.source} has no column "{name}" ({what}); '
                    f"there are {names_of(self.table.names)}{did_you_mean(name, self.table.names)}"
                )
        return list(dict.fromkeys(names))

    def _time_column(self, asked: str | None) -> str | None:
        if asked is not None:
            return self._asked("time", asked)[0]
        named = [name for name in self.table.names if name.strip().lower() in TIME_NAMES]
        for name in [*named, *(n for n in self.table.names if n not in named)]:
            cells = self.table.column(name)[:_SAMPLE]
            plain = [isinstance(stamp_of(c), int) for c in cells if not isinstance(stamp_of(c), str)]
            if len(plain) * 2 > len(cells) and (name in named or not all(plain)):
                self.notes.append(f'times in column "{name}" ({"a usual name" if name in named else "they are times"})')
                return name
        self.notes.append("no column of times: rows are taken as equal steps, in the order in which they come")
        return None

    def _series_column(self, asked: str | None, time: str | None) -> str | None:
        """Guessed only where times come again: one series has each of them once."""
        if asked is not None:
            return self._asked("series", asked)[0]
        cells = [] if time is None else self.table.column(time)
        if len({str(cell) for cell in cells}) == len(cells):
            return None
        for name in self.table.names:
            if name.strip().lower() in SERIES_NAMES and name != time:
                self.notes.append(f'times come again: column "{name}" says which series a row is of (a usual name)')
                return name
        return None

    def _number_columns(self, taken: set[str | None]) -> list[str]:
        columns, others = [], []
        for name in self.table.names:
            if name in taken:
                continue
            cells = [c for c in self.table.column(name)[:_SAMPLE] if not _is_missing(c)]
            numbers = sum(not isinstance(_number(cell), str) and not _is_truth(cell) for cell in cells)
            (columns if cells and numbers * 2 > len(cells) else others).append(name)
        if not columns:
            raise ValueError(f"{self.source} has no column of numbers to forecast; name one with target=")
        if others:
            self.notes.append(f"left out, because they hold no numbers: columns {names_of(others)}")
        self.notes.append(f"to forecast: {'column' if len(columns) == 1 else 'columns'} {names_of(columns)}")
        return columns

    # What is in them

    def _numbers(self, columns: list[str]) -> np.ndarray:
        """[rows, columns], NaN where missing; rows that cannot be read are missing altogether, if they may be."""
        numbers = np.full((len(self.table.rows), len(columns)), np.nan)
        refused: set[int] = set()
        for place, name in enumerate(columns):
            cells = self.table.column(name)
            try:
                numbers[:, place] = np.array(cells, dtype=np.float64)
            except (ValueError, TypeError):
                for k, cell in enumerate(cells):
                    value = _number(cell)
                    if isinstance(value, str):
                        self._refuse(k, f'column "{name}": {value}', refused)
                    else:
                        numbers[k, place] = value
            for k in np.flatnonzero(np.isinf(numbers[:, place])):
                self._refuse(int(k), f'column "{name}": an infinite value came, a finite number expected', refused)
        numbers[list(refused)] = np.nan
        return numbers

    def _refuse(self, place: int, reason: str, refused: set[int]) -> None:
        if place not in refused:
            self.bad.add(f"row {self.table.rows[place]}", reason)
            refused.add(place)

    def _groups(self, series: str | None) -> dict[str, np.ndarray]:
        """The rows of each series, by its name."""
        if series is None:
            return {"": np.arange(len(self.table.rows))}
        cells = np.array([str(cell).strip() for cell in self.table.column(series)])
        if (cells == "").any():
            row = self.table.rows[int((cells == "").argmax())]
            raise ValueError(f'{self.source}, row {row}: column "{series}" is empty; expected the name of a series')
        names, first, inverse = np.unique(cells, return_index=True, return_inverse=True)
        self.notes.append(f'{len(names):,} series by column "{series}"')
        return {str(names[k]): np.flatnonzero(inverse == k) for k in np.argsort(first)}

    def _with_times(self, time: str | None, groups: dict[str, np.ndarray]) -> Rows:
        """Rows and times of each series, ascending. `zone_` is what the times are of."""
        self.zone_ = ""
        if time is None:
            return {name: (rows, np.arange(len(rows))) for name, rows in groups.items()}
        stamps = read_stamps(self.table.column(time), self.table.rows, self.bad, self.zone)
        every = np.full(len(self.table.rows), -1)
        every[stamps.places] = np.arange(len(stamps.places))
        self.zone_ = stamps.zone
        is_wall_clock = self.zone is not None and not stamps.zone and np.issubdtype(stamps.times.dtype, np.datetime64)
        result = {}
        unsorted = False
        for name, rows in groups.items():
            rows = rows[every[rows] >= 0]
            if not len(rows):
                continue
            times = stamps.times[every[rows]]
            if is_wall_clock and self.zone is not None:
                self.zone_ = self.zone
                times = to_utc(times, self.zone, [self.table.rows[k] for k in rows], self.source)
            unsorted |= bool((np.diff(times).astype(int) < 0).any())
            order = np.argsort(times, kind="stable")
            result[name] = rows[order], times[order]
        if unsorted:
            self.notes.append("rows were not in the order of time: sorted")
        return self._by_local_days(result)

    def _by_local_days(self, found: Rows) -> Rows:
        """Midnights of a place with daylight saving are not 24 hours apart: then days are counted, by its calendar."""
        if not self.zone_:
            return found
        local = {name: (rows, to_local(times, self.zone_)) for name, (rows, times) in found.items()}
        clocks = np.concatenate([times - times.astype("datetime64[D]") for _, times in local.values()])
        if len(np.unique(clocks)) > 1:
            return found
        self.zone_ = ""
        return local

    # The grid

    def _on_grid(self, found: Rows, numbers: np.ndarray, form: Form) -> list[Series]:
        kept = {name: self._once(name, rows, times, numbers) for name, (rows, times) in found.items()}
        frequency = infer_frequency([times for _, times in kept.values()])
        form = dataclasses.replace(form, frequency=frequency, zone=self.zone_)
        self.notes.append(f"a step is {frequency}{f', times of {self.zone_}' if self.zone_ else ''}")
        self.gaps = self.holes = self.beside = 0
        result = [self._laid_out(name, rows, times, numbers, form) for name, (rows, times) in kept.items()]
        if self.gaps:
            self.notes.append(f"{count(self.gaps, 'step')} without a row: taken as missing")
        if self.holes:
            self.notes.append(
                f"{count(self.holes, 'missing value')} of what is to be forecast: filled in between neighbours for the "
                "network to read, marked, and never scored"
            )
        if self.beside:
            self.notes.append(
                f"{count(self.beside, 'missing value')} of the other columns filled in between neighbours"
            )
        return result

    def _once(
        self, name: str, rows: np.ndarray, times: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Without the rows that say again what the one before says."""
        again = np.flatnonzero(np.diff(times).astype(np.int64) == 0) + 1
        for k in again:
            before, after = rows[k - 1], rows[k]
            if not np.array_equal(numbers[before], numbers[after], equal_nan=True):
                one, other = sorted((self.table.rows[before], self.table.rows[after]))
                raise ValueError(
                    f"{self.source}: rows {one} and {other}{_of(name)} have the same time, {self._spelled(times[k])}, "
                    "and different values; expected one row per time. If they are of several series, name the column "
                    "that tells them apart (series=); if clocks went back there, name the place (zone=)"
                )
        if len(again):
            self.notes.append(f"{count(len(again), 'row')} that came twice left out")
        return np.delete(rows, again), np.delete(times, again)

    def _spelled(self, time: Any) -> str:
        return spell(np.array([time]), self.zone_)[0]

    def _laid_out(self, name: str, rows: np.ndarray, times: np.ndarray, numbers: np.ndarray, form: Form) -> Series:
        places, on_grid = form.frequency.steps(times[0], times)
        if not on_grid.all():
            k = int(on_grid.argmin())
            raise ValueError(
                f"{self.source}, row {self.table.rows[rows[k]]}{_of(name)}: {self._spelled(times[k])} does not lie on "
                f"the grid of {form.frequency} that begins at {self._spelled(times[0])}; expected equal steps. "
                "Bring the rows onto a grid first, for example with pandas: frame.resample('1h').mean()"
            )
        length = int(places[-1]) + 1
        if length > 2 * len(places) + 10:
            raise ValueError(
                f"{self.source}{_of(name)}: {len(places):,} rows lie on a grid of {length:,} steps of "
                f"{form.frequency}, so that most would be missing; expected equal steps. "
                "Sum or average rows over longer steps first"
            )
        laid = np.full((length, numbers.shape[1]), np.nan)
        laid[places] = numbers[rows]
        columns, known = len(form.columns), len(form.known)
        there = np.flatnonzero(~np.isnan(laid[:, :columns]).all(1))
        if not len(there):
            raise ValueError(f"{self.source}{_of(name)}: no row has a value to forecast from")
        begin, end = int(there[0]), int(there[-1]) + 1
        start = times[0] if not begin else form.frequency.after(times[0], np.array([begin]))[0]
        self.gaps += end - begin - int(((places >= begin) & (places < end)).sum())
        self.holes += int(np.isnan(laid[begin:end, :columns]).sum())
        self.beside += int(np.isnan(laid[begin:end, columns:]).sum())
        beside = laid[begin:, columns : columns + known]
        unknown = np.isnan(beside[end - begin :]).any(1)
        if unknown.any():
            beside = beside[: end - begin + int(unknown.argmax())]
        return Series(name, start, laid[begin:end, :columns], filled(beside), laid[begin:end, columns + known :], form)


def _of(series: str) -> str:
    return f' of series "{series}"' if series else ""


def filled(values: np.ndarray) -> np.ndarray:
    """Gaps on a straight line between their neighbours, those at the ends as the nearest value; 0 in empty columns."""
    filled = values.copy()
    for column in filled.T:
        there = ~np.isnan(column)
        if not there.all():
            known = np.flatnonzero(there)
            column[~there] = np.interp(np.flatnonzero(~there), known, column[there]) if len(known) else 0.0
    return filled


def _number(cell: object) -> float | str:
    """The number in a cell, NaN for a missing one, or in words why it is none."""
    if _is_truth(cell):
        return float(str(cell).strip().lower() == "true")
    text = "" if cell is None else str(cell).strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return f"{text[:40]!r} came, a number expected"


def _is_missing(cell: object) -> bool:
    return cell is None or cell != cell or str(cell).strip().lower() in MISSING


def _is_truth(cell: object) -> bool:
    return str(cell).strip().lower() in ("true", "false")
