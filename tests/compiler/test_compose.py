"""A stack of graphs is what its layers are one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from everloop import cells
from everloop.compiler.check import check
from everloop.compiler.compose import compose, joint_sizes, readout, scaling
from everloop.compiler.plan import plan
from everloop.lang.cell import Cell, cell
from everloop.lang.draw import Draw
from everloop.lang.expr import Expr
from everloop.lang.functions import sigmoid, tanh
from everloop.lang.graph import Graph
from everloop.lang.transforms import recurrent_dropout, residual, zoneout
from everloop.testing import assert_close, evaluate_step

ROWS = 3


def sizes_of(graph: Graph, width: int, hidden: int) -> dict[str, int]:
    """Lengths for one layer, such that its block-diagonal matrices can be divided."""
    sizes = dict.fromkeys(graph.size_names, 5) | {"hidden": hidden, "output": 2}
    for param in graph.params.values():
        for size in param.sizes:
            sizes[str(size)] = math.ceil(sizes.get(str(size), 1) / param.blocks) * param.blocks
    return {name: sizes[name] for name in dict.fromkeys(["input", *graph.size_names])} | {"input": width}


def layer_sizes(graphs: Sequence[Graph], takes: Sequence[int], width: int = 4, hidden: int = 8) -> list[dict[str, int]]:
    found, widths = [], [width]
    for k, (graph, take) in enumerate(zip(graphs, takes, strict=True)):
        found.append(sizes_of(graph, sum(widths[-take:]), hidden + 4 * k))
        size = graph.outputs["y"].size
        widths.append(found[-1][str(size)])
    return found


def drawn(*shape: int) -> Tensor:
    return 0.25 + torch.rand(*shape, dtype=torch.float64)


def width_of(size: Any, sizes: dict[str, int]) -> int:
    return 1 if size is None else sizes[str(size)]


def check_composed(graphs: list[Graph], names: list[str] | None = None, takes: list[int] | None = None) -> Graph:
    """One step of the stack is one step of each of its layers."""
    torch.manual_seed(0)
    called, taken = names or [str(k) for k in range(len(graphs))], takes or [1] * len(graphs)
    each = layer_sizes(graphs, taken)
    stack = compose(graphs, names, takes)
    sizes = joint_sizes(stack, each, names)
    given = {"x": drawn(ROWS, each[0]["input"])}
    given |= {name: drawn(ROWS, width_of(leaf.size, sizes)) for name, leaf in stack.inputs.items() if name != "x"}
    given |= {name: drawn(*param.shape(sizes)) - 0.7 for name, param in stack.held.items()}
    state = {name: drawn(ROWS, width_of(leaf.size, sizes)) for name, leaf in stack.states.items()}
    like = state or {"like": given["x"]}
    outputs, new = evaluate_step(stack, given, like, sizes)

    ys, found = [given["x"]], {}
    for name, graph, lengths, take in zip(called, graphs, each, taken, strict=True):
        y = torch.cat(ys[-take:], -1)
        own = {"x": y}
        for side, leaf in graph.inputs.items():
            if side in graph.draws:
                own[side] = torch.full((ROWS, width_of(leaf.size, lengths)), graph.draws[side].mean, dtype=y.dtype)
            elif side != "x":
                own[side] = given[f"{name}.{side}" if f"{name}.{side}" in given else side]
        own |= {param: given[f"{name}.{param}"] for param in graph.held}
        before = {key: state[f"{name}.{key}"] for key in graph.states}
        result, after = evaluate_step(graph, own, before or {"like": y}, lengths)
        ys.append(result["y"])
        found |= {f"{name}.{key}": value for key, value in after.items()}
    assert_close(outputs["y"], ys[-1], what="the output")
    assert new.keys() == found.keys()
    for key, value in found.items():
        assert_close(new[key], value, what=f"the new {key}")
    return stack


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_twice(name: str) -> None:
    graph = cells.get(name).graph
    stack = check_composed([graph, graph])
    assert list(stack.states) == [f"{k}.{state}" for k in (0, 1) for state in graph.states]
    assert [param for param in stack.params if param.startswith("1.")] == [f"1.{param}" for param in graph.params]
    # The arrays of a layer are those of the stack, under its name.
    assert list(stack.stacks) == [f"{k}.{name}" for k in (0, 1) for name in graph.stacks]


@pytest.mark.parametrize(
    "names",
    [
        ["lstm", "gru", "elman"],
        ["projection_lstm", "lstm"],
        ["lmu", "mogrifier_lstm", "slstm"],
        ["gru_d", "time_aware_lstm", "gru_d"],
        ["mingru", "indrnn", "lem", "qrnn"],
    ],
    ids="+".join,
)
def test_another_cell_in_every_layer(names: list[str]) -> None:
    stack = check_composed([cells.get(name).graph for name in names])
    assert stack.name == " + ".join(names)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_above_two_others(name: str) -> None:
    """What it does with x besides multiplying it with matrices sees both."""
    graph, gru = cells.get(name).graph, cells.get("gru").graph
    stack = check_composed([gru, graph, gru], takes=[1, 2, 3])
    held = {part for part in stack.params if part.startswith("1.") and stack.params[part].made is None}
    assert held == {f"1.{param}" for param in graph.held}


def test_what_reads_several_reads_columns() -> None:
    lstm = cells.get("lstm").graph
    stack = check_composed([lstm, lstm], takes=[1, 2])
    assert [param for param in stack.params if param.startswith("1.W[")] == [
        f"1.W[{k}].{gate}" for gate in "ifgo" for k in (0, 1)
    ]
    assert not [param for param in stack.params if "place" in param]
    assert [str(size) for size in stack.params["1.W[1].f"].sizes] == ["1.hidden", "0.hidden"]
    normal = cells.get("mogrifier_lstm").graph
    places = [param for param in check_composed([lstm, normal], takes=[1, 2]).params if "place" in param]
    assert places == ["1.place[0]", "1.place[1]"]


def test_a_whole_model() -> None:
    lstm = cells.get("lstm").graph
    stack = check_composed([scaling(), lstm, lstm, readout()], ["scaling", "0", "1", "readout"])
    assert stack.size_names == ["input", "0.hidden", "1.hidden", "readout.output"]
    assert set(stack.names.values()) >= {"0.i", "1.f", "1.h"}
    assert stack.outputs["y"].size is not None
    assert str(stack.outputs["y"].size) == "readout.output"
    assert stack.start == {"0.h": 0.0, "0.c": 0.0, "1.h": 0.0, "1.c": 0.0}
    assert stack.init["1.b.f"] == 1.0
    assert plan(stack).kind == "recurrent"


def test_a_stack_can_be_stacked() -> None:
    gru = cells.get("gru").graph
    inner = compose([gru, gru])
    outer = compose([inner, readout()], ["layers", "readout"])
    assert list(outer.states) == ["layers.0.h", "layers.1.h"]
    check(outer)


def test_what_a_layer_is_given_is_left_alone() -> None:
    graph = cells.get("lstm").graph
    before = (graph.size_names, list(graph.params), [str(node.size) for node in graph.nodes])
    compose([graph, graph])
    assert before == (graph.size_names, list(graph.params), [str(node.size) for node in graph.nodes])


@pytest.mark.parametrize(
    "made",
    [
        zoneout(cells.get("lstm"), h=0.1, c=0.5),
        recurrent_dropout(cells.get("gru"), 0.25),
        residual(cells.get("lstm")),
        zoneout(recurrent_dropout(cells.get("gru"), 0.5), 0.2),
    ],
    ids=lambda made: made.name,
)
def test_transforms(made: Cell) -> None:
    stack = check_composed([made.graph, made.graph])
    assert list(stack.inputs) == ["x"]
    assert stack.draws == {}


def noisy(graph: Graph, mean: float) -> Graph:
    """What a cell computes from noise alone, of which one number is left when it is composed."""
    noise = Expr("input", (), "noise", graph.inputs["x"].size)
    draw = Draw("bernoulli", mean) if mean else Draw("normal", 1.0)
    graph = graph.replace({graph.inputs["x"]: noise})
    return Graph(**{**vars_of(graph), "inputs": graph.inputs | {"noise": noise}, "draws": {"noise": draw}})


def vars_of(graph: Graph) -> dict[str, Any]:
    return {name: getattr(graph, name) for name in graph.__dataclass_fields__}


@pytest.mark.parametrize("mean", [0.0, 0.5, 1.0])
def test_a_mean_takes_the_place_of_a_vector(mean: float) -> None:
    @cell(states="h last:input", gates="h")
    def plain(x, h, last, W, U):
        return tanh(W.h @ x + U.h @ h) * sigmoid(h), x * x

    check_composed([noisy(plain.graph, mean), plain.graph])


class TestSideInputs:
    def test_shared_by_name(self) -> None:
        graph = cells.get("time_aware_lstm").graph
        stack = compose([graph, graph])
        assert list(stack.inputs) == list(graph.inputs)
        assert {name: stack.start.get(name) for name in graph.inputs} == {
            name: graph.start.get(name) for name in graph.inputs
        }

    def test_as_wide_as_the_input_of_each_layer(self) -> None:
        graph = cells.get("gru_d").graph
        stack = compose([graph, graph])
        assert list(stack.inputs) == ["x", "dt", "mask", "1.mask"]
        assert stack.start["1.mask"] == 1.0

    def test_layers_that_disagree_on_what_is_not_given(self) -> None:
        @cell(states="h", gates="h", inputs="gap", start={"gap": 1.0})
        def one(x, h, gap, W):
            return tanh(W.h @ x) * gap + h

        @cell(states="h", gates="h", inputs="gap", start={"gap": 2.0})
        def two(x, h, gap, W):
            return tanh(W.h @ x) * gap + h

        assert compose([one.graph, one.graph]).start["gap"] == 1.0
        assert "gap" not in compose([one.graph, two.graph]).start


class TestMistakes:
    def test_nothing(self) -> None:
        with pytest.raises(TypeError, match="no graph came; expected one or more"):
            compose([])

    def test_names(self) -> None:
        graph = cells.get("elman").graph
        with pytest.raises(TypeError, match="the names a, a came for 2 graphs; expected one for each"):
            compose([graph, graph], ["a", "a"])
        with pytest.raises(TypeError, match="the names a came for 2 graphs"):
            compose([graph, graph], ["a"])

    def test_takes(self) -> None:
        graph = cells.get("elman").graph
        for takes in ([1], [0, 1], [1, 3], [2, 1]):
            with pytest.raises(
                TypeError, match=r"takes \[.*\] came; expected for each graph 1 or more, up to all that"
            ):
                compose([graph, graph], takes=takes)
