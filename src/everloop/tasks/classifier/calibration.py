"""How far the probabilities of a classifier can be believed, and what can be done about it after training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Bin:
    """Predictions whose probability lies above `low` and not above `high`: how many, the mean of these probabilities,
    and the share of them that are right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> list[Bin]:
    """The predicted classes of probabilities [B, C] in bins of equal width by their probability; empty ones are left
    out."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for k in range(bins):
        inside = place == k
        if inside.any():
            means = float(confidence[inside].mean()), float(right[inside].mean())
            found.append(Bin(k / bins, (k + 1) / bins, int(inside.sum()), *means))
    return found


def calibration_error(table: list[Bin]) -> float:
    """The expected calibration error: how far confidence and accuracy are apart, the mean over all predictions.

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    number = sum(row.count for row in table)
    return sum(row.count * abs(row.confidence - row.accuracy) for row in table) / number


def best_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """By which number scores [B, C] have to be divided so that the truths are the least surprising (Guo et al. 2017).

    The loss falls and then rises along the logarithm of that number; a golden-section search finds where.
    """
    ratio = (np.sqrt(5) - 1) / 2
    low, high = np.log(COLDEST), np.log(HOTTEST)
    while high - low > 1e-4:
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        if _loss(scores / np.exp(first), labels) < _loss(scores / np.exp(second), labels):
            high = second
        else:
            low = first
    return float(np.exp((low + high) / 2))


def best_mixture(experts: np.ndarray, labels: np.ndarray) -> list[float]:
    """What the scores [K, B, C] of several models are best multiplied by before they are added: so that the truths are
    the least surprising, and none counts negatively (a logarithmic opinion pool).

    The loss is convex in the K numbers; Newton's method starts from their mean.
    """
    truth = np.eye(experts.shape[2])[labels]
    weights = np.full(len(experts), 1 / len(experts))
    for _ in range(20):
        mixed = np.tensordot(weights, experts, 1)
        p = np.exp(mixed - np.logaddexp.reduce(mixed, axis=1, keepdims=True))
        centred = experts - (p * experts).sum(2, keepdims=True)
        gradient = ((p - truth) * experts).sum((1, 2)) / len(labels)
        curvature = np.einsum("bc,kbc,lbc->kl", p, centred, centred) / len(labels)
        # Those at 0 that would go below it stay. Models that agree on everything leave it open how to share: the small
        # number on the diagonal shares evenly.
        free = (weights > 0) | (gradient < 0)
        if free.any():
            step = np.linalg.solve(curvature[np.ix_(free, free)] + 1e-6 * np.eye(int(free.sum())), gradient[free])
            weights[free] = np.maximum(weights[free] - step, 0.0)
    return weights.tolist()


def best_threshold(probability: np.ndarray, positive: np.ndarray) -> float:
    """From which probability [B] on to say yes, so that F1 is highest: halfway between two that occur.

    positive: [B], whether yes is right. Of equally good thresholds, the one nearest to 0.5.
    """
    order = np.argsort(-probability, kind="stable")
    ranked, hits = probability[order], np.cumsum(positive[order])
    said = np.arange(1, len(ranked) + 1)
    f1 = 2 * hits / (said + positive.sum())
    # A threshold cannot part equal probabilities.
    possible = np.append(ranked[1:] < ranked[:-1], True)
    edges = np.append((ranked[1:] + ranked[:-1]) / 2, ranked[-1])
    best = np.flatnonzero(possible & np.isclose(f1, f1[possible].max(), rtol=1e-12))
    return float(edges[best[np.abs(edges[best] - 0.5).argmin()]])


def _loss(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(labels)), labels]).mean())
