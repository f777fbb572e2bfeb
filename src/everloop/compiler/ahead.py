"""States that need no past: what a step hands on without having looked at what was handed to it.

A delayed input (`shift(x, 1)`) is a state, because a stream that stops in the middle has to remember it. But its
values are known for all steps before the loop begins: they are those of the new value, one step later. Whatever
only such states reach is worked out for all steps at once, like the input itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from everloop.compiler.check import check
from everloop.compiler.plan import Plan, plan
from everloop.lang.expr import Expr, substitute, toposort
from everloop.lang.graph import Graph


@dataclass(frozen=True, eq=False)
class Ahead:
    """A graph whose states that need no past have become inputs of the same name.

    values: what each of them holds next, in an order in which they can be worked out; a value may need the inputs
    that stand for states before it in that order.
    """

    graph: Graph
    values: dict[str, Expr]


def ahead(graph: Graph) -> Ahead:
    """Find the states that need no past, and make inputs of them."""
    known = _known(graph)
    if not known:
        return Ahead(graph, {})
    leaves = {graph.states[name]: Expr("input", (), name, graph.states[name].size) for name in known}
    done = substitute([graph.new[name] for name in known], leaves)
    rewritten = graph.replace(leaves)
    made = replace(
        rewritten,
        inputs=graph.inputs | {leaf.attr: leaf for leaf in leaves.values()},
        states={name: leaf for name, leaf in graph.states.items() if name not in known},
        new={name: value for name, value in rewritten.new.items() if name not in known},
    )
    return Ahead(check(made), {name: done[graph.new[name]] for name in known})


def plan_ahead(graph: Graph) -> Plan:
    """How a graph runs over time when the states that need no past are worked out first."""
    found = ahead(graph)
    return replace(plan(found.graph), early=tuple(found.values))


def _known(graph: Graph) -> list[str]:
    """The names of the states that only inputs, and states found before them, reach."""
    needs = {name: _states_below(value) for name, value in graph.new.items()}
    found: list[str] = []
    growing = True
    while growing:
        new = [name for name in graph.states if name not in found and needs[name].issubset(found)]
        found += new
        growing = bool(new)
    return found


def _states_below(value: Expr) -> set[str]:
    return {node.attr for node in toposort([value]) if node.op == "state"}
