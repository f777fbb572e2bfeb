"""Sequences of unequal length as one padded batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor


class Batches(Sequence[Any]):
    """The batches of an epoch, each made when it is asked for: `make` of one of `parts`."""

    def __init__(self, parts: Sequence[Any], make: Callable[[Any], Any]) -> None:
        self.parts, self.make = parts, make

    def __len__(self) -> int:
        return len(self.parts)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        return [self.make(part) for part in self.parts[at]] if isinstance(at, slice) else self.make(self.parts[at])


def pad(rows: Sequence[np.ndarray], device: torch.device, fill: float = 0) -> tuple[Tensor, Tensor]:
    """Ids [T] as one array [B, T], or values [T, F] as [B, T, F]; and their lengths [B], on the CPU."""
    lengths = torch.tensor([len(row) for row in rows])
    first = rows[0]
    batch = np.full((len(rows), int(lengths.max()), *first.shape[1:]), fill, dtype=first.dtype)
    for k, row in enumerate(rows):
        batch[k, : len(row)] = row
    return torch.from_numpy(batch).to(device), lengths
