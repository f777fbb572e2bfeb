"""Memory that ends where no memory is."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from everloop.backends import Kernel
from everloop.backends.llvm import call


class Fence:
    """What is given memory here is crashed into by whoever touches what is not its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def around(self, kernel: Kernel) -> Fenced:
        """A kernel all of whose memory is filled with NaN and ends at the fence."""
        return Fenced(kernel, self._patch)

    @staticmethod
    def moved(array: Tensor) -> Tensor:
        return room(tuple(array.shape), array.dtype, array.element_size()).copy_(array)


class Fenced:
    def __init__(self, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel, self.patch = kernel, monkeypatch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.kernel, name)

    @property
    def source(self) -> str:
        return self.kernel.source

    def forward(self, *args: Any, **options: Any) -> Any:
        return self._fenced(self.kernel.forward, *args, **options)

    def backward(self, *args: Any, **options: Any) -> Any:
        return self._fenced(self.kernel.backward, *args, **options)

    def _fenced(self, run: Callable[..., Any], *args: Any, **options: Any) -> Any:
        def new_empty(like: Tensor, *shape: Any, **_: Any) -> Tensor:
            return room(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape, like.dtype)

        with self.patch.context() as patch:
            patch.setattr(call, "take", lambda count, like: room((count,), like.dtype))
            patch.setattr(Tensor, "new_empty", new_empty)
            return run(*args, **options)


def room(shape: tuple[int, ...], dtype: torch.dtype, align: int = 64) -> Tensor:
    """NaN (integers: -1), at the end of what can be read and written; it begins at a multiple of `align` bytes."""
    count, item = prod(shape), torch.empty((), dtype=dtype).element_size()
    size = -(-max(count * item, 1) // align) * align
    whole = (-(-size // mmap.PAGESIZE) + 1) * mmap.PAGESIZE
    pages = mmap.mmap(-1, whole)
    end = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + whole - mmap.PAGESIZE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, 0) == 0
    room = np.frombuffer(pages, np.uint8, size, whole - mmap.PAGESIZE - size)
    return torch.from_numpy(room).view(dtype)[:count].fill_(torch.nan if dtype.is_floating_point else -1).view(shape)


@pytest.fixture
def fence(monkeypatch: pytest.MonkeyPatch) -> Fence:
    return Fence(monkeypatch)
