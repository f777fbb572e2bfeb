"""What a baseline is, and the loss that all share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Baseline:
    """One baseline: its name, its metrics on the test split, and the seconds it took to fit and score."""

    name: str
    metrics: dict[str, float]
    seconds: float


def mean_loss(probabilities: np.ndarray) -> float:
    """Mean nats of the probabilities [N] that the truths had."""
    return float(np.log(1 / np.maximum(probabilities, np.finfo(np.float64).tiny)).mean())
