"""Batches of sequences of different lengths, packed so that padding is never computed.

Packed rows are ordered by time step and, within a step, longest sequence first: what torch calls a
PackedSequence. `Packing` knows how to get there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the rows of a padded batch [B, T, F] lie when packed [N, F].

    batch_sizes: rows of each step. order: the sequences, longest first ([B]), lengths: theirs, in that order (None: as
    they are, and all have all steps).
    """

    batch: int
    time: int
    batch_sizes: tuple[int, ...]
    order: Tensor | None = None
    lengths: Tensor | None = None

    @staticmethod
    @lru_cache(16)
    def full(batch: int, time: int) -> Packing:
        return Packing(batch, time, (batch,) * (time if batch else 0))

    @staticmethod
    def of(lengths: Sequence[int] | Tensor, batch: int, time: int, device: torch.device) -> Packing:
        """From the lengths of the sequences of a padded batch."""
        given = torch.as_tensor(lengths, device="cpu")
        if given.shape != (batch,):
            raise ValueError(f"lengths: {tuple(given.shape)} came; expected one per sequence of the batch, ({batch},)")
        known = given.to(torch.int64)
        if not torch.equal(known.to(given.dtype), given):
            raise ValueError(f"lengths: {given.tolist()} came; expected whole numbers of steps")
        if batch and (int(known.min()) < 0 or int(known.max()) > time):
            raise ValueError(
                f"lengths: values from {int(known.min())} to {int(known.max())} came; "
                f"expected 0 to {time}, the number of steps of the padded batch"
            )
        if bool((known == time).all()):
            return Packing.full(batch, time)
        ranked, order = torch.sort(known, descending=True, stable=True)
        # Of those in rising order, the ones after step t are longer than t.
        ended = torch.searchsorted(ranked.flip(0), torch.arange(int(ranked[0])), right=True)
        return Packing(batch, time, tuple((batch - ended).tolist()), order.to(device), ranked)

    @cached_property
    def mask(self) -> Tensor:
        """[T, B], longest first: where a sequence has a step."""
        assert self.order is not None
        assert self.lengths is not None
        return (torch.arange(self.time)[:, None] < self.lengths[None, :]).to(self.order.device)

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, F] -> [N, F]"""
        if self.order is None:
            # What has one sequence or one step lies as it should.
            steps = x if self.batch == 1 or self.time == 1 else x.transpose(0, 1)
            return steps.reshape(self.batch * self.time, x.shape[2])
        return x.index_select(0, self.order).transpose(0, 1)[self.mask]

    def steps(self, x: Tensor) -> Tensor | None:
        """[B, T, F] -> [T, B, F], the same memory; None where there is nothing."""
        return x.transpose(0, 1) if self.batch_sizes else None

    def unpack(self, packed: Tensor) -> Tensor:
        """[N, F] or [T, B, F] -> [B, T, F], zero past the end of a sequence"""
        if packed.dim() == 3:
            return packed.transpose(0, 1)
        if self.order is None:
            if self.batch == 1 or self.time == 1:
                return packed.reshape(self.batch, self.time, packed.shape[1])
            return packed.reshape(self.time, self.batch, packed.shape[1]).transpose(0, 1)
        padded = packed.new_zeros(self.time, self.batch, packed.shape[1])
        padded[self.mask] = packed
        return self.original(padded.transpose(0, 1))

    def sort(self, rows: Tensor) -> Tensor:
        """[B, ...] in packed order."""
        return rows if self.order is None else rows.index_select(0, self.order)

    def original(self, rows: Tensor) -> Tensor:
        """[B, ...] back in the order in which the sequences came."""
        return rows if self.order is None else rows.index_select(0, self._ranks)

    @cached_property
    def _ranks(self) -> Tensor:
        assert self.order is not None
        return torch.argsort(self.order)

    def turned(self, packed: Tensor) -> Tensor:
        """[N, F] with every sequence backwards, each from its own end."""
        if self.order is None:
            return packed.reshape(self.time, self.batch, packed.shape[1]).flip(0).reshape(packed.shape)
        return packed.index_select(0, self._turned)

    @cached_property
    def _turned(self) -> Tensor:
        assert self.order is not None
        return self.backwards(self.order.device)

    def backwards(self, device: torch.device) -> Tensor:
        """Which packed row to take at each place to have every sequence backwards, each from its own end. [N]"""
        sizes = torch.tensor(self.batch_sizes, dtype=torch.int64)
        start = torch.cumsum(sizes, 0) - sizes
        rank = torch.cat([torch.arange(n) for n in self.batch_sizes]) if self.batch_sizes else sizes
        step = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        length = (sizes[:, None] > torch.arange(self.batch)[None, :]).sum(0)
        return (start[length[rank] - 1 - step] + rank).to(device)
