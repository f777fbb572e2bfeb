"""Parameters and values of a graph while it runs: arrays by member and by node, and those that lie side by side."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from everloop.backends._spelling import SPELLING, Value
from everloop.lang.expr import Expr, Shape, Size, toposort
from everloop.lang.graph import Graph


class Weights:
    """The parameters of a graph, one array per stack (Graph.stacks); members are views of their rows. Matrices that
    are made of others are worked out once.

    like: any array of the device and type at work, for matrices made of numbers alone.
    """

    def __init__(
        self, graph: Graph, sizes: Mapping[str, int], stacks: Mapping[str, Tensor], like: Tensor | None = None
    ) -> None:
        self.stacks, self.params, self.sizes, self.like = stacks, graph.params, sizes, like
        self._made: dict[str, Tensor] = {}
        self._stacked: dict[tuple[str, ...], Tensor] = {}
        self._rows: dict[str, tuple[str, int, int]] = {}
        for stack, members in graph.stacks.items():
            ends = list(accumulate(length(param.sizes[0], sizes) for param in members))
            for param, begin, end in zip(members, [0, *ends], ends, strict=False):
                self._rows[param.name] = (stack, begin, end)

    def member(self, name: str) -> Tensor:
        formula = self.params[name].made
        if formula is not None:
            if name not in self._made:
                self._made[name] = make_matrix(formula, self.member, self.sizes, self.like)
            return self._made[name]
        stack, begin, end = self._rows[name]
        return self.stacks[stack][begin:end]

    def stacked(self, names: tuple[str, ...]) -> Tensor:
        """The members' rows over each other: a view where they lie so, otherwise a copy. Found once."""
        if names not in self._stacked:
            self._stacked[names] = self._stack(names)
        return self._stacked[names]

    def _stack(self, names: tuple[str, ...]) -> Tensor:
        if len(names) == 1:
            return self.member(names[0])
        if any(self.params[name].made is not None for name in names):
            return torch.cat([self.member(name) for name in names])
        places = [self._rows[name] for name in names]
        (first, begin, _), (_, _, end) = places[0], places[-1]
        if all(a[0] == b[0] and a[2] == b[1] for a, b in pairwise(places)):
            return self.stacks[first][begin:end]
        return torch.cat([self.member(name) for name in names])


def make_matrix(
    formula: Expr, member: Callable[[str], Tensor], sizes: Mapping[str, int], like: Tensor | None = None
) -> Tensor:
    """A matrix made of others: [rows, columns]. member: gives the array of a parameter by name."""
    values: dict[Expr, Value] = {}
    assert isinstance(formula.size, Shape)
    for node in toposort([formula]):
        match node.op:
            case "matrix":
                values[node] = like = member(node.attr)
            case "const":
                values[node] = node.attr
            case "count":
                values[node] = float(length(node.attr, sizes))
            case "row" | "column":
                assert isinstance(node.size, Shape)
                rows, columns = length(node.size.rows, sizes), length(node.size.columns, sizes)
                options: Any = {} if like is None else {"dtype": like.dtype, "device": like.device}
                places = torch.arange(rows if node.op == "row" else columns, **options)
                values[node] = (places[:, None] if node.op == "row" else places[None, :]).expand(rows, columns)
            case _:
                values[node] = SPELLING[node.op](*(values[arg] for arg in node.args))
    made = values[formula]
    assert isinstance(made, Tensor)
    return made


class Values(dict[Expr, Value]):
    """The values worked out so far; several that lie side by side in one array are known as a pack, too.

    like: any array of the device and type at work. `room` may hold arrays to put packs into that have to be made.
    """

    def __init__(self, weights: Weights, sizes: Mapping[str, int], like: Tensor) -> None:
        super().__init__()
        self.weights, self.sizes, self.like = weights, sizes, like
        self._packs: dict[tuple[Expr, ...], Tensor] = {}
        self.room: dict[tuple[Expr, ...], Tensor] = {}

    def __missing__(self, node: Expr) -> Value:
        """Leaves that need no telling: numbers and parameters."""
        match node.op:
            case "const":
                value: Value = node.attr
            case "count":
                value = float(length(node.attr, self.sizes))
            case "vector":
                value = self.weights.member(node.attr)
            case "index":
                places = range(length(node.size, self.sizes))
                value = torch.tensor(places, dtype=self.like.dtype, device=self.like.device)
            case _:
                raise KeyError(node)
        self[node] = value
        return value

    def put(self, nodes: tuple[Expr, ...], array: Tensor) -> None:
        if len(nodes) == 1:
            self[nodes[0]] = array
            return
        self._packs[nodes] = array
        widths = [length(node.size, self.sizes) for node in nodes]
        self.update(zip(nodes, array.split(widths, dim=-1), strict=True))

    def forget(self, nodes: Iterable[Expr]) -> None:
        for node in nodes:
            self.pop(node, None)
        for pack in [pack for pack in self._packs if not any(node in self for node in pack)]:
            del self._packs[pack]

    def keep(self, nodes: Container[Expr]) -> None:
        """Forget all others."""
        self.forget([node for node in self if node not in nodes])

    def together(self, nodes: tuple[Expr, ...], rows: int) -> Tensor:
        """The values side by side: [rows, F], as one array that stays known."""
        if len(nodes) > 1 and nodes not in self._packs:
            self._packs[nodes] = self.join(nodes, rows)
        return self.pack(nodes, rows)

    def pack(self, nodes: tuple[Expr, ...], rows: int) -> Tensor:
        """The values side by side: [rows, F]."""
        return self.join(nodes, rows).expand(rows, -1)

    def join(self, nodes: tuple[Expr, ...], rows: int) -> Tensor:
        """The values side by side: [rows, F], or [F] if none of them has rows."""
        if nodes in self._packs:
            return self._packs[nodes]
        if all(node.op == "vector" for node in nodes):
            return self.weights.stacked(tuple(node.attr for node in nodes))
        values = [self[node] for node in nodes]
        if all(isinstance(value, Tensor) and value.dim() == 1 for value in values):
            arrays: list[Tensor] = values  # type: ignore[assignment]
        else:
            arrays = [self.rows(node, rows) for node in nodes]
        if len(arrays) == 1:
            return arrays[0]
        return torch.cat(arrays, dim=-1, out=self.room.get(nodes))

    def rows(self, node: Expr, rows: int) -> Tensor:
        """The value as an array [rows, F], repeated where it is less."""
        array = self._tensor(node)
        shape = (rows, width(node.size, self.sizes))
        # A view of an array as a whole could not be written to where torch differentiates.
        return array if array.shape == shape else array.expand(shape)

    def spread(self, node: Expr, width: int) -> Tensor:
        """One number per row, repeated: [rows, F], or [F] where all rows have the same."""
        value = self._tensor(node)
        return value.expand(*value.shape[:-1], width)

    def _tensor(self, node: Expr) -> Tensor:
        value = self[node]
        return value if isinstance(value, Tensor) else self.like.new_tensor(value)


def length(size: Size | None, sizes: Mapping[str, int]) -> int:
    assert size is not None
    assert size.name is not None
    return sizes[size.name]


def width(size: Size | None, sizes: Mapping[str, int]) -> int:
    """The features of a value: one where it is a number per row."""
    return 1 if size is None else length(size, sizes)


def rows_of(array: Tensor) -> Tensor:
    """An array whose rows lie without gaps, each for itself."""
    return array if array.stride(-1) == 1 or array.shape[-1] == 1 else array.contiguous()
