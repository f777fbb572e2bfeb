"""Weights that were laid out for one program, laid out for another one of the same graph: nobody has to keep them as
they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from everloop.backends.llvm.layout import Layout
from everloop.backends.llvm.tiles import units_of

_KINDS = {"bfloat16": np.uint16, "int8": np.int8}


def relay(source: Layout, packed: np.ndarray, target: Layout, made: np.ndarray) -> None:
    """What `packed` holds for one layout into `made`, which holds zeros, for the other. Nothing is rounded anew."""
    held = {panel.matrix: panel for panel in _panels(source, packed)}
    for panel in _panels(target, made):
        panel.fill(held[panel.matrix])
    for node, begin, end in zip(source.program.once, source.once.values(), target.once.values(), strict=True):
        width = source.program.width(node)
        made[end : end + width] = packed[begin : begin + width]


@dataclass(frozen=True)
class _Panel:
    """The weights of one matrix, wherever they lie: [blocks, groups, K, span], of so many units in each block; units
    that are not there weigh 0. scale: of every unit, where weights are stored in int8.
    """

    matrix: tuple[str, bool]
    weights: np.ndarray
    width: int
    scale: np.ndarray

    def fill(self, other: _Panel) -> None:
        """Hold the same weights as another one, which may lie otherwise."""
        blocks, groups, length, span = self.weights.shape
        whole = np.zeros((blocks, groups * span, length), self.weights.dtype)
        whole[:, : self.width] = other.rows.reshape(blocks, self.width, length)
        self.weights[:] = whole.reshape(blocks, groups, span, length).swapaxes(2, 3)
        self.scale[:] = other.scale

    @property
    def rows(self) -> np.ndarray:
        """[units, K]: the rows of a matrix may fall into blocks for one program, and lie together for the other."""
        blocks, groups, length, span = self.weights.shape
        whole = self.weights.swapaxes(2, 3).reshape(blocks, groups * span, length)
        return whole[:, : self.width].reshape(-1, length)


def _panels(layout: Layout, packed: np.ndarray) -> Iterator[_Panel]:
    kind, nothing = _KINDS.get(layout.weight, packed.dtype), packed[:0]
    for number, (_, one) in enumerate(layout.program.passes()):
        width = one.width // one.blocks
        for g, group in enumerate(one.groups):
            span, gates = units_of(one, layout.numbers) * layout.numbers.lanes, len(group.results)
            begin, stride = layout.scales.get((number, g), 0), layout.scale_stride(one)
            for k, segment in enumerate(group.segments):
                shape = one.blocks, -(-width // span), segment.length, gates, span
                weights = packed[layout.panels[number, g, k].place :].view(kind)[: np.prod(shape)].reshape(shape)
                for gate, matrix in enumerate(segment.matrices):
                    place = begin + gate * stride
                    scale = packed[place : place + one.width] if layout.scales else nothing
                    yield _Panel((matrix, group.transposed), weights[:, :, :, gate], width, scale)
