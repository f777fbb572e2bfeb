"""What it costs to store weights in fewer bits: the outputs beside those of the same model in full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """How far outputs are from the exact ones: the largest and the mean difference, and how large the exact ones are
    (root of the mean square). bytes: those of the weights, and of the exact ones.
    """

    storage: str
    largest: float
    mean: float
    size: float
    bytes: int
    exact_bytes: int

    @classmethod
    def of(cls, storage: str, outputs: np.ndarray, exact: np.ndarray, *, bytes: int, exact_bytes: int) -> Accuracy:
        """Of outputs of the same shape."""
        wide = exact.astype(np.float64)
        apart = np.abs(outputs - wide)
        count = max(1, apart.size)
        size = float(np.sqrt((wide**2).sum() / count))
        return cls(storage, float(apart.max(initial=0)), float(apart.sum() / count), size, bytes, exact_bytes)

    def __str__(self) -> str:
        return (
            f"weights in {self.storage}: {self.bytes:,} bytes instead of {self.exact_bytes:,}; outputs of size "
            f"{self.size:.3g} differ by {self.mean:.2g} on average, by {self.largest:.2g} at most"
        )
