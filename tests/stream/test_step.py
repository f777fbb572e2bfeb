"""The steps, compiled and in NumPy, against the layers of torch, for every cell; and the snapshot's fingerprint."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from everloop import cells
from everloop.backends import use_backend
from everloop.lang.transforms import recurrent_dropout, zoneout
from everloop.nn import Recurrent
from everloop.stream import Engine, Stream
from everloop.stream.numpy_step import NumpyStep
from everloop.testing import FLOAT32, FUNCTION, SAME, assert_close

STEPS, ROWS, INPUTS = 7, 3, 4


def layer_of(cell: Any, dtype: torch.dtype = torch.float64) -> Recurrent:
    """One layer whose sizes suit every cell."""
    torch.manual_seed(0)
    graph = cells.get(cell).graph
    hidden = 8 if "hidden" in graph.size_names else INPUTS
    extra = {name: 8 for name in graph.size_names if name not in ("input", "hidden", *graph.sizes)}
    return Recurrent(cell, INPUTS, hidden, sizes=extra, dtype=dtype).eval()


def weights_of(layer: Recurrent) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy() for name, p in layer.layers[0][0].named_parameters()}  # type: ignore[index]


def side_of(layer: Recurrent, numbers: np.random.Generator) -> dict[str, np.ndarray]:
    graph = layer.cell.graph
    widths = {name: 1 if leaf.size is None else layer.sizes[str(leaf.size)] for name, leaf in graph.inputs.items()}
    given = {name: width for name, width in widths.items() if name != "x" and name not in graph.draws}
    return {name: numbers.uniform(0.25, 1.25, (ROWS, STEPS, width)) for name, width in given.items()}


def check(cell: Any, dtype: torch.dtype, numbers: np.random.Generator, tolerance: Any) -> None:
    layer = layer_of(cell, dtype)
    kind = np.float64 if dtype == torch.float64 else np.float32
    x, side = numbers.normal(size=(ROWS, STEPS, INPUTS)).astype(kind), side_of(layer, numbers)
    with torch.no_grad(), use_backend("reference"):
        expected, state = layer(torch.from_numpy(x), side={name: torch.from_numpy(a) for name, a in side.items()})
    for backend in ("llvm", "reference"):
        with use_backend(backend), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            stream = Stream(layer.cell.graph, layer.sizes, weights_of(layer), batch=ROWS, dtype=kind)
        assert isinstance(stream.engine.step, NumpyStep) == (backend == "reference")
        y = stream.push(x, side)
        what = f"{layer.cell.name} on {backend}"
        assert y.dtype == kind
        assert_close(y, expected, tolerance, f"{what}: y")
        for name, array in stream.state.items():
            assert_close(array, getattr(state, name)[0], tolerance, f"{what}: the state {name}")


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_is_what_its_layer_is(name: str, numbers: np.random.Generator) -> None:
    check(name, torch.float64, numbers, SAME)


@pytest.mark.parametrize("name", ["lstm", "gru", "lmu", "exp_rnn", "slstm", "phased_lstm"])
def test_in_single_precision(name: str, numbers: np.random.Generator) -> None:
    check(name, torch.float32, numbers, FLOAT32)


def test_drawn_inputs_are_their_means(numbers: np.random.Generator) -> None:
    check(zoneout(cells.get("lstm"), h=0.1, c=0.5), torch.float64, numbers, SAME)
    check(recurrent_dropout(cells.get("gru"), 0.25), torch.float64, numbers, SAME)


def test_the_ends_of_the_range() -> None:
    """Saturated gates keep their digits, what is not a number stays so, and infinity is no accident."""
    from everloop.stream.spelling import SPELLING

    far = np.array([-745.0, -100.0, -30.0, 0.0, 30.0, 800.0])
    assert_close(SPELLING["sigmoid"](far)[:3], np.exp(far[:3]) / (1 + np.exp(far[:3])), FUNCTION)
    assert SPELLING["sigmoid"](far)[3:].tolist() == [0.5, 1 / (1 + np.exp(-30.0)), 1.0]
    with np.errstate(invalid="ignore"):
        ends = SPELLING["sigmoid"](np.array([-np.inf, np.inf, np.nan]))
    assert ends[:2].tolist() == [0.0, 1.0]
    assert np.isnan(ends[2])
    assert np.isnan(SPELLING["maximum"](np.nan, 1.0))


def test_the_matrix_exponential(numbers: np.random.Generator) -> None:
    from everloop.stream.spelling import expm

    for scale in (0.0, 1e-3, 1.0, 30.0):
        skew = numbers.normal(size=(9, 9)) * scale
        skew = skew - skew.T
        assert_close(expm(skew), torch.linalg.matrix_exp(torch.from_numpy(skew)), SAME)


def test_a_step_that_cannot_be_compiled_runs_in_numpy(
    model: Callable[..., Any], numbers: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such instruction")

    made, x = model("minlstm"), numbers.normal(size=(5, 3))
    expected = made.stream().push(x)
    monkeypatch.setattr("everloop.backends.llvm.step.LlvmStep", broken)
    monkeypatch.setattr("everloop.stream.engine._warned", set())
    with pytest.warns(
        RuntimeWarning, match=r"no step of minlstm \+ minlstm could be compiled; .* RuntimeError: no such"
    ):
        stream = made.stream()
    assert_close(stream.push(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.stream()


def test_long_chunks_are_worked_out_in_parts(model: Callable[..., Any], numbers: np.random.Generator) -> None:
    one, other = model().stream(), model().stream()
    x = numbers.normal(size=(1000, 3))
    assert_close(one.push(x), np.concatenate([other.push(x[:300]), other.push(x[300:])]))


class TestFingerprint:
    def engine(self, cell: Any = "lstm", dtype: Any = np.float32, change: float = 0.0) -> Engine:
        layer = layer_of(cell)
        weights = {name: array.copy() for name, array in weights_of(layer).items()}
        if weights:
            next(iter(weights.values()))[-1] += change
        return Engine(layer.cell.graph, layer.sizes, weights, dtype)

    def test_the_same_model_has_one(self) -> None:
        assert self.engine().fingerprint == self.engine().fingerprint

    def test_another_model_has_another(self) -> None:
        lmu = cells.get("lmu")
        others = [
            self.engine(),
            self.engine(change=1e-9),
            self.engine(dtype=np.float64),
            self.engine("cifg_lstm"),
            self.engine(lmu(span=50.0)),
            self.engine(lmu(span=60.0)),
            self.engine(zoneout(cells.get("lstm"), 0.1)),
            self.engine(zoneout(cells.get("lstm"), 0.2)),
        ]
        assert len({engine.fingerprint for engine in others}) == len(others)


class TestMistakes:
    def test_weights(self, model: Callable[..., Any]) -> None:
        graph, sizes, weights = model(depth=1).parts
        with pytest.raises(ValueError, match=r"weights: 0\.W of shape \(16, 5\) came; expected \(16, 3\)"):
            Engine(graph, sizes, weights | {"0.W": np.zeros((16, 5))})
        with pytest.raises(ValueError, match=r"weights: 0\.W is missing; lstm has 0\.W, 0\.U, 0\.b"):
            Engine(graph, sizes, {})
        with pytest.raises(ValueError, match=r"weights: 'Q' came; lstm has 0\.W, 0\.U, 0\.b"):
            Engine(graph, sizes, weights | {"Q": np.zeros(1)})

    def test_sizes_and_type(self, model: Callable[..., Any]) -> None:
        graph, sizes, weights = model(depth=1).parts
        with pytest.raises(ValueError, match=r"sizes: 0\.hidden is missing; lstm has input, 0\.hidden"):
            Engine(graph, {"input": 3}, weights)
        with pytest.raises(ValueError, match=r"sizes: 0\.hidden = 0 came; expected a whole number of 1 or more"):
            Engine(graph, sizes | {"0.hidden": 0}, weights)
        with pytest.raises(ValueError, match="dtype: int64 came; a stream computes in float32 or float64"):
            Engine(graph, sizes, weights, np.int64)
