"""Measured memory: of states that are known to hold certain inputs, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from everloop import Recurrent, read_cell
from everloop.insight.memory import LEAST, measure_memory, memory
from everloop.testing import FLOAT32, assert_close

HELD = 5

# Scores of a thousand rows or so are themselves drawn: five standard deviations of the R2 of a few units that know
# nothing, of an R2 of a half, or of the share of right answers, whichever is most.
SCATTER = 0.08


def delay_line(inputs: np.ndarray, length: int = HELD) -> np.ndarray:
    """States that are the last inputs, that of the same step among them: [B, T, length * features]."""
    rows = inputs[..., None] if inputs.ndim == 2 else inputs
    steps = rows.shape[1]
    shifted = [np.pad(rows, ((0, 0), (delay, 0), (0, 0)))[:, :steps] for delay in range(length)]
    return np.concatenate(shifted, -1)


def noise(seed: int = 0, count: int = 60, steps: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, steps))


@pytest.mark.parametrize("seed", range(5))
def test_a_delay_line_remembers_its_length_and_no_more(seed: int) -> None:
    inputs = noise(seed)
    found = memory(delay_line(inputs), inputs, range(12), seed=seed)
    assert found.measure == "R2"
    # The ridge takes as much off as noise of that share would.
    assert_close(found.score[:HELD], np.ones(HELD), FLOAT32)
    assert (found.score[HELD:] < SCATTER).all()
    assert abs(found.chance) < SCATTER
    assert found.lost == HELD
    assert abs(found.capacity - HELD) < SCATTER


def test_mixing_the_line_hides_nothing_and_noise_does() -> None:
    inputs = noise()
    line = delay_line(inputs)
    mixed = line @ np.random.default_rng(1).normal(size=(HELD, HELD)) + 3.0
    assert_close(memory(mixed, inputs, range(HELD)).score, np.ones(HELD), FLOAT32)
    # As much noise as there is input: half of the variance can be told.
    spread = np.random.default_rng(2).uniform(-1, 1, line.shape)
    assert np.abs(memory(line + spread, inputs, range(HELD)).score - 0.5).max() < SCATTER


def test_symbols_are_told_by_accuracy() -> None:
    symbols = np.random.default_rng(0).integers(3, 7, (60, 60))
    found = memory(delay_line(np.eye(7)[symbols]), symbols, range(10))
    assert found.measure == "accuracy"
    assert (found.score[:HELD] == 1).all()
    # Four symbols: a quarter is right by chance, and the best of many shuffles is a little better.
    assert np.abs(found.score[HELD:] - 0.25).max() < SCATTER
    assert 0.25 < found.chance < 0.25 + SCATTER
    assert found.lost == HELD
    with pytest.raises(ValueError, match="the score is accuracy; expected R2"):
        _ = found.capacity


def test_a_common_symbol_is_no_memory() -> None:
    """Nine in ten are the same: to say that one always is chance, not memory."""
    symbols = (np.random.default_rng(0).random((60, 60)) < 0.1).astype(int)
    found = memory(np.random.default_rng(1).normal(size=(60, 60, 8)), symbols, range(5))
    assert (found.score > 0.85).all()
    assert found.lost == 0


def test_what_never_moves_says_nothing() -> None:
    found = memory(np.ones((10, 20, 3)), noise(0, 10, 20), range(3))
    assert found.lost == 0
    assert np.abs(found.score).max() < SCATTER


def test_a_layer_that_delays_remembers_that_one_step() -> None:
    cell = read_cell("""
@cell(states="h", gates="h")
def late(x, h, W):
    return shift(W.h @ x, 3) + 0 * h
""")
    torch.manual_seed(0)
    found = measure_memory(Recurrent(cell, 1, 1), range(8), steps=60)
    assert_close(found.score[3], 1.0, FLOAT32)
    assert (np.delete(found.score, 3) < SCATTER).all()


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_capacity_is_never_above_the_number_of_units(cell: str) -> None:
    torch.manual_seed(0)
    layer = Recurrent(cell, 1, 8)
    found = measure_memory(layer, range(30), steps=100)
    # What R2 of nothing scatters by, at as many delays.
    assert 1 < found.capacity < 8 + 30 * LEAST
    assert layer.training


def test_a_leaky_unit_remembers_as_its_leak_says() -> None:
    """h is the sum of (1 - leak)^k u_k: the share of its variance that is due to u_k is (1 - a^2) a^2k."""
    inputs = noise(0, 200, 100)
    keep, held = 0.8, np.zeros((200, 100))
    for step in range(1, 100):
        held[:, step] = keep * held[:, step - 1] + inputs[:, step]
    found = memory(held[..., None], inputs, range(40, 51))
    near = memory(held[:, 40:, None], inputs[:, 40:], range(6))
    assert np.abs(near.score - (1 - keep**2) * keep ** (2 * np.arange(6))).max() < SCATTER
    assert np.abs(found.score).max() < LEAST


def test_what_cannot_be_measured_is_said() -> None:
    inputs = noise(0, 10, 20)
    states = delay_line(inputs)
    with pytest.raises(ValueError, match=r"expected \[B, T, N\] and \[B, T\]"):
        memory(states, inputs[:, 1:])
    with pytest.raises(ValueError, match="3 sequences came; expected 4 or more"):
        memory(states[:3], inputs[:3])
    with pytest.raises(ValueError, match="delays: 0 to 20 came; expected 0 to 19"):
        memory(states, inputs, range(21))
    with pytest.raises(ValueError, match="expected some that differ"):
        memory(states, np.ones((10, 20)))
    with pytest.raises(ValueError, match="expected some that differ"):
        memory(states, np.ones((10, 20), dtype=int))


def test_the_same_seed_gives_the_same() -> None:
    inputs = noise(0, 10, 20)
    first, second = (memory(delay_line(inputs), inputs, seed=3) for _ in range(2))
    assert first.chance == second.chance
    assert first.delays.tolist() == list(range(11))
