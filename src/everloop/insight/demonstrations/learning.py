"""Networks small enough to be trained while one waits, and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from everloop import cells
from everloop.lang.cell import Cell
from everloop.nn import Recurrent

Draw = Callable[[], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

KEEPING: dict[str, dict[str, int]] = {
    "lstm": {"b.f": 1, "b.i": -1},
    "gru": {"b.z": 1},
    "gru_before": {"b.z": 1},
    "mingru": {"b.z": -1},
    "cifg_lstm": {"b.i": -1},
    "peephole_lstm": {"b.f": 1, "b.i": -1},
    "sru": {"b.f": 1},
    "qrnn": {"b.f": 1},
    "mgu": {"b.f": -1},
    "janet": {"b.f": 1},
}
"""The biases that decide how long a cell keeps what it has, and which way."""


class Reader(nn.Module):
    """A recurrent layer, and what its last states answer: x [B, T, I] -> [B, answers, features]."""

    def __init__(self, cell: str | Cell, inputs: int, hidden: int, features: int, answers: int = 1) -> None:
        super().__init__()
        self.recurrent = Recurrent(cell, inputs, hidden)
        self.head = nn.Linear(hidden, features)
        self.answers = answers

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.recurrent(x)
        return self.head(y[:, -self.answers :])


@dataclass(frozen=True)
class Learnt:
    """Of every update, the loss and the norm of its gradient before it was clipped: [updates]."""

    loss: np.ndarray
    norm: np.ndarray


def keeping(name: str, steps: int) -> Cell:
    """A cell whose units start out keeping what they have for 1 to `steps` steps, each for another time; one with no
    such bias comes as it is.

    Tallec, Ollivier 2018, Can recurrent neural networks warp time? There at random, here spread evenly.
    """
    found = cells.get(name)

    def bias(sign: int) -> Callable[[float, int, int], float]:
        return lambda _, unit, units: sign * math.log(1 + (unit + 0.5) / units * max(steps - 2, 0))

    return replace(found, init=found.init | {name: bias(sign) for name, sign in KEEPING.get(name, {}).items()})


def learn(
    network: nn.Module,
    draw: Draw,
    loss: Loss,
    *,
    updates: int,
    rate: float,
    clip: float = math.inf,
    enough: float = -math.inf,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
) -> Learnt:
    """Train on batches drawn anew. enough: a loss at which it stops, the mean of the last 30."""
    parameters = [*network.parameters()]
    step = optimizer(parameters, lr=rate)  # type: ignore[call-arg]
    losses: list[float] = []
    norms: list[float] = []
    while len(losses) < updates and not (len(losses) >= 50 and np.mean(losses[-30:]) < enough):
        x, target = draw()
        found = loss(network(x), target)
        step.zero_grad()
        found.backward()
        norm = nn.utils.clip_grad_norm_(parameters, clip)
        losses.append(found.item())
        norms.append(norm.item())
        # An exploded gradient may not be a number; to go on from there would be no step at all.
        if not math.isfinite(norms[-1]):
            break
        step.step()
    return Learnt(np.array(losses), np.array(norms))
