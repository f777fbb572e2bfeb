"""One step of sequences side by side, on arrays of torch, nothing kept: a call with as little around it as can be. What
is the same in every call is put together once.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from torch import Tensor

from everloop.backends._values import rows_of
from everloop.backends.llvm.call import Call
from everloop.backends.llvm.engine import Engine, pool
from everloop.backends.llvm.layout import BLOCK_WORDS, SCRATCH
from everloop.backends.llvm.memory import SMALL, take

_Memory = tuple["array[int]", "array[int]", Tensor]
"""Words, the records of the blocks, which they point to, and scratch memory, which both do."""


class OneStep:
    """The new states of so many sequences, of a kernel whose one input is x.

    like: an array of the type of all. What the kernel puts out is dropped: cells have states alone.
    """

    def __init__(self, engine: Engine, batch: int, like: Tensor) -> None:
        call = Call(engine, like, batch, (batch,), (batch,), None, False)
        self._engine, self._shape, self._like = call.engine, call.shape, like.new_empty(0)
        layout, program = self._engine.layout, self._engine.program
        at = self._at = layout.words
        self._shapes = [(batch, buffer.width) for buffer in program.new.values()]
        self._states = [(first, last) for _, first, last in layout.state_words]
        self._stacks = [place for _, place in layout.stack_words]
        self._x, self._stride = at.get("outer:x"), at.get("stride:x", 0)
        words = self._words = self._shape.words[:]
        threads = call.threads if program.request.shared else min(call.threads, len(self._shape.blocks))
        words[at["threads"]], words[at["pool"]] = threads, pool() if threads > 1 else 0
        self._dropped = []
        for name, buffer in program.outers.items():
            words[at[f"stride:{name}"]] = buffer.width
            self._dropped.append((at[f"outer:{name}"], batch * buffer.width))
        self._idle: list[_Memory] = []

    def __call__(self, x: Tensor, states: Sequence[Tensor], stacks: Sequence[Tensor]) -> list[Tensor]:
        """x, states: [B, F]. All in the order of the graph, and so are the new states."""
        # Another thread may be in the middle of a call: each call takes memory nobody else has.
        memory = self._idle.pop() if self._idle else self._made()
        words, x = memory[0], rows_of(x)
        if self._x is not None:
            words[self._x], words[self._stride] = x.data_ptr(), x.stride(0)
        made = [self._like.new_empty(shape) for shape in self._shapes]
        states, stacks = [one.contiguous() for one in states], [one.contiguous() for one in stacks]
        for (first, last), old, new in zip(self._states, states, made, strict=True):
            words[first], words[last] = old.data_ptr(), new.data_ptr()
        for place, stack in zip(self._stacks, stacks, strict=True):
            words[place] = stack.data_ptr()
        self._engine.run_at(words.buffer_info()[0])
        if memory[2].nbytes <= SMALL:
            self._idle.append(memory)
        return made

    def _made(self) -> _Memory:
        end, size = self._shape.scratch, self._like.element_size()
        scratch = take(end + sum(count for _, count in self._dropped), self._like)
        words, record, begin = self._words[:], self._shape.record[:], scratch.data_ptr()
        for place in range(SCRATCH, len(record), BLOCK_WORDS):
            record[place] += begin
        words[self._at["blocks"]], words[self._at["packed"]] = record.buffer_info()[0], begin
        for place, count in self._dropped:
            words[place] = begin + end * size
            end += count
        return words, record, scratch
