"""The gradients of the weights for groups of sequences, each by itself: what per-sample gradients are.

One call goes backwards through all sequences at once and puts out what the gradients of matrices are made of, step by
step; the sums over the steps of each group are products of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from everloop.backends.llvm.lower import Buffer, Request
from everloop.compiler.differentiate import Adjoint
from everloop.lang.expr import Expr
from everloop.lang.graph import Graph

HISTORY = "at:"


class Apart:
    """The backward program that adds nothing up.

    found, back: the backward step, as found and as simplified. kept: what the forward program keeps.
    """

    def __init__(
        self,
        graph: Graph,
        found: Adjoint,
        back: Graph,
        kept: Mapping[str, Buffer],
        sizes: Mapping[str, int],
        wanted: frozenset[str],
        engine: Callable[[Request], Any],
    ) -> None:
        self._members = {stack: params for stack, params in graph.stacks.items() if stack in wanted}
        names: dict[Expr, str] = {}

        def history(key: str) -> str:
            return names.setdefault(back.outputs[key], f"{HISTORY}{len(names)}")

        self._vectors = {name: history(key) for name, key in found.vectors.items()}
        self._matrices = {
            name: [(history(rows), history(columns)) for rows, columns in pairs]
            for name, pairs in found.matrices.items()
        }
        outer = {f"d:{name}": back.outputs[key] for name, key in found.inputs.items()}
        self.engine = engine(
            Request(
                back,
                sizes,
                backwards=True,
                inputs={name: Buffer(name, "keep", buffer.width) for name, buffer in kept.items()},
                outer=outer | {name: node for node, name in names.items()},
            )
        )

    def stacks(self, made: Mapping[str, Tensor], groups: int) -> dict[str, Tensor]:
        """The gradients of the stacks, [groups, ...] each, from what the program put out, [T, B, F]."""
        rows = {
            # [groups, steps of all its sequences, F]
            name: array.transpose(0, 1).reshape(groups, -1, array.shape[2])
            for name, array in made.items()
            if name.startswith(HISTORY)
        }
        return {
            stack: torch.cat([self._gradient(param, rows) for param in params], 1)
            for stack, params in self._members.items()
        }

    def _gradient(self, param: Any, rows: Mapping[str, Tensor]) -> Tensor:
        if not param.is_matrix:
            return rows[self._vectors[param.name]].sum(1)
        blocks = param.blocks
        parts = []
        for left, right in self._matrices[param.name]:
            a, b = rows[left], rows[right]
            if blocks == 1:
                parts.append(a.transpose(1, 2) @ b)
            else:
                a, b = a.unflatten(-1, (blocks, -1)), b.unflatten(-1, (blocks, -1))
                parts.append(torch.einsum("gnkr,gnkc->gkrc", a, b).flatten(1, 2))
        return sum(parts[1:], parts[0])
