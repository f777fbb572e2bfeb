"""Matrices in fewer bits, laid out as the tiles read them: bfloat16, and int8 with a scale for each result.

Only the weights are narrow. They become float32 again in the registers, where everything is computed; the scales meet
the finished sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from everloop.backends.llvm.layout import Layout, Panel
from everloop.backends.llvm.lower import Group, Pass
from everloop.backends.llvm.tiles import units_of

MOST = 127
"""The largest number of int8 that has an opposite."""


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def scale_of(values: np.ndarray) -> np.ndarray:
    """What one step of int8 stands for, from the largest value along the last axis."""
    return (np.abs(values).max(-1, initial=0) / MOST).astype(np.float32)


def to_int8(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The nearest multiples of the scale, which has one axis less; without a scale all is 0."""
    steps = scale[..., None]
    multiples = np.divide(values, steps, out=np.zeros(values.shape, np.float32), where=steps > 0)
    return np.clip(np.rint(multiples), -MOST, MOST).astype(np.int8)


def narrowed(values: np.ndarray, storage: str) -> np.ndarray:
    """A matrix as it is after it was stored, a scale for each row of int8: in the type that it came in."""
    if storage == "bfloat16":
        return from_bfloat16(to_bfloat16(values)).astype(values.dtype)
    check_finite("a matrix", values)
    scale = scale_of(values)
    return (to_int8(values, scale) * scale[..., None]).astype(values.dtype)


def check_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        found = values[~np.isfinite(values)][0]
        raise ValueError(
            f"weights: {name} holds {found}, which int8 cannot; store it in bfloat16 or float32, or find out why it "
            "is not finite"
        )


def write_panels(layout: Layout, matrices: Mapping[str, np.ndarray], packed: np.ndarray) -> None:
    """The panels of a program, and the scales of int8, into `packed`, which holds zeros."""
    for number, (_, one) in enumerate(layout.program.passes()):
        span = units_of(one, layout.numbers) * layout.numbers.lanes
        for g, group in enumerate(one.groups):
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
