"""Scheduling facts are found: kinds, stages, what is moved out of the loop, what travels together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from everloop.cells import get
from everloop.compiler.ahead import plan_ahead
from everloop.compiler.check import check
from everloop.compiler.cost import measure
from everloop.compiler.differentiate import differentiate
from everloop.compiler.plan import Plan, _checked, label, plan
from everloop.compiler.saves import MEMORY, cost, save
from everloop.compiler.simplify import simplify
from everloop.lang.cell import Cell, cell
from everloop.lang.expr import Expr, Size, spread, total
from everloop.lang.functions import exp, maximum, mean, relu, shift, sigmoid, tanh, where, window
from everloop.lang.graph import Graph
from everloop.testing import check_cell


@cell(states="h", gates="h")
def affine(x, h, W, u):
    return exp(u.h) * h / 2 - sigmoid(W.h @ x) * (W.h @ x - h)


@cell(states="h c", gates="h")
def two_affine(x, h, c, W, u):
    return h + u.h * c, c - tanh(W.h @ x) * h


@cell(states="h", gates="h")
def squared(x, h, W):
    return W.h @ x - h * h


@cell(states="h", gates="h")
def divided(x, h, W):
    return (W.h @ x) / (2 + h)


@cell(states="h", gates="h")
def clipped(x, h, W, u):
    return maximum(u.h * h, W.h @ x)


@cell(states="h", gates="h")
def averaged(x, h, W, u):
    return u.h * mean(h) + W.h @ x


@cell(states="h", gates="h")
def only_read_by_a_matrix(x, h, W, V):
    n = 0.9 * h + W.h @ x
    return n + V.h @ n, n


@cell(states="h", gates="h")
def memoryless(x, h, W):
    return tanh(W.h @ x)


KINDS: list[tuple[Cell, str]] = [
    (affine, "scan"),
    (two_affine, "scan"),
    (memoryless, "scan"),
    (squared, "diagonal"),
    (divided, "diagonal"),
    (clipped, "diagonal"),
    (averaged, "recurrent"),
    (only_read_by_a_matrix, "scan"),
]


@pytest.mark.parametrize(("made", "kind"), KINDS, ids=lambda value: getattr(value, "name", value))
def test_the_kind_is_found(made: Cell, kind: str) -> None:
    assert plan(made.graph).kind == kind


def ops(stages: Any) -> list[str]:
    return [p.op for s in stages for p in s.products] + [n.op for s in stages for n in s.nodes]


def test_a_label_is_never_that_of_a_family() -> None:
    @cell(states="h", gates="h")
    def shadowing(x, h, W, u):
        k = tanh(u.h * h)
        u = exp(W.h @ x)
        return k * u

    assert "u" not in label(shadowing.graph).values()


def test_what_only_the_output_needs_is_done_after_the_loop() -> None:
    schedule = plan(only_read_by_a_matrix.graph)
    assert "matmul" not in ops(schedule.stages)
    assert ops(schedule.after) == ["matmul"]
    assert [node.op for node in schedule.history] == ["add"]


def test_state_free_work_is_done_before_the_loop() -> None:
    schedule = plan(get("lstm").graph)
    assert ops(schedule.before) == ["matmul"]
    assert sorted(set(ops(schedule.stages))) == ["add", "matmul", "mul", "sigmoid", "tanh"]
    assert ops(schedule.after) == []
    assert [len(pack) for pack in schedule.feeds] == [4]


def test_no_value_is_fed_twice() -> None:
    @cell(states="h", gates="a b")
    def shared(x, h, W, U, V, b):
        p = W @ x + b
        i, f = sigmoid(U.a @ h + p.a), tanh(U.b @ h + p.b)
        return i * f + tanh(V.a @ tanh(h) + p.a) * sigmoid(V.b @ tanh(h) + b.b)

    fed = [node for pack in plan(shared.graph).feeds for node in pack]
    assert len(fed) == len(set(fed))


def test_what_is_the_same_at_every_step_is_not_fed() -> None:
    schedule = plan(affine.graph)
    assert all(node in schedule.graph.timed for pack in schedule.feeds for node in pack)
    assert len(schedule.fixed) == 1


def test_labels_are_the_authors_and_unique() -> None:
    graph = plan(get("lstm").graph).graph
    labels = label(graph)
    assert len(set(labels.values())) == len(labels)
    assert {"i", "f", "g", "o", "c'", "h'", "x"} <= set(labels.values())


def test_a_long_unrolled_loop_is_planned_in_reasonable_time() -> None:
    """Sharing must be kept: each round reads its value twice, so a walk that follows paths would never end."""

    @cell(states="h", gates="h")
    def unrolled(x, h, W):
        for _ in range(100):
            h = h + 0.01 * h * (W.h @ x)
        return relu(h)

    schedule: Plan = plan(unrolled.graph)
    assert len(schedule.graph.nodes) < 1000


def test_simplifying_twice_changes_nothing() -> None:
    for name in ("lstm", "gru", "layernorm_lstm", "slstm"):
        once = simplify(get(name).graph)
        again = simplify(once)
        assert again.roots == once.roots


def _graph(node: Expr, h: Expr, **changes: Any) -> Graph:
    parts: dict[str, Any] = {"states": {"h": h}, "new": {"h": node}} | changes
    return Graph("odd", {}, params={}, outputs={"y": node}, **parts)


def test_the_checker_finds_what_a_pass_must_not_make() -> None:
    size, other = Size("hidden"), Size("other")
    h = Expr("state", (), "h", size)
    assert check(_graph(tanh(h), h))
    bad = {
        r"the state k is not declared": Expr("state", (), "k", size),
        r"the input x is not declared": Expr("input", (), "x", size),
        r"no vector b\.h of size hidden is declared": Expr("vector", (), "b.h", size),
        r"no matrix U\.h is declared": Expr("matmul", (h,), ("U.h",), size),
        r"tanh takes 1 arguments, not 2": Expr("tanh", (h, h), None, size),
        r"sizes \[hidden\] make other": Expr("tanh", (h,), "another", other),
        r"sum makes one number of a vector": spread(total(total(h)), size),
        r"spread makes a vector of one number": spread(h, size),
        r"no operation cube of 1 arguments": Expr("cube", (h,), None, size),
    }
    for message, node in bad.items():
        with pytest.raises(TypeError, match=f"^odd: .*{message}"):
            check(_graph(node, h))


def test_the_checker_finds_states_that_do_not_fit() -> None:
    h, wide = Expr("state", (), "h", Size("hidden")), Expr("state", (), "w", Size("wide"))
    with pytest.raises(TypeError, match="the new h has size wide, the old one hidden"):
        check(_graph(tanh(wide), h, states={"h": h, "w": wide}, new={"h": tanh(wide), "w": wide}))
    with pytest.raises(TypeError, match=r"states \['h', 'w'\] but new values of \['h'\]"):
        check(_graph(tanh(h), h, states={"h": h, "w": wide}))


def test_choices_keep_a_loop_out_of_scans() -> None:
    @cell(states="h", gates="h")
    def chosen(x, h, W):
        return where(W.h @ x > 0, h, 0.5 * h)

    assert plan(chosen.graph).kind == "diagonal"


def test_the_checker_finds_a_plan_that_reads_ahead() -> None:
    schedule = plan(get("gru_before").graph)
    with pytest.raises(TypeError, match=r"^gru_before: .* is read before it is made$"):
        _checked(replace(schedule, stages=schedule.stages[::-1]))
    with pytest.raises(TypeError, match=r"is read before it is made$"):
        _checked(replace(schedule, before=()))


def test_the_checker_finds_a_matrix_that_cannot_be_made() -> None:
    graph = get("antisymmetric").graph
    made = next(param for param in graph.params.values() if param.made is not None)
    h = graph.states["h"]
    shape = made.made.size if made.made is not None else None
    wrong = {
        "its formula does not make a matrix": h,
        "U.q is not a matrix that can be worked on": Expr("matrix", (), "U.q", shape),
        "softmax is no operation on matrices": Expr("softmax", (), None, shape),
    }
    for words, formula in wrong.items():
        with pytest.raises(TypeError, match=f"^antisymmetric: .*: {words}$"):
            check(replace(graph, params=graph.params | {made.name: replace(made, made=formula)}))


# -- states that need no past -----------------------------------------------------------------------------------------


def test_delays_of_inputs_are_known_before_the_loop() -> None:
    @cell(states="h", gates="h")
    def windowed(x, h, W, V):
        now, one, two, three = window(x, 4)
        return sigmoid(W.h @ (now + three)) * h + V.h @ (one * two)

    graph = windowed.graph
    assert set(graph.states) == {"h", "x_1", "x_2", "x_3"}
    schedule = plan_ahead(graph)
    assert schedule.kind == "scan"
    assert set(schedule.early) == {"x_1", "x_2", "x_3"}
    assert list(schedule.graph.states) == ["h"]


def test_delays_of_a_state_stay_in_the_loop() -> None:
    @cell(states="h", gates="h")
    def echo(x, h, W, U):
        return tanh(W.h @ x + U.h @ shift(h, 2))

    schedule = plan_ahead(echo.graph)
    assert list(schedule.graph.states) == ["h", "h_1", "h_2"]
    assert (schedule.kind, schedule.early) == ("recurrent", ())


def test_a_network_without_a_loop() -> None:
    """A state that is written from the input alone, and a delay of it: nothing is left to do step by step."""

    @cell(states="h", gates="h", start={"h": 0.5})
    def convolution(x, h, W, V):
        return tanh(W.h @ x) + V.h @ shift(h, 1), tanh(W.h @ x)

    schedule = plan_ahead(convolution.graph)
    assert (schedule.early, schedule.stages, schedule.graph.states) == (("h", "h_1"), (), {})
    check_cell(convolution)


# -- what is kept, and what it costs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("terms", "kept"), [(int(MEMORY), False), (int(MEMORY) + 1, True)])
def test_a_value_is_kept_if_working_it_out_again_costs_more(terms: int, kept: bool) -> None:
    @cell(states="h", gates="h")
    def added(x, h):
        s = h
        for k in range(terms):
            s = s + (k + 1.0) if k % 2 else s * (k + 2.0)
        return s * s + h

    graph = plan(added.graph).graph
    saved = save(differentiate(graph), graph).saved
    assert ("h" in saved) is not kept
    assert any(node.op != "state" for node in saved.values()) is kept


def test_products_are_always_kept() -> None:
    assert cost("matmul") == cost("sum") == float("inf")
    assert cost("mul") < cost("tanh")


def test_the_cost_of_an_lstm() -> None:
    """With I = 3, H = 5: 4 (3 + 5 + 1) 5 parameters; each weight is one multiplication and one addition."""
    graph = get("lstm").graph
    found = measure(plan(graph), {"input": 3, "hidden": 5})
    assert found.parameters == 4 * (3 + 5 + 1) * 5
    assert (found.before.products, found.before.elementwise) == (2 * 4 * 5 * 3, 4 * 5)
    assert found.loop.products == 2 * 4 * 5 * 5
    # Four additions, four gates, three products of vectors, one sum, one tanh; of them five series.
    assert (found.loop.elementwise, found.loop.costly) == (13 * 5, 5 * 5)
    assert (found.weights, found.fed, found.state, found.kept) == (4 * 4 * 25, 4 * 4 * 5, 4 * 2 * 10, 4 * 5)


def test_heads_divide_the_cost_of_a_product() -> None:
    whole, parts = (get("slstm")(heads=heads).graph for heads in (1, 4))
    sizes = {"input": 8, "hidden": 8}
    assert measure(plan(whole), sizes).loop.products == 4 * measure(plan(parts), sizes).loop.products
