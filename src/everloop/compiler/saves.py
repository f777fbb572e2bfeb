"""What the forward step keeps for the backward step, and what is worked out again: a rule of costs.

One unit is one addition of two vectors that are at hand. To write a value down in the forward step and to read it
in the backward step costs `MEMORY` of them: the loop over time comes back to a value long after it has left the
cache. So a value that the backward step needs is

    worked out again   if that costs no more than MEMORY, from what is kept, the inputs and the parameters;
    kept               otherwise, and always if it is a matrix product or runs over all features.

Values are looked at in the order of the step; what is kept is at hand for those after it.
"""

from __future__ import annotations

from dataclasses import replace

from everloop.compiler.check import check
from everloop.compiler.differentiate import Adjoint, given_states, primal_graph
from everloop.lang.expr import ELEMENTWISE, Expr, substitute
from everloop.lang.graph import Graph

MEMORY = 8.0
SIMPLE = {
    **dict.fromkeys(("add", "sub", "mul", "neg", "gt", "ge", "where", "maximum", "minimum", "floor"), 1.0),
    **dict.fromkeys(("spread", "stop"), 0.0),
}
# Divisions and the functions that are series: ten and more additions each, on any machine.
COSTLY = 16.0


def cost(op: str) -> float:
    """What one operation costs, in additions."""
    if op in SIMPLE:
        return SIMPLE[op]
    return COSTLY if op in ELEMENTWISE else float("inf")


def save(adjoint: Adjoint, graph: Graph, memory: float = MEMORY) -> Adjoint:
    """The same backward step with the costly values of the forward step read from memory, not worked out again.

    memory: what it costs to write a value down and to read it.
    """
    primal = primal_graph(graph)
    forward_of = {new: old for old, new in substitute(graph.roots, given_states(graph)).items()}
    wanted = {
        arg for node in adjoint.graph.nodes if node not in forward_of for arg in node.args if arg in forward_of
    } | {root for root in adjoint.graph.roots if root in forward_of}
    kept = _kept({node for node in wanted if node.args and node in primal.timed}, primal, memory)
    names = {node: f"saved:{k}:{primal.names.get(node, node.op)}" for k, node in enumerate(kept)}
    leaves = {node: Expr("input", (), name, node.size) for node, name in names.items()}
    rewritten = adjoint.graph.replace(leaves)
    inputs = adjoint.graph.inputs | {names[node]: leaf for node, leaf in leaves.items()}
    used = set(rewritten.nodes)
    inputs = {name: leaf for name, leaf in inputs.items() if leaf in used}
    saved = {name: node for name, node in adjoint.saved.items() if name in inputs}
    saved |= {names[node]: forward_of[node] for node in kept}
    return replace(adjoint, graph=check(replace(rewritten, inputs=inputs)), saved=saved)


def _kept(wanted: set[Expr], primal: Graph, memory: float) -> list[Expr]:
    """Those of the wanted values that are dear to work out again, in the order of the step."""
    kept: list[Expr] = []
    at_hand = {node for node in primal.nodes if not node.args or node not in primal.timed}
    for node in primal.nodes:
        if node in wanted and _recomputing(node, at_hand, memory) > memory:
            kept.append(node)
            at_hand.add(node)
    return kept


def _recomputing(node: Expr, at_hand: set[Expr], enough: float) -> float:
    """What it costs to work a value out from those at hand, each value in between once; or anything above `enough`."""
    total, seen, waiting = 0.0, set(), [node]
    while waiting and total <= enough:
        part = waiting.pop()
        if part in seen or part in at_hand:
            continue
        seen.add(part)
        total += cost(part.op)
        waiting += part.args
    return total
