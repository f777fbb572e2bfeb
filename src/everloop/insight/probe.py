"""Probes: a rewrite of a cell that lets one read every value of its step, and the gradient with respect to each.

To every value an input of zeros is added. The step computes what it did; and the gradient with respect to that input is
the gradient with respect to the value, through all later steps, on whichever backend runs the cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from everloop.lang.cell import Cell
from everloop.lang.expr import Expr, rebuild, spread, toposort
from everloop.lang.functions import carry_composites
from everloop.lang.graph import Graph
from everloop.nn.function import Recurrence


def values_of(graph: Graph) -> dict[str, Expr]:
    """What can be recorded of a step, by name: its states after the step, y, which it puts out, and its named values.

    A name that came twice is that of the state, else of the last value called so. Where a state is called y that is not
    the output, the output is called `output`.
    """
    output = graph.outputs["y"]
    found = dict(graph.new)
    found["y" if found.get("y", output) is output else "output"] = output
    named = {name: node for node, name in graph.names.items()}
    return found | {name: node for name, node in named.items() if name not in found}


def width(node: Expr, sizes: Mapping[str, int]) -> int:
    """The features of a value; of one number per row, 1."""
    return 1 if node.size is None else sizes[str(node.size)]


@dataclass(frozen=True)
class Probe:
    """From graph to graph: the values of these names are called `kept_<name>`, for a layer to watch; with `gradients`,
    an input `probe_<name>` is added to each. A value of several names has the first of them.
    """

    names: tuple[str, ...]
    gradients: bool
    name = "probe"

    def __call__(self, graph: Graph) -> Graph:
        values = _once(graph, self.names)
        leaves = {key: _leaf(key, node, graph) for key, node in values.items()} if self.gradients else {}
        within = {values[key]: leaf for key, leaf in leaves.items() if not _handed_on(key, graph)}
        done: dict[Expr, Expr] = {}
        for node in toposort([*graph.roots, *values.values()]):
            made = rebuild(node, tuple(done[arg] for arg in node.args))
            done[node] = made + within[node] if node in within else made
        carry_composites(done)
        new = {name: done[node] for name, node in graph.new.items()}
        new |= {key: new[key] + leaf for key, leaf in leaves.items() if _handed_on(key, graph)}
        kept = {key: new.get(key, done[node]) for key, node in values.items()}
        return dataclasses.replace(
            graph,
            inputs=graph.inputs | {leaf.attr: leaf for leaf in leaves.values()},
            new=new,
            outputs={name: done[node] for name, node in graph.outputs.items()},
            names={_as_vector(node, graph): f"kept_{key}" for key, node in kept.items()},
        )


def _keys(graph: Graph, names: Collection[str]) -> dict[str, str]:
    """Of each name, the first that is a name of the same value."""
    first: dict[object, str] = {}
    return {
        name: first.setdefault(name if _handed_on(name, graph) else node, name)
        for name, node in values_of(graph).items()
        if name in names
    }


def _once(graph: Graph, names: Collection[str]) -> dict[str, Expr]:
    values = values_of(graph)
    return {key: values[key] for key in _keys(graph, names).values()}


def _handed_on(name: str, graph: Graph) -> bool:
    """Whether a state holds next what came in, as `shift` does: what is added to it must not be added to what came."""
    node = graph.new.get(name)
    return node is not None and node.op in ("input", "state") and node not in graph.names


def _leaf(key: str, node: Expr, graph: Graph) -> Expr:
    name = f"probe_{key}"
    taken = {*graph.inputs, *graph.states, *(param.family for param in graph.params.values())}
    while name in taken:
        name += "_"
    return Expr("input", (), name, node.size)


def _as_vector(node: Expr, graph: Graph) -> Expr:
    """One number per row, repeated along the input: what a layer watches are vectors."""
    size = graph.inputs["x"].size
    return spread(node, size) if node.size is None and size is not None else node


@dataclass(frozen=True)
class Probed:
    """A cell with probes, ready to run.

    keys: of each recorded name, the one that its value is kept under. widths: the features of each of these; of one
    number per row, 1.
    """

    recurrence: Recurrence
    keys: Mapping[str, str]
    widths: Mapping[str, int]
    inputs: Mapping[str, str]

    def probes(self, x: Tensor) -> dict[str, Tensor]:
        """An input of zeros for every value, beside the rows of x, by the name of the value; they take no room."""
        return {key: x.new_zeros(1).expand(*x.shape[:-1], self.widths[key]).requires_grad_() for key in self.inputs}

    def given(self, probes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same by the names of the inputs that they are."""
        return {self.inputs[key]: probe for key, probe in probes.items()}

    def kept(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The recorded values, by every name."""
        return {name: outputs[f"kept_{key}"][..., : self.widths[key]] for name, key in self.keys.items()}


def probed(cell: Cell, sizes: Mapping[str, int], names: Collection[str], gradients: bool) -> Probed:
    """names: which values are recorded, of those that the cell has. gradients: whether there are inputs of zeros."""
    return _probed(
        cell, tuple(sizes.items()), tuple(name for name in values_of(cell.graph) if name in names), gradients
    )


# Somebody who looks into a network looks again: kernels of as many cells as a page shows are kept.
@lru_cache(64)
def _probed(cell: Cell, sizes: tuple[tuple[str, int], ...], names: tuple[str, ...], gradients: bool) -> Probed:
    lengths, graph = dict(sizes), cell.graph
    values = _once(graph, names)
    widths = {key: width(node, lengths) for key, node in values.items()}
    inputs = {key: _leaf(key, node, graph).attr for key, node in values.items()} if gradients else {}
    recurrence = Recurrence(cell.rewritten(Probe(names, gradients)), lengths, [f"kept_{key}" for key in values])
    return Probed(recurrence, _keys(graph, names), widths, inputs)
