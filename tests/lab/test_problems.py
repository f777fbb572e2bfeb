"""The problems: examples that are what they say, losses and scores that are right, and what chance is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from everloop import cells
from everloop.lab import problems
from everloop.lab.problems import PROBLEMS, Batch
from everloop.lab.training import Training
from everloop.testing import FLOAT32, assert_close

MANY = 2_000


def batch_of(name: str, count: int = 32, length: int | None = None, seed: int = 0) -> Batch:
    problem = problems.get(name)
    return problem.batch(count, length or problem.length, np.random.default_rng(seed))


def perfect(batch: Batch) -> Tensor:
    """Answers that are right and sure of it."""
    if batch.problem.names:
        return 100.0 * torch.nn.functional.one_hot(batch.target, batch.problem.outputs).float()
    return batch.target[..., None].clone()


@pytest.mark.parametrize("name", PROBLEMS)
def test_examples_have_the_shapes_that_are_said(name: str) -> None:
    problem = problems.get(name)
    for length in (problem.shortest, problem.length, 100):
        batch = batch_of(name, 5, length)
        assert batch.x.shape == (5, length, problem.features)
        assert batch.x.dtype == torch.float32
        assert batch.target.shape == batch.asked.shape == (5, length)
        assert batch.asked.any()
    with pytest.raises(ValueError, match=f"{name} needs {problem.shortest} steps or more"):
        batch_of(name, 5, problem.shortest - 1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_same_seed_gives_the_same_examples(name: str) -> None:
    one, other, third = batch_of(name), batch_of(name), batch_of(name, seed=1)
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.target, other.target)
    assert not torch.equal(one.x, third.x)


@pytest.mark.parametrize("name", PROBLEMS)
def test_right_answers_cost_nothing_and_score_one(name: str) -> None:
    batch = batch_of(name)
    y = perfect(batch)
    assert_close(batch.loss(y), 0.0, FLOAT32)
    assert_close(batch.score(y), 1.0, FLOAT32)
    assert not batch.at_chance(batch.score(y))
    y[~batch.asked] = 7.0
    assert_close(batch.loss(y), 0.0, FLOAT32, "what is not asked does not count")
    sample = batch.sample(y)
    assert sample["said"] == pytest.approx(sample["wanted"])
    assert [value is not None for value in sample["wanted"]] == batch.asked[0].tolist()
    assert len(sample["input"]) == batch.x.shape[1]


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_loss_of_windows_adds_up_to_the_whole(name: str) -> None:
    batch = batch_of(name)
    y = torch.randn(*batch.target.shape, batch.problem.outputs, generator=torch.manual_seed(0))
    cut = 7
    assert_close(batch.loss(y[:, :cut]) + batch.loss(y[:, cut:], begin=cut), batch.loss(y), FLOAT32)


@pytest.mark.parametrize("name", PROBLEMS)
def test_chance_is_what_the_best_answer_without_memory_costs(name: str) -> None:
    """Symbols: all alike; values: the mean. Measured on many examples, within three standard errors."""
    batch = batch_of(name, MANY)
    if batch.problem.names:
        y = torch.zeros(*batch.target.shape, batch.problem.outputs)
        counts = torch.bincount(batch.target[batch.asked], minlength=batch.problem.outputs) / batch.asked.sum()
        spread = 3 * math.sqrt(1 / MANY)
        assert (counts - batch.problem.chance_score).abs().max() < spread, "answers are alike"
        assert_close(batch.loss(y), batch.problem.chance(batch.x.shape[1]), FLOAT32)
    else:
        errors = (batch.target[batch.asked] - batch.target[batch.asked].mean()) ** 2
        spread = 3 * float(errors.std()) / math.sqrt(MANY)
        assert abs(float(errors.mean()) - batch.problem.chance(batch.x.shape[1])) < spread


@pytest.mark.parametrize("name", PROBLEMS)
def test_guessing_is_at_chance(name: str) -> None:
    batch = batch_of(name, MANY)
    y = torch.randn(*batch.target.shape, batch.problem.outputs, generator=torch.manual_seed(1))
    assert batch.at_chance(batch.score(y))


def test_copy_wants_what_was_shown() -> None:
    sample = batch_of("copy").sample(perfect(batch_of("copy")))
    assert sample["wanted"][-4:] == sample["input"][:4]
    assert sample["input"][4:15] == ["·"] * 11
    assert sample["input"][15] == "?"


def test_adding_wants_the_sum_of_the_marked() -> None:
    batch = batch_of("adding")
    rows = batch.sample(perfect(batch))["input"]
    marked = [value for value, mark in rows if mark]
    assert len(marked) == 2
    assert_close(float(batch.target[0, -1]), sum(marked), FLOAT32)


def test_order_wants_the_two_letters_in_their_order() -> None:
    batch = batch_of("order", MANY)
    for row in range(20):
        sample = batch.sample(perfect(batch), row)
        assert "".join(letter for letter in sample["input"] if letter in "XY") == sample["wanted"][-1]
        first, second = (k for k, letter in enumerate(sample["input"]) if letter in "XY")
        assert 3 <= first < 6
        assert 15 <= second < 18


def test_sine_goes_on_where_nothing_is_seen() -> None:
    batch = batch_of("sine")
    sample = batch.sample(perfect(batch))
    assert all(value is None for value in sample["input"][30:])
    seen, wanted = np.array(sample["input"][:30]), np.array(sample["wanted"][30:])
    # A wave is known by two values: s[t + 1] = 2 cos(w) s[t] - s[t - 1].
    twice = np.linalg.lstsq(seen[1:-1, None], seen[2:] + seen[:-2], rcond=None)[0][0]
    assert_close(wanted[2:], twice * wanted[1:-1] - wanted[:-2], FLOAT32)


def test_brackets_close_the_innermost_that_is_open() -> None:
    batch = batch_of("brackets", MANY)
    for row in range(50):
        sample, opened = batch.sample(perfect(batch), row), []
        for bracket, wanted in zip(sample["input"], sample["wanted"], strict=True):
            if bracket in "([{":
                opened.append(bracket)
                assert wanted is None
            else:
                assert "([{".index(opened.pop()) == ")]}".index(bracket)
                assert wanted == (opened[-1] if opened else None)
            assert len(opened) <= 4


def test_an_unknown_problem_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'cope' came; expected copy, adding, order, sine, brackets"):
        problems.get("cope")


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_network_learns_it(name: str) -> None:
    """A small LSTM on the shortest form, in a few hundred updates: it beats what chance costs."""
    problem = problems.get(name)
    length = max(10, problem.shortest)
    training = Training(cells.get("lstm"), problem, length, hidden=24, lr=0.02, clip=1.0)
    held_out, y = training.answers()
    assert held_out.at_chance(held_out.score(y))
    for _ in range(300):
        training.update()
    held_out, y = training.answers()
    assert not held_out.at_chance(held_out.score(y))
    assert float(held_out.loss(y)) < problem.chance(length)
