"""Values of a graph worked out in torch, for many rows at once."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

import torch

from everloop.backends._spelling import SPELLING, cumulative, multiply_blocks
from everloop.backends._values import Values, length
from everloop.compiler.plan import NUMBERED, Stage
from everloop.lang.expr import Expr, toposort


def evaluate(stages: Iterable[Stage], values: Values, rows: int) -> None:
    """Work out the values of some stages for `rows` rows at once."""
    for stage in stages:
        for product in stage.products:
            matrix = values.weights.stacked(product.matrices)
            vector = values.join(product.args, rows)
            weight = matrix.t() if product.op == "matmul" else matrix
            blocks = values.weights.params[product.matrices[0]].blocks
            if blocks > 1:
                made = multiply_blocks(matrix, vector, product.op, blocks, len(product.matrices))
                plus = values.join(product.plus, rows) if product.plus else 0.0
                values.put(product.results, made + plus)
            elif product.plus:
                plus = values.join(product.plus, rows)
                values.put(
                    product.results, torch.addmm(plus, vector, weight) if vector.dim() == 2 else plus + vector @ weight
                )
            else:
                values.put(product.results, vector @ weight)
        for node in stage.nodes:
            if node.op == "spread":
                values[node] = values.spread(node.args[0], length(node.size, values.sizes))
            elif node.op == "cumsum":
                values[node] = cumulative(values[node.args[0]], node.attr)
            else:
                values[node] = SPELLING[node.op](*[values[arg] for arg in node.args])


# Rows from which on it pays to forget values early: fewer are small.
MANY = 256


class Pass:
    """Products and values of all steps at once, in order; each is forgotten when nothing later reads it.

    needed: what is read when the pass is over. read: that, and all that the pass reads itself.
    """

    def __init__(self, pieces: list[Stage], needed: Iterable[Expr]) -> None:
        self._pieces, self.read = pieces, set(needed)
        steps: list[tuple[tuple[Stage], tuple[Expr, ...]]] = []
        for piece in reversed(pieces):
            over = [node for node in (*_reads(piece), *_makes(piece)) if node not in self.read]
            self.read.update(over)
            steps.append(((piece,), tuple(node for node in over if node.op not in NUMBERED)))
        self._steps = steps[::-1]

    def run(self, values: Values, rows: int) -> None:
        if rows < MANY:
            evaluate(self._pieces, values, rows)
            return
        values.keep(self.read)
        for piece, over in self._steps:
            evaluate(piece, values, rows)
            if over:
                values.forget(over)


def passes(stages: Iterable[Stage], groups: Iterable[Sequence[Expr]], known: Iterable[Expr] = ()) -> list[Pass]:
    """For each group of values in turn, the pass that makes what is not known by then, each value when it is first
    needed. Values of a group are there until the next pass runs.
    """
    pieces, done = [piece for stage in stages for piece in _pieces(stage)], set(known)
    orders: list[tuple[list[Stage], Sequence[Expr]]] = []
    for wanted in groups:
        order = _in_demand(pieces, wanted, done)
        done.update(node for piece in order for node in _makes(piece))
        orders.append((order, wanted))
    found: list[Pass] = []
    for order, wanted in reversed(orders):
        found.append(Pass(order, [*wanted, *(found[-1].read if found else ())]))
    return found[::-1]


def _in_demand(pieces: list[Stage], wanted: Sequence[Expr], known: Container[Expr]) -> list[Stage]:
    """The pieces that the wanted values need, each right before the first that needs it."""
    maker = {node: piece for piece in pieces for node in _makes(piece) if node not in known}
    order: list[Stage] = []
    done: set[Stage] = set()
    waiting = [maker[node] for node in reversed(wanted) if node in maker]
    while waiting:
        piece = waiting[-1]
        before = [maker[node] for node in _reads(piece) if node in maker and maker[node] not in done]
        if piece in done or not before:
            waiting.pop()
            if piece not in done:
                done.add(piece)
                order.append(piece)
        else:
            waiting += reversed(before)
    return order


def _pieces(stage: Stage) -> Iterator[Stage]:
    """The stage as stages of one product or value each."""
    for product in stage.products:
        yield Stage((product,), ())
    for node in stage.nodes:
        yield Stage((), (node,))


def _makes(stage: Stage) -> Iterator[Expr]:
    for product in stage.products:
        yield from product.results
    yield from stage.nodes


def _reads(stage: Stage) -> Iterator[Expr]:
    for product in stage.products:
        yield from (*product.args, *product.plus)
    for node in stage.nodes:
        yield from node.args


def work_out(wanted: Sequence[Expr], values: Values, rows: int) -> None:
    """The wanted values from those known, elementwise; what only they needed is forgotten as soon as may be."""
    nodes = tuple(node for node in below(wanted, values) if node.args and node not in values)
    passes([Stage((), nodes)], [wanted])[0].run(values, rows)


def below(wanted: Sequence[Expr], known: Container[Expr]) -> list[Expr]:
    """What the wanted values are made of, themselves included, down to what is known; arguments first."""
    order, needed = toposort(wanted), set(wanted)
    for node in reversed(order):
        if node in needed and node not in known:
            needed.update(node.args)
    return [node for node in order if node in needed]
