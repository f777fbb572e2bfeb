"""One call of a program on arrays of torch: memory for it, and the words that say where everything lies."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from everloop.backends._values import rows_of
from everloop.backends.llvm.engine import CHUNK_ROWS, Engine, cut, lengths, parts, pool, steps_of
from everloop.backends.llvm.layout import BLOCK_WORDS, GRADS, SCRATCH, rounded
from everloop.backends.llvm.memory import take
from everloop.backends.llvm.threads import get_num_threads

SHARED_ROWS = 1
"""Sequences up to which threads share the units of a step, rather than the sequences."""

SHAPES = 64
"""Lengths of sequences that a program remembers."""


class Call:
    """All but its arrays. order: the sequences, longest first, where they differ in length. reverse: each
    is read from its end.
    """

    def __init__(
        self,
        engine: Engine,
        like: Tensor,
        batch: int,
        batch_sizes: Sequence[int],
        shape: Sequence[int],
        order: Tensor | None,
        reverse: bool,
    ) -> None:
        if reverse and len(shape) != 2:
            raise ValueError("reverse: packed rows came; expected arrays of three axes, [T, B, F]")
        self.threads = get_num_threads()
        if 0 < batch * len(batch_sizes) <= engine.few and batch_sizes[0] == batch:
            engine = engine.direct
        blocks = parts(batch, self.threads, engine.layout.weight_count)
        self.engine = engine.shared if blocks == 1 and self.threads > 1 and batch <= SHARED_ROWS else engine
        self.like = like
        key = blocks, batch, tuple(batch_sizes), shape[0] if len(shape) == 2 else -1
        # Another thread may clear the shapes at any time.
        found = engine.shapes.get(key)
        if found is None:
            if len(engine.shapes) >= SHAPES:
                engine.shapes.clear()
            found = engine.shapes[key] = _Shape(engine, cut(batch, blocks), batch, batch_sizes, key[3])
        self.order, self.reverse = order, reverse
        self.shape: _Shape = found

    def run(
        self,
        outer: Mapping[str, Tensor],
        start: Mapping[str, Tensor],
        final: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        kept: Tensor | None = None,
        grads: Tensor | None = None,
    ) -> Tensor:
        """Do it; what was kept."""
        shape, layout, like = self.shape, self.engine.layout, self.like
        at, words, record = layout.words, shape.words[:], shape.record[:]
        scratch = take(shape.scratch, like)
        memory = take(shape.kept, like) if kept is None else kept
        begin = scratch.data_ptr()
        for k, place in enumerate(range(0, len(record), BLOCK_WORDS)):
            record[place + SCRATCH] += begin
            if grads is not None:
                record[place + GRADS] = grads.data_ptr() + k * grads.stride(0) * grads.element_size()
        words[at["blocks"]], words[at["packed"]] = record.buffer_info()[0], begin
        words[at["keep"]] = memory.data_ptr()
        threads = self.threads if self.engine.program.request.shared else min(self.threads, len(shape.blocks))
        words[at["threads"]], words[at["pool"]] = threads, pool() if threads > 1 else 0
        if self.order is not None:
            words[at["order"]] = words[at["index"]] = self.order.data_ptr()
        if self.reverse:
            words[at["ends"]], words[at["turn"]] = shape.last.ctypes.data, -1
        alive, turn = [], -1 if self.reverse else 1
        for name, place, stride, step in layout.outer_words:
            rows = rows_of(outer[name])
            words[place], words[stride] = rows.data_ptr(), rows.stride(-2)
            words[step] = turn * rows.stride(0) if rows.dim() == 3 else 0
            alive.append(rows)
        for name, first, last in layout.state_words:
            given = start[name].contiguous()
            words[first], words[last] = given.data_ptr(), final[name].data_ptr()
            alive.append(given)
        for name, place in layout.stack_words:
            stack = weights[name].contiguous()
            words[place] = stack.data_ptr()
            alive.append(stack)
        self.engine.run_at(words.buffer_info()[0])
        return memory


class _Shape:
    """What the calls of a program for some lengths of sequences have in common: all words but the addresses."""

    def __init__(
        self, engine: Engine, blocks: list[tuple[int, int]], batch: int, batch_sizes: Sequence[int], time: int
    ) -> None:
        """time: the steps that there is room for in arrays of three axes; negative: they are packed."""
        layout, self.blocks = engine.layout, blocks
        most = max((count for _, count in blocks), default=0)
        span = max(1, min(len(batch_sizes), -(-CHUNK_ROWS // max(1, most))))
        places, size = layout.scratch(most, span)
        self.packed = rounded(layout.packed_size)
        self.scratch = self.packed + size * len(blocks)
        long = lengths(blocks, batch_sizes) if blocks else []
        self.record = array("q")
        for k, ((begin, count), steps) in enumerate(zip(blocks, long, strict=True)):
            words = [begin, count, steps, (self.packed + k * size) * engine.numbers.bytes]
            self.record.extend([*words, *[0] * (BLOCK_WORDS - len(words))])
        sizes, offsets = steps_of(tuple(batch_sizes))
        # Before the rows of the first step there is one for every sequence: the states that it begins with.
        self.kept_steps = np.concatenate([np.zeros(1, np.int64), batch + offsets])
        self.kept = layout.kept_most(batch, sum(batch_sizes))
        # In arrays of three axes, the words of each say how far apart its steps are.
        self.offsets = offsets if time < 0 else np.zeros_like(offsets)
        self.batch_sizes = np.concatenate([sizes, np.zeros(max(0, time - len(sizes)), np.int64)])
        self.order = np.arange(batch, dtype=np.int64)
        self.ends = np.zeros(batch, np.int64)
        values = dict.fromkeys(layout.words, 0) | {
            "batch_sizes": self.batch_sizes.ctypes.data,
            "offsets": self.offsets.ctypes.data,
            "order": self.order.ctypes.data,
            "ends": self.ends.ctypes.data,
            "turn": 1,
            "kept rows": batch + sum(batch_sizes),
            "kept steps": self.kept_steps.ctypes.data,
            "time": max(0, time),
            "count": len(blocks),
            "span": span,
        }
        values |= {f"at:{name}": place for name, place in places.items()}
        for name, buffer in engine.program.new.items():
            values[f"step start:{name}"] = values[f"step final:{name}"] = buffer.width
        self.words = array("q", engine.words(values).tolist())

    @cached_property
    def last(self) -> np.ndarray:
        """The last step of every sequence, longest first."""
        steps = self.batch_sizes[None, :] > np.arange(len(self.order))[:, None]
        return steps.sum(1, np.int64) - 1
