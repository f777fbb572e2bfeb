"""Trained tasks with weights in bfloat16 and int8, and what that costs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop import Classifier, load
from everloop.tasks import running

STORAGES = ("bfloat16", "int8")


@pytest.fixture(scope="module", params=["words", "chars"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, reviews: Any) -> Path:
    """The run folder of a classifier in one direction; that of characters looks at pairs of them."""
    folder = tmp_path_factory.mktemp("storage") / request.param
    task = Classifier(hidden=3, embedding=4, epochs=2, min_count=1, lr=0.02, batch=16, unit=request.param)
    task.set_params(bidirectional=False).fit(*reviews, out=folder, quiet=True)
    return folder


@pytest.mark.parametrize("weights", STORAGES)
def test_of_a_classifier(classifier: Path, reviews: Any, weights: str) -> None:
    model, text = running.load(classifier), reviews[0][0]
    live, exact = model.stream(weights), model.stream()
    found = live.accuracy(text)
    assert 0 < found.mean < found.largest < found.size
    assert str(found).startswith(f"weights in {weights}: ")
    again = live.fork()
    y = live.push(text)
    assert not np.array_equal(y, exact.push(text))
    assert np.array_equal(again.push(text), y)
    assert np.array_equal(load(classifier).stream(weights).push(text), y)
    assert model.stream("float32").accuracy(text).largest == 0


@pytest.mark.parametrize("weights", STORAGES)
def test_of_a_generator(generator_run: Path, weights: str) -> None:
    model = running.load(generator_run)
    live = model.stream("abc", weights=weights)
    found = live.accuracy("abcabc")
    assert 0 < found.mean < found.largest < found.size
    assert np.array_equal(load(generator_run).stream("abc", weights=weights).probabilities, live.probabilities)
    assert not np.array_equal(model.stream("abc").probabilities, live.probabilities)
    with pytest.raises(ValueError, match="snapshot: it is of another model"):
        model.stream().restore(live.snapshot())


def test_nothing_costs_nothing(classifier: Path, generator_run: Path) -> None:
    streams: list[Callable[..., Any]] = [running.load(classifier).stream, running.load(generator_run).stream]
    for stream in streams:
        assert stream(weights="int8").accuracy("").largest == 0
