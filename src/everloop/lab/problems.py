"""Problems made up to see what a network remembers: examples without end, an answer that can be checked, and what an
answer without memory is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from everloop.data.sets import synthetic

SYMBOLS = "ABCDEFGH"

Arrays = tuple[NDArray[np.float32], NDArray[Any], NDArray[np.bool_]]
"""x [B, T, I]; the target of every step, [B, T] symbols or [B, T] values; whether the step is asked, [B, T]."""


@dataclass(frozen=True)
class Problem:
    """make(count, length, generator) gives `count` examples of exactly `length` steps, at least `shortest`.

    names: of the output symbols; empty where the answer is a value. chance(length): the loss of the best answer that
    remembers nothing, nats per asked step (values: mean squared error). chance_score: its score.
    """

    name: str
    title: str
    features: int
    names: tuple[str, ...]
    length: int
    shortest: int
    make: Callable[[int, int, np.random.Generator], Arrays]
    shown: Callable[[NDArray[np.float32]], list[Any]]
    chance: Callable[[int], float]
    chance_score: float

    @property
    def outputs(self) -> int:
        return len(self.names) or 1

    @property
    def kind(self) -> str:
        return "symbols" if self.names else "values"

    def about(self) -> dict[str, Any]:
        facts = {"name": self.name, "about": self.title, "length": self.length, "shortest": self.shortest}
        return {**facts, "sample": self.kind}

    def batch(self, count: int, length: int, generator: np.random.Generator) -> Batch:
        if length < self.shortest:
            raise ValueError(f"length: {length} came; {self.name} needs {self.shortest} steps or more")
        x, target, asked = self.make(count, length, generator)
        return Batch(self, torch.from_numpy(x), torch.from_numpy(target), torch.from_numpy(asked))


@dataclass(frozen=True)
class Batch:
    """Examples of a problem, and how answers y [B, T, O] to them are judged."""

    problem: Problem
    x: Tensor
    target: Tensor
    asked: Tensor

    def loss(self, y: Tensor, begin: int = 0) -> Tensor:
        """The mean over all asked steps of the batch, of those from `begin` on that y holds: cross entropy in nats, or
        squared error. What windows of a sequence give adds up to the whole.
        """
        end = begin + y.shape[1]
        target, asked = self.target[:, begin:end], self.asked[:, begin:end]
        if self.problem.names:
            each = nn.functional.cross_entropy(y.transpose(1, 2), target, reduction="none")
        else:
            each = (y[..., 0] - target) ** 2
        return torch.where(asked, each, 0.0).sum() / self.asked.sum()

    def score(self, y: Tensor) -> float:
        """1 is perfect: the share of asked steps that are right; of values, the share of their variance explained."""
        target, said = self.target[self.asked], y[self.asked]
        if self.problem.names:
            return float((said.argmax(-1) == target).float().mean())
        return float(1 - ((said[..., 0] - target) ** 2).mean() / target.var(unbiased=False))

    def at_chance(self, score: float) -> bool:
        """Whether that score could be one without memory: no more than three standard errors above it."""
        chance, count = self.problem.chance_score, int(self.asked.sum())
        spread = math.sqrt(chance * (1 - chance) / count) if self.problem.names else 1 / math.sqrt(count)
        return score <= chance + 3 * spread

    def sample(self, y: Tensor, row: int = 0) -> dict[str, Any]:
        """One example for reading: what came, what was wanted and what was said, null where nothing is asked."""
        names, asked = self.problem.names, self.asked[row].tolist()
        said = y[row].argmax(-1).tolist() if names else y[row, :, 0].tolist()
        rows = [self.target[row].tolist(), said]
        wanted, said = ([_name(names, v) if a else None for v, a in zip(r, asked, strict=True)] for r in rows)
        shown = self.problem.shown(self.x[row].numpy())
        return {"kind": self.problem.kind, "input": shown, "wanted": wanted, "said": said}


def _name(names: tuple[str, ...], value: Any) -> Any:
    return names[int(value)] if names else (value if math.isfinite(value) else None)


# Copy: symbols, a pause, a signal; then the symbols again


COPIED = 4


def _copy(count: int, length: int, generator: np.random.Generator) -> Arrays:
    symbols = len(SYMBOLS)
    x, target = synthetic.copy_memory(count, length - 2 * COPIED, generator, length=COPIED, symbols=symbols)
    asked = np.zeros(target.shape, dtype=bool)
    asked[:, -COPIED:] = True
    return x, np.where(asked, target, 0), asked


def _shown_copy(x: NDArray[np.float32]) -> list[str]:
    return [(SYMBOLS + "·?")[k] for k in x.argmax(-1)]


# Adding: two marked numbers; their sum at the end


def _adding(count: int, length: int, generator: np.random.Generator) -> Arrays:
    x, total = synthetic.adding(count, length, generator)
    target, asked = np.zeros((count, length), dtype=np.float32), np.zeros((count, length), dtype=bool)
    target[:, -1], asked[:, -1] = total, True
    return x, target, asked


def _shown_adding(x: NDArray[np.float32]) -> list[list[float]]:
    return x.tolist()


# Temporal order: which of two symbols came first, and which second, among distractors


ORDER = ("XX", "XY", "YX", "YY")


def _order(count: int, length: int, generator: np.random.Generator) -> Arrays:
    """Hochreiter and Schmidhuber 1997, experiment 6a, with the places scaled to the length: X or Y at one step of the
    second tenth and at one of the sixth, distractors a to d elsewhere; four classes.
    """
    rows, tenth = np.arange(count), max(1, length // 10)
    written = generator.integers(2, 6, (count, length))
    first, second = generator.integers(0, 2, (2, count))
    written[rows, generator.integers(tenth, 2 * tenth, count)] = first
    written[rows, generator.integers(5 * tenth, 6 * tenth, count)] = second
    target, asked = np.zeros((count, length), dtype=np.int64), np.zeros((count, length), dtype=bool)
    target[:, -1], asked[:, -1] = 2 * first + second, True
    return np.eye(6, dtype=np.float32)[written], target, asked


def _shown_order(x: NDArray[np.float32]) -> list[str]:
    return ["XYabcd"[k] for k in x.argmax(-1)]


# Sine: two waves of random period and phase, seen for half of the time and then to be carried on unseen


def _sine(count: int, length: int, generator: np.random.Generator) -> Arrays:
    time = np.arange(length + 1, dtype=np.float32)
    period = generator.uniform(8, 24, (count, 1)).astype(np.float32)
    phase = generator.uniform(0, 2 * np.pi, (count, 1)).astype(np.float32)
    wave = np.sin(2 * np.pi * time / period + phase)
    seen = np.zeros((count, length), dtype=np.float32)
    seen[:, : length // 2] = 1
    x = np.stack([wave[:, :-1] * seen, seen], -1)
    asked = np.broadcast_to(time[:-1] >= length // 2, (count, length)).copy()
    return x, wave[:, 1:].copy(), asked


def _shown_sine(x: NDArray[np.float32]) -> list[float | None]:
    return [float(value) if seen else None for value, seen in x]


# Brackets: at every step, which bracket closes the innermost that is open


BRACKETS = "()[]{}"
NONE_OPEN = "·"


def brackets(length: int, generator: np.random.Generator, deepest: int = 4) -> tuple[list[int], list[int]]:
    """Places in BRACKETS of a text in which every bracket closes the innermost open one; and at each step the kind
    that is then innermost (0, 1, 2; 3: none is open).
    """
    written, innermost, open_ones = [], [], []
    for _ in range(length):
        closes = bool(open_ones) and (len(open_ones) == deepest or generator.random() < 0.45)
        kind = open_ones.pop() if closes else int(generator.integers(0, 3))
        if not closes:
            open_ones.append(kind)
        written.append(2 * kind + closes)
        innermost.append(open_ones[-1] if open_ones else 3)
    return written, innermost


def _brackets(count: int, length: int, generator: np.random.Generator) -> Arrays:
    """Asked is after a bracket that closes: then the answer stands further back."""
    made = [brackets(length, generator) for _ in range(count)]
    written = np.array([row for row, _ in made])
    target = np.array([row for _, row in made])
    asked = (written % 2 == 1) & (target < 3)
    return np.eye(6, dtype=np.float32)[written], np.where(asked, target, 0), asked


def _shown_brackets(x: NDArray[np.float32]) -> list[str]:
    return [BRACKETS[k] for k in x.argmax(-1)]


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem(
            "copy",
            f"{COPIED} symbols are shown; after a pause they are wanted again, in their order",
            len(SYMBOLS) + 2, tuple(SYMBOLS), 20, 2 * COPIED + 1, _copy, _shown_copy,
            lambda _: math.log(len(SYMBOLS)), 1 / len(SYMBOLS),
        ),
        Problem(
            "adding", "two of many numbers are marked; their sum is wanted at the end",
            2, (), 30, 4, _adding, _shown_adding, lambda _: synthetic.ADDING_TRIVIAL, 0.0,
        ),
        Problem(
            "order", "two letters stand among distractors; which were they, and which came first?",
            6, ORDER, 30, 10, _order, _shown_order, lambda _: math.log(4), 1 / 4,
        ),
        Problem(
            "sine", "a wave is seen for half of the time; then it has to be carried on unseen",
            2, (), 60, 16, _sine, _shown_sine, lambda _: 0.5, 0.0,
        ),
        Problem(
            "brackets", "which bracket is open innermost, after one was closed?",
            6, ("(", "[", "{"), 30, 8, _brackets, _shown_brackets, lambda _: math.log(3), 1 / 3,
        ),
    )
}  # fmt: skip


def get(name: str) -> Problem:
    """The problem of that name."""
    if name not in PROBLEMS:
        raise ValueError(f"problem: {name!r} came; expected {', '.join(PROBLEMS)}")
    return PROBLEMS[name]
