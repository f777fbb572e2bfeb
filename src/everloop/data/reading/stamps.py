"""Times of a series: read from cells, put on a grid of equal steps, and what the calendar says of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from everloop.data._say import count
from everloop.data.reading.tables import BadRows

DAY, WEEK = 86_400, 604_800
HARMONICS = 2
"""Sine and cosine of a cycle come at its own frequency and at twice that: two peaks a day, two seasons a year."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_QUARTER = re.compile(r"(\d{4})[ -]?Q([1-4])", re.IGNORECASE)
_NAMED_MONTH = re.compile(r"(\d{4})[ -]([A-Za-z]{3})[a-z]*")
_DAY_FIRST = re.compile(r"\d{1,2}[/.]\d{1,2}[/.]\d{2,4}")
_UNITS = ((WEEK, "week"), (DAY, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True)
class Frequency:
    """The distance of two steps. unit: whole seconds; months on one day of the month (`day`, 0: the last); days from
    Monday to Friday; or plain numbers."""

    unit: Literal["second", "month", "business day", "number"]
    step: int = 1
    day: int = 1

    def __str__(self) -> str:
        if self.unit == "second":
            size, name = next((size, name) for size, name in _UNITS if self.step % size == 0)
            return count(self.step // size, name)
        if self.unit == "month" and self.step % 12 == 0:
            return count(self.step // 12, "year")
        return count(self.step, {"number": "step"}.get(self.unit, self.unit))

    def steps(self, start: Any, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many steps after start each time lies, rounded down, and whether it lies on the grid at all."""
        if self.unit == "business day":
            days = times.astype("datetime64[D]")
            on_grid = np.is_busday(days) & (times - days == start - start.astype("datetime64[D]"))
            return np.busday_count(start.astype("datetime64[D]"), days), on_grid
        if self.unit == "month":
            passed = times.astype("datetime64[M]").astype(int) - start.astype("datetime64[M]").astype(int)
            places, rest = np.divmod(passed, self.step)
            return places, (rest == 0) & (self.after(start, places) == times)
        places, rest = np.divmod((times - start).astype(np.int64), self.step)
        return places, rest == 0

    def after(self, start: Any, places: np.ndarray) -> np.ndarray:
        """The times so many steps after start."""
        if self.unit == "business day":
            first = start.astype("datetime64[D]")
            return np.busday_offset(first, places, roll="forward").astype("datetime64[s]") + (start - first)
        if self.unit == "month":
            months = start.astype("datetime64[M]") + places * self.step
            of_day = start - start.astype("datetime64[D]")
            days = months.astype("datetime64[D]") + (self.day - 1)
            if self.day == 0:
                days = (months + 1).astype("datetime64[D]") - 1
            return days.astype("datetime64[s]") + of_day
        places = np.asarray(places, dtype=np.int64)
        return start + places * (np.timedelta64(self.step, "s") if self.unit == "second" else self.step)

    def periods(self) -> dict[str, int]:
        """The cycles of the calendar that are two steps or more, in steps."""
        if self.unit == "business day":
            return {"week": 5}
        if self.unit == "month":
            return {"year": 12 // self.step} if 12 % self.step == 0 and self.step < 12 else {}
        if self.unit == "number":
            return {}
        year = {"year": round(365.25 * DAY / self.step)} if self.step >= DAY and self.step < 182 * DAY else {}
        cycles = {"day": DAY, "week": WEEK}
        return {k: v // self.step for k, v in cycles.items() if v % self.step == 0 and v > self.step} | year


# Reading


def read_stamps(cells: Sequence[object], rows: Sequence[int], bad: BadRows, zone: str | None) -> Stamps:
    """The times in cells; those that cannot be read go to `bad`, and the places of the others are in the result."""
    fast = _all_plain(cells)
    if fast is not None:
        is_utc = str(cells[0]).endswith("Z")
        return Stamps(fast, np.arange(len(cells)), (zone or "UTC") if is_utc else "")
    times: list[datetime | int] = []
    places: list[int] = []
    for k, cell in enumerate(cells):
        found = stamp_of(cell)
        if isinstance(found, str):
            bad.add(f"row {rows[k]}", found)
            continue
        times.append(found)
        places.append(k)
    if not times:
        raise ValueError(f"{bad.source}: no row has a time that can be read")
    kinds = [_kind(time) for time in times]
    odd = next((k for k, kind in enumerate(kinds) if kind != kinds[0]), None)
    if odd is not None:
        raise ValueError(
            f"{bad.source}, row {rows[places[odd]]}: {kinds[odd]} came, and {kinds[0]} in row {rows[places[0]]}; "
            "expected the same form in the whole column"
        )
    return _stamps(times, np.array(places), zone)


@dataclass(frozen=True)
class Stamps:
    """times: datetime64[s], in UTC where `zone` is not ""; or int64. places: which of the cells they were."""

    times: np.ndarray
    places: np.ndarray
    zone: str


def stamp_of(cell: object) -> datetime | int | str:
    """A time, or a plain number, or in words why the cell is neither."""
    if isinstance(cell, np.datetime64):
        cell = None if np.isnat(cell) else cell.astype("datetime64[us]").item()
    if isinstance(cell, datetime):
        return cell
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day)
    if isinstance(cell, int | np.integer) and not isinstance(cell, bool):
        return int(cell)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return "no time came; expected one in every row"
    text = str(cell).strip()
    if text.isdigit() and len(text) < 8:
        return int(text)
    if match := _QUARTER.fullmatch(text):
        return datetime(int(match[1]), 3 * int(match[2]) - 2, 1)
    if (match := _NAMED_MONTH.fullmatch(text)) and match[2].lower() in _MONTHS:
        return datetime(int(match[1]), _MONTHS.index(match[2].lower()) + 1, 1)
    if re.fullmatch(r"\d{4}[-/]\d{1,2}", text):
        text += "-01"
    if _DAY_FIRST.match(text):
        return f"{text!r} came, in which day and month could be either; expected 2016-07-31 or 2016-07-31 13:30"
    if match := re.match(r"(\d{4})/(\d{1,2})/(\d{1,2})", text) or re.match(r"(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)", text):
        text = f"{match[1]}-{int(match[2]):02}-{int(match[3]):02}" + text[match.end() :]
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return f"{text!r} came as time; expected 2016-07-31, 2016-07-31 13:30, 2016-07, 2016 Q3 or a whole number"


def check_zone(zone: str) -> tzinfo:
    """The zone of a name such as Europe/Berlin, UTC or +11:00."""
    if match := re.fullmatch(r"([+-])(\d\d):?(\d\d)", zone):
        minutes = int(match[2]) * 60 + int(match[3])
        return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))
    try:
        return UTC if zone == "UTC" else ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"zone: {zone!r} came; expected a name such as Europe/Berlin, UTC or +11:00") from None


def to_utc(times: np.ndarray, zone: str, rows: Sequence[int], source: str) -> np.ndarray:
    """Wall-clock times of one series, in the order of the file, in UTC. Of an hour that comes twice when clocks go
    back, the second coming is the later one."""
    place = check_zone(zone)
    seen: set[datetime] = set()
    result = np.empty_like(times)
    for k, wall in enumerate(times.tolist()):
        fold = int(wall in seen)
        seen.add(wall)
        found = wall.replace(tzinfo=place, fold=fold).astimezone(UTC)
        if found.astimezone(place).replace(tzinfo=None) != wall:
            raise ValueError(
                f"{source}, row {rows[k]}: {wall} came, which no clock shows in {zone} (clocks go forward there); "
                "expected times of that zone, or leave zone= out if they are of another"
            )
        result[k] = np.datetime64(found.replace(tzinfo=None), "s")
    return result


def to_local(times: np.ndarray, zone: str) -> np.ndarray:
    """What clocks show in the zone at these times of UTC; times without a zone are local already.

    Clocks are put forward and back at quarters of an hour everywhere."""
    if not zone or not np.issubdtype(times.dtype, np.datetime64):
        return times
    place = check_zone(zone)
    quarters, inverse = np.unique(times.astype("datetime64[15m]"), return_inverse=True)
    moments = quarters.astype("datetime64[s]").tolist()
    local = [moment.replace(tzinfo=UTC).astimezone(place).replace(tzinfo=None) for moment in moments]
    return times + (np.array(local, dtype="datetime64[s]") - quarters)[inverse]


def spell(times: np.ndarray, zone: str) -> list[str]:
    """Times as they are written to a file: of a zone, with the offset."""
    if not np.issubdtype(times.dtype, np.datetime64):
        return [str(t) for t in times.tolist()]
    if not zone:
        whole_days = bool((times == times.astype("datetime64[D]")).all())
        return np.datetime_as_string(times, unit="D" if whole_days else "s").tolist()
    place = check_zone(zone)
    return [t.replace(tzinfo=UTC).astimezone(place).isoformat() for t in times.tolist()]


def _all_plain(cells: Sequence[object]) -> np.ndarray | None:
    """Cells that are all whole times of one usual form, at once: a long column costs little."""
    first = cells[0] if len(cells) else None
    if not (isinstance(first, str) and re.match(r"\d{4}-\d\d-\d\d", first)):
        return None
    end = "Z" if first.endswith("Z") else ""
    if len(first) - len(end) not in (10, 16, 19):
        return None
    if any(not isinstance(cell, str) or len(cell) != len(first) or not cell.endswith(end) for cell in cells):
        return None
    try:
        return np.array([cell.removesuffix(end) for cell in cells], dtype="datetime64[s]")  # type: ignore[union-attr]
    except ValueError:
        return None


def _kind(time: datetime | int) -> str:
    if isinstance(time, int):
        return "a number"
    return "a time without an offset" if time.tzinfo is None else "a time with an offset"


def _stamps(times: list[datetime | int], places: np.ndarray, zone: str | None) -> Stamps:
    if isinstance(times[0], int):
        numbers = np.array(times, dtype=np.int64)
        if zone is None and ((numbers > 1500) & (numbers < 2200)).all():
            years = (numbers - 1970).astype("datetime64[Y]").astype("datetime64[s]")
            return Stamps(years, places, "")
        return Stamps(numbers, places, "")
    moments = [time for time in times if isinstance(time, datetime)]
    finer = next((time for time in moments if time.microsecond), None)
    if finer is not None:
        raise ValueError(
            f"the time {finer.isoformat()} came; expected whole seconds. For shorter steps, leave the column of times "
            "out, or number the steps in it"
        )
    if moments[0].tzinfo is None:
        return Stamps(np.array(moments, dtype="datetime64[s]"), places, "")
    offsets = {time.utcoffset() for time in moments}
    utc = np.array([time.astimezone(UTC).replace(tzinfo=None) for time in moments], dtype="datetime64[s]")
    if zone is None:
        zone = "UTC" if len(offsets) > 1 or offsets == {timedelta()} else moments[0].isoformat()[-6:]
    return Stamps(utc, places, zone)


# The grid


def infer_frequency(several: Sequence[np.ndarray]) -> Frequency:
    """The grid on which the times of all series lie, each [T] in ascending order and without duplicates.

    The step is the most common distance; what is missing on that grid is a matter of the caller.
    """
    gaps = np.concatenate([np.diff(times) for times in several]).astype(np.int64)
    if not len(gaps):
        raise ValueError("every series has one row only: no frequency can be told from that")
    together = np.concatenate(several)
    if not np.issubdtype(together.dtype, np.datetime64):
        return Frequency("number", _most_common(gaps))
    days = together.astype("datetime64[D]")
    if gaps.min() >= 28 * DAY and len(np.unique(together - days)) == 1:
        day = _day_of_month(days)
        if day is not None:
            months = np.concatenate([np.diff(t.astype("datetime64[M]").astype(int)) for t in several])
            return Frequency("month", _most_common(months), day)
    step = _most_common(gaps)
    weekdays = np.unique(_weekday(days))
    if step == DAY and weekdays.max() < 5 and len(together) >= 10 and len(np.unique(together - days)) == 1:
        return Frequency("business day")
    return Frequency("second", step)


def calendar(times: np.ndarray, cycles: Sequence[str]) -> np.ndarray:
    """[T, 2 * HARMONICS * len(cycles)]: sine and cosine of where local times lie in each cycle."""
    columns = []
    for cycle in cycles:
        angle = 2 * np.pi * _share_of(cycle, times)
        for harmonic in range(1, HARMONICS + 1):
            columns += [np.sin(harmonic * angle), np.cos(harmonic * angle)]
    return np.stack(columns, 1) if columns else np.zeros((len(times), 0))


def _share_of(cycle: str, times: np.ndarray) -> np.ndarray:
    days = times.astype("datetime64[D]")
    if cycle == "day":
        return (times - days).astype(np.int64) / DAY
    if cycle == "week":
        return _weekday(days) / 7
    year = times.astype("datetime64[Y]")
    length = ((year + 1).astype("datetime64[D]") - year.astype("datetime64[D]")).astype(np.int64)
    return (days - year.astype("datetime64[D]")).astype(np.int64) / length


def _weekday(days: np.ndarray) -> np.ndarray:
    """0 for Monday: the first day that is counted from, 1970-01-01, was a Thursday."""
    return (days.astype(np.int64) + 3) % 7


def _day_of_month(days: np.ndarray) -> int | None:
    """The day of the month that all have; 0 for the last one; None if they have several."""
    months = days.astype("datetime64[M]")
    if (days == (months + 1).astype("datetime64[D]") - 1).all():
        return 0
    found = np.unique((days - months.astype("datetime64[D]")).astype(np.int64) + 1)
    return int(found[0]) if len(found) == 1 and found[0] <= 28 else None


def _most_common(values: np.ndarray) -> int:
    different, counts = np.unique(values, return_counts=True)
    return int(different[counts.argmax()])
