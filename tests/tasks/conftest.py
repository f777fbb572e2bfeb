"""Small data and small networks, the one place for tolerances, and ways to disturb a training."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from everloop import Classifier, Generator

WORDS = ("the", "a", "film", "story", "plot", "actor", "scene", "music", "of", "with", "in", "very", "quite", "some")


@dataclass(frozen=True)
class Limits:
    learned_accuracy: float = 0.95  # of a toy that one word gives away
    learned_loss: float = 0.05  # nats per letter of a text that repeats itself
    single: float = 1e-6  # two ways to one number in float32: sums in another order
    double: float = 1e-12  # the same in float64
    frequency: float = 0.04  # share of 4,000 draws: five standard deviations at most


@pytest.fixture(scope="session")
def limits() -> Limits:
    return Limits()


def toy_reviews(rows: int) -> tuple[list[str], list[str]]:
    """Random words, one of them good or bad; no text twice."""
    dice = random.Random(0)
    texts, labels = [], []
    for row in range(rows):
        words = [dice.choice(WORDS) for _ in range(dice.randint(2, 7))]
        words.insert(dice.randrange(len(words) + 1), ["bad", "good"][row % 2])
        texts.append(" ".join([*words, str(row)]))
        labels.append(["negative", "positive"][row % 2])
    return texts, labels


@pytest.fixture(scope="session")
def reviews() -> tuple[list[str], list[str]]:
    return toy_reviews(60)


@pytest.fixture(scope="session")
def many_reviews() -> tuple[list[str], list[str]]:
    """Enough to learn from."""
    return toy_reviews(240)


@pytest.fixture(scope="session")
def letters() -> str:
    """A text that repeats itself every three letters."""
    return "abc" * 200


@pytest.fixture
def small() -> Callable[..., Classifier]:
    """A classifier with six updates an epoch on `reviews`."""

    def make(**options: Any) -> Classifier:
        chosen = {"hidden": 3, "embedding": 4, "batch": 8, "epochs": 3, "min_count": 1, "lr": 0.02} | options
        return Classifier(**chosen)

    return make


@pytest.fixture
def small_generator() -> Callable[..., Generator]:
    """A generator with seven updates an epoch on `letters`."""

    def make(**options: Any) -> Generator:
        chosen = {"hidden": 4, "embedding": 3, "batch": 4, "window": 16, "epochs": 3, "lr": 0.02} | options
        return Generator(**chosen)

    return make


@pytest.fixture(scope="session")
def classifier_run(tmp_path_factory: pytest.TempPathFactory, reviews: tuple[list[str], list[str]]) -> Path:
    """The run folder of a classifier trained for a moment. To be read only: see `copy_of`."""
    folder = tmp_path_factory.mktemp("trained") / "classifier"
    task = Classifier(hidden=3, embedding=4, epochs=2, min_count=1, lr=0.02, batch=16)
    task.fit(*reviews, out=folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def generator_run(tmp_path_factory: pytest.TempPathFactory, letters: str) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "generator"
    Generator(hidden=4, embedding=3, epochs=1, window=16).fit([letters], out=folder, quiet=True)
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copied"))

    return copy


AtUpdate = Callable[[type, int, Callable[[], object]], AbstractContextManager[None]]


@pytest.fixture
def at_update(monkeypatch: pytest.MonkeyPatch) -> AtUpdate:
    """Have something happen in the k-th update of a training, before its loss is computed."""

    @contextmanager
    def arrange(task: type, k: int, happens: Callable[[], object]) -> Iterator[None]:
        plain = task.problem

        def problem(self: Any) -> Any:
            found = plain(self)
            loss, count = found.loss, itertools.count(1)

            def watched(*args: Any) -> Any:
                if next(count) == k:
                    happens()
                return loss(*args)

            found.loss = watched
            return found

        with monkeypatch.context() as patch:
            patch.setattr(task, "problem", problem)
            yield

    return arrange


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    """Whether two trained tasks are the same to the last bit, but for the seconds they took."""

    def compare(one: Any, other: Any) -> bool:
        weights, others = one.network_.state_dict(), other.network_.state_dict()
        return (
            _without_seconds(one.outcome_.history) == _without_seconds(other.outcome_.history)
            and one.results_ == other.results_
            and one.outcome_.best_epoch == other.outcome_.best_epoch
            and weights.keys() == others.keys()
            and all(torch.equal(value, others[name]) for name, value in weights.items())
        )

    return compare


def _without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]
