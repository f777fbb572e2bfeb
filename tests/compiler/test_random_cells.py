"""Random small cells over all operations: the passes keep the values, the derived gradient is torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from everloop.compiler.differentiate import differentiate
from everloop.compiler.plan import plan
from everloop.compiler.saves import save
from everloop.compiler.simplify import simplify
from everloop.lang import functions as f
from everloop.lang.cell import Cell, cell
from everloop.lang.expr import ELEMENTWISE
from everloop.lang.graph import Graph
from everloop.nn import Recurrent
from everloop.testing import SAME, assert_close, check_cell, derived_gradient, evaluate_step

# Everything in a range in which no value overflows and nothing is divided by a small number.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: f.tanh(a) * b,
    "div": lambda a, b: a / (1 + f.absolute(b)),
    "neg": lambda a: -a,
    "exp": lambda a: f.exp(f.tanh(a)),
    "expm1": lambda a: f.expm1(f.tanh(a)),
    "log": lambda a: f.log(1 + a * a),
    "log1p": lambda a: f.log1p(a * a),
    "sqrt": lambda a: f.sqrt(1 + f.absolute(a)),
    "tanh": f.tanh,
    "sigmoid": f.sigmoid,
    "sin": f.sin,
    "cos": f.cos,
    "floor": f.floor,
    "stop": f.stop_gradient,
    "maximum": f.maximum,
    "minimum": f.minimum,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a <= b,
    "where": lambda a, b, c: f.where(a > 0.1, b, c),
    "double": lambda a: 2 * a,
    "one minus": lambda a: 1 - a,
    "mean": f.mean,
    "norm": f.norm,
    "largest": f.largest,
    "softmax": f.softmax,
    "cumsum": f.cumsum,
    "cumsum back": lambda a: f.cumsum(a, reverse=True),
    "shift": f.shift,
}
OF_A_VECTOR = {"mean", "norm", "largest", "softmax", "cumsum", "cumsum back", "shift"}


Program = list[tuple[str, int, int, int]]
PROGRAMS = st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), *[st.integers(0, 30)] * 3), min_size=1, max_size=12)
SIZES = {"input": 3, "hidden": 4}


def made(program: Program) -> Cell:
    """A cell that runs the program: each line an operation on values made so far."""

    @cell(states="h c", gates="a b", inputs="gap mask:hidden")
    def random(x, h, c, gap, mask, W, U, V, u):
        (
            h + u.a + u.b + W.a @ x + W.b @ x + U.a @ h + U.b @ c + f.blocks(V, 2).a @ h + f.blocks(V, 2).b @ h
        )  # every value that is not a number is as long as h
        values = [W.a @ x + u.a, W.b @ x, U.a @ h, h, c, u.a, u.b * h, f.mean(h), gap, mask * c]
        values += [f.blocks(V, 2).a @ c, f.blocks(V, 2).b @ (h + c), (U.b - U.b.T) @ h, f.tanh(U.b) @ U.b @ c]
        for name, *places in program:
            operation = OPERATIONS[name]
            count = ELEMENTWISE.get(name, 1)
            args = [values[place % len(values)] for place in places[:count]]
            if name in OF_A_VECTOR and args[0].size is None:
                args = [args[0] * h]
            values.append(operation(*args))
        return f.tanh(values[-1] + values[-2] * h) + u.b, f.tanh(values[-1] * h + U.b @ c)

    return random


@dataclass
class Step:
    given: dict[str, Tensor]
    state: dict[str, Tensor]

    @staticmethod
    def of(graph: Graph) -> Step:
        torch.manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

        given = {"x": draw(2, 3), "gap": draw(2, 1), "mask": draw(2, 4)}
        given |= {name: draw(*param.shape(SIZES)) for name, param in graph.held.items()}
        return Step(given, {name: draw(2, 4) for name in graph.states})

    def results(self, graph: Graph) -> dict[str, Tensor]:
        outputs, new = evaluate_step(graph, self.given, self.state, SIZES)
        return outputs | new


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(PROGRAMS)
def test_the_derived_gradient_is_torchs(program: Program) -> None:
    graph = made(program).graph
    step = Step.of(graph)
    outputs, new = evaluate_step(graph, step.given, step.state, SIZES)
    grads = [{name: torch.cos(value).detach() for name, value in part.items()} for part in (outputs, new)]
    leaves = step.given | step.state
    number = sum(
        (value * g[name]).sum() for part, g in zip((outputs, new), grads, strict=True) for name, value in part.items()
    )
    expected = torch.autograd.grad(number, list(leaves.values()), allow_unused=True, materialize_grads=True)
    derived = derived_gradient(graph, step.given, step.state, *grads, SIZES)
    for name, by_torch in zip(leaves, expected, strict=True):
        assert_close(derived[name], by_torch, SAME, f"gradient of {name}")


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(PROGRAMS)
def test_simplifying_leaves_the_values_as_they_are(program: Program) -> None:
    graph = made(program).graph
    step = Step.of(graph)
    before, after, planned = (step.results(g) for g in (graph, simplify(graph), plan(graph).graph))
    for name, value in before.items():
        assert_close(after[name], value, SAME, name)
        assert_close(planned[name], value, SAME, name)


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(PROGRAMS)
def test_planned_and_saved_steps_leave_values_and_gradients_as_they_are(program: Program) -> None:
    """Two steps of the layer, which runs plans both ways and reads saved values, against the step itself."""
    made_cell = made(program)
    torch.manual_seed(0)
    layer = Recurrent(made_cell, 3, 4, dtype=torch.float64)
    graph = made_cell.graph
    params: dict[str, Tensor] = {}
    for stack, members in graph.stacks.items():
        array = torch.nn.init.normal_(layer.get_parameter(f"layers.0.0.{stack}"))
        params |= zip((param.name for param in members), array.chunk(len(members)), strict=True)
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    side = {
        name: torch.randn(2, 2, width, dtype=torch.float64, requires_grad=True)
        for name, width in (("gap", 1), ("mask", 4))
    }
    start = [torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True) for _ in graph.states]
    now = dict(zip(graph.states, (array[0] for array in start), strict=True))
    for t in range(2):
        given = {"x": x[:, t]} | {name: array[:, t] for name, array in side.items()}
        _, now = evaluate_step(graph, given | params, now, SIZES)
    _, final = layer(x, start, side=side)
    leaves = [x, *start, *side.values(), *layer.parameters()]
    numbers = [sum((value * torch.cos(value.detach())).sum() for value in values) for values in (final, now.values())]
    ours, expected = (
        torch.autograd.grad(number, leaves, allow_unused=True, materialize_grads=True) for number in numbers
    )
    for name, value in zip(graph.states, final, strict=True):
        assert_close(value[0], now[name], SAME, name)
    for a, b in zip(ours, expected, strict=True):
        assert_close(a, b, SAME, "gradient")


# Differences of values know nothing of a stop, and bfloat16 falls on either side of a step.
SMOOTH = sorted(set(OPERATIONS) - {"stop", "floor", "gt", "ge", "where", "largest", "norm", "add", "double"})


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sampled_from(SMOOTH), *[st.integers(0, 30)] * 3), min_size=2, max_size=6))
def test_the_contract_is_kept(program: Program) -> None:
    check_cell(made(program))


def test_every_operation_is_tried() -> None:
    assert set(ELEMENTWISE) <= set(OPERATIONS)


def test_saving_reads_nothing_costly_twice() -> None:
    """The backward step of a cell works no product, reduction or transcendental function of the forward step out."""
    graph = plan(made([("tanh", 0, 0, 0), ("mul", 14, 2, 0), ("norm", 15, 0, 0)]).graph).graph
    adjoint = save(differentiate(graph), graph)
    assert not {"matmul", "tanh", "exp", "sigmoid", "sqrt", "log", "log1p"} & {n.op for n in adjoint.graph.nodes}
    assert {"tanh", "sqrt"} <= {node.op for node in adjoint.saved.values()}
