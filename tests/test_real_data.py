"""Real data: what the README promises (`make slow`), and a small version of each for every run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from everloop import Classifier, Generator

REVIEWS_ACCURACY = 0.76
REVIEWS_SECONDS = 5 * 60
SHAKESPEARE_NATS = 1.60
SHAKESPEARE_SECONDS = 15 * 60


@pytest.mark.slow
def test_reviews_reach_their_accuracy(shared_data: Path) -> None:
    accuracies = []
    for seed in (0, 1, 2):
        start = time.perf_counter()
        model = Classifier(seed=seed).fit(shared_data / "reviews_mr.csv")
        assert time.perf_counter() - start < REVIEWS_SECONDS
        accuracies.append(model.results_[0][1]["accuracy"])
        print(f"seed {seed}: {model.results_}")
    assert sum(accuracies) / 3 >= REVIEWS_ACCURACY


@pytest.mark.slow
def test_shakespeare_reaches_its_loss(shared_data: Path) -> None:
    start = time.perf_counter()
    model = Generator().fit(shared_data / "tinyshakespeare.txt")
    assert time.perf_counter() - start < SHAKESPEARE_SECONDS
    print(model.results_, model.generate("KATHARINA:", length=600, seed=0))
    assert model.results_[0][1]["loss"] <= SHAKESPEARE_NATS
    assert model.generate(length=2000, seed=0).count(":\n") >= 3, (
        "it should have the form of a play: NAME, colon, speech"
    )


def test_some_reviews(shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "reviews_mr.csv").read_text(encoding="utf-8").splitlines()
    few = tmp_path / "few.csv"
    few.write_text("\n".join([lines[0], *lines[1::9]]), encoding="utf-8")
    model = Classifier(embedding=64, hidden=32, epochs=3).fit(few, quiet=True)
    assert [name for name, _ in model.results_] == [
        "lstm (classifier)",
        "majority class",
        "logistic regression on word unigrams and bigrams",
    ]
    assert model.results_[0][1]["accuracy"] > model.results_[1][1]["accuracy"]


def test_some_shakespeare(shared_data: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text((shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")[:60_000], encoding="utf-8")
    model = Generator(hidden=64, batch=8, epochs=3).fit(few, quiet=True)
    history = [row["valid_loss"] for row in model.outcome_.history]
    assert history == sorted(history, reverse=True)
    assert history[-1] < 2.6, "well below the 3.3 nats of letters by frequency"
