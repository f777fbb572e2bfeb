"""Matrices in bfloat16 or int8, laid out as the tiles read them. They become float32 again in the registers, and the
scales of int8 meet the finished sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from everloop.backends._narrow import check_finite, scale_of, to_bfloat16, to_int8
from everloop.backends.llvm.layout import Layout, Panel
from everloop.backends.llvm.lower import Group, Pass
from everloop.backends.llvm.tiles import units_of

def write_panels(layout: Layout, matrices: Mapping[str, np.ndarray], packed: np.ndarray) -> None:
    """The panels of a program, and the scales of int8, into `packed`, which holds zeros."""
    if layout.weight == "int8":
        for name, matrix in matrices.items():
            check_finite(name, matrix)
    for number, (_, one) in enumerate(layout.program.passes()):
        for g, group in enumerate(one.groups):
            span = units_of(one, layout.numbers) * layout.numbers.lanes
            found = _by_result(one, group, matrices)
            if layout.weight == "int8":
                # A tile adds up all segments before the scale comes, so they have it in common.
                scale = np.max([scale_of(rows) for rows in found], 0)
                stored = [to_int8(rows, scale) for rows in found]
                stride = layout.scale_stride(one)
                for gate, values in enumerate(scale):
                    begin = layout.scales[number, g] + gate * stride
                    packed[begin : begin + len(values)] = values
            else:
                stored = [to_bfloat16(rows) for rows in found]
            for k, rows in enumerate(stored):
                _put(packed, layout.panels[number, g, k], _laid_out(rows, one.blocks, span))


def _by_result(one: Pass, group: Group, matrices: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """For each segment the weights [matrices, units, K]."""
    return [
        np.stack([_by_unit(one, group, matrices[name]) for name in segment.matrices]).astype(np.float32)
        for segment in group.segments
    ]


def _by_unit(one: Pass, group: Group, matrix: np.ndarray) -> np.ndarray:
    """[units, K] of a matrix, whose units may be its columns; blocks lie one below the other."""
    if not group.transposed:
        return matrix
    apart = matrix.reshape(group.blocks, -1, matrix.shape[1])
    return apart.swapaxes(1, 2).reshape(one.width, -1)


def _laid_out(rows: np.ndarray, blocks: int, span: int) -> np.ndarray:
    """[matrices, units, K] as [blocks][groups of units][K][matrices][span]; units that are not there weigh 0."""
    gates, units, length = rows.shape
    width = units // blocks
    groups = -(-width // span)
    whole = np.zeros((blocks, groups * span, length, gates), rows.dtype)
    whole[:, :width] = rows.reshape(gates, blocks, width, length).transpose(1, 2, 3, 0)
    return whole.reshape(blocks, groups, span, length, gates).transpose(0, 1, 3, 4, 2)


def _put(packed: np.ndarray, panel: Panel, values: np.ndarray) -> None:
    packed[panel.place :].view(values.dtype)[: values.size] = values.ravel()
