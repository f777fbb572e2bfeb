"""Baselines of a classifier of values: majority class, nearest neighbour, regression on random convolutions."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from everloop.tasks.baseline import Baseline
from everloop.tasks.classifier.baselines import majority

MOST_SEQUENCES = 10_000
"""Of training, that baselines look at, evenly spaced."""
MOST_WARPED = 300_000_000
"""Cells of all tables of dynamic time warping: some seconds."""
LONGEST = 128
"""Steps, to which longer sequences are resampled."""
KERNELS = 1_000


def signal_baselines(
    train: Sequence[np.ndarray], train_labels: Sequence[int], test: Sequence[np.ndarray], test_labels: Sequence[int]
) -> list[Baseline]:
    """For sequences [T, F] of standardised values and the places of their classes.

    The nearest neighbour is that of dynamic time warping where there are few and short sequences, else the Euclidean
    one of sequences resampled to one length. The regression is ROCKET (Dempster, Petitjean and Webb 2020) with 1,000
    kernels on sequences resampled to one length: of each convolution the maximum and the share of positive values,
    standardised, and a ridge regression whose penalty is chosen by cross-validation.
    """
    found = [majority([str(k) for k in train_labels], [str(k) for k in test_labels])]
    step = -(-len(train) // MOST_SEQUENCES)
    train, train_labels = train[::step], train_labels[::step]
    note = f", on {len(train):,} training sequences" if step > 1 else ""
    labels, truth = np.array(train_labels), np.array(test_labels)
    start = time.perf_counter()
    name, nearest = _nearest(train, test)
    found.append(Baseline(name + note, _metrics(labels[nearest], truth), time.perf_counter() - start))
    if len(set(train_labels)) > 1:
        start = time.perf_counter()
        predicted = _convolutions(train, labels, test)
        name = f"ridge regression on {KERNELS:,} random convolutions"
        found.append(Baseline(name + note, _metrics(predicted, truth), time.perf_counter() - start))
    return found


def resampled(sequences: Sequence[np.ndarray], steps: int) -> np.ndarray:
    """Sequences [T, F] as [N, steps, F], by linear interpolation."""
    made = np.empty((len(sequences), steps, sequences[0].shape[1]), np.float32)
    for k, values in enumerate(sequences):
        at = np.linspace(0, len(values) - 1, steps)
        low = np.minimum(at.astype(int), max(len(values) - 2, 0))
        high = np.minimum(low + 1, len(values) - 1)
        share = (at - low)[:, None]
        made[k] = (1 - share) * values[low] + share * values[high]
    return made


def warped_distances(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """[N, M]: dynamic time warping between sequences [T, F], the sum of squared distances along the best path."""
    x, y = _padded(some), _padded(others)
    ends = np.array([len(v) for v in some])[:, None], np.array([len(v) for v in others])[None]
    found = np.zeros((len(some), len(others)), np.float32)
    infinite = np.full_like(found, np.inf)
    before = [np.zeros_like(found), *[infinite] * y.shape[1]]
    for i in range(x.shape[1]):
        row = [infinite]
        for j in range(y.shape[1]):
            best = np.minimum(np.minimum(before[j], before[j + 1]), row[j])
            row.append(best + _squared(x[:, i], y[:, j]))
            np.copyto(found, row[-1], where=(ends[0] == i + 1) & (ends[1] == j + 1))
        before = row
    return found


def _nearest(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> tuple[str, np.ndarray]:
    """The place of the training sequence nearest to each of the test."""
    longest = max(map(len, train)), max(map(len, test))
    if len(train) * len(test) * longest[0] * longest[1] <= MOST_WARPED:
        return "nearest neighbour, dynamic time warping", warped_distances(test, train).argmin(1)
    steps = min(LONGEST, longest[0])
    x, y = (resampled(part, steps).reshape(len(part), -1) for part in (train, test))
    nearest = [_squared(some, x).argmin(1) for some in np.array_split(y, -(-len(y) // 1_000))]
    return "nearest neighbour", np.concatenate(nearest)


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[N, M]: squared distances of rows."""
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T, 0)


def _padded(sequences: Sequence[np.ndarray]) -> np.ndarray:
    made = np.zeros((len(sequences), max(map(len, sequences)), sequences[0].shape[1]), np.float32)
    for k, values in enumerate(sequences):
        made[k, : len(values)] = values
    return made


def _convolutions(train: Sequence[np.ndarray], labels: np.ndarray, test: Sequence[np.ndarray]) -> np.ndarray:
    """The classes that the regression gives to the test."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = min(LONGEST, max(map(len, train)))
    features = [_features(resampled(part, steps)) for part in (train, test)]
    lengths = [np.log([[len(values)] for values in part]) for part in (train, test)]
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-3, 3, 10)))
    with warnings.catch_warnings():
        # Features may be alike, and matrices nearly singular: that is what the penalty is for.
        warnings.simplefilter("ignore")
        model.fit(np.hstack([features[0], lengths[0]]), labels)
    return model.predict(np.hstack([features[1], lengths[1]]))


def _features(values: np.ndarray) -> np.ndarray:
    """[N, 2 * KERNELS]: maximum and share of positive values of random convolutions over values [N, T, F]; the same
    kernels for the same T and F."""
    random = np.random.default_rng(0)
    x = torch.from_numpy(values).transpose(1, 2).contiguous()
    channels, steps = x.shape[1], x.shape[2]
    groups: dict[tuple[int, int, bool], int] = {}
    for _ in range(KERNELS):
        size = int(random.choice([3, 5]) if steps < 11 else random.choice([7, 9, 11]))
        size = min(size, steps)
        dilation = int(2 ** random.uniform(0, np.log2(max((steps - 1) / max(size - 1, 1), 1))))
        key = size, dilation, bool(random.integers(2))
        groups[key] = groups.get(key, 0) + 1
    found = []
    for (size, dilation, is_padded), number in groups.items():
        weight = random.normal(size=(number, channels, size))
        weight -= weight.mean(2, keepdims=True)
        # Few channels each, one more often than all.
        used = 2 ** random.uniform(0, np.log2(channels + 0.999), number)
        weight *= random.random((number, channels)).argsort(1).argsort(1)[..., None] < used[:, None, None].astype(int)
        bias = torch.from_numpy(random.uniform(-1, 1, number)).float()
        reach = (size - 1) * dilation // 2 if is_padded else 0
        for some in x.split(2_000):
            with torch.no_grad():
                y = F.conv1d(some, torch.from_numpy(weight).float(), bias, padding=reach, dilation=dilation)
            found.append(torch.cat([y.amax(2), (y > 0).float().mean(2)], 1).numpy())
    parts = -(-len(x) // 2_000)
    columns = [np.concatenate(found[k : k + parts]) for k in range(0, len(found), parts)]
    return np.hstack(columns)


def _metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import f1_score

    return {
        "accuracy": float((predicted == truth).mean()),
        "macro_f1": float(f1_score(truth, predicted, average="macro")),
    }
