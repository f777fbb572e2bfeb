"""How batches are cut into chunks of time for a scan, and where the rows of the chunks lie.

Sequences come packed: an array [N, F] holds the rows of step 0, then those of step 1, and so on, the longest
sequences first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from typing import Protocol

import torch
from torch import Tensor

Value = Tensor | float

# So many slices of an array are made at a time: more of them alive at once keep the garbage collector busy.
SLICES = 256


class Chunks(Protocol):
    """How a batch is cut. Chunks are numbered within their sequence; number k begins at step k * length.

    whole, begun: how many sequences have chunk k in full, and how many begin it. `whole` may be shorter; `begun` is
    longer than it by one. count: all whole chunks, along the axis of the chunks.
    """

    batch_sizes: Sequence[int]
    length: int
    whole: list[int]
    begun: list[int]
    count: int

    def arrange(self, packed: Tensor) -> Tensor:
        """[N, F] in the order of the chunks."""
        ...

    def steps(self, arranged: Tensor) -> Iterator[Tensor]:
        """For each step of a chunk, the rows of all chunks that have it, the axis of the chunks first."""
        ...

    def longest(self, rows: Tensor, count: int) -> Tensor:
        """The rows of that many chunks, the longest ones."""
        ...

    def blocks(self, value: Value) -> Iterator[Value]:
        """What all whole chunks have, or each has, by their number."""
        ...

    def join(self, whole: list[Tensor], rest: list[Tensor]) -> Tensor:
        """Rows of whole chunks and of those that are not, each by their number, along the axis of the chunks."""
        ...

    def room(self, start: Tensor) -> Tensor:
        """An array for the states before and after every step."""
        ...

    def written(self, room: Tensor) -> Tensor:
        """The part of a room for the states after every step, in the order of the chunks."""
        ...

    def before(self, room: Tensor) -> Tensor:
        """The states before every step [N, F]."""
        ...

    def after(self, room: Tensor) -> Tensor:
        """The states after every step [N, F]."""
        ...

    def ends(self, room: Tensor) -> Tensor:
        """The states after the last step of the whole chunks."""
        ...

    def final(self, room: Tensor) -> Tensor:
        """The states after the last step of every sequence."""
        ...


def cut(batch_sizes: Sequence[int], length: int, backwards: bool, device: torch.device) -> Chunks:
    """Chunks of `length` steps, or as many as there are."""
    if batch_sizes[0] == batch_sizes[-1]:
        return _Even(batch_sizes, length, backwards)
    return _Ragged(batch_sizes, length, backwards, device)


class _Even:
    """Sequences of one length, cut alike: every array stays where it is. With one chunk there is no axis of chunks."""

    def __init__(self, batch_sizes: Sequence[int], length: int, backwards: bool) -> None:
        length = min(length, len(batch_sizes))
        self.batch_sizes, self.length, self.backwards = batch_sizes, length, backwards
        self.time, self.batch = len(batch_sizes), batch_sizes[0]
        self.count = self.time // length if length < self.time else 0
        self.whole = [self.batch] * self.count
        self.begun = [*self.whole, 0 if self.count and self.time % length == 0 else self.batch]

    def arrange(self, packed: Tensor) -> Tensor:
        return packed.view(self.time, self.batch, packed.shape[1])

    def steps(self, arranged: Tensor) -> Iterator[Tensor]:
        if not self.count:
            for part in self._in_order(arranged.split(SLICES)):
                yield from self._in_order(part.unbind(0))
            return
        for step in range(self.length):
            yield self._step(arranged, step)

    def longest(self, rows: Tensor, count: int) -> Tensor:
        if rows.shape[0] == count:
            return rows
        return rows[rows.shape[0] - count :] if self.backwards else rows[:count]

    def blocks(self, value: Value) -> Iterator[Value]:
        if isinstance(value, Tensor) and value.dim() == 3:
            return iter(self._in_order(value.unbind(0)))
        return repeat(value)

    def join(self, whole: list[Tensor], rest: list[Tensor]) -> Tensor:
        parts = [part for part in (*whole, *rest) if part.shape[0]]
        return torch.stack(list(self._in_order(parts))) if self.count else parts[0]

    def room(self, start: Tensor) -> Tensor:
        room = start.new_empty(self.time + 1, *start.shape)
        room[-1 if self.backwards else 0] = start
        return room

    def written(self, room: Tensor) -> Tensor:
        return room[:-1] if self.backwards else room[1:]

    def before(self, room: Tensor) -> Tensor:
        return (room[1:] if self.backwards else room[:-1]).flatten(0, 1)

    def after(self, room: Tensor) -> Tensor:
        return self.written(room).flatten(0, 1)

    def ends(self, room: Tensor) -> Tensor:
        return self._step(self.written(room), self.length - 1)

    def final(self, room: Tensor) -> Tensor:
        return room[0 if self.backwards else -1]

    def _step(self, arranged: Tensor, step: int) -> Tensor:
        return arranged[((self.time - 1 - step) if self.backwards else step) % self.length :: self.length]

    def _in_order(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Parts along time in the order in which the recurrence comes to them, and back."""
        return parts[::-1] if self.backwards else parts


class _Ragged:
    """Sequences of any lengths: their chunks, gathered, are a packed batch again, shorter and wider.

    First come all whole chunks by their number, then the last ones of the sequences, the longest first.
    """

    def __init__(self, batch_sizes: Sequence[int], length: int, backwards: bool, device: torch.device) -> None:
        self.batch_sizes, self.length = batch_sizes, min(length, len(batch_sizes))
        rows = torch.tensor(batch_sizes)
        packed = rows.cumsum(0) - rows
        sequences = torch.arange(batch_sizes[0])
        lengths = (rows[:, None] > sequences).sum(0)
        edges = torch.arange(len(batch_sizes) // self.length + 1)[:, None] * self.length
        self.whole = (lengths >= edges[1:]).sum(1).tolist()
        self.begun = (lengths > edges).sum(1).tolist()
        self.count = sum(self.whole)

        whole = _numbered([0] * len(self.whole), self.whole)
        rest = _numbered([*self.whole, 0], self.begun)
        order = torch.argsort(lengths[rest[1]] - rest[0] * self.length, descending=True, stable=True)
        number, sequence = torch.cat([whole, rest[:, order]], 1)
        step = torch.arange(self.length)[:, None]
        along = number * self.length + step
        here = along < lengths[sequence]
        self._sizes = here.sum(1).tolist()

        time = lengths[sequence] - 1 - along if backwards else along
        index = (packed[time.clamp(0, len(batch_sizes) - 1)] + sequence)[here]
        begin = len(sequences) + torch.tensor([0, *accumulate(self._sizes)])
        places = begin[:-1, None] + torch.arange(len(number))
        chunks = torch.tensor([0, 0, *accumulate(self.whole)])  # whole chunks before those of the number before
        earlier = begin[-2] + chunks[number] + sequence
        previous = torch.cat([torch.where(number == 0, sequence, earlier)[None], places[:-1]])
        after, before = torch.empty_like(index), torch.empty_like(index)
        after[index], before[index] = places[here], previous[here]
        last = after[sequences if backwards else packed[lengths - 1] + sequences]
        self._start = len(sequences)
        self._order, self._index, self._before, self._after, self._last = (
            found.to(device) for found in (order, index, before, after, last)
        )

    def arrange(self, packed: Tensor) -> Tensor:
        return packed.index_select(0, self._index)

    def steps(self, arranged: Tensor) -> Iterator[Tensor]:
        return iter(arranged.split(self._sizes))

    def longest(self, rows: Tensor, count: int) -> Tensor:
        return rows[:count]

    def blocks(self, value: Value) -> Iterator[Value]:
        if isinstance(value, Tensor) and value.dim() == 2 and value.shape[0] == self.count:
            return iter(value.split(self.whole))
        return repeat(value)

    def join(self, whole: list[Tensor], rest: list[Tensor]) -> Tensor:
        last = [torch.cat(rest).index_select(0, self._order)] if rest else []
        return torch.cat([*whole, *last])

    def room(self, start: Tensor) -> Tensor:
        room = start.new_empty(self._start + sum(self.batch_sizes), start.shape[1])
        room[: self._start] = start
        return room

    def written(self, room: Tensor) -> Tensor:
        return room[self._start :]

    def before(self, room: Tensor) -> Tensor:
        return room.index_select(0, self._before)

    def after(self, room: Tensor) -> Tensor:
        return room.index_select(0, self._after)

    def ends(self, room: Tensor) -> Tensor:
        return room[room.shape[0] - self.count :]

    def final(self, room: Tensor) -> Tensor:
        return room.index_select(0, self._last)


def _numbered(begins: Sequence[int], ends: Sequence[int]) -> Tensor:
    """Pairs (k, i) for every i from begins[k] to ends[k], as two rows."""
    sequences = torch.cat([torch.arange(begin, end) for begin, end in zip(begins, ends, strict=True)])
    counts = torch.tensor([end - begin for begin, end in zip(begins, ends, strict=True)])
    return torch.stack([torch.repeat_interleave(torch.arange(len(counts)), counts), sequences])
