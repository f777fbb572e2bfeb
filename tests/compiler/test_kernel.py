"""What kernels are made of: the graph that they get, what parameters alone decide, the backward step that is wanted."""

from __future__ import annotations

import pytest
import torch

from everloop import cells
from everloop.cells import get
from everloop.compiler.ahead import ahead
from everloop.compiler.differentiate import differentiate
from everloop.compiler.kernel import kernel_graph, only, part, stacks_read
from everloop.lang.cell import cell
from everloop.lang.functions import exp, tanh
from everloop.lang.graph import Graph
from everloop.testing import SAME, assert_close, evaluate_step


@cell(states="h", gates="h")
def read_out(x, h, W, U, V, u):
    n = tanh(W.h @ x + U.h @ (exp(u.h) * h))
    return n + V.h @ n, n


def graph_of(name: str) -> Graph:
    return kernel_graph(ahead(get(name).graph).graph)


@pytest.mark.parametrize("name", cells.names())
def test_every_parameter_of_a_kernel_is_plain_and_read(name: str) -> None:
    graph = graph_of(name)
    assert all(param.made is None for param in graph.params.values())
    assert stacks_read(graph) == set(graph.stacks)


def test_a_matrix_that_others_are_made_of_is_not_for_the_kernel() -> None:
    assert set(get("antisymmetric").graph.held) == {"W.h", "U.h", "b.h"}
    assert set(graph_of("antisymmetric").params) == {"W.h", "b.h", "(U - U.T).h"}


@pytest.mark.parametrize("name", ["clockwork_rnn", "lru", "s5", "layernorm_lstm", "mgu3", "lstm"])
def test_what_parameters_decide_and_the_rest_are_the_whole(name: str) -> None:
    graph = graph_of(name)
    fixed, rest = part(graph)
    assert not any(node.args and node.size for node in rest.nodes if node not in rest.timed and node not in rest.roots)
    sizes = dict.fromkeys(graph.size_names, 4)
    torch.manual_seed(0)
    like = torch.randn(2, 4, dtype=torch.float64)
    given = {name: torch.randn_like(like) for name in graph.inputs}
    given |= {name: torch.randn(*param.shape(sizes), dtype=torch.float64) for name, param in graph.params.items()}
    state = {name: torch.randn_like(like) for name in graph.states}
    made, _ = evaluate_step(fixed, given, {"like": like[:1]}, sizes)
    found = evaluate_step(rest, given | {name: array[0] for name, array in made.items()}, state, sizes)
    for ours, expected in zip(found, evaluate_step(graph, given, state, sizes), strict=True):
        for key, value in expected.items():
            assert_close(ours[key], value, SAME, key)


def test_a_backward_step_for_what_is_wanted_alone() -> None:
    graph = kernel_graph(read_out.graph)
    adjoint = differentiate(graph)

    def found(*wanted: str) -> tuple[set[str], set[str]]:
        step = only(adjoint, graph, frozenset(wanted))
        products = {name for node in step.graph.nodes if node.op == "matmul_t" for name in node.attr}
        assert set(step.inputs) == set(wanted) & {"x"}
        assert {*step.vectors, *step.matrices} == {f"{name}.h" for name in wanted if name in graph.stacks}
        return products, set(step.graph.states)

    assert found(*graph.stacks, "x", "h") == ({"W.h", "U.h", "V.h"}, {"d:h"})
    assert found(*graph.stacks) == ({"U.h", "V.h"}, {"d:h"})
    assert found("x") == ({"W.h", "U.h", "V.h"}, {"d:h"})
    assert found("h") == ({"U.h", "V.h"}, {"d:h"})
    # The matrix that only the output reads needs nothing from step to step.
    assert found("V") == (set(), set())
