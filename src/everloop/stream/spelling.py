"""The operations of the language in NumPy, for arrays [N, F] and numbers of one type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _sigmoid(a: Any) -> Any:
    """1 / (1 + exp(-a)): no overflow at either end, and no digits lost at the lower one."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1, e) / (1 + e)


def expm(matrix: np.ndarray) -> np.ndarray:
    """The matrix exponential: halved until its norm is below 1/2, where 16 terms of the series suffice; the result
    squared as often.
    """
    norm = float(np.abs(matrix).sum(0).max(initial=0.0))
    halvings = max(0, int(np.ceil(np.log2(norm))) + 1) if 0 < norm < np.inf else 0
    small = matrix / 2.0**halvings
    term = result = np.eye(len(matrix))
    for k in range(1, 17):
        term = term @ small / k
        result = result + term
    for _ in range(halvings):
        result = result @ result
    return result


def cumulative(a: np.ndarray, backwards: bool) -> np.ndarray:
    return np.cumsum(a[..., ::-1], -1)[..., ::-1] if backwards else np.cumsum(a, -1)


SPELLING: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "stop": lambda a: a,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "gt": lambda a, b: np.greater(a, b).astype(np.result_type(a, b)),
    "ge": lambda a, b: np.greater_equal(a, b).astype(np.result_type(a, b)),
    "where": lambda condition, a, b: np.where(condition != 0, a, b),
    "sum": lambda a: a.sum(-1, keepdims=True),
    "max": lambda a: a.max(-1, keepdims=True),
    "transpose": np.transpose,
    "compose": np.matmul,
    "expm": expm,
}
