"""Weights stored in fewer bits: asked for by name, seen in print, measured against the weights in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from everloop import cells
from everloop.backends import use_backend
from everloop.nn import Recurrent
from everloop.stream import Layers, Stream, StreamPool
from everloop.stream.accuracy import Accuracy
from everloop.testing import FLOAT32, assert_close

STORAGES = ("bfloat16", "int8")


@pytest.fixture
def layers() -> Layers:
    torch.manual_seed(0)
    return Layers.of(Recurrent("gru", 3, 40).eval())


@pytest.fixture
def x(numbers: np.random.Generator) -> np.ndarray:
    return numbers.normal(size=(4, 20, 3)).astype(np.float32)


def test_print_says_what_weights_are_stored_in(layers: Layers) -> None:
    shown = {weights: str(layers.stream(2, weights=weights)) for weights in ("float32", *STORAGES)}
    for weights, text in shown.items():
        assert text.startswith("2 x gru ")
        assert "hidden 40" in text
        assert f"in float32, weights in {weights}: " in text


def test_fewer_bits_are_fewer_bytes() -> None:
    graph = cells.get("elman").graph
    sizes, units = {"input": 64, "hidden": 64}, 64
    weights = {"W": np.zeros((units, 64)), "U": np.zeros((units, 64)), "b": np.zeros(units)}
    full, half, quarter = (Stream(graph, sizes, weights, storage=s).engine.bytes for s in (None, *STORAGES))
    assert full >= 4 * 2 * 64 * 64
    assert 2 * 2 * 64 * 64 <= half < 0.6 * full
    assert 2 * 64 * 64 <= quarter < 0.4 * full


@pytest.mark.parametrize("weights", ["float32", *STORAGES])
def test_weights_are_there_twice_only_for_single_steps_and_chunks(numbers: np.random.Generator, weights: str) -> None:
    torch.manual_seed(0)
    layers = Layers.of(Recurrent("gru", 64, 64).eval())
    matrices = {"float32": 4, "bfloat16": 2, "int8": 1}[weights] * 6 * 64 * 64
    chunk = numbers.normal(size=(5, 64))
    steps, chunks, both = (layers.stream(weights=weights) for _ in range(3))
    expected = both.push(chunk)
    both.reset()
    assert_close(np.stack([both.push(row) for row in chunk]), expected, FLOAT32)
    assert_close(np.stack([steps.push(row) for row in chunk]), expected, FLOAT32)
    assert_close(chunks.push(chunk), expected, FLOAT32)
    for one, times in ((steps, 1), (chunks, 1), (both, 2)):
        assert times * matrices <= one.engine.bytes < times * 1.2 * matrices
        assert f"{one.engine.bytes:,} bytes" in str(one)


@pytest.mark.parametrize("weights", STORAGES)
def test_what_it_costs(layers: Layers, x: np.ndarray, weights: str) -> None:
    """Something, and little; bfloat16 keeps 8 bits of every weight, int8 7 of the largest."""
    exact, narrow = layers.stream(), layers.stream(weights=weights)
    found = narrow.accuracy(x, exact)
    y = np.array([one.push(part) - two.push(part) for one, two, part in fresh(layers, weights, x)])
    assert found.largest == pytest.approx(np.abs(y).max(), rel=FLOAT32.relative)
    assert found.mean == pytest.approx(np.abs(y).mean(), rel=FLOAT32.relative)
    assert 0 < found.mean < found.largest < found.size
    assert str(found).startswith(
        f"weights in {weights}: {narrow.engine.bytes:,} bytes instead of {exact.engine.bytes:,}"
    )


def fresh(layers: Layers, weights: str, x: np.ndarray) -> list[tuple[Stream, Stream, np.ndarray]]:
    return [(layers.stream(weights=weights), layers.stream(), part) for part in x]


def test_one_sequence_or_several(layers: Layers, x: np.ndarray) -> None:
    """The streams compared may be of any batch, and stay where they are."""
    exact, narrow = layers.stream(3), layers.stream(weights="int8")
    narrow.push(x[0, :5])
    before = narrow.snapshot()
    several, alone = narrow.accuracy(x, exact), [narrow.accuracy(part, exact) for part in x]
    assert narrow.snapshot() == before
    assert several.largest == pytest.approx(max(one.largest for one in alone), rel=1e-2)
    assert several.mean == pytest.approx(np.mean([one.mean for one in alone]), rel=1e-2)


def test_the_same_weights_cost_nothing(layers: Layers, x: np.ndarray) -> None:
    found = layers.stream(weights="float32").accuracy(x, layers.stream())
    assert (found.largest, found.mean) == (0, 0)


def test_no_steps() -> None:
    nothing = np.zeros((1, 0, 3))
    assert Accuracy.of("int8", nothing, nothing, bytes=1, exact_bytes=4).largest == 0


@pytest.mark.parametrize("weights", STORAGES)
def test_in_numpy_weights_are_rounded_alike(layers: Layers, x: np.ndarray, weights: str) -> None:
    compiled = layers.stream(4, weights=weights).push(x)
    with use_backend("reference"):
        plain = layers.stream(4, weights=weights)
    assert_close(plain.push(x), compiled, FLOAT32)


def test_pools_have_it_too(layers: Layers, x: np.ndarray) -> None:
    pool = layers.pool(weights="int8")
    id = pool.open()
    assert_close(pool.push({id: x[0]})[id], layers.stream(weights="int8").push(x[0]), FLOAT32)
    part = layers.one_step()[0]
    other = StreamPool(part.graph, part.sizes, part.weights, storage="int8")
    assert other.engine.storage == "int8"


def test_snapshots_are_of_one_storage(layers: Layers) -> None:
    snapshot = layers.stream(weights="int8").snapshot()
    layers.stream(weights="int8").restore(snapshot)
    for weights in (None, "bfloat16"):
        with pytest.raises(ValueError, match="snapshot: it is of another model"):
            layers.stream(weights=weights).restore(snapshot)


def test_mistakes(layers: Layers, model: Callable[..., Any]) -> None:
    known = "float32, bfloat16, int8"
    with pytest.raises(ValueError, match=f"storage of weights: 'int4' came; expected one of {known}"):
        layers.stream(weights="int4")
    with pytest.raises(ValueError, match="storage of weights: 'int8' came; what is computed in float64 is stored so"):
        layers.stream(dtype=np.float64, weights="int8")
    layers.weights["layers.0.0.U"][3, 4] = np.inf
    with pytest.raises(ValueError, match="which int8 cannot store"):
        layers.stream(weights="int8")
