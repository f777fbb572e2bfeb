"""Weights in bfloat16 and int8: rounded as they should be, and laid out where the tiles read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from everloop import cells
from everloop.backends._narrow import from_bfloat16, narrowed, scale_of, to_bfloat16, to_int8
from everloop.backends.llvm.step import LlvmStep
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.cell import Cell
from everloop.lang.graph import Graph
from everloop.stream.numpy_step import NumpyStep
from everloop.testing import FLOAT32, assert_close

STORAGES = ("bfloat16", "int8")

Arrays = dict[str, np.ndarray]


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(0)


class Model:
    """A cell with parameters by name, those made of others too, and inputs for some steps of some sequences."""

    def __init__(self, cell: str | Cell, draw: Any, *, inputs: int = 5, hidden: int = 6, rows: int = 3, steps: int = 4):
        self.graph: Graph = cells.get(cell).graph
        self.sizes = {"input": inputs, "hidden": hidden, **self.graph.sizes}
        if "hidden" not in self.graph.size_names:
            self.sizes["hidden"] = inputs
        self.sizes |= {name: 4 for name in self.graph.size_names if name not in self.sizes}
        params = plan(kernel_graph(self.graph)).graph.params
        numbers = np.random.default_rng(1)
        self.params: Arrays = {
            name: draw(param.shape(self.sizes))
            if param.is_matrix
            else numbers.uniform(0.1, 0.9, param.shape(self.sizes))
            for name, param in params.items()
        }
        self.params = {name: array.astype(np.float32) for name, array in self.params.items()}
        self.rows, self.steps = rows, steps
        widths = [1 if leaf.size is None else self.sizes[str(leaf.size)] for leaf in self.graph.inputs.values()]
        self.inputs = tuple(numbers.uniform(0.1, 0.9, (steps, rows, width)).astype(np.float32) for width in widths)
        self.width = sum(1 if leaf.size is None else self.sizes[str(leaf.size)] for leaf in self.graph.states.values())

    def step(self, storage: str) -> LlvmStep:
        return LlvmStep(self.graph, self.sizes, np.dtype(np.float32), lambda weights: weights, storage)

    def run(self, storage: str) -> np.ndarray:
        """The outputs and, beside those of every step, the last states."""
        return self.outputs(self.step(storage), self.params, np.float32)

    def outputs(self, step: Any, params: Mapping[str, np.ndarray], dtype: Any) -> np.ndarray:
        state = np.full((self.rows, self.width), 0.25, dtype)
        y = np.zeros((self.steps, self.rows, self.sizes[str(self.graph.outputs["y"].size)]), dtype)
        inputs = tuple(array.astype(dtype) for array in self.inputs)
        step.bind(step.pack(params), state)(self.steps, inputs, y, None)
        return np.concatenate([y.swapaxes(0, 1).reshape(self.rows, -1), state], 1)


class Multiples:
    """Draws multiples of a step up to 127 of them, and 127 itself in every row: int8 stores them as they are."""

    def __init__(self, step: float) -> None:
        self.step, self.numbers = step, np.random.default_rng(2)

    def __call__(self, shape: Any) -> np.ndarray:
        drawn = self.numbers.integers(-127, 128, shape)
        drawn[np.arange(shape[0]), self.numbers.integers(0, shape[1], shape[0])] = 127
        return drawn * self.step


class Normal:
    """Draws from a normal distribution, cut off at a number that every row has once: all have one scale."""

    def __init__(self, most: float = 0.5) -> None:
        self.most, self.numbers = most, np.random.default_rng(3)

    def __call__(self, shape: Any) -> np.ndarray:
        drawn = (self.numbers.normal(size=shape) * self.most / 2).clip(-self.most, self.most)
        drawn[np.arange(shape[0]), self.numbers.integers(0, shape[1], shape[0])] = self.most
        return drawn


class TestNumbers:
    def test_bfloat16_keeps_every_number_it_has(self) -> None:
        bits = np.arange(1 << 16, dtype=np.uint16)
        numbers = from_bfloat16(bits)
        again = to_bfloat16(numbers)
        is_number = ~np.isnan(numbers)
        assert np.array_equal(again[is_number], bits[is_number])
        assert np.isnan(from_bfloat16(again[~is_number])).all()

    def test_bfloat16_rounds_to_the_nearest(self, numbers: np.random.Generator) -> None:
        """As torch does: any bits, and every tie between two neighbours."""
        any_bits = numbers.integers(0, 1 << 32, 100_000, dtype=np.uint32)
        ties = (np.arange(1 << 16, dtype=np.uint32) << 16) + 0x8000
        values = np.concatenate([any_bits, ties]).view(np.float32)
        values = values[~np.isnan(values)]
        expected = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
        assert np.array_equal(from_bfloat16(to_bfloat16(values)), expected)

    def test_a_nan_with_low_bits_only_stays_one(self) -> None:
        values = np.array([0x7F800001, 0xFF800001, 0xFFFFFFFF], np.uint32).view(np.float32)
        assert np.isnan(from_bfloat16(to_bfloat16(values))).all()

    def test_int8_is_off_by_half_a_step_at_most(self, numbers: np.random.Generator) -> None:
        matrix = (numbers.normal(size=(50, 33)) * 10.0 ** numbers.integers(-30, 30, (50, 1))).astype(np.float32)
        scale = scale_of(matrix)
        off = np.abs(to_int8(matrix, scale).astype(np.float64) * scale[:, None] - matrix) / scale[:, None]
        assert off.max() <= 0.5 + 127 * np.finfo(np.float32).eps
        assert off.max() > 0.49

    def test_int8_of_nothing_and_of_nearly_nothing(self) -> None:
        tiny = np.finfo(np.float32).smallest_subnormal
        matrix = np.array([[0, 0], [tiny, -tiny], [200 * tiny, -300 * tiny]], np.float32)
        scale = scale_of(matrix)
        assert scale.tolist() == [0, 0, 2 * tiny]
        assert to_int8(matrix, scale).tolist() == [[0, 0], [0, 0], [100, -127]]
        assert to_int8(np.zeros((3, 0), np.float32), scale_of(np.zeros((3, 0), np.float32))).shape == (3, 0)


@pytest.mark.parametrize("name", cells.names())
def test_what_is_stored_exactly_changes_nothing(name: str) -> None:
    """With a power of two for a scale every sum is the same, bit by bit."""
    model = Model(name, Multiples(2.0**-9))
    exact = model.run("")
    assert np.isfinite(exact).all()
    for storage in STORAGES:
        assert np.array_equal(model.run(storage), exact), storage


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (7, 17), (63, 7), (17, 63), (3, 129), (129, 16)])
@pytest.mark.parametrize("name", ["lstm", "gru", "layernorm_lstm", "projection_lstm"])
def test_odd_sizes(name: str, inputs: int, hidden: int, storage: str) -> None:
    """The same as in NumPy with weights rounded there, in float64."""
    for rows in (1, 2, 9):
        model = Model(name, Normal(), inputs=inputs, hidden=hidden, rows=rows)
        rounded = NumpyStep(model.graph, model.sizes, np.dtype(np.float64), storage)
        weights = {stack: stacked(model.params, params) for stack, params in model.graph.stacks.items()}
        assert_close(model.run(storage), model.outputs(rounded, weights, np.float64), FLOAT32, f"{rows} rows")


def stacked(params: Arrays, members: Any) -> np.ndarray:
    return np.concatenate([params[param.name] for param in members])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("heads", [2, 3])
def test_heads(heads: int, storage: str) -> None:
    """Block-diagonal matrices: every head has panels of its own, the last of each filled up."""
    for hidden in (6, 18, 102):
        model = Model(cells.get("slstm")(heads=heads), Multiples(2.0**-10), hidden=hidden)
        assert np.array_equal(model.run(storage), model.run("")), hidden


def test_a_scale_for_each_unit(numbers: np.random.Generator) -> None:
    """Units of very different size: with a scale in common the small ones would be 0."""
    draw = Multiples(1.0)
    model = Model("elman", lambda shape: draw(shape) * 2.0 ** -(np.arange(shape[0])[:, None] + 9.0), hidden=33)
    assert np.array_equal(model.run("int8"), model.run(""))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("hidden", [8, 40, 129])
def test_outputs_stay_within_what_rounding_allows(hidden: int, storage: str, numbers: np.random.Generator) -> None:
    """h = tanh(W x + U h + b). Weights are off by D at most: half a step of int8, or 2^-8 of a weight in bfloat16. tanh
    does not amplify, so with e the error of h before: |error| <= D_W |x| + D_U (|h| + e) + |U| e.
    """
    model = Model("elman", lambda shape: numbers.normal(size=shape) / np.sqrt(2 * shape[1]), hidden=hidden, steps=12)
    w, u, b = (model.params[name].astype(np.float64) for name in ("W.h", "U.h", "b.h"))
    if storage == "int8":
        off_w, off_u = (np.tile(np.abs(m).max(1)[:, None] / 127 / 2, m.shape[1]) for m in (w, u))
    else:
        off_w, off_u = np.abs(w) * 2.0**-8, np.abs(u) * 2.0**-8
    h, bound, bounds, exact = np.full((3, hidden), 0.25), np.zeros((3, hidden)), [], []
    for x in model.inputs[0].astype(np.float64):
        bound = np.abs(x) @ off_w.T + (np.abs(h) + bound) @ off_u.T + bound @ np.abs(u).T
        h = np.tanh(x @ w.T + h @ u.T + b)
        bounds.append(bound)
        exact.append(h)
    found = model.run(storage)[:, : 12 * hidden].reshape(3, 12, hidden).swapaxes(0, 1)
    off = np.abs(found - np.array(exact))
    assert (off <= np.array(bounds) + FLOAT32.absolute).all()
    # Rounding shows, and by much less than if all weights were off the same way.
    assert FLOAT32.absolute < off[-1].max() < np.array(bounds)[-1].max() / 2


class TestMistakes:
    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_int8_of_what_is_not_finite(self, wrong: float) -> None:
        model = Model("lstm", Normal())
        model.params["U.f"][1, 2] = wrong
        message = rf"weights: U\.f is {wrong} at \(1, 2\), which int8 cannot store; bfloat16 and float32 can"
        with pytest.raises(ValueError, match=message):
            model.run("int8")
        with pytest.raises(ValueError, match=message):
            narrowed("U.f", model.params["U.f"], "int8")

    def test_bfloat16_keeps_it(self) -> None:
        model = Model("elman", Normal(), steps=1)
        model.params["U.h"][1, 2] = np.nan
        y = model.run("bfloat16")[:, :6]
        assert np.isnan(y).any(0).tolist() == [False, True, False, False, False, False]
