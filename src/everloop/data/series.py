"""Series: numbers at equal steps of time, from a table of rows, as a `Forecaster` reads them.

    table   a column of times, columns of values, perhaps a column that says which of several series a row is of
    array   [T] or [T, C]; or a list of them, one per series: steps are counted, there is no calendar

Rows are sorted, put on a grid of equal steps, and what is missing there is marked. What is not clear is refused with
the row: times that do not lie on the grid, two rows of one time, infinite values, text among numbers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from everloop.data._say import names_of
from everloop.data._series import Form, Reader, Series, filled
from everloop.data.examples import Examples
from everloop.data.reading import tables
from everloop.data.reading.stamps import Frequency, calendar, check_zone, to_local
from everloop.data.reading.tables import BadRows, Table
from everloop.data.reading.text_files import read_text


def read_series(
    data: Any,
    *,
    time: str | None = None,
    target: str | Sequence[str] | None = None,
    series: str | None = None,
    known: str | Sequence[str] | None = None,
    past: str | Sequence[str] | None = None,
    zone: str | None = None,
    encoding: str | None = None,
    bad_rows: str = "stop",
) -> Examples:
    """Series from a path (CSV, TSV, JSON, Parquet), a table in memory, an array, or a list of arrays.

    time: the column of times; guessed, and said. target: the columns to forecast; all that hold numbers and are not
    named otherwise. series: the column that says which series a row is of. known: columns whose values are known
    ahead; rows at the end without any target bring them for the time to come. past: columns that are known only as
    they happen. Several names are separated by spaces or commas. zone: where clocks show those times, such as
    Europe/Berlin: needed where an hour comes twice a year, and for times in UTC whose hour of day matters.
    bad_rows: "skip" takes rows that cannot be read as missing.
    """
    if bad_rows not in ("stop", "skip"):
        raise ValueError(f"bad_rows={bad_rows!r} came; expected 'stop' or 'skip'")
    if zone is not None:
        check_zone(zone)
    arrays = _arrays(data)
    if arrays is not None:
        asked = {"time": time, "target": target, "series": series, "known": known, "past": past, "zone": zone}
        for name, value in asked.items():
            if value is not None:
                raise ValueError(f"{name}={value!r} came with plain arrays, which have no columns; leave it out")
        return _examples(arrays, "arrays", ())
    bad = BadRows(_source_of(data), bad_rows)  # type: ignore[arg-type]
    wanted = [name for name in (time, target, series, known, past) if isinstance(name, str)]
    table = _table(data, encoding, wanted, bad)
    reader = Reader(table, bad, zone)
    found = reader.read(time, target, series, known, past)
    return _examples(found, table.source, tuple(reader.notes), table.rows[0])


# Numbers for a network


@dataclass(frozen=True)
class Encoded:
    """A series as a network reads it, float32. values [T, C], scaled, with no gaps; observed [T, C], 0 where a gap was
    filled; known [T', K], covariates and calendar; past [T, P]."""

    values: np.ndarray
    observed: np.ndarray
    known: np.ndarray
    past: np.ndarray


@dataclass(frozen=True)
class SeriesCodec:
    """Scales values by mean and standard deviation of the training part, per column, and per series where there are
    several; adds what the calendar says of each step.

    cycles: those of the calendar that the training part holds at least twice. gaps: whether values were missing in
    training, so that the network reads which were.
    """

    modality: ClassVar[str] = "series"

    form: Form
    centre: dict[str, list[float]]
    scale: dict[str, list[float]]
    beside: list[list[float]]  # centre and scale of each known and past column
    cycles: tuple[str, ...]
    gaps: bool

    @classmethod
    def fit(cls, inputs: Sequence[Series], *, calendar: bool = True) -> Self:
        """From the training parts of the series."""
        form = inputs[0].form
        centre, scale = {}, {}
        for series in inputs:
            centre[series.name], scale[series.name] = _moments(series.values)
        both = [np.concatenate([s.known[: len(s)], s.past], 1) for s in inputs]
        beside = np.array(_moments(np.concatenate(both)))
        spans = form.frequency.periods() if calendar else {}
        longest = max(len(series) for series in inputs)
        cycles = tuple(name for name, steps in spans.items() if longest >= 2 * steps)
        gaps = any(np.isnan(series.values).any() for series in inputs)
        return cls(form, centre, scale, beside.T.tolist(), cycles, gaps)

    @property
    def known(self) -> int:
        """Features of each step that are known ahead."""
        return len(self.form.known) + calendar(np.zeros(0, "datetime64[s]"), self.cycles).shape[1]

    @property
    def features(self) -> int:
        return (1 + self.gaps) * len(self.form.columns) + self.known + len(self.form.past)

    def statistics(self, series: Series) -> tuple[np.ndarray, np.ndarray]:
        """Centre and scale [C] of its values; of a series that was not trained on, those of what is given of it."""
        if series.name in self.centre:
            return np.array(self.centre[series.name]), np.array(self.scale[series.name])
        centre, scale = _moments(series.values)
        return np.array(centre), np.array(scale)

    def encode(self, series: Series, ahead: int = 0) -> Encoded:
        """The series, with the calendar of so many steps beyond what is known of it already."""
        centre, scale = self.statistics(series)
        values = (filled(series.values) - centre) / scale
        moments = np.array(self.beside).reshape(-1, 2)
        split = len(self.form.known)
        known = (series.known - moments[:split, 0]) / moments[:split, 1]
        length = max(len(series) + ahead, len(known))
        if self.form.known:
            length = len(known)
        local = to_local(series.times(0, length), self.form.zone) if self.cycles else np.zeros(length)
        known = np.concatenate([known[:length] if split else np.zeros((length, 0)), calendar(local, self.cycles)], 1)
        past = (filled(series.past) - moments[split:, 0]) / moments[split:, 1]
        arrays = (values, ~np.isnan(series.values), known, past)
        return Encoded(*(array.astype(np.float32) for array in arrays))

    def encode_batch(self, inputs: Sequence[Series]) -> list[np.ndarray]:
        """[T, F] of each: values, whether they were observed (if any were not in training), known, past."""
        result = []
        for series in inputs:
            one = self.encode(series)
            observed = [one.observed] if self.gaps else []
            result.append(np.concatenate([one.values, *observed, one.known[: len(series)], one.past], 1))
        return result

    def describe(self) -> str:
        columns = names_of(self.form.columns)
        beside = [f"known ahead {names_of(self.form.known)}"] if self.form.known else []
        beside += [f"known as they happen {names_of(self.form.past)}"] if self.form.past else []
        beside += [f"calendar of the {' and the '.join(self.cycles)}"] if self.cycles else []
        return "; ".join([f"{columns}, every {self.form.frequency}, scaled to mean 0 and deviation 1", *beside])

    def to_json(self) -> str:
        return json.dumps({"modality": self.modality} | dataclasses.asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            content = json.loads(text)
            form = content["form"]
            frequency = Frequency(**form.pop("frequency"))
            names = {key: tuple(form.pop(key)) for key in ("columns", "known", "past")}
            rest = {key: content[key] for key in ("centre", "scale", "beside", "gaps")}
            return cls(form=Form(**names, frequency=frequency, **form), cycles=tuple(content["cycles"]), **rest)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no codec of series ({type(error).__name__}: {error})") from None


def _moments(values: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column [T, C]; 1 for a column that is constant."""
    centre = [float(np.nanmean(column)) if not np.isnan(column).all() else 0.0 for column in values.T]
    spread = [float(np.nanstd(column)) if not np.isnan(column).all() else 0.0 for column in values.T]
    # A column that is constant has the deviation of its rounding at most.
    return centre, [s if s > 1e-9 * max(abs(c), 1e-30) else 1.0 for c, s in zip(centre, spread, strict=True)]


# From whatever a user has to a table, or to arrays


def _table(data: Any, encoding: str | None, asked: list[str], bad: BadRows) -> Table:
    if isinstance(data, str | Path):
        return _table_of_file(Path(data).expanduser(), str(data), encoding, asked, bad)
    if hasattr(data, "to_frame") and hasattr(data, "index"):
        data = data.to_frame(name=data.name if data.name is not None else "value")
    if hasattr(data, "iloc"):
        index = data.index
        if index.dtype.kind == "M" or hasattr(index, "to_timestamp"):
            stamps = index.to_timestamp() if hasattr(index, "to_timestamp") else index
            data = data.set_axis(stamps.rename(index.name or "time")).reset_index()
        return tables.pandas_table(data)
    if hasattr(data, "to_series") and hasattr(data, "height"):
        return tables.polars_table(data)
    if hasattr(data, "column_names"):
        return tables.arrow_table(data)
    if isinstance(data, dict):
        return tables.dict_table(data)
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return tables.objects_table(data, bad)
    raise TypeError(
        f"a {type(data).__name__} came; expected a path, a pandas or polars table, a pyarrow Table, a dict of columns, "
        "an array [T] or [T, C], or a list of such arrays"
    )


def _table_of_file(path: Path, name: str, encoding: str | None, asked: list[str], bad: BadRows) -> Table:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    if extension in (".parquet", ".pq"):
        return tables.parquet_table(path, name)
    text = read_text(path, encoding)
    if extension in (".jsonl", ".ndjson"):
        return tables.json_lines_table(text, name, bad)
    if extension == ".json":
        return tables.json_table(text, name, bad)
    return tables.csv_table(text, name, "\t" if extension in (".tsv", ".tab") else None, asked, bad)


def _source_of(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else "the table"


def _arrays(data: Any) -> list[Series] | None:
    """Series without times; None if the data are a table."""
    if isinstance(data, list | tuple) and data and isinstance(data[0], list | tuple | np.ndarray):
        several = [_array(item, f"series {k}") for k, item in enumerate(data, start=1)]
    elif isinstance(data, np.ndarray) or (isinstance(data, list | tuple) and data and not isinstance(data[0], dict)):
        several = [_array(data, "the array")]
    else:
        return None
    widths = [values.shape[1] for values in several]
    if len(set(widths)) > 1:
        raise ValueError(
            f"series of {widths[0]} and {next(w for w in widths if w != widths[0])} columns came; "
            "expected as many in each"
        )
    names = tuple(str(k + 1) for k in range(widths[0])) if widths[0] > 1 else ("value",)
    form = Form(names)
    return [
        Series(
            str(k) if len(several) > 1 else "",
            np.int64(0),
            values,
            np.zeros((len(values), 0)),
            np.zeros((len(values), 0)),
            form,
        )
        for k, values in enumerate(several, start=1)
    ]


def _array(item: Any, what: str) -> np.ndarray:
    try:
        values = np.asarray(item, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: not an array of numbers ({error}); expected [T] or [T, C]") from None
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{what}: shape {values.shape} came; expected [T] or [T, C], and at least one step")
    if np.isinf(values).any():
        step = int(np.isinf(values).any(1).argmax())
        raise ValueError(f"{what}, step {step}: an infinite value came, a finite number expected")
    return values


def _examples(found: list[Series], source: str, notes: tuple[str, ...], first_row: int = 1) -> Examples:
    return Examples(
        inputs=found,
        targets=None,
        source=source,
        kind="table",
        rows=[first_row] * len(found),
        notes=notes,
        target_name=", ".join(found[0].form.columns),
        modality="series",
    )
