"""What is forecast from what: windows of series, their parts in time, and how forecasts are judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from everloop.data.series import Encoded, Frequency

MOST_JUDGED = 20_000_000
"""Forecast values, columns and steps counted, that a part is judged by at most; more windows are thinned out evenly."""

SLACK = 0.05
"""How far the coverage of the validation part may be from what it should be before quantiles are corrected: errors of
neighbouring windows resemble each other, and the time to come differs from it by about as much."""


@dataclass(frozen=True)
class Batch:
    """Windows of L steps looked back on and H to forecast: values and observed [B, L + H, C], known [B, L + H, K],
    past [B, L, P]; observed is 0 where a value was missing."""

    values: Tensor
    observed: Tensor
    known: Tensor
    past: Tensor


class Windows:
    """All windows of several series, which lie end to end: values and observed [N, C], known [N, K], past [N, P].

    A window is known by `first`, the place of its first step to forecast. It belongs to the part in which all its
    steps to forecast lie; what it looks back on may lie before that part, as it will where the model is used.
    """

    def __init__(self, several: Sequence[Encoded], lookback: int, horizon: int) -> None:
        self.lookback, self.horizon = lookback, horizon
        lengths = [len(one.values) for one in several]
        self.begins = np.cumsum([0, *lengths])
        self.values = torch.from_numpy(np.concatenate([one.values for one in several]))
        self.observed = torch.from_numpy(np.concatenate([one.observed for one in several]))
        self.known = torch.from_numpy(np.concatenate([one.known[: len(one.values)] for one in several]))
        self.past = torch.from_numpy(np.concatenate([one.past for one in several]))

    def between(self, series: int, begin: int, end: int) -> np.ndarray:
        """The windows of a series whose steps to forecast lie in [begin, end) of it."""
        begin = max(begin, self.lookback)
        return self.begins[series] + np.arange(begin, max(begin, end - self.horizon + 1))

    def series_of(self, first: np.ndarray) -> np.ndarray:
        """The number of the series that each window is of."""
        return np.searchsorted(self.begins, first, side="right") - 1

    def batch(self, first: np.ndarray, device: torch.device) -> Batch:
        steps = np.arange(-self.lookback, self.horizon)
        places = torch.from_numpy(first[:, None] + steps)
        past = self.past[places[:, : self.lookback]]
        arrays = (self.values[places], self.observed[places], self.known[places], past)
        return Batch(*(array.to(device) for array in arrays))

    def batches(self, first: np.ndarray, size: int, device: torch.device) -> Iterator[Batch]:
        for begin in range(0, len(first), size):
            yield self.batch(first[begin : begin + size], device)

    def ahead(self, array: Tensor, first: np.ndarray) -> np.ndarray:
        """[W, H, ...]: what lies in the steps to forecast."""
        return array[torch.from_numpy(first[:, None] + np.arange(self.horizon))].numpy()

    def seasons_back(self, first: np.ndarray, period: int) -> np.ndarray:
        """[W, H, C]: for each step to forecast, the last value before the window that lies whole periods back."""
        back = first[:, None] - period + np.arange(self.horizon) % period
        return self.values[torch.from_numpy(back)].numpy()

    def judged(self, first: np.ndarray) -> np.ndarray:
        """The windows, or as many of them, evenly spread, as a part is judged by."""
        most = max(100, MOST_JUDGED // (self.horizon * self.values.shape[1]))
        if len(first) <= most:
            return first
        return first[np.linspace(0, len(first) - 1, most).round().astype(int)]


def borders(length: int, horizon: int, shares: tuple[float, float], counts: Sequence[int], gap: int) -> list[slice]:
    """The training, validation and test parts of a series, in this order of time.

    shares: of validation and test; each gets a horizon at least. counts: steps of the three parts, the rest unused.
    gap: steps left out at the end of training and of validation.
    """
    if counts:
        if sum(counts) > length:
            raise ValueError(f"counts: {' + '.join(map(str, counts))} steps came for a series of {length:,}")
        train_end, valid_end, end = np.cumsum(counts).tolist()
    else:
        valid, test = (max(round(length * share), horizon) for share in shares)
        train_end, valid_end, end = length - test - valid, length - test, length
    return [slice(0, max(0, train_end - gap)), slice(max(0, train_end), valid_end - gap), slice(valid_end, end)]


def level(window: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """What is taken off windows [..., L], and what they are divided by: [..., 1] both.

    norm: "last" takes off the last value; "window" the mean, and divides by the standard deviation (Kim et al. 2022).
    """
    if norm == "last":
        return window[..., -1:], torch.ones_like(window[..., -1:])
    return window.mean(-1, keepdim=True), window.std(-1, keepdim=True, correction=0) + 1e-2


def natural_lookback(frequency: Frequency, horizon: int, longest: int) -> int:
    """The longest season that the longest training part has ten times, two horizons at least, a third of it at most."""
    seasons = [steps for steps in frequency.periods().values() if 10 * steps <= longest]
    return max(1, min(max([2 * horizon, *seasons]), longest // 3))


def natural_segment(lookback: int) -> int:
    """A quarter of the look-back, 24 at most; a whole part of it, if there is one that is not much shorter."""
    most = max(1, min(24, lookback // 4))
    whole = (steps for steps in range(most, most // 2, -1) if lookback % steps == 0)
    return next(whole, most)


@dataclass(frozen=True)
class Judge:
    """The truth [W, H, C] of some windows, and what errors are measured in. Values are scaled as in training.

    observed [W, H, C]: whether there is a truth. centre and scale [W, C] lead back to the units of the data.
    seasonal [W, C]: mean error in training of what was one season before; NaN where there is none, as for a constant.
    """

    truth: np.ndarray
    observed: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    seasonal: np.ndarray
    series: np.ndarray
    quantiles: tuple[float, ...]

    def metrics(self, point: np.ndarray, quantiles: np.ndarray | None = None) -> dict[str, float]:
        """point [W, H, C], quantiles [W, H, C, Q].

        mse and mae are of scaled values, as the literature has them; mase is the error beside that of the season
        before in training, a mean over series and columns (Hyndman and Koehler 2006); smape is |y - f| by the mean of
        |y| and |f|; pinball is the mean over the quantiles; coverage the share of truths between the outermost two.
        """
        there = self.observed > 0
        error = np.abs(point - self.truth)
        found = {
            "mase": self._mase(error),
            "mse": float((error[there] ** 2).mean(dtype=np.float64)),
            "mae": float(error[there].mean(dtype=np.float64)),
            "smape": self._smape(point, there),
        }
        if quantiles is None:
            return found
        rest = self.truth[..., None] - quantiles
        levels = np.array(self.quantiles, dtype=np.float32)
        found["pinball"] = float(np.maximum(levels * rest, (levels - 1) * rest)[there].mean(dtype=np.float64))
        if len(self.quantiles) > 1:
            inside = (self.truth >= quantiles[..., 0]) & (self.truth <= quantiles[..., -1])
            found["coverage"] = float(inside[there].mean())
        return found

    def spread(self, quantiles: np.ndarray) -> float:
        """By what the distances of quantiles [W, H, C, Q] from their middle have to be multiplied.

        So that as many truths lie between the outermost two as should, within SLACK (after Romano et al. 2019, who add
        a constant), and less so where there are few windows that do not overlap: one season says little of the next.
        """
        if len(self.quantiles) < 2:
            return 1.0
        middle = _middle(quantiles)
        edge = np.where(self.truth > middle, quantiles[..., -1] - middle, middle - quantiles[..., 0])
        needed = (np.abs(self.truth - middle) / np.maximum(edge, 1e-6))[self.observed > 0]
        wanted = self.quantiles[-1] - self.quantiles[0]
        reached = float((needed <= 1).mean())
        nearest = min(max(reached, wanted - SLACK), wanted + SLACK)
        if reached == nearest:
            return 1.0
        windows, horizon = self.truth.shape[:2]
        apart = 1 + (windows - 1) / horizon
        return float(np.quantile(needed, min(nearest, 1.0))) ** (apart / (apart + 2))

    def by_step(self, point: np.ndarray) -> np.ndarray:
        """[H]: the mean absolute error of each step ahead, scaled."""
        weights = self.observed.sum((0, 2))
        return (np.abs(point - self.truth) * self.observed).sum((0, 2)) / np.maximum(weights, 1)

    def _mase(self, error: np.ndarray) -> float:
        total, count = (error * self.observed).sum(1), self.observed.sum(1)
        ratios = []
        for one in np.unique(self.series):
            rows = self.series == one
            counted = count[rows].sum(0)
            with np.errstate(invalid="ignore", divide="ignore"):
                ratios.append(total[rows].sum(0) / counted / self.seasonal[rows][0])
        known = np.array(ratios)
        return float(known[np.isfinite(known)].mean()) if np.isfinite(known).any() else float("nan")

    def _smape(self, point: np.ndarray, there: np.ndarray) -> float:
        centre, scale = self.centre[:, None], self.scale[:, None]
        forecast, truth = point * scale + centre, self.truth * scale + centre
        size = (np.abs(forecast) + np.abs(truth)) / 2
        shares = np.divide(np.abs(forecast - truth), size, out=np.zeros_like(size), where=size > 0)
        return float(shares[there].mean(dtype=np.float64))


def spread_out(quantiles: np.ndarray, spread: float) -> np.ndarray:
    """Quantiles [..., Q] with their distances from the middle multiplied."""
    middle = _middle(quantiles)[..., None]
    return (middle + spread * (quantiles - middle)).astype(quantiles.dtype)


def _middle(quantiles: np.ndarray) -> np.ndarray:
    """The middle quantile of an odd number, the mean of the middle two of an even one."""
    count = quantiles.shape[-1]
    return (quantiles[..., (count - 1) // 2] + quantiles[..., count // 2]) / 2


# The season


def seasonal_error(values: np.ndarray, observed: np.ndarray, period: int) -> np.ndarray:
    """[C]: the mean distance [T, C] of a value and that one period before, over pairs that were both observed."""
    pairs = observed[period:] * observed[:-period]
    total = (np.abs(values[period:] - values[:-period]) * pairs).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = total / pairs.sum(0)
    return np.where(error > 1e-9, error, np.nan)


def find_period(parts: Sequence[np.ndarray], frequency: Frequency, horizon: int) -> tuple[int, str]:
    """The steps of a season, and in words where it comes from. parts: training parts of the series [T, C].

    Of the calendar's cycles that one whose repetition forecasts the training parts best; without a calendar, the
    highest peak of the autocorrelation above 0.3; 1 where there is none.
    """
    longest = max(parts, key=len)
    possible = {name: p for name, p in frequency.periods().items() if 2 * p + horizon <= len(longest)}
    if possible:
        best = min(possible, key=lambda name: _naive_error(longest, possible[name], horizon))
        return possible[best], f"a {best}"
    lag, height = _autocorrelation_peak(longest)
    if height > 0.3:
        return lag, f"the highest peak of the autocorrelation, {height:.2f}"
    return 1, "no season was found"


def _naive_error(values: np.ndarray, period: int, horizon: int) -> float:
    """The mean error over a horizon of repeating the last period; later seasons repeat it once more."""
    errors = []
    for begin in range(0, horizon, period):
        steps, lag = min(period, horizon - begin), begin + period
        errors.append((np.abs(values[lag:] - values[:-lag]).mean(), steps))
    return float(np.average([error for error, _ in errors], weights=[steps for _, steps in errors]))


def _autocorrelation_peak(values: np.ndarray) -> tuple[int, float]:
    """The lag of the highest local peak of the mean autocorrelation of the columns, which are detrended by a line."""
    steps = np.arange(len(values))
    if len(values) < 8:
        return 1, 0.0
    rest = np.stack([column - np.polyval(np.polyfit(steps, column, 1), steps) for column in values.T])
    spectrum = np.abs(np.fft.rfft(rest, 2 * len(steps), axis=1)) ** 2
    power = np.fft.irfft(spectrum, axis=1)[:, : len(steps) // 3 + 1]
    there = power[:, 0] > 1e-9 * len(steps)
    if not there.any() or power.shape[1] < 4:
        return 1, 0.0
    mean = (power[there] / power[there, :1]).mean(0)
    peaks = [k for k in range(2, len(mean) - 1) if mean[k - 1] < mean[k] >= mean[k + 1]]
    best = max(peaks, key=lambda k: mean[k], default=1)
    return best, float(mean[best])
