"""Exploding gradients: what large weights do to gradients, and to two runs that begin almost alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from everloop.insight.dynamics import gradient_norms, lyapunov
from everloop.insight.figures import Look, label_ends, sheet
from everloop.insight.recording import record
from everloop.nn import Recurrent

APART = 1e-6


@dataclass(frozen=True)
class Exploding:
    """gains: factors of the recurrent weights. exponents [gains]: the largest Lyapunov exponent with each. norms: by
    some of the gains, the norm of the gradient by the state so many steps before the end, as a share of the last,
    [steps]. apart: by the same gains, how far two runs are from each other that began APART of each other, [steps].
    """

    gains: np.ndarray
    exponents: np.ndarray
    norms: dict[float, np.ndarray]
    apart: dict[float, np.ndarray]

    @property
    def edge(self) -> float | None:
        """The gain at which the exponent passes zero."""
        above = np.flatnonzero(self.exponents > 0)
        if not len(above) or not above[0]:
            return None
        k = above[0]
        low, high = self.exponents[k - 1 : k + 1]
        return float(self.gains[k - 1] + (self.gains[k] - self.gains[k - 1]) * low / (low - high))

    @property
    def summary(self) -> str:
        parts = [f"{norms[-1]:.2g} times with weights {gain:g} times as large" for gain, norms in self.norms.items()]
        edge = "" if self.edge is None else f" Between dying out and exploding lies a factor of {self.edge:.2f}."
        steps = len(next(iter(self.norms.values()))) - 1
        return f"Over {steps} steps a gradient grows {', '.join(parts)}.{edge}"


def run(
    *,
    shown: tuple[float, ...] = (0.7, 1.2, 2.0),
    most: float = 3.0,
    points: int = 19,
    hidden: int = 64,
    steps: int = 100,
    seed: int = 0,
) -> Exploding:
    """Tanh networks with random weights of variance gain^2 / hidden, which differ in nothing but the gain."""
    torch.manual_seed(seed)
    layer, x = Recurrent("elman", 1, hidden, dtype=torch.float64), _input(4, steps, seed)
    start = torch.as_tensor(np.random.default_rng(seed).normal(size=(hidden, hidden)) / hidden**0.5)
    gains = np.linspace(0.2, most, points)
    exponents = [lyapunov(_with(layer, gain * start), x, count=1, skip=steps // 4).mean() for gain in gains]
    norms = {gain: _norms(_with(layer, gain * start), x) for gain in shown}
    apart = {gain: _apart(_with(layer, gain * start), x) for gain in shown}
    return Exploding(gains, np.array(exponents), norms, apart)


def draw(found: Exploding, look: Look) -> Any:
    figure, (left, middle, right) = sheet(
        "With large weights gradients explode, and runs that were nearly the same part", [3.6, 4.2, 4.2]
    )
    colours = dict(
        zip(found.norms, (look.colours[0], look.colours[2], look.colours[1], *look.colours[3:]), strict=False)
    )
    left.axhline(0, color=look.quiet, linewidth=0.8)
    left.plot(found.gains, found.exponents, color=look.ink)
    for gain, colour in colours.items():
        left.plot(gain, np.interp(gain, found.gains, found.exponents), marker="o", markersize=7, color=colour)
    left.set(xlabel="size of the weights", ylabel="growth per step (Lyapunov exponent)")
    left.set_title("below 0 a change dies out,\nabove it grows")
    for axes, curves, label in (
        (middle, found.norms, "norm of dL/dh, as a share of the last"),
        (right, found.apart, "distance of the two"),
    ):
        for gain, values in curves.items():
            axes.semilogy(values, color=colours[gain])
        axes.set(xlim=(0, 100), ylabel=label)
        label_ends(
            axes, [(values[-1], f"weights\n× {gain:g}", colours[gain]) for gain, values in curves.items()], gap=0.13
        )
    middle.set_xlabel("steps before the end")
    middle.set_title("a gradient on its way back")
    right.set_xlabel("steps")
    right.set_title("two runs that began a millionth apart")
    # Below that, what is left is rounding.
    right.set_ylim(bottom=1e-14)
    return figure


def _input(batch: int, steps: int, seed: int) -> Tensor:
    """Something to hear at every step, too little to drive the units to their ends."""
    return torch.as_tensor(np.random.default_rng(seed).normal(size=(batch, steps, 1)) * 0.1)


def _with(layer: Recurrent, matrix: Tensor) -> Recurrent:
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith(".U"):
                parameter.copy_(matrix)
    return layer


def _norms(layer: Recurrent, x: Tensor) -> np.ndarray:
    """From the end to the beginning, of a loss that asks for every unit at the end; the mean over sequences."""
    (one,) = record(layer, x, loss=lambda output, _: output[0][:, -1].sum()).layers
    means = gradient_norms(one)["h"].mean(0)[::-1]
    return means / means[0]


def _apart(layer: Recurrent, x: Tensor) -> np.ndarray:
    """Two first states APART of each other, the mean over sequences."""
    random = np.random.default_rng(0)
    first, turn = (torch.as_tensor(random.normal(size=(1, len(x), layer.hidden_size))) for _ in range(2))
    second = first + APART * turn / turn.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        one, other = (layer(x, [state])[0] for state in (first, second))
    return torch.cat([torch.full((1,), APART), (one - other).norm(dim=-1).mean(0)]).numpy()
