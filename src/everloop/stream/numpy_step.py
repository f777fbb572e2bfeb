"""A step in NumPy, value by value: what runs where no compiled one can, and what compiled ones are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from everloop.backends._narrow import narrowed
from everloop.lang.expr import Expr
from everloop.lang.graph import Graph
from everloop.stream.spelling import SPELLING, cumulative
from everloop.stream.weights import all_members, length

# Steps whose input product is worked out at once: enough to be quick, few enough to need little memory.
STEPS = 256


@dataclass(frozen=True)
class Packed:
    """Matrices by name, and every value that is the same at all steps."""

    matrices: dict[str, np.ndarray]
    fixed: dict[Expr, Any]


class NumpyStep:
    """See `engine.Step`. narrow: bfloat16 or int8, if matrices are rounded to that; they are not smaller here."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int], dtype: np.dtype, narrow: str = "") -> None:
        self.graph, self.sizes, self.dtype, self.narrow = graph, dict(sizes), dtype, narrow
        self.states = {name: length(leaf.size, sizes) for name, leaf in graph.states.items()}
        given = {*graph.inputs.values(), *graph.states.values()}
        inner = [node for node in graph.nodes if node not in given]
        self._fixed = [node for node in inner if node not in graph.timed]
        self._early = [node for node in inner if node in graph.timed and node not in graph.depends]
        self._late = [node for node in inner if node in graph.depends]

    def pack(self, weights: Mapping[str, np.ndarray]) -> Packed:
        found = all_members(self.graph, self.sizes, weights)
        found = {name: array.astype(self.dtype) for name, array in found.items()}
        if self.narrow:
            for name, array in found.items():
                if self.graph.params[name].is_matrix:
                    found[name] = narrowed(name, array, self.narrow)
        values: dict[Expr, Any] = {}
        with np.errstate(all="ignore"):
            self._evaluate(self._fixed, values, found)
        return Packed({name: array for name, array in found.items() if self.graph.params[name].is_matrix}, values)

    def bytes(self, packed: Packed) -> int:
        return sum(np.asarray(value).nbytes for value in (*packed.matrices.values(), *packed.fixed.values()))

    def bind(self, packed: Packed, state: np.ndarray) -> Callable[..., None]:
        def run(steps: int, inputs: tuple[np.ndarray, ...], out: np.ndarray, rows: np.ndarray | None = None) -> None:
            count = len(state) if rows is None else len(rows)
            packs = [array.reshape(steps, count, -1) for array in inputs]
            made = out.reshape(steps, count, -1)
            now = state if rows is None else state[rows]
            with np.errstate(all="ignore"):
                for begin in range(0, steps, STEPS):
                    part = slice(begin, begin + STEPS)
                    self._run(packed, [array[part] for array in packs], now, made[part])
            if rows is not None:
                state[rows] = now

        return run

    def _run(self, packed: Packed, inputs: list[np.ndarray], state: np.ndarray, out: np.ndarray) -> None:
        """Some steps, [T, n, F] each; state [n, S] is changed in place."""
        steps, count = out.shape[:2]
        leaves = list(self.graph.inputs.values())
        early: dict[Expr, Any] = {
            leaf: array.reshape(steps * count, array.shape[2]) for leaf, array in zip(leaves, inputs, strict=True)
        }
        early |= packed.fixed
        self._evaluate(self._early, early, packed.matrices)
        timed = {node: early[node].reshape(steps, count, -1) for node in [*leaves, *self._early]}
        ends = np.cumsum([0, *self.states.values()])
        places = [slice(begin, end) for begin, end in pairwise(ends)]
        output = self.graph.outputs["y"]
        for t in range(steps):
            values = packed.fixed | {node: array[t] for node, array in timed.items()}
            for leaf, place in zip(self.graph.states.values(), places, strict=True):
                values[leaf] = state[:, place].copy()
            self._evaluate(self._late, values, packed.matrices)
            out[t] = values[output]
            for node, place in zip(self.graph.new.values(), places, strict=True):
                state[:, place] = values[node]

    def _evaluate(self, nodes: Iterable[Expr], values: dict[Expr, Any], params: Mapping[str, np.ndarray]) -> None:
        for node in nodes:
            values[node] = self._value(node, [values[arg] for arg in node.args], params)

    def _value(self, node: Expr, args: list[Any], params: Mapping[str, np.ndarray]) -> Any:
        match node.op:
            case "vector":
                return params[node.attr]
            case "const":
                return self.dtype.type(node.attr)
            case "count":
                return self.dtype.type(length(node.attr, self.sizes))
            case "index":
                return np.arange(length(node.size, self.sizes), dtype=self.dtype)
            case "spread":
                return np.broadcast_to(args[0], (*np.shape(args[0])[:-1], length(node.size, self.sizes)))
            case "cumsum":
                return cumulative(args[0], node.attr)
            case "matmul" | "matmul_t":
                parts = (self._product(node.op, name, arg, params) for name, arg in zip(node.attr, args, strict=True))
                return sum(parts, start=self.dtype.type(0))
        return SPELLING[node.op](*args)

    def _product(self, op: str, name: str, vector: np.ndarray, params: Mapping[str, np.ndarray]) -> np.ndarray:
        matrix, blocks = params[name], self.graph.params[name].blocks
        if blocks == 1:
            return vector @ (matrix.T if op == "matmul" else matrix)
        kept = matrix.reshape(blocks, -1, matrix.shape[1])
        apart = vector.reshape(*vector.shape[:-1], blocks, -1)
        made = np.einsum("...kc,krc->...kr" if op == "matmul" else "...kr,krc->...kc", apart, kept)
        return made.reshape(*vector.shape[:-1], -1)
