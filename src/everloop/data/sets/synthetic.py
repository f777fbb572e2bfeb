"""Sequences made up to test memory: problems that only a network which remembers can solve.

Each gives inputs [B, T, F] and targets from a generator of numpy, so the same seed gives the same examples. What the
best answer without memory costs is beside it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]

ADDING_TRIVIAL = 1 / 6
"""Mean squared error of answering 1, the mean, to the adding problem: twice the variance of a number from [0, 1)."""


def adding(count: int, steps: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """The adding problem: at every step a number and a marker; the sum of the two marked numbers is wanted.

    x [count, steps, 2]: x[..., 0] uniform in [0, 1), x[..., 1] is 1 at one step of the first half and at one of the
    second, else 0. target [count]: the sum, between 0 and 2.

    Hochreiter, Schmidhuber 1997, Long Short-Term Memory, in the form of Le, Jaitly, Hinton 2015 (all sequences of
    one length, the numbers positive, no marks at the ends).
    """
    if steps < 2:
        raise ValueError(f"steps: {steps} came; expected 2 or more: a marker in each half")
    x = np.zeros((count, steps, 2), dtype=np.float32)
    x[..., 0] = generator.random((count, steps), dtype=np.float32)
    rows = np.arange(count)
    first = generator.integers(0, steps // 2, count)
    second = generator.integers(steps // 2, steps, count)
    x[rows, first, 1] = x[rows, second, 1] = 1
    return x, x[rows, first, 0] + x[rows, second, 0]


def copy_memory(
    count: int, delay: int, generator: np.random.Generator, *, length: int = 10, symbols: int = 8
) -> tuple[Floats, Whole]:
    """Copy memory: some symbols are shown, a delay passes, a signal comes, and the symbols are wanted in their order.

    With T = delay + 2 * length steps: x [count, T, symbols + 2], one feature per symbol, then one for a blank and one
    for the signal. First `length` symbols, then `delay` steps of which the last is the signal, blanks elsewhere.
    target [count, T]: the blank (number `symbols`) until the signal has come, then the symbols (numbers from 0).

    Hochreiter, Schmidhuber 1997; in the form of Arjovsky, Shah, Bengio 2016, Unitary Evolution Recurrent Neural
    Networks, whose 10 symbols out of 8 are the values here unless given.
    """
    if delay < 1:
        raise ValueError(f"delay: {delay} came; expected 1 or more: the signal is its last step")
    blank, signal = symbols, symbols + 1
    shown = generator.integers(0, symbols, (count, length))
    written = np.full((count, delay + 2 * length), blank)
    written[:, :length] = shown
    written[:, length + delay - 1] = signal
    target = np.full_like(written, blank)
    target[:, -length:] = shown
    return np.eye(symbols + 2, dtype=np.float32)[written], target


def copy_memory_trivial(delay: int, *, length: int = 10, symbols: int = 8) -> float:
    """Mean cross entropy, in nats, of a blank for sure until the signal has come, and then of any symbol alike."""
    return length * math.log(symbols) / (delay + 2 * length)
