"""How far probabilities can be believed, and what validation decides: against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from everloop.tasks.classifier.calibration import (
    best_mixture,
    best_temperature,
    best_threshold,
    calibration_error,
    reliability,
)
from everloop.tasks.running._learned import softmax
from everloop.testing import SAME, assert_close


def test_bins_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.85, 0.15], [0.5, 0.5]])
    table = reliability(probabilities, np.array([0, 0, 0, 1]))
    assert [(row.low, row.count, row.accuracy) for row in table] == [(0.4, 1, 0.0), (0.7, 1, 0.0), (0.8, 2, 1.0)]
    assert_close(calibration_error(table), (0.5 + 0.8 + 0.1 + 0.15) / 4, SAME)


def test_probabilities_that_are_true_have_no_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 200_000)
    labels = (rng.random(len(p)) > p).astype(int)
    table = reliability(np.stack([p, 1 - p], 1), labels)
    assert calibration_error(table) < 0.01
    assert sum(row.count for row in table) == len(p)


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(truth: float) -> None:
    rng = np.random.default_rng(1)
    scores = 3 * rng.normal(size=(50_000, 3))
    labels = (softmax(scores / truth).cumsum(1) < rng.random((len(scores), 1))).sum(1)
    found = best_temperature(scores, labels)
    assert abs(found / truth - 1) < 0.05


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_against_all_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.integers(0, 12, 40) / 12 if seed % 2 else rng.random(40)
    positive = rng.random(40) < 0.2 + 0.5 * probability
    positive[0] = True
    found = best_threshold(probability, positive)
    best = max(f1_score(positive, probability >= level) for level in np.unique(probability))
    assert_close(f1_score(positive, probability >= found), best, SAME)


def test_mixtures_are_the_least_surprising() -> None:
    """Of two models, of which one sees more and the other is too sure: better than any of a grid of numbers."""
    rng = np.random.default_rng(2)
    evidence = rng.normal(size=(2, 4_000, 3))
    labels = (softmax(evidence[0] + 0.5 * evidence[1]).cumsum(1) < rng.random((4_000, 1))).sum(1)
    experts = np.stack([evidence[0], 5 * evidence[1]])

    def loss(weights: list[float]) -> float:
        mixed = np.tensordot(weights, experts, 1)
        return float((np.logaddexp.reduce(mixed, axis=1) - mixed[np.arange(4_000), labels]).mean())

    found = best_mixture(experts, labels)
    assert all(loss(found) <= loss([a, b]) for a in np.linspace(0, 2, 21) for b in np.linspace(0, 1, 21))
    wrong = best_mixture(np.stack([experts[0], -experts[1]]), labels)
    assert wrong[1] == 0.0
    assert_close(wrong[0], best_mixture(experts[:1], labels)[0], SAME)
