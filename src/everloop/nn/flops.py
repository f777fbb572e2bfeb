"""What the operators cost, for torch.utils.flop_counter: as there, the operations of matrix products, two for each
weight and row. Of sequences of several lengths the longest counts, because shapes are all that is known.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

from everloop.backends._values import length
from everloop.compiler.cost import measure
from everloop.compiler.differentiate import differentiate
from everloop.compiler.kernel import only
from everloop.compiler.plan import Plan, plan
from everloop.compiler.saves import save
from everloop.nn.function import find


def of_recurrence(
    inputs: Any, states: Any, weights: Any, given: Any, key: str, *rest: Any, out_shape: Any = None
) -> int:
    return _rows(inputs) * _forward(key)


def of_gradient(
    inputs: Any,
    states: Any,
    weights: Any,
    grads: Any,
    room: Any,
    given: Any,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Any,
    *rest: Any,
    out_shape: Any = None,
) -> int:
    again = 0 if room is not None else _forward(key)
    return _rows(inputs) * (again + _backward(key, tuple(wanted)))


def _rows(inputs: Any) -> int:
    return prod(inputs[0][:-1])


@lru_cache
def _forward(key: str) -> int:
    """Operations of a row."""
    found = find(key)
    return _products(plan(found.graph), found.sizes)


@lru_cache
def _backward(key: str, wanted: tuple[bool, ...]) -> int:
    found = find(key)
    names = (*found.inputs, *found.states, *found.stacks)
    chosen = frozenset(name for name, want in zip(names, wanted, strict=True) if want)
    adjoint = save(only(differentiate(found.graph), found.graph, chosen), found.graph)
    total = _products(plan(adjoint.graph), found.sizes)
    for name, pairs in adjoint.matrices.items():
        rows, columns = (length(size, found.sizes) for size in found.graph.params[name].sizes)
        total += 2 * len(pairs) * rows * columns // found.graph.params[name].blocks
    return total


def _products(schedule: Plan, sizes: dict[str, int]) -> int:
    cost = measure(schedule, sizes)
    return cost.before.products + cost.loop.products + cost.after.products
