"""What happens inside a `Forecaster`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop.data.series import Series
from everloop.insight.inside import Inside
from everloop.tasks.forecaster.network import losses
from everloop.tasks.forecaster.windows import Batch
from everloop.tasks.inside import place_of, step_at, with_more

if TYPE_CHECKING:
    from everloop.tasks.forecaster.task import Forecaster


def look(
    task: Forecaster, series: Series, target: Any = None, at: int | None = None, hidden: frozenset[int] = frozenset()
) -> Inside:
    """What follows one series. Pieces are the segments that the layers read, the same for all columns, each of which is
    a sequence of its own. Answers are the forecasts of the columns for the step ahead at `at`, the first where nobody
    says, in the units of the data. target: the true values [H, C], or [H] of one column; NaN where they are not known.
    """
    network, columns = task.network_, [name or "forecast" for name in series.form.columns]
    batch = task._batch_after(series)
    step = step_at(at, 0, task.horizon_, "the step ahead")
    segments = _segments(task.lookback_, task._segment)
    read = _without(batch, [segments[k] for k in sorted(hidden)])
    centre, scale = task.codec_.statistics(series)

    def run(network: nn.Module) -> Tensor:
        """The forecasts [1, H, C, 1 + Q], scaled."""
        network.eval()
        like = next(network.parameters())
        return network(Batch(*(getattr(read, field.name).to(like) for field in dataclasses.fields(Batch))))

    def score(made: Tensor, answer: str | None) -> Tensor:
        k = 0 if answer is None else place_of(answer, columns, "a column")
        return made[0, step, k, 0] * float(scale[k]) + float(centre[k])

    def loss(made: Tensor) -> Tensor:
        quantiles = torch.tensor(list(task.quantiles), dtype=made.dtype, device=made.device)
        total, count = losses(made, true, quantiles, task.loss)
        return total / count.clamp(min=1)

    with torch.no_grad():
        made = run(network)
        answers = [(name, float(score(made, name))) for name in columns]
    true = batch if target is None else _with_truth(batch, target, scale, centre)
    times = series.spelled(len(series) - task.lookback_, len(series))
    return Inside(
        network,
        [_span(times[segment]) for segment in segments],
        run,
        answers,
        score,
        None if target is None else loss,
        with_more(lambda more: look(task, series, target, at, more), hidden, len(segments)),
        "the mean of the rest of the window",
    )


def _segments(lookback: int, segment: int) -> list[slice]:
    """Which steps of the window the layers read at once; the first segment may be shorter."""
    first = lookback % segment or segment
    begins = [0, *range(first, lookback, segment)]
    return [slice(begin, end) for begin, end in zip(begins, [*begins[1:], lookback], strict=True)]


def _span(times: list[str]) -> str:
    return times[0] if len(times) == 1 else f"{times[0]} to {times[-1]}"


def _without(batch: Batch, segments: list[slice]) -> Batch:
    """The window with the mean of what is left where these segments lie, as if nothing had been observed there."""
    lookback = batch.past.shape[1]
    values, observed = batch.values.clone(), batch.observed.clone()
    left = torch.ones(lookback, dtype=torch.bool)
    for segment in segments:
        left[segment] = False
    window = values[:, :lookback]
    rest = window[:, left] if left.any() else torch.zeros_like(window[:, :1])
    window[:, ~left] = rest.mean(1, keepdim=True)
    observed[:, :lookback][:, ~left] = 0
    return dataclasses.replace(batch, values=values, observed=observed)


def _with_truth(batch: Batch, target: Any, scale: np.ndarray, centre: np.ndarray) -> Batch:
    """The window with what really came."""
    lookback, columns = batch.past.shape[1], len(scale)
    horizon = batch.values.shape[1] - lookback
    truth = np.asarray(target, dtype=np.float64)
    truth = truth[:, None] if truth.ndim == 1 else truth
    if truth.ndim != 2 or truth.shape[1] != columns or not 1 <= len(truth) <= horizon:
        came = list(np.shape(target))
        raise ValueError(f"inside: a target of shape {came} came; expected the values [{horizon}, {columns}] to come")
    values, observed = batch.values.clone(), batch.observed.clone()
    ahead = slice(lookback, lookback + len(truth))
    values[:, ahead] = torch.from_numpy(np.nan_to_num((truth - centre) / scale)).to(values)
    observed[:, ahead] = torch.from_numpy(~np.isnan(truth)).to(observed)
    return dataclasses.replace(batch, values=values, observed=observed)
