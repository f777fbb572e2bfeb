"""What a kernel is made of: the graph of a cell without what the layer does itself, and its backward step without
what nobody asks for.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace

from everloop.compiler.check import check
from everloop.compiler.differentiate import Adjoint
from everloop.compiler.plan import label
from everloop.compiler.simplify import simplify
from everloop.lang.expr import Expr, toposort
from everloop.lang.graph import Graph
from everloop.lang.param import Param


def kernel_graph(graph: Graph) -> Graph:
    """The graph as kernels get it, from one whose states all need the past (compiler.ahead): simplified, matrices made
    of others as parameters like all, and no parameter that the step does not read.
    """
    graph = simplify(check(graph))
    read = _params_read(graph)
    params = {name: replace(param, made=None) for name, param in graph.params.items() if name in read}
    return check(replace(graph, params=params))


def part(graph: Graph) -> tuple[Graph, Graph]:
    """The vectors that parameters alone decide, and the rest of the graph, in which they are parameters themselves, by
    the names that the first has them under as outputs.
    """
    labels = label(graph)
    read = {*graph.roots, *(arg for node in graph.nodes if node in graph.timed for arg in node.args)}
    found = [node for node in graph.nodes if node in read and node.args and node not in graph.timed and node.size]
    leaves = {node: Expr("vector", (), labels[node], node.size) for node in found}
    made = {labels[node]: Param(labels[node], "", (node.size,)) for node in found if node.size}
    fixed = Graph(f"{graph.name}, fixed", {}, {}, graph.params, {}, {labels[node]: node for node in found})
    rest = graph.replace(leaves)
    return check(fixed), check(replace(rest, params=graph.params | made))


def stacks_read(graph: Graph) -> frozenset[str]:
    """The stacks that the step reads."""
    read = _params_read(graph)
    return frozenset(stack for stack, params in graph.stacks.items() if any(param.name in read for param in params))


def _params_read(graph: Graph) -> set[str]:
    products = (node.attr for node in graph.nodes if node.op in ("matmul", "matmul_t"))
    return {node.attr for node in graph.nodes if node.op == "vector"}.union(*products)


def only(adjoint: Adjoint, graph: Graph, wanted: Container[str]) -> Adjoint:
    """The backward step of a graph for those of its inputs, states and stacks whose gradient is wanted; it goes before
    `save`.
    """
    members = {param.name for stack, params in graph.stacks.items() if stack in wanted for param in params}
    inputs = {name: key for name, key in adjoint.inputs.items() if name in wanted}
    vectors = {name: key for name, key in adjoint.vectors.items() if name in members}
    matrices = {name: pairs for name, pairs in adjoint.matrices.items() if name in members}
    asked = {
        *inputs.values(),
        *vectors.values(),
        *(key for pairs in matrices.values() for pair in pairs for key in pair),
    }
    whole = adjoint.graph
    outputs = {name: node for name, node in whole.outputs.items() if name in asked}
    states = _carried(whole, outputs.values(), {f"d:{name}" for name in graph.states if name in wanted})
    part = replace(
        whole,
        outputs=outputs,
        states={name: leaf for name, leaf in whole.states.items() if name in states},
        new={name: node for name, node in whole.new.items() if name in states},
    )
    return replace(adjoint, graph=check(part), inputs=inputs, vectors=vectors, matrices=matrices)


def _carried(graph: Graph, outputs: Iterable[Expr], wanted: set[str]) -> set[str]:
    """The wanted states, and those that they or the outputs need from step to step."""
    roots, found = list(outputs), set(wanted)
    while True:
        nodes = toposort([*roots, *(graph.new[name] for name in found)])
        new = {node.attr for node in nodes if node.op == "state"} - found
        if not new:
            return found
        found |= new
