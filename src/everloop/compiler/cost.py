"""What a plan costs for given sizes: parameters, operations and bytes, per row and step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from everloop.compiler.plan import Plan, Stage
from everloop.compiler.saves import COSTLY, cost
from everloop.lang.expr import Expr, Size
from everloop.lang.graph import Graph
from everloop.lang.param import Param


@dataclass(frozen=True)
class Work:
    """What one part of a plan does for one row at one step.

    products: floating-point operations of matrix products, two for each weight. elementwise: operations on single
    numbers, one each; costly: those among them that are divisions or series (exp, tanh, ...).
    """

    products: int = 0
    elementwise: int = 0
    costly: int = 0

    @property
    def flops(self) -> int:
        return self.products + self.elementwise


@dataclass(frozen=True)
class Cost:
    """What a plan costs. Bytes of the loop, for one row and step, of numbers of `width` bytes:

    weights: the matrices and vectors that a step reads, once for all rows. fed: what was worked out before.
    state:   the old states read and the new ones written. kept: the history written for what comes after.
    """

    parameters: int
    before: Work
    loop: Work
    after: Work
    weights: int
    fed: int
    state: int
    kept: int


def measure(schedule: Plan, sizes: Mapping[str, int], width: int = 4) -> Cost:
    """Count it. sizes: the length of each size of the graph (Graph.size_names). width: bytes of one number."""
    graph = schedule.graph
    counted = Counting(graph, sizes)
    read = {name for stage in schedule.stages for product in stage.products for name in product.matrices}
    read |= {arg.attr for stage in schedule.stages for node in stage.nodes for arg in node.args if arg.op == "vector"}
    return Cost(
        parameters(graph, sizes),
        counted.work(schedule.before),
        counted.work(schedule.stages),
        counted.work(schedule.after),
        width * sum(counted.stored(graph.params[name]) for name in read),
        width * sum(counted.length(node.size) for pack in schedule.feeds for node in pack),
        width * 2 * sum(counted.length(leaf.size) for leaf in graph.states.values()),
        width * sum(counted.length(node.size) for node in schedule.history),
    )


def parameters(graph: Graph, sizes: Mapping[str, int]) -> int:
    """The number of numbers that a layer trains."""
    counted = Counting(graph, sizes)
    return sum(counted.stored(param) for param in graph.held.values())


def usual_sizes(graph: Graph, input: int, hidden: int) -> dict[str, int]:
    """The length of each size of a cell: those that it does not say itself are half of `hidden`."""
    known = {"input": input, "hidden": hidden}
    return {name: known.get(name) or graph.sizes.get(name, max(1, hidden // 2)) for name in graph.size_names}


@dataclass(frozen=True)
class Counting:
    graph: Graph
    sizes: Mapping[str, int]

    def length(self, size: Size | None) -> int:
        return 1 if size is None else self.sizes[str(size)]

    def stored(self, param: Param) -> int:
        """Entries of a parameter; of a block-diagonal matrix, those of its blocks."""
        return math.prod(param.shape(self.sizes))

    def work(self, stages: Iterable[Stage]) -> Work:
        products = elementwise = costly = 0
        for stage in stages:
            for product in stage.products:
                products += 2 * sum(self.stored(self.graph.params[name]) for name in product.matrices)
                elementwise += sum(self.length(node.size) for node in product.plus)
            for node in stage.nodes:
                count = self._elements(node)
                elementwise += count
                costly += count if cost(node.op) == COSTLY else 0
        return Work(products, elementwise, costly)

    def _elements(self, node: Expr) -> int:
        if node.op in ("spread", "stop"):
            return 0
        return max(self.length(part.size) for part in (node, *node.args))
