"""Back-propagation through time of any cell: the gradient of one step, as a step of its own.

`differentiate(graph)` gives the backward step in the same algebra. It runs from the last time step to the
first; its states are the gradients of the loss with respect to the forward states, handed back from the
step after. Its inputs are those of the forward step, the old states, and the gradients of the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from everloop.compiler.check import check
from everloop.lang.expr import Expr, const, spread, toposort, total
from everloop.lang.graph import Graph
from everloop.lang.ops import GRADIENT


@dataclass(frozen=True, eq=False)
class Adjoint:
    """The backward step of a graph.

    graph:    states `d:h` of the forward states h; outputs as named below. Its input `h` is the state before
              the step, `d:y` the gradient of output y; other inputs are those of the forward step, or saved values.
    saved:    input of `graph` -> the value of the forward step that it holds.
    inputs:   forward input -> output of `graph` holding its gradient.
    vectors:  vector parameter -> output holding its gradient of this step, to be summed over rows and steps.
    matrices: matrix -> pairs (output, value): the gradient is the sum over rows and steps of their outer product;
              both are outputs of `graph`.
    """

    graph: Graph
    saved: dict[str, Expr]
    inputs: dict[str, str]
    vectors: dict[str, str]
    matrices: dict[str, tuple[tuple[str, str], ...]]


def differentiate(graph: Graph) -> Adjoint:
    """The backward step, written in terms of everything the forward step computes."""
    primal = primal_graph(graph)
    handed_back = {name: Expr("state", (), f"d:{name}", node.size) for name, node in primal.new.items()}
    given = {name: Expr("input", (), f"d:{name}", node.size) for name, node in primal.outputs.items()}
    grads, pairs = _reverse(primal, handed_back, given)

    def grad(leaf: Expr) -> Expr:
        return _sized(grads.get(leaf, const(0)), leaf)

    inputs = {name: f"d:{name}" for name in graph.inputs}
    vectors = {name: f"d:{name}" for name, param in primal.params.items() if not param.is_matrix}
    outputs = {f"d:{name}": grad(leaf) for name, leaf in graph.inputs.items()}
    outputs |= {f"d:{name}": grad(Expr("vector", (), name, primal.params[name].sizes[0])) for name in vectors}
    matrices: dict[str, tuple[tuple[str, str], ...]] = {}
    for name, found in pairs.items():
        matrices[name] = tuple((f"d:{name}/{k}/rows", f"d:{name}/{k}/columns") for k in range(len(found)))
        for (rows, columns), (bar, value) in zip(matrices[name], found, strict=True):
            outputs[rows], outputs[columns] = bar, value
    names = primal.names | {bar: f"d{primal.names[node]}" for node, bar in grads.items() if node in primal.names}
    backward = Graph(
        f"{graph.name}, backward",
        primal.inputs | {f"d:{name}": node for name, node in given.items()},
        {f"d:{name}": node for name, node in handed_back.items()},
        primal.params,
        {f"d:{name}": grad(primal.inputs[name]) for name in graph.states},
        outputs,
        {},
        names,
    )
    return Adjoint(check(backward), {name: graph.states[name] for name in graph.states}, inputs, vectors, matrices)


def primal_graph(graph: Graph) -> Graph:
    """The forward step as the backward step sees it: the old states are given, like the inputs."""
    given = given_states(graph)
    inputs = graph.inputs | {name: given[state] for name, state in graph.states.items()}
    return replace(graph.replace(given), inputs=inputs, states={})


def given_states(graph: Graph) -> dict[Expr, Expr]:
    """Each state, and the input that stands for it in the backward step."""
    return {state: Expr("input", (), name, state.size) for name, state in graph.states.items()}


def _reverse(
    primal: Graph, handed_back: dict[str, Expr], given: dict[str, Expr]
) -> tuple[dict[Expr, Expr], dict[str, list[tuple[Expr, Expr]]]]:
    """Reverse mode over the nodes: the gradient of each, and for each matrix its (rows, columns) pairs."""
    grads: dict[Expr, Expr] = {}
    pairs: dict[str, list[tuple[Expr, Expr]]] = {}

    def add(node: Expr, gradient: Expr) -> None:
        gradient = _sized(gradient, node)
        grads[node] = grads[node] + gradient if node in grads else gradient

    for name, node in primal.outputs.items():
        add(node, given[name])
    for name, node in primal.new.items():
        add(node, handed_back[name])
    for node in reversed(toposort(primal.roots)):
        if node not in grads or not node.args:
            continue
        if node.op == "matmul":
            (name,), (value,) = node.attr, node.args
            add(value, Expr("matmul_t", (grads[node],), (name,), value.size))
            pairs.setdefault(name, []).append((grads[node], value))
            continue
        for arg, gradient in zip(node.args, GRADIENT[node.op](grads[node], node, *node.args), strict=True):
            if gradient is not None and gradient is not const(0) and arg.op not in ("const", "count"):
                add(arg, gradient)
    return grads, pairs


def _sized(gradient: Expr, node: Expr) -> Expr:
    """A gradient has the size of what it is the gradient of: summed or repeated where broadcasting was at work."""
    if node.size is None:
        return total(gradient) if gradient.size is not None else gradient
    return spread(gradient, node.size) if gradient.size is None else gradient
