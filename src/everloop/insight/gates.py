"""What gates do over time: how often they are shut or wide open, and how long what they keep lasts.

Gates are found in the graph, not by name: a cell typed a minute ago has them as an LSTM has.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import ArrayLike

from everloop.insight.alone import along
from everloop.insight.recording import LayerRecord
from everloop.lang.expr import ELEMENTWISE, Expr, const, spread, toposort
from everloop.lang.graph import Graph, reached
from everloop.lang.ops import GRADIENT

EDGES = {"sigmoid": (0.1, 0.9), "tanh": (-0.9, 0.9)}
"""Beyond these, a value is said to be saturated: little gradient goes through."""


@dataclass(frozen=True)
class Saturation:
    """Of each unit, the share of steps at which a gate is below and above its EDGES: [F]."""

    op: str
    low: np.ndarray
    high: np.ndarray


def saturation(one: LayerRecord, lengths: ArrayLike | None = None) -> dict[str, Saturation]:
    """Every sigmoid and tanh of the step, by its name, or, without one, by what it is of: `tanh(c)`."""
    operations: dict[str, str] = {}

    def gates(graph: Graph) -> dict[str, Expr]:
        found = {_called(node, graph): node for node in graph.nodes if node.op in EDGES and node.size is not None}
        operations.update({name: node.op for name, node in found.items()})
        return found

    values = along(one, gates, lengths)
    there = _there(one, lengths)
    return {name: _saturation(operations[name], array[there]) for name, array in values.items()}


def half_life(one: LayerRecord, lengths: ArrayLike | None = None) -> dict[str, np.ndarray]:
    """After how many steps half of what a unit holds is left, by state: [F], in steps.

    ln 2 / -ln f, where f is the share of its old value that a unit hands on: the derivative of the new value by the
    old one on all paths on which units do not meet, as a geometric mean over all steps. In an LSTM that is the forget
    gate, in a GRU the update gate, in a leaky unit 1 - leak. Where several states of a unit hand on each other, as the
    two parts of a complex number, f is the growth per step of the slowest part. Infinite where nothing is lost. The
    first step is left out: it has a start value to hand on, and no memory.

    States that are kept by matrices alone, as that of an Elman network, are left out: no unit has a life of its own.
    """
    graph = one.cell.graph
    groups = _groups(_handed_on(graph))
    shares = along(one, lambda graph: {"/".join(pair): node for pair, node in _handed_on(graph).items()}, lengths)
    there = _there(one, lengths)
    later = there & (np.arange(there.shape[1]) > 0)
    there = later if later.any() else there
    found: dict[str, np.ndarray] = {}
    for group in groups:
        rate = _growth(group, shares, there)
        lost = np.where(rate < 0, -rate, 0.0)
        with np.errstate(divide="ignore"):
            found |= dict.fromkeys(group, log(2) / lost)
    return {name: found[name] for name in graph.states if name in found}


def _called(node: Expr, graph: Graph) -> str:
    known = graph.names.get(node)
    if known is not None:
        return known
    of = graph.names.get(node.args[0])
    alike = [other for other in graph.nodes if other.op == node.op and other.args and other not in graph.names]
    return f"{node.op}({of})" if of else f"{node.op} {alike.index(node) + 1}"


def _saturation(op: str, rows: np.ndarray) -> Saturation:
    low, high = EDGES[op]
    return Saturation(op, (rows < low).mean(0), (rows > high).mean(0))


def _there(one: LayerRecord, lengths: ArrayLike | None) -> np.ndarray:
    """Which steps are no padding: [B, T]."""
    batch, time = one.x.shape[:2]
    return np.arange(time) < (np.full(batch, time) if lengths is None else np.asarray(lengths))[:, None]


def _handed_on(graph: Graph) -> dict[tuple[str, str], Expr]:
    """(new state, old state) -> the derivative of one by the other, unit by unit; what is absent is zero."""
    found: dict[tuple[str, str], Expr] = {}
    for new, node in graph.new.items():
        for old, share in _derivatives(node, graph).items():
            size = graph.states[old].size
            assert size is not None
            found[new, old] = share if share.size is not None else spread(share, size)
    return found


def _derivatives(end: Expr, graph: Graph) -> dict[str, Expr]:
    """Of one value by each state, on the paths that are elementwise all along."""
    order = toposort([end])
    apart = [node for node in order if node.op in ELEMENTWISE]
    on_the_way = reached(apart, graph.states.values())
    grads = {end: const(1)}
    for node in reversed(order):
        if node not in grads or node.op not in ELEMENTWISE:
            continue
        for arg, grad in zip(node.args, GRADIENT[node.op](grads[node], node, *node.args), strict=True):
            if arg in on_the_way and grad is not None and grad is not const(0):
                grads[arg] = grads[arg] + grad if arg in grads else grad
    return {name: grads[leaf] for name, leaf in graph.states.items() if leaf in grads}


def _groups(pairs: dict[tuple[str, str], Expr]) -> list[tuple[str, ...]]:
    """States that hand on each other, over however many steps; one that hands on itself alone is a group, too."""
    goes = dict.fromkeys(pairs)
    names = dict.fromkeys(name for pair in pairs for name in pair)
    for via in names:
        goes |= {(new, old): None for new in names for old in names if (new, via) in goes and (via, old) in goes}
    groups = [tuple(b for b in names if (a, b) in goes and (b, a) in goes) for a in names if (a, a) in goes]
    return list(dict.fromkeys(groups))


def _growth(group: tuple[str, ...], shares: dict[str, np.ndarray], there: np.ndarray) -> np.ndarray:
    """ln f of each unit, the mean over all steps: [F]."""
    with np.errstate(divide="ignore"):
        if len(group) == 1:
            return np.log(np.abs(shares[f"{group[0]}/{group[0]}"][there])).mean(0)
        like = next(array for name, array in shares.items() if name.split("/")[0] in group)
        blocks = np.zeros((*like.shape, len(group), len(group)))
        for row, new in enumerate(group):
            for column, old in enumerate(group):
                blocks[..., row, column] = shares.get(f"{new}/{old}", 0.0)
        return _log_radius(np.where(there[:, :, None, None, None], blocks, np.eye(len(group)))) / there.sum()


def _log_radius(blocks: np.ndarray) -> np.ndarray:
    """The largest modulus of an eigenvalue of the product over the steps of matrices [B, T, F, K, K]: its logarithm,
    the sum over all sequences, [F].
    """
    product = np.broadcast_to(np.eye(blocks.shape[-1]), blocks[:, 0].shape)
    logs = np.zeros(product.shape[:-2])
    for step in range(blocks.shape[1]):
        product = blocks[:, step] @ product
        # Its size is kept apart: the product of many steps is beyond the range of numbers.
        size = np.abs(product).max((-2, -1))
        logs += np.log(size)
        product = product / np.where(size > 0, size, 1.0)[..., None, None]
    return (logs + np.log(np.abs(np.linalg.eigvals(product)).max(-1))).sum(0)
