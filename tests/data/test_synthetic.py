"""Made-up problems: what is asked can be answered from what is shown, and costs the trivial answer what is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.data.sets.synthetic import ADDING_TRIVIAL, adding, copy_memory, copy_memory_trivial
from everloop.testing import FLOAT32, assert_close

SEEDS = st.integers(0, 99)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(seed=SEEDS, steps=st.integers(2, 30), count=st.integers(0, 9))
def test_adding_marks_one_number_in_each_half(seed: int, steps: int, count: int) -> None:
    x, target = adding(count, steps, generator(seed))
    assert x.shape == (count, steps, 2)
    assert x.dtype == target.dtype == np.float32
    numbers, markers = x[..., 0], x[..., 1]
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert set(np.unique(markers)) <= {0, 1}
    assert (markers[:, : steps // 2].sum(1) == 1).all()
    assert (markers[:, steps // 2 :].sum(1) == 1).all()
    assert_close(target, (numbers * markers).sum(1), FLOAT32)


def test_every_step_of_adding_is_marked_some_time() -> None:
    x, _ = adding(1000, 9, generator())
    assert (x[..., 1].sum(0) > 0).all()


def test_the_trivial_answer_to_adding_costs_what_is_said() -> None:
    squares = (adding(100_000, 4, generator())[1] - 1.0) ** 2
    far = abs(squares.mean() - ADDING_TRIVIAL) / (squares.std() / len(squares) ** 0.5)
    assert far < 4, "standard errors"


@given(seed=SEEDS, delay=st.integers(1, 9), length=st.integers(1, 5), symbols=st.integers(1, 8))
def test_copy_memory_shows_what_it_asks_for(seed: int, delay: int, length: int, symbols: int) -> None:
    x, target = copy_memory(7, delay, generator(seed), length=length, symbols=symbols)
    steps, blank, signal = delay + 2 * length, symbols, symbols + 1
    assert x.shape == (7, steps, symbols + 2)
    assert target.shape == (7, steps)
    assert (x.sum(-1) == 1).all()
    shown = x.argmax(-1)
    asked = steps - length
    assert (shown[:, :length] == target[:, asked:]).all()
    assert (target[:, asked:] < symbols).all()
    assert (target[:, :asked] == blank).all()
    assert (shown[:, asked - 1] == signal).all()
    assert (np.delete(shown, asked - 1, 1)[:, length:] == blank).all()


def test_the_trivial_answer_to_copy_memory_costs_what_is_said() -> None:
    _, target = copy_memory(3, 5, generator(), length=2, symbols=4)
    chances = np.where(target == 4, 1.0, 1 / 4)
    assert_close(copy_memory_trivial(5, length=2, symbols=4), -np.log(chances).mean())


def test_arjovskys_sizes_unless_given() -> None:
    x, target = copy_memory(2, 100, generator())
    assert x.shape == (2, 120, 10)
    assert_close(copy_memory_trivial(100), 10 * np.log(8) / 120)
    assert target.max() == 8


def test_a_seed_fixes_the_sequences() -> None:
    for draw in (adding, copy_memory):
        same, again, other = (draw(5, 20, generator(seed)) for seed in (1, 1, 2))
        assert all((a == b).all() for a, b in zip(same, again, strict=True))
        assert not (same[0] == other[0]).all()


def test_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="steps: 1 came"):
        adding(1, 1, generator())
    with pytest.raises(ValueError, match="delay: 0 came"):
        copy_memory(1, 0, generator())
