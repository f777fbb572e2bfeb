"""Memory that is used again. Fresh memory of some size comes from the system page by page, each cleared when it is
first touched, which can take longer than what is computed into it.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 20
"""Bytes up to which torch's own allocation is quick."""

IDLE = 256 << 20
"""Bytes that are kept for later at most."""

_idle: dict[int, np.ndarray] = {}
# A piece may come back, and others go, in the middle of a search, where the collector runs: in the same thread.
_lock = threading.RLock()


class _Leased(np.ndarray):
    """A piece of memory that goes back when nobody holds it any more."""

    whole: np.ndarray | None = None

    def __del__(self) -> None:
        if self.whole is not None:
            with _lock:
                _idle[id(self.whole)] = self.whole
                while sum(piece.nbytes for piece in tuple(_idle.values())) > IDLE:
                    del _idle[next(iter(_idle))]


def take(count: int, like: Tensor) -> Tensor:
    """Room for so many numbers, with anything in it: [count], of the type of `like`, aligned to cache lines."""
    size = count * like.element_size()
    if size <= SMALL:
        return like.new_empty(count)
    whole = _found(size)
    if whole is None:
        whole = np.empty(size + 64, np.uint8)
    leased: Any = whole.view(_Leased)
    leased.whole = whole
    tensor = torch.from_numpy(leased)
    first = -tensor.data_ptr() % 64
    return tensor[first : first + size].view(like.dtype)


def _found(size: int) -> np.ndarray | None:
    """A piece that is large enough and not much too large."""
    with _lock:
        for place, piece in tuple(_idle.items()):
            if size + 64 <= piece.nbytes <= 1.25 * size + SMALL and _idle.pop(place, None) is not None:
                return piece
    return None
