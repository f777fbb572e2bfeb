"""Vanishing gradients: how little of an error at the end reaches the beginning of a tanh network, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop.insight.demonstrations.learning import Reader, keeping, learn
from everloop.insight.demonstrations.problems import ADDING_TRIVIAL, adding
from everloop.insight.dynamics import gradient_norms, lyapunov, spectrum, step_jacobians
from everloop.insight.figures import Look, label_ends, sheet
from everloop.insight.recording import record

CALLED = {"elman": "tanh network", "lstm": "LSTM", "gru": "GRU"}


@dataclass(frozen=True)
class Vanishing:
    """By cell: norms [delay + 1], of the gradient by the state so many steps before the end, as a share of the last;
    singular [N], the mean singular values of the Jacobian of a step, largest first; exponent, the largest Lyapunov
    exponent; loss [updates], mean squared errors while learning to add two numbers `delay` steps apart. All but the
    loss are of networks that have not learnt yet.
    """

    delay: int
    norms: dict[str, np.ndarray]
    singular: dict[str, np.ndarray]
    exponent: dict[str, float]
    loss: dict[str, np.ndarray]

    @property
    def summary(self) -> str:
        left = ", ".join(f"{_percent(norms[-1])} in the {CALLED.get(name, name)}" for name, norms in self.norms.items())
        return f"Before any learning, this much of the gradient at the end is left {self.delay} steps before: {left}."


def run(
    *,
    cells: tuple[str, ...] = ("elman", "lstm", "gru"),
    delay: int = 80,
    hidden: int = 32,
    updates: int = 400,
    seed: int = 0,
) -> Vanishing:
    """Look at gradients on their way back before any learning, then let the networks try. Gated cells start with gates
    that are mostly open (`learning.keeping`).
    """
    norms, singular, exponents, losses = {}, {}, {}, {}
    for cell in cells:
        torch.manual_seed(seed)
        network = Reader(keeping(cell, delay), 2, hidden, 1)
        x, target = adding(64, delay, np.random.default_rng(seed + 1))
        norms[cell] = _norms(network, x, target)
        singular[cell] = spectrum(step_jacobians(network.recurrent, x[:4])).singular.mean((0, 1))
        exponents[cell] = float(lyapunov(network.recurrent, x[:4], count=1, skip=delay // 4).mean())
        draw = partial(adding, 32, delay, np.random.default_rng(seed))
        losses[cell] = learn(network, draw, _loss, updates=updates, rate=0.01, clip=1.0).loss
    return Vanishing(delay, norms, singular, exponents, losses)


def draw(found: Vanishing, look: Look) -> Any:
    figure, (left, middle, right) = sheet(
        "What is wrong at the end is hardly heard at the beginning, and so not learnt", [4.3, 3.4, 4.3]
    )
    order = ["elman", "lstm", "gru", *found.norms]
    colours = {name: look.colours[(1, 0, 2, 3, 4, 5, 6)[order.index(name) % 7]] for name in found.norms}
    back = np.arange(found.delay + 1)
    for name, norms in found.norms.items():
        left.semilogy(back, norms, color=colours[name])
        left.semilogy(
            back, np.exp(found.exponent[name] * back), color=colours[name], linewidth=1, linestyle=(0, (1, 2))
        )
    left.set(xlim=(0, found.delay), xlabel="steps before the end", ylabel="norm of dL/dh, as a share of the last")
    left.set_title("gradients on their way back\n(dotted: as the Lyapunov exponent says)")
    label_ends(left, [(norms[-1], CALLED.get(name, name), colours[name]) for name, norms in found.norms.items()])
    for name, values in found.singular.items():
        middle.plot(np.linspace(0, 1, len(values)), values, color=colours[name])
    middle.axhline(1, color=look.quiet, linewidth=0.8, linestyle=(0, (4, 4)))
    middle.set(xlim=(0, 1), xticks=[0, 1], xticklabels=["largest", "smallest"], ylim=(0, None))
    middle.set(xlabel="singular values of a step", ylabel="stretches a change by")
    middle.set_title("why: what a step does to\na small change of its state")
    for name, loss in found.loss.items():
        right.plot(_smooth(loss), color=colours[name])
    right.axhline(ADDING_TRIVIAL, color=look.quiet, linewidth=0.8, linestyle=(0, (4, 4)))
    right.set(xlim=(0, max(map(len, found.loss.values()))), ylim=(0, 2 * ADDING_TRIVIAL), xlabel="updates")
    right.set_ylabel("squared error")
    right.set_title(f"what follows: adding two numbers\n{found.delay} steps apart (dashed: without a memory)")
    label_ends(right, [(_smooth(loss)[-1], CALLED.get(name, name), colours[name]) for name, loss in found.loss.items()])
    return figure


def _norms(network: Reader, x: Tensor, target: Tensor) -> np.ndarray:
    """From the end to the beginning, all states of the layer together, the mean over sequences."""
    (one,) = record(network, x, target, loss=lambda output, target: _loss(output, target) * len(x)).layers
    squares = sum(norms.astype(np.float64) ** 2 for norms in gradient_norms(one).values())
    means = np.sqrt(squares).mean(0)[::-1]
    return means / means[0]


def _loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(output[:, 0, 0], target)


def _smooth(loss: np.ndarray, width: int = 20) -> np.ndarray:
    """The mean of the last updates."""
    sums = np.cumsum(np.concatenate([[0.0], loss]))
    begin = np.maximum(np.arange(1, len(loss) + 1) - width, 0)
    return (sums[1:] - sums[begin]) / (np.arange(1, len(loss) + 1) - begin)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
