"""Layers that differ, see past each other and have learned where they begin: streamed, kept and told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from everloop import Recurrent, explain, load, use_backend, zoneout
from everloop import cells as catalogue
from everloop.compiler.compose import scaling
from everloop.compiler.cost import measure
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.stream import Engine, Layers, Part, Stream, joined, load_layer, save_layer
from everloop.testing import FLOAT32, SAME, assert_close

FEATURES = 4

# Cells and units; some layers are as wide as what they are given, and some cells use x in more than products.
STACKS: dict[str, tuple[Any, Any]] = {
    "one cell": ("gru", (4, 4, 4)),
    "three cells": (("lstm", "gru", "elman"), (4, 6, 6)),
    "x in the loop and x before": (("mogrifier_lstm", "qrnn"), (4, 4)),
    "block by block": (("slstm", "lstm"), (4, 4)),
    "free of states": (("mingru", "minlstm", "lmu"), (4, 5, 5)),
}
# One kernel each to compile: enough where the number type matters and the cell does not.
FEW = ["three cells", "x in the loop and x before"]
SKIPS = [None, "residual", "dense"]


def layer_of(
    stack: str, skip: str | None = None, learn_start: bool = True, dtype: torch.dtype = torch.float64, **how: Any
) -> Recurrent:
    torch.manual_seed(0)
    cell, hidden = STACKS[stack]
    options = {"skip": skip, "learn_start": learn_start, "dtype": dtype, **how}
    layer = Recurrent(cell, FEATURES, hidden, **options).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return layer


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype)


def run(layer: Recurrent, x: torch.Tensor) -> tuple[np.ndarray, Any]:
    with torch.no_grad():
        y, state = layer(x)
    return y.numpy(), state


@pytest.mark.parametrize("learn_start", [False, True], ids=["cell's start", "learned start"])
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("stack", STACKS)
def test_a_stream_is_the_layer(stack: str, skip: str | None, learn_start: bool) -> None:
    layer = layer_of(stack, skip, learn_start)
    x = drawn(2, 7, FEATURES)
    expected, _ = run(layer, x)
    stream = layer.stream(batch=2)
    assert_close(stream.push(x[:, :4].numpy()), expected[:, :4], SAME, "the first chunk")
    assert_close(stream.push(x[:, 4].numpy()), expected[:, 4], SAME, "one step")
    assert_close(stream.push(x[:, 5:].numpy()), expected[:, 5:], SAME, "the last chunk")
    with use_backend("reference"):
        assert_close(layer.stream(batch=2).push(x.numpy()), expected, SAME, "in NumPy")
    pool = layer.pool()
    ids = [pool.open(), pool.open()]
    for t in range(3):
        assert_close(pool.step(ids, x[:, t].numpy()), expected[:, t], SAME, "a pool")


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("stack", FEW)
def test_in_float32(stack: str, skip: str | None, tmp_path: Path) -> None:
    layer = layer_of(stack, skip, dtype=torch.float32)
    x = drawn(3, 6, FEATURES, dtype=torch.float32)
    expected, _ = run(layer, x)
    assert_close(layer.stream(batch=3).push(x.numpy()), expected, FLOAT32, "a stream")
    assert_close(Layers.of(layer)(x.numpy()), expected, FLOAT32, "whole sequences")
    layer.save(tmp_path / "layer")
    found = load(tmp_path / "layer")
    assert isinstance(found, Layers)
    assert (found(x.numpy()) == Layers.of(layer)(x.numpy())).all()
    assert (found.stream(batch=3).push(x.numpy()) == layer.stream(batch=3).push(x.numpy())).all()
    save_layer(found, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "layer").read_bytes()


class TestWholeSequences:
    @pytest.mark.parametrize("skip", SKIPS)
    def test_both_directions(self, skip: str | None, tmp_path: Path) -> None:
        """Two directions of 2 are as wide as x, and of 3 as the layer below."""
        torch.manual_seed(0)
        made = Recurrent(["lstm", "gru", "gru"], FEATURES, [2, 3, 3], bidirectional=True, skip=skip, learn_start=True)
        layer = made.eval()
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        self.check(layer, tmp_path)

    @pytest.mark.parametrize("keep_order", [True, False])
    @pytest.mark.parametrize("skip", SKIPS)
    def test_in_reverse(self, skip: str | None, keep_order: bool, tmp_path: Path) -> None:
        layer = layer_of("three cells", skip, dtype=torch.float32, reverse=True, keep_order=keep_order)
        self.check(layer, tmp_path)

    def check(self, layer: Recurrent, folder: Path) -> None:
        for x in (drawn(3, 6, FEATURES, dtype=torch.float32), drawn(1, 6, FEATURES, dtype=torch.float32)):
            expected, _ = run(layer, x)
            assert_close(Layers.of(layer)(x.numpy()), expected, FLOAT32)
            layer.save(folder / "layer")
            assert_close(load_layer(folder / "layer")(x.numpy()), expected, FLOAT32, "from a file")
            with pytest.raises(ValueError, match=r"cannot be streamed: (the reverse one|it) begins at the end of the"):
                layer.stream()

    def test_a_layer_in_reverse_says_why_it_cannot_be_streamed(self) -> None:
        layer = layer_of("one cell", reverse=True)
        reason = "a layer that reads in reverse cannot be streamed: .* has not seen yet. Train with reverse=False"
        with pytest.raises(ValueError, match=reason):
            layer.stream()
        with pytest.raises(ValueError, match=reason):
            layer.pool()

    def test_numbers_are_float32(self) -> None:
        layers = Layers.of(layer_of("one cell", "residual"))
        assert layers(np.ones((2, 3, FEATURES))).dtype == np.float32


class TestStates:
    def test_by_name(self) -> None:
        layer = layer_of("three cells", "residual")
        x = drawn(2, 5, FEATURES)
        _, state = run(layer, x)
        stream = layer.stream(batch=2)
        stream.push(x.numpy())
        found = stream.state
        assert {name: array.shape[1] for name, array in found.items()} == {"0.h": 4, "0.c": 4, "1.h": 6, "2.h": 6}
        for k, states in enumerate(state):
            for name, array in states._asdict().items():
                assert_close(found[f"{k}.{name}"], array[0], SAME, f"the state {k}.{name}")

    def test_they_begin_where_they_learned_to(self) -> None:
        layer = layer_of("three cells", "dense")
        stream = layer.stream()
        learned = {f"{k}.{name}": layer.get_parameter(f"layers.{k}.0.start_{name}") for k, name in PLACES}
        assert list(stream.state) == list(learned)
        for _ in range(2):
            for name, array in stream.state.items():
                assert_close(array, learned[name], SAME, name)
            stream.push(np.ones((3, FEATURES)))
            stream.reset()
        pool = layer.pool()
        id = pool.open()
        pool.push({id: np.ones((3, FEATURES))})
        pool.reset(id)
        assert_close(pool.state(id)["1.h"], learned["1.h"], SAME)

    def test_snapshots_and_forks(self, tmp_path: Path) -> None:
        layer = layer_of("three cells", "dense")
        x = drawn(8, FEATURES).numpy()
        stream = layer.stream()
        stream.push(x[:3])
        snapshot, other = stream.snapshot(), stream.fork()
        expected = stream.push(x[3:])
        assert (other.push(x[3:]) == expected).all()
        layer.save(tmp_path / "layer")
        again = load_layer(tmp_path / "layer").stream(dtype=np.float64)
        again.restore(snapshot)
        assert (again.push(x[3:]) == expected).all()

    def test_a_snapshot_is_of_one_way_of_skipping_and_one_start(self) -> None:
        snapshot = layer_of("one cell", "residual").stream().snapshot()
        elsewhere = layer_of("one cell", "residual")
        torch.nn.init.zeros_(elsewhere.get_parameter("layers.1.0.start_h"))
        for other in (layer_of("one cell"), layer_of("one cell", "residual", learn_start=False), elsewhere):
            with pytest.raises(ValueError, match="snapshot: it is of another model"):
                other.stream().restore(snapshot)

    def test_starts_that_do_not_fit(self) -> None:
        part = Layers.of(layer_of("one cell")).one_step()[0]
        with pytest.raises(ValueError, match=r"starts: h of shape \(3,\) came; expected \(4,\)"):
            Engine(part.graph, part.sizes, part.weights, starts={"h": np.zeros(3)})
        with pytest.raises(ValueError, match="starts: 'c' came; there are h"):
            Engine(part.graph, part.sizes, part.weights, starts={"c": np.zeros(4)})


PLACES = [(0, "h"), (0, "c"), (1, "h"), (2, "h")]


class TestFewerBits:
    @pytest.mark.parametrize("weights", ["bfloat16", "int8"])
    @pytest.mark.parametrize("skip", SKIPS[1:])
    @pytest.mark.parametrize("stack", FEW)
    def test_in_numpy_weights_are_rounded_alike(self, stack: str, skip: str | None, weights: str) -> None:
        layers = Layers.of(layer_of(stack, skip, dtype=torch.float32))
        x = drawn(6, FEATURES, dtype=torch.float32).numpy()
        compiled = layers.stream(weights=weights)
        with use_backend("reference"):
            plain = layers.stream(weights=weights)
        assert_close(compiled.push(x), plain.push(x), FLOAT32)

    def test_what_puts_vectors_side_by_side_loses_nothing(self) -> None:
        layers = Layers.of(layer_of("x in the loop and x before", "dense", dtype=torch.float32))
        for name, array in layers.weights.items():
            layers.weights[name] = np.round(array * 4) / 4  # bfloat16 holds these numbers
        x = drawn(6, FEATURES, dtype=torch.float32).numpy()
        assert_close(layers.stream(weights="bfloat16").push(x), layers.stream().push(x), FLOAT32)


class TestDense:
    def test_it_is_what_its_layers_are_side_by_side(self) -> None:
        """Each layer by itself, given by hand what it sees."""
        layers = Layers.of(layer_of("three cells", "dense"))
        x = drawn(5, FEATURES).numpy()
        seen = [x]
        for (part,) in layers.parts:
            seen.append(Stream.of(part.engine(np.float64)).push(np.concatenate(seen, -1)))
        assert_close(layers.stream(dtype=np.float64).push(x), seen[-1], SAME)

    def test_a_product_is_not_made_of_more_numbers_than_its_matrix(self) -> None:
        """No matrix that only puts vectors side by side, where products alone see them."""
        layers = Layers.of(layer_of("three cells", "dense", learn_start=False))
        whole = joined(layers.one_step())
        cost = measure(plan(kernel_graph(whole.graph)), whole.sizes)
        assert cost.parameters == sum(array.size for array in layers.weights.values())

    def test_below_something_else(self) -> None:
        """What is scaled first is x for all layers above."""
        layers = Layers.of(layer_of("three cells", "dense"))
        mean, scale = np.full(FEATURES, 0.5), np.full(FEATURES, 2.0)
        below = Part(scaling(), {"input": FEATURES}, {"mean": mean, "scale": scale})
        whole = joined([below, *layers.one_step()], ["scaling", "0", "1", "2"])
        x = drawn(5, FEATURES).numpy()
        expected = layers.stream(dtype=np.float64).push((x - 0.5) / 2)
        assert_close(Stream.of(whole.engine(np.float64)).push(x), expected, SAME)


def test_cells_with_side_inputs_beside_cells_without() -> None:
    torch.manual_seed(0)
    made = Recurrent(["time_aware_lstm", "gru"], 3, [4, 5], skip="dense", learn_start=True, dtype=torch.float64)
    layer = made.eval()
    x, gap = drawn(1, 6, 3), torch.rand(1, 6, dtype=torch.float64)
    (name,) = (name for name in catalogue.get("time_aware_lstm").graph.inputs if name != "x")
    with torch.no_grad():
        expected = layer(x, side={name: gap})[0][0]
    assert_close(layer.stream().push(x[0].numpy(), {name: gap[0].numpy()}), expected, SAME)


def test_dropouts_are_nothing_and_zoneout_is_its_mean(tmp_path: Path) -> None:
    noise = {"dropout": 0.3, "input_dropout": 0.2, "output_dropout": 0.1, "recurrent_dropout": 0.25, "weight_drop": 0.5}
    layer = layer_of("three cells", "residual", zoneout={"h": 0.2}, variational=True, **noise)
    x = drawn(1, 6, FEATURES)
    expected, _ = run(layer, x)
    assert_close(layer.stream().push(x[0].numpy()), expected[0], SAME)
    layer.save(tmp_path / "layer")
    found = load_layer(tmp_path / "layer")
    assert [cell.name for cell in found.cells] == [cell.name for cell in layer.cells]
    assert_close(found.stream(dtype=np.float64).push(x[0].numpy()), expected[0], SAME)


def test_a_parametrization_is_streamed_as_it_is() -> None:
    layer = layer_of("three cells")
    torch.nn.utils.parametrizations.weight_norm(layer.layers[0][0], "W")  # type: ignore[index]
    x = drawn(1, 4, FEATURES)
    expected, _ = run(layer, x)
    assert_close(layer.stream().push(x[0].numpy()), expected[0], SAME)


def test_layers_made_of_arrays() -> None:
    """Without torch: what a caller may get wrong is said."""
    gru, weights = catalogue.get("gru"), {}
    sizes = ({"input": 3, "hidden": 4}, {"input": 7, "hidden": 5})
    assert Layers((gru, gru), sizes, weights, skip="dense").widths == [3, 4, 5]
    with pytest.raises(ValueError, match="sizes: an input of 7 came for layer 1, which is given 4"):
        Layers((gru, gru), sizes, weights)
    with pytest.raises(ValueError, match="skip: 'all' came; expected None, 'residual' or 'dense'"):
        Layers((gru, gru), sizes, weights, skip="all")
    with pytest.raises(ValueError, match="1 cells and 2 sizes came; expected one of both per layer"):
        Layers((gru,), sizes, weights)


class TestExplain:
    def test_of_several_cells(self) -> None:
        layer = Recurrent(["lstm", "mingru", "lstm"], 3, [4, 5, 6])
        found = explain(layer)
        assert [(one.cell, one.layers, one.kind) for one in found.plans] == [
            ("lstm", (0, 2), "recurrent"),
            ("mingru", (1,), "scan"),
        ]
        assert [part.sizes["input"] for part in found.parts] == [3, 4, 5]
        with use_backend("reference"):
            lines = str(explain(layer)).splitlines()
        assert lines[2:4] == ["layers 0, 2: lstm", "recurrent: units meet inside the loop"]
        assert "layer 1: mingru" in lines
        assert lines[-4:] == [
            "  layer  direction  input  hidden  runs on",
            "  0      forward    3      4       reference",
            "  1      forward    4      5       reference",
            "  2      forward    5      6       reference",
        ]

    def test_noise_that_every_layer_has_of_its_own(self) -> None:
        assert len(explain(Recurrent("gru", 3, 4, 2, zoneout=0.1)).plans) == 1
        assert len(explain(Recurrent([zoneout(catalogue.get("gru"), 0.1), "gru"], 3, 4)).plans) == 2

    def test_in_reverse(self) -> None:
        assert [part.direction for part in explain(Recurrent("gru", 3, 4, reverse=True)).parts] == ["reverse"]


def test_a_stack_of_many_layers() -> None:
    torch.manual_seed(0)
    layer = Recurrent("lstm", 3, 4, 10, dtype=torch.float64)
    x = torch.randn(1, 6, 3, dtype=torch.float64)
    assert_close(layer.stream().push(x[0].numpy()), layer(x)[0][0], SAME)
