"""Matrices in bfloat16 or int8, laid out as the tiles read them. They become float32 again in the registers, and the
scales of int8 meet the finished sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from everloop.backends._narrow import check_finite, scale_of, to_bfloat16, to_int8
from everloop.backends.llvm.layout import Layout
from everloop.backends.llvm.tiles import units_of


def write_panels(layout: Layout, matrices: Mapping[str, np.ndarray], packed: np.ndarray) -> None:
    """The panels of a forward program, and the scales of int8, into `packed`, which holds zeros."""
    if layout.weight == "int8":
        for name, matrix in matrices.items():
            check_finite(name, matrix)
    for number, (_, one) in enumerate(layout.program.passes()):
        for g, group in enumerate(one.groups):
            # Only gradients are sums of several products, or products with transposed matrices.
            (segment,) = group.segments
            assert not group.transposed
            rows = np.stack([matrices[name] for name in segment.matrices]).astype(np.float32)
            if layout.weight == "int8":
                scale = scale_of(rows)
                stored = to_int8(rows, scale)
                begin, stride = layout.scales[number, g], layout.scale_stride(one)
                packed[begin : begin + stride * len(scale)].reshape(-1, stride)[:, : one.width] = scale
            else:
                stored = to_bfloat16(rows)
            span = units_of(one, layout.numbers) * layout.numbers.lanes
            panel = _laid_out(stored, one.blocks, span)
            packed[layout.panels[number, g, 0].place :].view(panel.dtype)[: panel.size] = panel.ravel()


def _laid_out(rows: np.ndarray, blocks: int, span: int) -> np.ndarray:
    """[matrices, units, K] as [blocks][groups of units][K][matrices][span]; units that are not there weigh 0."""
    gates, units, length = rows.shape
    width = units // blocks
    groups = -(-width // span)
    whole = np.zeros((blocks, groups * span, length, gates), rows.dtype)
    whole[:, :width] = rows.reshape(gates, blocks, width, length).transpose(1, 2, 3, 0)
    return whole.reshape(blocks, groups, span, length, gates).transpose(0, 1, 3, 4, 2)
