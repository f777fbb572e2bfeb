"""Many to many, ahead: the next steps of time series, with quantiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from everloop.data.datasets import get as get_dataset
from everloop.data.examples import Examples
from everloop.data.series import Series, SeriesCodec, read_series
from everloop.insight.inside import Inside
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.forecaster.baselines import Rival, fit_ridge, forecaster_baselines, reads_known_ahead
from everloop.tasks.forecaster.chart import Drawn
from everloop.tasks.forecaster.inside import look
from everloop.tasks.forecaster.network import SegmentForecaster, losses
from everloop.tasks.forecaster.windows import (
    Batch,
    Judge,
    Windows,
    borders,
    find_period,
    natural_lookback,
    natural_segment,
    seasonal_error,
    spread_out,
)
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.running._learned import extra_sizes
from everloop.tasks.task import Positive, Share, Task, Whole, is_dataset
from everloop.tasks.training import Carry

Quantile = Annotated[float, Field(gt=0, lt=1)]


@dataclass(kw_only=True)
class Forecaster(Task):
    """The next `horizon` steps of one series or many, from the last `lookback`: a point forecast and quantiles.

    fit(data, time=, target=, series=, known=, past=, zone=): a CSV or Parquet file, a table, an array [T] or [T, C],
    or a list of arrays (`everloop.data.series.read_series`). predict(data) -> a table of the steps after the end of
    data, or of the training data; evaluate(data) -> metrics of all windows in data.

    horizon, lookback: steps; 0 lets the data decide (a season of the calendar; the longest season there is, or two
    horizons). segment: steps that the recurrent layers read at once (0: a quarter of the look-back, 24 at most).
    quantiles: what is forecast beside the point; none with (). loss: what the point forecast minimises, and so what it
    is, the median (mae) or the mean (mse). norm: what is taken off a window first, its mean and deviation, or its last
    value (auto: that with which a ridge regression forecasts the validation part better). linear: add a linear map from
    the whole window, which begins as a ridge regression. calendar: read the time of day, of the week and of the year,
    as far as the training part has them twice.

    The parts follow each other in time: the last share `test` is the test, before it comes validation. counts: their
    steps instead, of training, validation and test. A window belongs to the part in which all its steps to forecast
    lie; what it looks back on may reach into the part before.

    The network is `SegmentForecaster`; all columns share it, each is read by itself. Step k ahead is trained as step k.
    """

    cell: str = "gru"
    horizon: Annotated[int, Field(ge=0)] = 0
    lookback: Annotated[int, Field(ge=0)] = 0
    segment: Annotated[int, Field(ge=0)] = 0
    quantiles: Sequence[Quantile] = (0.1, 0.5, 0.9)
    loss: Literal["mae", "mse"] = "mae"
    norm: Literal["auto", "window", "last"] = "auto"
    linear: bool = True
    calendar: bool = True
    counts: Sequence[Whole] = ()
    batch: Whole = 64
    lr: Positive = 1e-3
    dropout: Share = 0.5
    patience: Annotated[int, Field(ge=0)] = 0
    split: Literal["time"] = "time"  # type: ignore[assignment]

    name: ClassVar[str] = "forecaster"
    monitor: ClassVar[str] = "loss"
    judged_by: ClassVar[str] = "mase"
    needs_target: ClassVar[bool] = False
    loss_unit: ClassVar[str] = ""  # of squares, or distances, and of quantiles together

    def check_params(self) -> None:
        super().check_params()
        if list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles: {self.quantiles!r} came; expected shares in ascending order, each once")
        if self.counts and len(self.counts) != 3:
            raise ValueError(f"counts: {self.counts!r} came; expected steps of training, validation and test")

    def fit(self, data: Any, targets: Sequence[Any] | None = None, **options: Any) -> Self:
        # What `read` of a fitted one takes over would hold it to the columns of the last fit.
        vars(self).pop("codec_", None)
        return super().fit(data, targets, **options)

    def read(  # type: ignore[override]
        self,
        data: Any,
        targets: None = None,
        *,
        time: str | None = None,
        target: str | Sequence[str] | None = None,
        series: str | None = None,
        known: str | Sequence[str] | None = None,
        past: str | Sequence[str] | None = None,
        zone: str | None = None,
        encoding: str | None = None,
        bad_rows: Literal["stop", "skip"] = "stop",
    ) -> Examples:
        """Series, as `everloop.data.series.read_series` reads them. A fitted one reads the columns it was fitted to."""
        if targets is not None:
            raise TypeError("targets came; a forecaster takes them from the columns of the data: target= names them")
        if is_dataset(data):
            return get_dataset(data).read()
        asked = {"time": time, "target": target, "series": series, "known": known, "past": past, "zone": zone}
        if hasattr(self, "codec_") and not _is_plain(data):
            form = self.codec_.form
            before = {name: self.data_.get(name) for name in ("time", "series", "zone")}
            before |= {"target": form.columns, "known": form.known, "past": form.past}
            asked = {name: before[name] if value is None else value for name, value in asked.items()}
        return read_series(data, **asked, encoding=encoding, bad_rows=bad_rows)

    # Training

    def prepare(self, examples: Examples, progress: Progress) -> None:
        every: list[Series] = list(examples.inputs)
        frequency = every[0].form.frequency
        self.horizon_ = self.horizon or next(iter(frequency.periods().values()), 10)
        shares = (self.valid, self.test)
        parts = [borders(len(s), self.horizon_, shares, self.counts, self.gap) for s in every]
        longest = max(part[0].stop for part in parts)
        self.lookback_ = self.lookback or natural_lookback(frequency, self.horizon_, longest)
        window = self.lookback_ + self.horizon_
        if longest < window:
            raise ValueError(
                f"{examples.source}: the longest training part has {longest:,} steps, and a window needs "
                f"{self.lookback_:,} to look back on and {self.horizon_:,} to forecast. Give more data, or a smaller "
                "--lookback or --horizon"
            )
        kept = [k for k, part in enumerate(parts) if part[0].stop >= window]
        if len(kept) < len(every):
            progress.say(f"{len(every) - len(kept):,} series left out: too short for a window of training")
        self._series, parts = [every[k] for k in kept], [parts[k] for k in kept]
        train = [_cut(series, part[0]) for series, part in zip(self._series, parts, strict=True)]
        self.codec_ = SeriesCodec.fit(train, calendar=self.calendar)
        encoded = [self.codec_.encode(series) for series in self._series]
        scaled = [(one.values[p[0]], one.observed[p[0]]) for one, p in zip(encoded, parts, strict=True)]
        self.spread_ = 1.0
        self.period_, why = find_period([values for values, _ in scaled], frequency, self.horizon_)
        self.seasonal_ = {
            series.name: seasonal_error(*pair, self.period_).tolist()
            for series, pair in zip(self._series, scaled, strict=True)
        }
        self._windows = Windows(encoded, self.lookback_, self.horizon_)
        self._parts = {
            name: np.concatenate([self._windows.between(k, p[i].start, p[i].stop) for k, p in enumerate(parts)])
            for i, name in enumerate(("train", "valid", "test"))
        }
        self._say_what_is_there(progress, parts, why)
        self._choose_norm(progress)

    def _choose_norm(self, progress: Progress) -> None:
        self.norm_, self._ridge = self.norm, None
        if self.norm != "auto" and not self.linear:
            return
        valid = self._windows.judged(self._parts["valid"])
        norms = ("last", "window") if self.norm == "auto" else (self.norm,)
        ridges = [fit_ridge(self._windows, self._parts["train"], valid, norm=norm) for norm in norms]
        self._ridge = min(ridges, key=lambda ridge: ridge.error)
        self.norm_ = self._ridge.norm
        if self.norm == "auto":
            progress.say(f"norm: {self.norm_} (with it a ridge regression forecasts the validation part better)")

    def _say_what_is_there(self, progress: Progress, parts: list[list[slice]], why: str) -> None:
        for name in ("valid", "test"):
            if not len(self._parts[name]):
                raise ValueError(
                    f"no {name} part has the {self.horizon_:,} steps of a forecast: give a larger --{name} "
                    "(or counts), or a smaller --horizon"
                )
        windows = " / ".join(f"{len(part):,}" for part in self._parts.values())
        first = [self._series[0].spelled(p.start, p.start + 1)[0] for p in parts[0][1:]]
        progress.say(
            f"{self.lookback_} steps back, {self.horizon_} ahead; {windows} windows for training / validation / test; "
            f"{'of the first series, ' if len(parts) > 1 else ''}validation begins at {first[0]}, "
            f"the test at {first[1]}"
        )
        progress.say(f"a season is {self.period_} steps ({why})")
        constant = [
            f"{name} {self.codec_.form.columns[k]}".strip()
            for name, errors in self.seasonal_.items()
            for k, error in enumerate(errors)
            if math.isnan(error)
        ]
        if constant:
            progress.say(f"one season as the last, always, in training: {', '.join(constant[:5])}; no part of MASE")

    def make_network(self) -> nn.Module:
        form = self.codec_.form
        between = self.dropout if self.layers > 1 else 0.0
        sizes = extra_sizes(self.cell, self.hidden)
        return SegmentForecaster(
            Recurrent(self.cell, self.hidden, self.hidden, self.layers, dropout=between, sizes=sizes),
            lookback=self.lookback_,
            horizon=self.horizon_,
            segment=self._segment,
            columns=len(form.columns),
            known=self.codec_.known,
            past=len(form.past),
            quantiles=len(self.quantiles),
            gaps=self.codec_.gaps,
            norm=self.norm_,
            linear=self._linear_features,
            dropout=self.dropout,
        )

    def start(self, network: nn.Module) -> None:
        """The linear map begins as a ridge regression."""
        assert isinstance(network, SegmentForecaster)
        if network.linear is None or self._ridge is None:
            return
        weights = torch.from_numpy(self._ridge.weights)
        with torch.no_grad():
            network.linear.weight.copy_(weights[:-1].T)
            network.linear.bias.copy_(weights[-1])

    @property
    def _linear_features(self) -> int:
        if not self.linear:
            return 0
        reads_known = reads_known_ahead(self.lookback_, self.horizon_, self.codec_.known)
        return self.lookback_ + self.horizon_ * self.codec_.known * reads_known

    @property
    def _segment(self) -> int:
        return min(self.segment, self.lookback_) if self.segment else natural_segment(self.lookback_)

    def natural_epochs(self) -> int:
        """As many as make 800 updates; of much data one."""
        return math.ceil(800 / len(self.problem().batches(1)))

    def problem(self) -> _Problem:
        return _Problem(self)

    # Judging

    def measure(self) -> dict[str, float]:
        self._correct_quantiles()
        first = self._windows.judged(self._parts["test"])
        self._judge = self._judge_of(self._windows, first, self._series)
        self._test_forecast = self._forecast(self._windows, first)
        point, quantiles = self._test_forecast[..., 0], self._test_forecast[..., 1:]
        self.error_by_step_ = self._judge.by_step(point)
        return self._judge.metrics(point, quantiles if len(self.quantiles) else None)

    def _correct_quantiles(self) -> None:
        """By the validation part: errors in training are smaller than those to come, the more so with few data."""
        first = self._windows.judged(self._parts["valid"])
        quantiles = self._forecast(self._windows, first)[..., 1:]
        self.spread_ = self._judge_of(self._windows, first, self._series).spread(quantiles)
        if self.spread_ != 1.0:
            self.progress_.say(f"quantiles spread by {self.spread_:.2f}, by their coverage of the validation part")
        if self.run_ is not None:
            self.run_.update(fitted=self.fitted())

    def baselines(self) -> list[Baseline]:
        first = self._windows.judged(self._parts["test"])
        train, valid = self._parts["train"], self._windows.judged(self._parts["valid"])
        self._rivals: list[Rival] = forecaster_baselines(self._windows, train, valid, first, period=self.period_)
        return [Baseline(r.name, self._judge.metrics(r.forecast), r.seconds) for r in self._rivals]

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        several = self._checked(examples)
        windows = Windows([self.codec_.encode(series) for series in several], self.lookback_, self.horizon_)
        first = windows.judged(np.concatenate([windows.between(k, 0, len(s)) for k, s in enumerate(several)]))
        if not len(first):
            raise ValueError(
                f"{examples.source}: no series has the {self.lookback_ + self.horizon_:,} steps of a window "
                f"({self.lookback_:,} to look back on, {self.horizon_:,} to forecast)"
            )
        judge, made = self._judge_of(windows, first, several), self._forecast(windows, first)
        return judge.metrics(made[..., 0], made[..., 1:] if len(self.quantiles) else None)

    def evaluate(self, data: Any, **how: Any) -> dict[str, float]:
        """Metrics over all windows in data, which `read` reads: mase, mse, mae, smape, pinball, coverage (`Judge`)."""
        self._check_fitted()
        return self.evaluate_examples(self.read(data, **how))

    def score(self, data: Any, targets: None = None, **how: Any) -> float:
        """Minus the MASE, since a higher score is better."""
        return -self.evaluate(data, **how)["mase"]

    def _judge_of(self, windows: Windows, first: np.ndarray, several: list[Series]) -> Judge:
        numbers = windows.series_of(first)
        statistics = [self.codec_.statistics(series) for series in several]
        seasonal = [self._seasonal_of(series) for series in several]
        return Judge(
            truth=windows.ahead(windows.values, first),
            observed=windows.ahead(windows.observed, first),
            centre=np.array([centre for centre, _ in statistics])[numbers],
            scale=np.array([scale for _, scale in statistics])[numbers],
            seasonal=np.array(seasonal)[numbers],
            series=numbers,
            quantiles=tuple(self.quantiles),
        )

    def _seasonal_of(self, series: Series) -> np.ndarray:
        """What MASE measures errors in: of a series that was not trained on, by what is given of it."""
        if series.name in self.seasonal_:
            return np.array(self.seasonal_[series.name], dtype=np.float64)
        one = self.codec_.encode(series)
        return seasonal_error(one.values, one.observed, self.period_)

    def _forecast(self, windows: Windows, first: np.ndarray) -> np.ndarray:
        """[W, H, C, 1 + Q], scaled."""
        return np.concatenate([self._made(batch) for batch in windows.batches(first, 256, self.device_)])

    def _made(self, batch: Batch) -> np.ndarray:
        """[B, H, C, 1 + Q], scaled."""
        self.network_.eval()
        with torch.no_grad(), self.few_threads():
            made = self.network_(batch).cpu().numpy()
        if self.spread_ == 1.0:
            return made
        return np.concatenate([made[..., :1], spread_out(made[..., 1:], self.spread_)], -1)

    # Using a fitted one

    def predict(self, data: Any = None, horizon: int | None = None, **how: Any) -> dict[str, list[Any]]:
        """The steps after the end of each series: a table of columns series, time, column, forecast, q0.1 ...

        data: as `fit` takes them, or None: what it was fitted to. horizon: fewer steps than it was trained for. Where
        covariates are known ahead, the rows after the last value bring them.
        """
        self._check_fitted()
        if data is None and not hasattr(self, "_series"):
            raise ValueError("a loaded forecaster does not hold the data it was fitted to; give what to go on from")
        several = self._series if data is None else self._checked(self.read(data, **how))
        rows = list(self._rows(several, horizon))
        return {name: [row[name] for row in rows] for name in rows[0]}

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        return self._rows(self._checked(examples), None)

    def _rows(self, several: list[Series], horizon: int | None) -> Iterator[dict[str, Any]]:
        steps = self.horizon_ if horizon is None else horizon
        if not 1 <= steps <= self.horizon_:
            raise ValueError(f"horizon: {horizon} came; this model was trained for 1 to {self.horizon_} steps")
        names = ["forecast", *(f"q{quantile:g}" for quantile in self.quantiles)]
        for series in several:
            made = self._after(series)
            for step, time in enumerate(series.spelled(len(series), len(series) + steps)):
                for k, column in enumerate(series.form.columns):
                    values = zip(names, made[step, k].tolist(), strict=True)
                    yield {"series": series.name, "time": time, "column": column, **dict(values)}

    def inside(self, given: Any = None, target: Any = None, *, at: int | None = None) -> Inside:
        """given: a series as `predict` takes it; None: what the forecaster was fitted to."""
        return look(self, self._only(given), target, at)

    def _only(self, given: Any) -> Series:
        """The one series that was given."""
        self._check_fitted()
        if given is None and not hasattr(self, "_series"):
            raise ValueError("a loaded forecaster does not hold the data it was fitted to; give what to go on from")
        several = self._series if given is None else self._checked(self.read(given))
        if len(several) > 1:
            raise ValueError(f"inside: {len(several):,} series came; expected one")
        return several[0]

    def _after(self, series: Series) -> np.ndarray:
        """[H, C, 1 + Q] in the units of the data: what follows a series."""
        centre, scale = self.codec_.statistics(series)
        return self._made(self._batch_after(series))[0].astype(np.float64) * scale[:, None] + centre[:, None]

    def _batch_after(self, series: Series) -> Batch:
        """The window that ends with a series, what is to come left open."""
        of = f'series "{series.name}"' if series.name else "the series"
        begin, end = len(series) - self.lookback_, len(series) + self.horizon_
        if begin < 0:
            raise ValueError(f"{of} has {len(series):,} steps; this model looks back on {self.lookback_:,}")
        if series.form.known and len(series.known) < end:
            raise ValueError(
                f"{of}: {', '.join(series.form.known)} must be known for {self.horizon_} steps after the last value, "
                f"and are for {len(series.known) - len(series)}; add rows with them, in which "
                f"{', '.join(series.form.columns)} is empty"
            )
        one = self.codec_.encode(series, ahead=self.horizon_)
        ahead = ((0, self.horizon_), (0, 0))
        arrays = (
            np.pad(one.values[begin:], ahead),
            np.pad(one.observed[begin:], ahead),
            one.known[begin:end],
            one.past[begin:],
        )
        return Batch(*(torch.from_numpy(array)[None].to(self.device_) for array in arrays))

    def _checked(self, examples: Examples) -> list[Series]:
        """The series, if they have the form of those that were trained on."""
        self._check_fitted()
        several: list[Series] = list(examples.inputs)
        form, wanted = several[0].form, self.codec_.form
        for what in ("columns", "known", "past", "frequency"):
            came, expected = getattr(form, what), getattr(wanted, what)
            if came != expected:
                shown = [", ".join(v) if isinstance(v, tuple) else f"a step of {v}" for v in (came, expected)]
                raise ValueError(f"{examples.source}: {what}: {shown[0]} came; this model was trained on {shown[1]}")
        return several

    # Keeping

    def resolved(self) -> dict[str, Any]:
        lists = {"quantiles": [float(q) for q in self.quantiles], "counts": list(self.counts)}
        return lists | {
            "horizon": self.horizon_,
            "lookback": self.lookback_,
            "segment": self._segment,
            "norm": self.norm_,
        }

    def fitted(self) -> dict[str, Any]:
        seasonal = {name: [None if math.isnan(e) else e for e in errors] for name, errors in self.seasonal_.items()}
        return {"period": self.period_, "seasonal": seasonal, "spread": self.spread_}

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        self.period_, self.spread_ = int(fitted["period"]), float(fitted["spread"])
        self.seasonal_ = {
            name: [math.nan if error is None else float(error) for error in errors]
            for name, errors in fitted["seasonal"].items()
        }
        self.horizon_, self.lookback_, self.norm_ = self.horizon, self.lookback, self.norm
        self.codec_ = SeriesCodec.from_json(run.read_text("codec.json"))

    def facts(self) -> list[tuple[str, str]]:
        window = f"{self.lookback_} steps in segments of {self._segment}, {self.horizon_} ahead"
        return [*super().facts(), ("window", window), ("series", self.codec_.describe())]

    # The report

    def report(self, report: Report) -> Report:
        if not self.results_:
            return report
        test = Drawn(self._windows, self._windows.judged(self._parts["test"]), self._series, self._judge)
        more = test.sections(self.model_name, self._test_forecast, self._rivals)
        return replace(report, more=[*report.more, *more])


class _Problem:
    """The training and validation windows as the training loop takes them."""

    def __init__(self, task: Forecaster) -> None:
        self.task, self.monitor = task, task.monitor
        self.windows, self.device = task._windows, task.device_
        self.train, self.valid = task._parts["train"], task._windows.judged(task._parts["valid"])
        self.quantiles = torch.tensor(list(task.quantiles), dtype=torch.float32, device=task.device_)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """All windows in random order; those of a short series as often as make 50 updates."""
        rng = np.random.default_rng([self.task.seed, epoch])
        size = math.ceil(len(self.train) / self.task.batch)
        orders = [np.array_split(rng.permutation(self.train), size) for _ in range(math.ceil(50 / size))]
        return [rows for order in orders for rows in order]

    def loss(self, network: nn.Module, batch: np.ndarray, carry: Carry) -> tuple[Tensor, int, Carry]:
        window = self.windows.batch(batch, self.device)
        total, count = losses(network(window), window, self.quantiles, self.task.loss)
        return total / count.clamp(min=1), int(count), None

    def validate(self, network: nn.Module) -> dict[str, float]:
        batches = self.windows.batches(self.valid, 256, self.device)
        found = [losses(network(batch), batch, self.quantiles, self.task.loss) for batch in batches]
        return {"loss": float(sum(total for total, _ in found) / sum(count for _, count in found))}


def _cut(series: Series, part: slice) -> Series:
    return replace(series, values=series.values[part], known=series.known[part], past=series.past[part])


def _is_plain(data: Any) -> bool:
    """Whether these are arrays or lists of numbers, which have no columns."""
    if isinstance(data, dict | str):
        return False
    first = data[0] if isinstance(data, list | tuple) and data else data
    return isinstance(first, np.ndarray | list | tuple | int | float)
