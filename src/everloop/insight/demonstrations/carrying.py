"""Carrying: cells side by side on two problems over growing delays. Who still knows at the end how it began?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop.insight.demonstrations.learning import Reader, keeping, learn
from everloop.insight.demonstrations.problems import adding, copying
from everloop.insight.figures import Look, label_ends, sheet

LENGTH, SYMBOLS = 2, 4
RATES = (0.02, 0.01)
MOST = 7


@dataclass(frozen=True)
class Problem:
    """draw: a batch of a delay. score: from 0, as good as without a memory, to 1. enough: a loss of one that has it."""

    inputs: int
    features: int
    answers: int
    draw: Callable[[int, int, np.random.Generator], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    enough: float
    tries: float


def _squared(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(output[:, 0, 0], target)


def _share_of_first(output: Tensor, target: Tensor) -> float:
    """Whoever knows the last number and says the mean of the first has an error of 1/12."""
    return 1 - 12 * _squared(output, target).item()


def _entropy(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())


def _above_chance(output: Tensor, target: Tensor) -> float:
    right = (output.argmax(-1) == target).float().mean().item()
    return (right - 1 / SYMBOLS) / (1 - 1 / SYMBOLS)


def _copying(count: int, delay: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    return copying(count, delay, random, length=LENGTH, symbols=SYMBOLS)


PROBLEMS = {
    "adding": Problem(2, 1, 1, adding, _squared, _share_of_first, 0.002, 1.0),
    "copying": Problem(SYMBOLS + 2, SYMBOLS, LENGTH, _copying, _entropy, _above_chance, 0.03, 1.5),
}


@dataclass(frozen=True)
class Carrying:
    """scores: by problem and cell, [delays]: 0 is what one without a memory reaches, 1 everything."""

    delays: tuple[int, ...]
    scores: dict[str, dict[str, np.ndarray]]

    def carried(self, problem: str, cell: str, share: float = 0.9) -> int:
        """The longest delay up to which a cell has that score at all delays; 0: not even at the shortest."""
        there = self.scores[problem][cell] >= share
        count = len(there) if there.all() else int(there.argmin())
        return self.delays[count - 1] if count else 0

    @property
    def summary(self) -> str:
        said = []
        for problem, of_cells in self.scores.items():
            steps = ", ".join(f"{cell} {self.carried(problem, cell)}" for cell in of_cells)
            said.append(f"{problem}: {steps}")
        return f"Carried over so many steps, with a score of 0.9 or more. {'; '.join(said)}."


def run(
    *,
    cells: tuple[str, ...] = ("elman", "lstm", "gru", "mingru", "lru"),
    delays: tuple[int, ...] = (10, 20, 40, 80),
    hidden: int = 32,
    updates: int = 600,
    seed: int = 0,
) -> Carrying:
    """Train every cell on every problem and delay anew, with the same units, updates and learning rates, of which the
    better counts. Gated cells start with gates that are mostly open (`learning.keeping`). updates: of adding; copying
    takes half as many again.
    """
    if len(cells) > MOST:
        raise ValueError(f"cells: {len(cells)} came; expected at most {MOST}, which can be told apart in a figure")
    scores = {
        name: {
            cell: np.array([_score(problem, cell, delay, hidden, updates, seed) for delay in delays]) for cell in cells
        }
        for name, problem in PROBLEMS.items()
    }
    return Carrying(tuple(delays), scores)


def draw(found: Carrying, look: Look) -> Any:
    figure, panels = sheet("Who still knows at the end how it began?", [4.8] * len(found.scores), height=4.2)
    titles = {
        "adding": "adding: what is the sum of the first number\nand the last?",
        "copying": f"copying: which {LENGTH} symbols were there at first,\nand in which order?",
    }
    for axes, (problem, of_cells) in zip(panels, found.scores.items(), strict=True):
        axes.axhline(0, color=look.quiet, linewidth=0.8, linestyle=(0, (4, 4)))
        colours = dict(zip(of_cells, _in_turn(look), strict=False))
        for rank, (cell, scores) in enumerate(of_cells.items()):
            # A little beside each other, so that what is equally high is all seen.
            beside = np.array(found.delays) * 1.045 ** (rank - (len(of_cells) - 1) / 2)
            axes.plot(beside, scores.clip(-0.05, 1), "o-", color=colours[cell], markersize=6, clip_on=False)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set(xticks=found.delays, xticklabels=found.delays, xlabel="delay, in steps", ylim=(-0.08, 1.05))
        axes.set(yticks=[0, 0.5, 1], yticklabels=["no memory", "half", "everything"])
        axes.set_title(titles[problem])
        label_ends(axes, [(scores[-1], cell, colours[cell]) for cell, scores in of_cells.items()])
    return figure


def _in_turn(look: Look) -> list[str]:
    """The tanh network in the warm colour, as in the other figures."""
    blue, warm, green, *others = look.colours
    return [warm, blue, green, *others]


def _score(problem: Problem, cell: str, delay: int, hidden: int, updates: int, seed: int) -> float:
    """Of the network whose loss came lower in training, on sequences that it has not seen."""
    tries = []
    for rate in RATES:
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        network = Reader(keeping(cell, delay + 2 * LENGTH), problem.inputs, hidden, problem.features, problem.answers)
        draw, most = partial(problem.draw, 32, delay, random), round(updates * problem.tries)
        learnt = learn(network, draw, problem.loss, updates=most, rate=rate, clip=1.0, enough=problem.enough)
        tries.append((float(learnt.loss[-30:].mean()), network))
        if tries[-1][0] < problem.enough:
            break
    _, network = min(tries, key=lambda one: one[0])
    x, target = problem.draw(500, delay, np.random.default_rng(seed + 1))
    with torch.no_grad():
        return problem.score(network(x), target)
