"""Measured memory: what can still be read from the state of an input some steps ago, by a linear probe.

What a linear probe finds is there for the next layer to use; what it does not find may still be there, folded. The
probe is fitted on some sequences and judged on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from everloop.insight.alone import evaluating
from everloop.nn import Recurrent

RIDGE = 1e-6
"""What is added to the variance of every unit, as a share of the mean variance: so much noise would do the same."""

FITTED = 0.7
SHUFFLES = 20

LEAST = 0.01
"""An input of which the probe finds less than that share is lost."""


@dataclass(frozen=True)
class Memory:
    """score: what the probe reaches on sequences that it was not fitted on, for each delay. For values the share of the
    variance that it explains (R2, 0 for saying the mean; below 0 for worse); for symbols accuracy. chance: the best of
    all probes, SHUFFLES for each delay, that were asked for the inputs of other sequences.
    """

    delays: np.ndarray
    score: np.ndarray
    chance: float
    measure: str

    @property
    def lost(self) -> int | None:
        """The first delay at which the probe finds less than LEAST of what lies between chance and everything; None:
        not within these.
        """
        below = np.flatnonzero(self.score - self.chance < LEAST * (1 - self.chance))
        return int(self.delays[below[0]]) if len(below) else None

    @property
    def capacity(self) -> float:
        """The R2 of all delays together, in steps: the memory capacity of Jaeger 2001, Short term memory in echo state
        networks. Never above the number of units if the inputs are independent of each other.
        """
        if self.measure != "R2":
            raise ValueError(f"capacity: the score is {self.measure}; expected R2, which adds up")
        return float(self.score.clip(0).sum())


def memory(
    states: ArrayLike, inputs: ArrayLike, delays: Sequence[int] | None = None, *, ridge: float = RIDGE, seed: int = 0
) -> Memory:
    """How much of the input k steps ago a linear probe finds in the state, for each delay k.

    states [B, T, N] after each step. inputs: numbers [B, T], or symbols if they are whole. delays: 0 (the input of the
    same step) to half of the sequence unless given; each has to leave a step. The same steps are judged for all delays.
    """
    held, given = np.asarray(states, dtype=np.float64), np.asarray(inputs)
    if held.ndim != 3 or given.shape != held.shape[:2]:
        raise ValueError(f"states {held.shape} and inputs {given.shape} came; expected [B, T, N] and [B, T]")
    batch, time = given.shape
    asked = np.arange(time // 2 + 1) if delays is None else np.asarray(delays)
    if batch < 4:
        raise ValueError(f"{batch} sequences came; expected 4 or more: some to fit the probe, others to judge it")
    if asked.min() < 0 or asked.max() >= time:
        raise ValueError(f"delays: {asked.min()} to {asked.max()} came; expected 0 to {time - 1}, for {time} steps")
    fitted = max(2, min(batch - 2, round(FITTED * batch)))
    begin = int(asked.max())
    probe = _Probe(held[:fitted, begin:], held[fitted:, begin:], ridge)
    targets = _Values(given) if given.dtype.kind == "f" else _Symbols(given)
    random = np.random.default_rng(seed)
    others = [_elsewhere(fitted, batch, random) for _ in range(SHUFFLES)]
    score, chance = [], []
    for delay in asked:
        # One fit for the truth and all shuffles.
        columns = targets.columns[:, begin - delay : time - delay]
        answers = np.concatenate([columns, *(columns[order] for order in others)], -1)
        found = np.split(probe.read(answers[:fitted]), SHUFFLES + 1, -1)
        truth = [columns[order][fitted:] for order in (np.arange(batch), *others)]
        scores = [targets.score(*pair) for pair in zip(found, truth, strict=True)]
        score.append(scores[0])
        chance += scores[1:]
    return Memory(asked, np.array(score), max(chance), targets.measure)


def measure_memory(
    layer: Recurrent,
    delays: Sequence[int] | None = None,
    *,
    count: int = 64,
    steps: int = 200,
    feature: int = 0,
    seed: int = 0,
) -> Memory:
    """The memory of a layer for noise: every feature of x is drawn anew at every step, from -1 to 1; the probe asks for
    one of them. count: sequences. What is read is y, the output of the last layer.
    """
    random = np.random.default_rng(seed)
    like = layer.get_buffer("_like")
    x = torch.as_tensor(random.uniform(-1, 1, (count, steps, layer.input_size))).to(like)
    with evaluating(layer), torch.no_grad():
        y, _ = layer(x)
    return memory(y.cpu().double().numpy(), x[..., feature].cpu().double().numpy(), delays, seed=seed)


class _Probe:
    """Ridge regression with a constant, from the states of some sequences to whatever is asked, for the states of
    others.
    """

    def __init__(self, fitted: np.ndarray, judged: np.ndarray, ridge: float) -> None:
        self._rows = fitted.reshape(-1, fitted.shape[-1])
        self._mean = self._rows.mean(0)
        self._rows = self._rows - self._mean
        self._judged = judged - self._mean
        squares = self._rows.T @ self._rows
        # A state that never moves says nothing, and the probe answers the mean.
        slack = ridge * np.trace(squares) / len(squares) or 1.0
        self._squares = squares + slack * np.eye(len(squares))

    def read(self, answers: np.ndarray) -> np.ndarray:
        """answers [B, T, A] of the sequences that it is fitted on; what it says of the others."""
        rows = answers.reshape(-1, answers.shape[-1])
        weights = np.linalg.solve(self._squares, self._rows.T @ (rows - rows.mean(0)))
        return self._judged @ weights + rows.mean(0)


class _Values:
    measure = "R2"

    def __init__(self, given: np.ndarray) -> None:
        self.columns = given[..., None].astype(np.float64)

    def score(self, said: np.ndarray, truth: np.ndarray) -> float:
        spread = ((truth - truth.mean()) ** 2).sum()
        if not spread:
            raise ValueError(f"inputs: {truth.flat[0]:g} at every step came; expected some that differ, to remember")
        return float(1 - ((said - truth) ** 2).sum() / spread)


class _Symbols:
    measure = "accuracy"

    def __init__(self, given: np.ndarray) -> None:
        known, places = np.unique(given, return_inverse=True)
        if len(known) < 2:
            raise ValueError(f"inputs: {known[0]} at every step came; expected some that differ, to remember")
        self.columns = np.eye(len(known))[places.reshape(given.shape)]

    def score(self, said: np.ndarray, truth: np.ndarray) -> float:
        return float((said.argmax(-1) == truth.argmax(-1)).mean())


def _elsewhere(fitted: int, batch: int, random: np.random.Generator) -> np.ndarray:
    """An order of sequences in which none is in its own place, of those fitted and of the others apart."""
    parts = [np.arange(fitted), np.arange(fitted, batch)]
    return np.concatenate([np.roll(order, 1)[np.argsort(order)] for order in map(random.permutation, parts)])
