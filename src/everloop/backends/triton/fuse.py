"""A plan with all elementwise work in the loop: on a GPU what is read and written costs, not what is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from everloop.compiler.plan import Plan, Stage
from everloop.lang.expr import ELEMENTWISE, Expr


def fused(schedule: Plan) -> Plan:
    """The same plan; what comes before the loop for its sake alone, and what comes after it and needs nothing but the
    loop, is worked out within. Products, and what runs over the features, stay where they are: they want many rows.
    """
    graph = schedule.graph
    if not graph.states:
        return schedule
    before = [node for stage in schedule.before for node in stage.nodes if _is_easy(node) and node in graph.timed]
    after = _to_take_along(schedule)
    taken = set(_only_for(schedule.looped | set(after), before, graph.nodes, graph.roots))
    stages = [
        Stage((), tuple(node for node in before if node in taken)),
        *schedule.stages,
        Stage((), tuple(after)),
    ]
    return replace(
        schedule,
        before=_without(schedule.before, taken),
        stages=tuple(stage for stage in stages if stage.products or stage.nodes),
        after=_without(schedule.after, set(after)),
    )


def _is_easy(node: Expr) -> bool:
    return node.op in ELEMENTWISE or node.op == "spread"


def _to_take_along(schedule: Plan) -> list[Expr]:
    """What comes after the loop and is made, entry by entry, of what is there in it."""
    late = {node for stage in schedule.after for node in (*stage.nodes, *_results(stage))}
    found: list[Expr] = []
    for stage in schedule.after:
        for node in stage.nodes:
            if _is_easy(node) and not any(arg in late for arg in node.args):
                found.append(node)
                late.discard(node)
    return found


def _results(stage: Stage) -> list[Expr]:
    return [node for product in stage.products for node in product.results]


def _only_for(
    users: set[Expr] | frozenset[Expr], some: Sequence[Expr], nodes: Sequence[Expr], roots: Sequence[Expr]
) -> list[Expr]:
    """Those of some values that only these users read, or others that only they read."""
    readers: dict[Expr, list[Expr]] = {}
    for node in nodes:
        for arg in node.args:
            readers.setdefault(arg, []).append(node)
    inside, wanted = set(users), set(roots)
    for node in reversed(some):
        if node not in wanted and all(reader in inside for reader in readers.get(node, [])):
            inside.add(node)
    return [node for node in some if node in inside]


def _without(stages: Sequence[Stage], taken: set[Expr]) -> tuple[Stage, ...]:
    left = [Stage(stage.products, tuple(node for node in stage.nodes if node not in taken)) for stage in stages]
    return tuple(stage for stage in left if stage.products or stage.nodes)
