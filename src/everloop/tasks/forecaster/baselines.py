"""Baselines of a forecaster: the last season again, the last value again, and a ridge regression on the same window."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from everloop.tasks.forecaster.windows import Windows, level

MOST_FEATURES = 2_000
MOST_ROWS = 200_000
PENALTIES = 10.0 ** np.arange(-2, 7)


@dataclass(frozen=True)
class Rival:
    """What a baseline forecasts for the test windows, [W, H, C], scaled as in training."""

    name: str
    forecast: np.ndarray
    seconds: float


def forecaster_baselines(
    windows: Windows, train: np.ndarray, valid: np.ndarray, test: np.ndarray, *, period: int
) -> list[Rival]:
    """Of the windows `test`, of which each is known by its first step to forecast; the others choose and fit."""
    rivals = []
    for name, forecast in (
        (f"seasonal naive ({period} steps)", lambda: windows.seasons_back(test, period)),
        ("last value", lambda: windows.seasons_back(test, 1)),
    ):
        if period == 1 and name != "last value":
            continue
        start = time.perf_counter()
        rivals.append(Rival(name, forecast(), time.perf_counter() - start))
    start = time.perf_counter()
    ridge = fit_ridge(windows, train, valid, norm="last")
    forecast = ridge.forecast(windows, test)
    return [*rivals, Rival(ridge.name, forecast, time.perf_counter() - start)]


@dataclass(frozen=True)
class LinearMap:
    """One linear map from a window to all steps ahead, the same for all columns: weights [F + 1, H], the constant last.

    reads_known: whether what is known of the steps ahead is among its features, after the window.
    """

    weights: np.ndarray
    norm: str
    reads_known: bool
    name: str
    error: float  # the sum of squares over the validation windows

    def forecast(self, windows: Windows, first: np.ndarray) -> np.ndarray:
        """[W, H, C], scaled as in training."""
        columns = windows.values.shape[1]
        parts = [
            (x @ self.weights * scale + centre).reshape(-1, columns, windows.horizon).transpose(0, 2, 1)
            for x, _, centre, scale in _pairs(windows, first, self.reads_known, self.norm)
        ]
        return np.concatenate(parts).astype(np.float32)


def fit_ridge(windows: Windows, train: np.ndarray, valid: np.ndarray, *, norm: str) -> LinearMap:
    """Least squares with a penalty that the validation windows choose. norm: see `level`, of windows.py."""
    reads_known = reads_known_ahead(windows.lookback, windows.horizon, windows.known.shape[1])
    rows = max(1, MOST_ROWS // windows.values.shape[1])
    train = train if len(train) <= rows else train[np.linspace(0, len(train) - 1, rows).round().astype(int)]
    squares = products = 0
    for x, y, _, _ in _pairs(windows, train, reads_known, norm):
        squares, products = squares + x.T @ x, products + x.T @ y
    values, vectors = np.linalg.eigh(squares)
    turned = vectors.T @ products
    weights = [vectors @ (turned / (np.maximum(values, 0) + penalty)[:, None]) for penalty in PENALTIES]
    errors = np.zeros(len(PENALTIES))
    for x, y, _, scale in _pairs(windows, valid, reads_known, norm):
        errors += [(((x @ w - y) * scale) ** 2).sum() for w in weights]
    name = "ridge regression on the same window"
    if windows.known.shape[1] and not reads_known:
        name += ", without covariates"
    return LinearMap(weights[int(errors.argmin())], norm, reads_known, name, float(errors.min()))


def reads_known_ahead(lookback: int, horizon: int, known: int) -> bool:
    """Whether a linear map reads what is known of all steps ahead, for each of them: not where that is thousands."""
    return known > 0 and lookback + horizon * known <= MOST_FEATURES


def _pairs(
    windows: Windows, first: np.ndarray, reads_known: bool, norm: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Features [B * C, F + 1] with a 1 at the end and what is to come [B * C, H], both levelled; centre and scale."""
    for batch in windows.batches(first, 2_048, torch.device("cpu")):
        rows = batch.values.double().transpose(1, 2).flatten(0, 1)
        centre, scale = level(rows[:, : windows.lookback], norm)
        rows = (rows - centre) / scale
        features = [rows[:, : windows.lookback], torch.ones_like(centre)]
        if reads_known:
            known = batch.known[:, windows.lookback :].double().flatten(1)
            features.insert(1, known.repeat_interleave(batch.values.shape[2], 0))
        ahead = rows[:, windows.lookback :]
        yield torch.cat(features, 1).numpy(), ahead.numpy(), centre.numpy(), scale.numpy()
