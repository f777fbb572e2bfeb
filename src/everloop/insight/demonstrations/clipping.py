"""Clipping: a cliff in the loss, and a training that falls off it, with and without a limit to the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from everloop.insight.demonstrations.learning import Learnt, Reader, learn
from everloop.insight.demonstrations.problems import ADDING_TRIVIAL, adding
from everloop.insight.figures import Look, label_ends, sheet
from everloop.nn import Recurrent

# One unit that starts at 0.5, leans to the other side, and should be at 0.5 after 20 steps.
STEPS, BIAS, START, TARGET = 20, -0.2, 0.5, 0.5
CLIFF_RATE, CLIFF_CLIP, DESCENT = 0.05, 0.5, 80


@dataclass(frozen=True)
class Clipping:
    """weights, heights: the loss of a network of one unit, over its only weight. descents: where gradient descent
    went, [steps + 1]. trainings: of a network of relu units that learns to add two numbers. Both without ("free") and
    with ("clipped") a limit; clip: that of the training.
    """

    weights: np.ndarray
    heights: np.ndarray
    descents: dict[str, np.ndarray]
    trainings: dict[str, Learnt]
    clip: float

    @property
    def summary(self) -> str:
        free, clipped = (self.trainings[name] for name in ("free", "clipped"))
        last = [learnt.loss[-50:].mean() for learnt in (free, clipped)]
        return (
            f"The largest gradient of the training had a norm of {free.norm.max():,.0f}; without clipping the error "
            f"ends at {last[0]:.3f}, with clipping at {last[1]:.3f} (without a memory: {ADDING_TRIVIAL:.3f})."
        )


def run(*, clip: float = 1.0, delay: int = 30, hidden: int = 32, updates: int = 600, seed: int = 0) -> Clipping:
    """Walk down to a cliff, then train a network whose gradients explode (`irnn`, Le et al. 2015). As Pascanu, Mikolov,
    Bengio 2013, On the difficulty of training recurrent neural networks.
    """
    unit = Recurrent("elman", 1, 1, dtype=torch.float64)
    weights = np.linspace(1.2, 2.2, 401)
    heights = np.array([_height(unit, weight)[0] for weight in weights])
    descents = {"free": _descent(unit, math.inf), "clipped": _descent(unit, CLIFF_CLIP)}
    trainings = {}
    for name, limit in (("free", math.inf), ("clipped", clip)):
        torch.manual_seed(seed)
        network, random = Reader("irnn", 2, hidden, 1), np.random.default_rng(seed)
        trainings[name] = learn(
            network,
            partial(adding, 32, delay, random),
            lambda output, target: nn.functional.mse_loss(output[:, 0, 0], target),
            updates=updates,
            rate=0.01,
            clip=limit,
        )
    return Clipping(weights, heights, descents, trainings, clip)


def draw(found: Clipping, look: Look) -> Any:
    figure, (left, middle, right) = sheet(
        "A gradient too steep to follow: keep its direction, shorten the step", [4, 4, 4.2]
    )
    colours = {"free": look.colours[1], "clipped": look.colours[0]}
    called = {"free": "not clipped", "clipped": "clipped"}
    _draw_cliff(left, found, colours, look)
    for name, learnt in found.trainings.items():
        middle.semilogy(learnt.norm, color=colours[name], linewidth=0.8)
        right.plot(_middle(learnt.loss), color=colours[name])
    middle.axhline(found.clip, color=look.ink, linewidth=0.9, linestyle=(0, (4, 4)))
    middle.set(xlim=(0, len(found.trainings["clipped"].norm)), xlabel="updates", ylabel="norm of the gradient")
    middle.set_title("a training: how long each gradient is\n(dashed: shortened to this)")
    right.axhline(ADDING_TRIVIAL, color=look.quiet, linewidth=0.8, linestyle=(0, (4, 4)))
    right.set(xlim=middle.get_xlim(), ylim=(0, 3 * ADDING_TRIVIAL), xlabel="updates", ylabel="squared error")
    right.set_title("what it learns\n(dashed: without a memory)")
    label_ends(right, [(_middle(one.loss)[-1], called[name], colours[name]) for name, one in found.trainings.items()])
    return figure


def _draw_cliff(axes: Any, found: Clipping, colours: dict[str, str], look: Look) -> None:
    axes.plot(found.weights, found.heights, color=look.ink, linewidth=1.2)
    for name, size in (("free", 6.0), ("clipped", 3.2)):
        path = found.descents[name]
        inside = path[(path >= found.weights[0]) & (path <= found.weights[-1])]
        axes.plot(inside, np.interp(inside, found.weights, found.heights), "o", color=colours[name], markersize=size)
    axes.set(xlim=(found.weights[0], found.weights[-1]), xlabel="weight", ylabel="loss")
    axes.set_title(f"a network of one unit, {STEPS} steps:\nits loss has a cliff")
    thrown = found.descents["free"].max()
    if thrown > found.weights[-1]:
        axes.annotate(
            f"not clipped:\nthrown to {thrown:.1f}",
            (1.0, 0.74),
            (0.5, 0.74),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colours["free"],
            va="center",
            arrowprops={"arrowstyle": "->", "color": colours["free"]},
        )
    axes.text(
        0.5,
        0.3,
        f"clipped: stays at {found.descents['clipped'][-1]:.2f}",
        color=colours["clipped"],
        transform=axes.transAxes,
    )


def _descent(unit: Recurrent, clip: float) -> np.ndarray:
    """Where gradient descent goes from the gentle side."""
    path = [2.0]
    for _ in range(DESCENT):
        _, slope = _height(unit, path[-1])
        path.append(path[-1] - CLIFF_RATE * math.copysign(min(abs(slope), clip), slope))
    return np.array(path)


def _height(unit: Recurrent, weight: float) -> tuple[float, float]:
    """Loss and slope at a weight."""
    values = {"U": weight, "W": 0.0, "b": BIAS}
    with torch.no_grad():
        for name, parameter in unit.named_parameters():
            parameter.fill_(values[name.rpartition(".")[2]])
    (matrix,) = (parameter for name, parameter in unit.named_parameters() if name.endswith(".U"))
    first = torch.full((1, 1, 1), START, dtype=torch.float64)
    _, state = unit(torch.zeros(1, STEPS, 1, dtype=torch.float64), [first])
    loss = (state.h - TARGET).square().sum()
    (slope,) = torch.autograd.grad(loss, matrix)
    return loss.item(), slope.item()


def _middle(loss: np.ndarray, width: int = 20) -> np.ndarray:
    """The median of the last updates, which one bad update does not move."""
    return np.array([np.median(loss[max(0, k - width) : k]) for k in range(1, len(loss) + 1)])
