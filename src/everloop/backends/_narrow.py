"""Numbers in fewer bits than they are computed with, for the weights of streams: bfloat16, and int8 with a scale."""

from __future__ import annotations

import numpy as np

BYTES = {"bfloat16": 2, "int8": 1}
"""Of one number."""

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


def narrowed(name: str, matrix: np.ndarray, storage: str) -> np.ndarray:
    """A matrix as it comes back from being stored, with a scale for each row of int8; in the type that it has."""
    if storage == "bfloat16":
        return from_bfloat16(to_bfloat16(matrix)).astype(matrix.dtype)
    check_finite(name, matrix)
    scale = scale_of(matrix)
    return (to_int8(matrix, scale) * scale[..., None]).astype(matrix.dtype)


def check_finite(name: str, matrix: np.ndarray) -> None:
    wrong = ~np.isfinite(matrix)
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"weights: {name} is {matrix[place]} at {place}, which int8 cannot store; bfloat16 and float32 can, but "
            "weights that are not finite give no result worth having: look for what went wrong in training"
        )
