"""Affine steps are found and written out; what comes out computes what went in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from everloop import cells
from everloop.compiler.affine import Affine, affine, check_affine, written_out
from everloop.compiler.ahead import ahead, plan_ahead
from everloop.compiler.differentiate import differentiate
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.compiler.saves import save
from everloop.lang import functions as f
from everloop.lang.cell import Cell, cell
from everloop.lang.expr import Expr, const
from everloop.lang.graph import Graph
from everloop.testing import SAME, assert_close, evaluate_step

SIZES = {"input": 3, "hidden": 4}


def form(made: Cell) -> Affine:
    found = affine(plan(made.graph).graph)
    assert found is not None
    return found


@cell(states="h c", gates="a b")
def coupled(x, h, c, W, u):
    return u.a * (h - 2 * c) / 3 - f.sigmoid(W.a @ x) * (W.b @ x - h), c - f.tanh(W.b @ x) * h


@cell(states="h", gates="a")
def clipped(x, h, W):
    return f.maximum(h, W.a @ x)


def test_the_coefficients_of_mingru() -> None:
    found = form(cells.get("mingru"))
    (keep,), (added,) = found.coefficients.values(), found.offsets.values()
    names = found.graph.names
    assert [names.get(node, node.op) for node in (*keep.args, *added.args)] == ["const", "z", "z", "n"]


def test_coupled_states_have_a_coefficient_for_each_pair() -> None:
    found = form(coupled)
    assert set(found.coefficients) == {("h", "h"), ("h", "c"), ("c", "c"), ("c", "h")}
    assert found.coefficients["c", "c"] is const(1)
    assert set(found.offsets) == {"h"}


def test_what_is_zero_is_left_away() -> None:
    @cell(states="h c d e", gates="a")
    def sparse(x, h, c, d, e, W):
        return h + (c - c), h, W.a @ x, e - e + 0 * h

    found = form(sparse)
    assert found.coefficients == {("h", "h"): const(1), ("c", "h"): const(1)}
    assert set(found.offsets) == {"d"}


def test_a_coefficient_may_be_one_number_per_row() -> None:
    @cell(states="h", gates="a")
    def gated(x, h):
        return f.sigmoid(f.mean(x)) * h + f.mean(x)

    found = form(gated)
    assert [node.size for node in (*found.coefficients.values(), *found.offsets.values())] == [None, None]


@pytest.mark.parametrize("name", ["lstm", "indrnn", "slstm"])
def test_other_cells_have_no_such_form(name: str) -> None:
    assert affine(plan(cells.get(name).graph).graph) is None


def test_elementwise_is_not_enough() -> None:
    assert affine(plan(clipped.graph).graph) is None


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def step(graph: Graph) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What one step on drawn values gives."""
    torch.manual_seed(0)
    given = {name: draw(2, 1 if leaf.size is None else SIZES[str(leaf.size)]) for name, leaf in graph.inputs.items()}
    given |= {name: draw(*(SIZES[str(size)] for size in param.sizes)) for name, param in graph.params.items()}
    return evaluate_step(graph, given, {name: draw(2, 4) for name in graph.states}, SIZES)


def agrees(found: Affine | None) -> None:
    assert found is not None
    (_, expected), (_, new) = step(found.graph), step(written_out(found))
    for name, value in expected.items():
        assert_close(new[name], value, SAME, name)


def scans() -> list[str]:
    return [name for name in cells.names() if plan_ahead(cells.get(name).graph).kind == "scan"]


def test_the_catalogue_has_scans() -> None:
    assert {"mingru", "minlstm", "lru"} <= set(scans())


@pytest.mark.parametrize("made", [*map(cells.get, scans()), coupled], ids=lambda made: made.name)
def test_the_step_and_its_backward_step_are_scans(made: Cell) -> None:
    forward = plan(kernel_graph(ahead(made.graph).graph))
    backward = plan(save(differentiate(forward.graph), forward.graph).graph)
    for schedule in (forward, backward):
        assert schedule.kind == "scan"
        agrees(affine(schedule.graph))


# Operations on a value that may need the states and one that needs none.
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, free: a + free,
    "less": lambda a, free: free - a,
    "mul": lambda a, free: free * a,
    "div": lambda a, free: a / (1 + f.square(free)),
    "neg": lambda a, free: -a,
    "half": lambda a, free: 0.5 * a,
    "number": lambda a, free: f.mean(free) * a,
}
PROGRAMS = st.lists(st.tuples(st.sampled_from(["pair", *OPERATIONS]), *[st.integers(0, 30)] * 2), max_size=10)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(PROGRAMS)
def test_random_affine_steps(program: list[tuple[str, int, int]]) -> None:
    @cell(states="h c", gates="a b")
    def random(x, h, c, W, u):
        h + W.a @ x + W.b @ x + u.a + u.b  # every value is as long as h
        free = [f.tanh(W.a @ x), f.sigmoid(W.b @ x + u.a), u.b, f.exp(u.a)]
        values = [h, c, h - c, *free]
        for name, one, other in program:
            value = values[one % len(values)]
            if name == "pair":
                values.append(value - values[other % len(values)])
            else:
                values.append(OPERATIONS[name](value, free[other % len(free)]))
        return values[-1], values[-2] - values[-1]

    schedule = plan(random.graph)
    assert schedule.kind == "scan"
    agrees(affine(schedule.graph))
    assert plan(differentiate(schedule.graph).graph).kind == "scan"


def test_the_checker_finds_what_the_pass_must_not_make() -> None:
    found = form(coupled)
    h, size = found.graph.states["h"], found.graph.states["h"].size
    undeclared = Expr("vector", (), "b.q", size)
    bad: dict[str, dict[str, Any]] = {
        r"h <- c: .* depends on a state": {"coefficients": {("h", "c"): h}},
        r"h <- 1: .* depends on a state": {"offsets": {"h": h * 2}},
        r"h <- c: size input makes a state of size hidden": {"coefficients": {("h", "c"): found.graph.inputs["x"]}},
        r"h <- 1: a zero is left away": {"offsets": {"h": const(0)}},
        r"no vector b\.q of size hidden is declared": {"coefficients": {("h", "c"): undeclared}},
    }
    for message, changes in bad.items():
        with pytest.raises(TypeError, match=f"^coupled: .*{message}"):
            check_affine(replace(found, **changes))


def test_the_checker_finds_states_that_do_not_fit() -> None:
    @cell(states="h c:input", gates="a")
    def apart(x, h, c, W):
        return 0.5 * h + W.a @ x, 0.5 * c + x

    found = form(apart)
    wrong = found.coefficients | {("h", "c"): const(2)}
    with pytest.raises(TypeError, match=r"^apart: h <- c: states of different sizes"):
        check_affine(replace(found, coefficients=wrong))
