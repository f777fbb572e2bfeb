"""Sequences of unequal length as one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pad(rows: Sequence[np.ndarray], device: torch.device, fill: float = 0) -> tuple[Tensor, Tensor]:
    """Ids [T] as one array [B, T], or values [T, F] as [B, T, F]; and their lengths [B], on the CPU."""
    lengths = torch.tensor([len(row) for row in rows])
    first = rows[0]
    batch = np.full((len(rows), int(lengths.max()), *first.shape[1:]), fill, dtype=first.dtype)
    for k, row in enumerate(rows):
        batch[k, : len(row)] = row
    return torch.from_numpy(batch).to(device), lengths
