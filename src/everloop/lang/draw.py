"""Values that a layer draws at random in training: masks and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Draw:
    """How an input is drawn, entry by entry. In evaluation it is the mean instead.

    kind:   bernoulli: `scale` with probability `amount`, else 0. normal: mean 0, standard deviation `amount`.
    every:  step: drawn anew at every step. sequence: drawn once, the same at all steps of a sequence.
    """

    kind: Literal["bernoulli", "normal"]
    amount: float
    scale: float = 1.0
    every: Literal["step", "sequence"] = "step"

    @property
    def mean(self) -> float:
        return self.amount * self.scale if self.kind == "bernoulli" else 0.0
