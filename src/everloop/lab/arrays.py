"""Arrays as JSON holds them: base64 of little-endian float32, a third of what decimal numbers would take."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np


def packed(array: np.ndarray) -> dict[str, Any]:
    """{"shape", "data"}: the numbers of an array, row by row."""
    numbers = np.ascontiguousarray(array, dtype="<f4")
    return {"shape": list(numbers.shape), "data": base64.b64encode(numbers.tobytes()).decode("ascii")}


def unpacked(packet: dict[str, Any]) -> np.ndarray:
    """What `packed` made, as an array again."""
    return np.frombuffer(base64.b64decode(packet["data"]), dtype="<f4").reshape(packet["shape"]).copy()


def number(value: Any) -> float | None:
    """A number for JSON, which has none that is not finite: null stands for it."""
    value = float(value)
    return value if math.isfinite(value) else None


def numbers(values: Iterable[float]) -> list[float | None]:
    return [number(value) for value in values]
