"""Scheduling facts are found: kinds, stages, what is moved out of the loop, what travels together."""

from __future__ import annotations

from typing import Any

import pytest

from everloop.cells import get
from everloop.compiler.check import check
from everloop.compiler.plan import Plan, label, plan, split
from everloop.compiler.simplify import simplify
from everloop.lang.cell import Cell, cell
from everloop.lang.expr import Expr, Size, spread, total
from everloop.lang.functions import exp, maximum, mean, relu, sigmoid, tanh, where
from everloop.lang.graph import Graph


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


def test_splitting_gives_a_loop_without_the_input() -> None:
    schedule = plan(get("layernorm_lstm").graph)
    loop = check(split(schedule))
    assert "x" not in loop.inputs
    assert {name.partition(".")[0] for name in loop.params} == {"U", "t", "b"}
    assert ops(plan(loop).before) == ["mul"]  # the number of features of four gates


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
