"""Batches of sequences of different lengths, packed so that padding is never computed.

Packed rows are ordered by time step and, within a step, longest sequence first: what torch calls a
PackedSequence. `Packing` knows how to get there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the rows of a padded batch [B, T, F] lie when packed [N, F].

    batch_sizes: rows of each step. order: the sequences, longest first ([B]), lengths: theirs, in that order (None: as
    they are, and all have all steps).

    given: what all of this follows from, int64, on the CPU. Of a batch that stays as it lies in memory: the lengths
    [B], in the caller's order (None: all have all steps); of packed rows: the batch sizes [T]. Where values cannot be
    looked at (`seen`) it is all that there is beside batch and time, and, of packed rows, their order.
    """

    batch: int
    time: int
    batch_sizes: tuple[int, ...]
    order: Tensor | None = None
    lengths: Tensor | None = None
    given: Tensor | None = None

    @staticmethod
    def full(batch: int, time: int) -> Packing:
        return _full(batch, time) if seen() else Packing(batch, time, ())

    @staticmethod
    def of(lengths: Sequence[int] | Tensor, batch: int, time: int, device: torch.device) -> Packing:
        """From the lengths of the sequences of a padded batch, which may be on any device."""
        given = read("lengths", lengths, torch.device("cpu"))
        if given.shape != (batch,):
            raise ValueError(f"lengths: {tuple(given.shape)} came; expected one per sequence of the batch, ({batch},)")
        known = given.to(torch.int64)
        if given.is_meta or not seen():
            return Packing(batch, time, (), given=known)
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
        batch_sizes = _longer(ranked, int(ranked[0]))
        return Packing(batch, time, tuple(batch_sizes.tolist()), order.to(device), ranked, known)

    @staticmethod
    def packed(batch_sizes: Tensor, order: Tensor | None, device: torch.device) -> Packing:
        """From the batch sizes of rows that came packed. order: the sequences, longest first (None: as they are)."""
        time = batch_sizes.shape[0]
        if order is None:
            order = torch.arange(int(batch_sizes[0]) if time else 0, device=device)
        batch = order.shape[0]
        if not seen():
            return Packing(batch, time, (), order, None, batch_sizes)
        lengths = _longer(batch_sizes, batch)
        return Packing(batch, time, tuple(batch_sizes.tolist()), order, lengths, batch_sizes)

    @staticmethod
    def joined(lengths: Tensor, rows: int, device: torch.device) -> Packing:
        """From the lengths of sequences that have so many rows together, none of them padding."""
        ranked, order = torch.sort(lengths.cpu(), descending=True, stable=True)
        # No sequence is longer than all together: where nobody knows the longest, the last steps have no rows.
        longest = (int(ranked[0]) if len(ranked) else 0) if seen() else rows
        return Packing.packed(_longer(ranked, longest), order.to(device), device)

    @cached_property
    def mask(self) -> Tensor:
        """[T, B], longest first: where a sequence has a step."""
        assert self.order is not None
        assert self.lengths is not None
        return (_upto(self.time)[:, None] < self.lengths[None, :]).to(self.order.device)

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, F] -> [N, F]"""
        if self.order is None:
            # What has one sequence or one step lies as it should.
            steps = x if self.batch == 1 or self.time == 1 else x.transpose(0, 1)
            return steps.reshape(self.batch * self.time, x.shape[2])
        return x.index_select(0, self.order).transpose(0, 1)[self.mask]

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
        if self.order is None:
            return rows
        return rows.index_select(0, self._ranks if seen() else torch.argsort(self.order))

    @cached_property
    def _ranks(self) -> Tensor:
        assert self.order is not None
        return torch.argsort(self.order)

    def turned(self, rows: Tensor) -> Tensor:
        """[N, F] or [T, B, F] with every sequence backwards, each from its own end."""
        if rows.dim() == 3:
            return rows.flip(0) if self.given is None else rows.gather(0, self._turned_steps(rows))
        if self.given is None:
            return rows.reshape(self.time, self.batch, rows.shape[1]).flip(0).reshape(rows.shape)
        turned = self._turned.to(rows.device) if seen() else self.backwards(rows.device, rows.shape[0])
        return rows.index_select(0, turned)

    def _turned_steps(self, rows: Tensor) -> Tensor:
        """Which step [T, B, F] to take at each place; padding stays where it is."""
        assert self.given is not None
        step, lengths = _upto(self.time)[:, None], self.given[None, :]
        index = torch.where(step < lengths, lengths - 1 - step, step).to(rows.device)
        return index.unsqueeze(2).expand(rows.shape)

    @cached_property
    def _turned(self) -> Tensor:
        return self.backwards(torch.device("cpu") if self.order is None else self.order.device)

    def backwards(self, device: torch.device, count: int | None = None) -> Tensor:
        """Which packed row to take at each place to have every sequence backwards, each from its own end. [N]"""
        step, rank = self.places(count)
        sizes = self._sizes
        start = torch.cumsum(sizes, 0) - sizes
        return (start[_longer(sizes, self.batch)[rank] - 1 - step] + rank).to(device)

    def places(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Of each packed row, its step, and which sequence it is of, longest first; [N] each, on the CPU.

        count: N, where the batch sizes cannot be looked at.
        """
        sizes = self._sizes
        count = sum(self.batch_sizes) if count is None else count
        step = torch.repeat_interleave(_upto(self.time), sizes, output_size=count)
        return step, _upto(count) - (torch.cumsum(sizes, 0) - sizes)[step]

    @property
    def _sizes(self) -> Tensor:
        """Rows of each step [T]; a step after the end of all sequences has none."""
        if not seen():
            assert self.given is not None
            return self.given
        sizes = torch.tensor(self.batch_sizes, dtype=torch.int64, device="cpu")
        return torch.nn.functional.pad(sizes, (0, self.time - len(sizes)))


def read(name: str, values: Any, device: torch.device) -> Tensor:
    """What a caller gives, as an array."""
    if isinstance(values, Tensor):
        # On the meta device there are no values to take elsewhere.
        return values if values.is_meta else values.to(device)
    try:
        # NumPy has arrays that torch does not take, such as those that run backwards.
        return torch.as_tensor(np.array(values) if hasattr(values, "__array__") else values, device=device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: {values!r} came; expected a list or a tensor of numbers") from error


def seen() -> bool:
    """Whether the values of tensors can be looked at: not while torch traces, or computes several values at once."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    )


@lru_cache(16)
def _full(batch: int, time: int) -> Packing:
    return Packing(batch, time, (batch,) * (time if batch else 0))


def _longer(falling: Tensor, count: int) -> Tensor:
    """How many of these whole numbers, which never rise, are greater than 0, 1, ... count - 1."""
    not_greater = torch.searchsorted(falling.flip(0), _upto(count), right=True)
    return falling.shape[0] - not_greater


def _upto(count: int) -> Tensor:
    """0, 1, ... count - 1, on the CPU, wherever torch puts what nobody says a device of."""
    return torch.arange(count, device="cpu")
