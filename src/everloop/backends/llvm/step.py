"""A graph as a step on NumPy arrays, for streams: weights laid out once, states in place, one call for a chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from everloop.backends.llvm.engine import CHUNK_ROWS, Engine, cut, parts, pool
from everloop.backends.llvm.layout import BLOCK_WORDS
from everloop.backends.llvm.lower import Request
from everloop.backends.llvm.narrow import write_panels
from everloop.backends.llvm.native import Call, Chunks, Push, address, push_function
from everloop.backends.llvm.threads import get_num_threads
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.graph import Graph

ALIGNED = 64


class LlvmStep:
    """One step of a graph, compiled.

    sizes: the length of each size. members: the weights as `pack` gets them, to the graph's parameters by name (those
    made of others included). weight: bfloat16 or int8, if matrices are to be stored so and not in dtype.
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Mapping[str, int],
        dtype: np.dtype,
        members: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
        weight: str = "",
    ) -> None:
        self.graph = plan(kernel_graph(graph)).graph
        self.inputs = tuple(graph.inputs)
        self.dtype, self._members = np.dtype(dtype), members
        self.engine = Engine(Request(self.graph, sizes, outer=self.graph.outputs), self.dtype.name, weight)
        self.output = self.engine.program.outers["y"].width
        self._common = _aligned(0, self.dtype)

    def pack(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The vectors by stack, and `packed`: the matrices laid out for the kernel."""
        found, layout = self._members(weights), self.engine.layout
        stacks = {}
        for stack, params in self.graph.stacks.items():
            rows = np.concatenate([found[param.name] for param in params])
            stacks[stack] = _aligned(rows.size, self.dtype)
            stacks[stack][:] = rows.ravel()
        packed = _aligned(layout.packed_size, self.dtype)
        packed[:] = 0
        if layout.weight:
            params = self.graph.params.values()
            write_panels(layout, {param.name: found[param.name] for param in params if param.is_matrix}, packed)
        words = self.engine.words(dict.fromkeys(layout.words, 0) | self._weight_words(stacks, packed))
        self.engine.pack_at(address(words))
        vectors = {stack: array for stack, array in stacks.items() if not self.graph.stacks[stack][0].is_matrix}
        return {**vectors, PACKED: packed}

    def _weight_words(self, stacks: Mapping[str, np.ndarray], packed: np.ndarray) -> dict[str, int]:
        words = {f"stack:{name}": address(array) for name, array in stacks.items() if name != PACKED}
        return words | {"packed": address(packed), "ready": 1}

    def bytes(self, packed: Mapping[str, np.ndarray]) -> int:
        return sum(array.nbytes for array in packed.values())

    def common_scratch(self, count: int) -> np.ndarray:
        """Scratch memory for calls that keep the interpreter's lock, of which there is one at a time: what thousands of
        streams use in turn stays in the cache.
        """
        if len(self._common) < count:
            self._common = _aligned(count, self.dtype)
        return self._common

    def bind(self, packed: Mapping[str, np.ndarray], state: np.ndarray) -> Callable[..., None]:
        """What steps the states in place: see `everloop.stream.engine`."""
        return _Bound(self, packed, state)


PACKED = "packed"


class _Bound:
    """A step, its weights and the states of some sequences."""

    def __init__(self, step: LlvmStep, packed: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        self.step, self.engine, self.packed, self.state = step, step.engine, packed, state
        words = dict.fromkeys(self.engine.layout.words, 0) | step._weight_words(packed, packed[PACKED])
        place = address(state)
        for name, leaf in step.graph.states.items():
            for side in ("start", "final"):
                words[f"{side}:{name}"], words[f"step {side}:{name}"] = place, state.shape[1]
            place += self.engine.program.width(leaf) * state.itemsize
        self.words = words
        self._idle: list[_Memory] = []

    def __call__(self, steps: int, inputs: tuple[np.ndarray, ...], out: np.ndarray, rows: np.ndarray | None) -> None:
        count = len(self.state) if rows is None else len(rows)
        # Another thread may be in the middle of a call: each call takes memory nobody else has.
        memory = None
        while self._idle and memory is None:
            found = self._idle.pop()
            memory = found if found.fits(steps, count) else None
        memory = memory or _Memory(self, _room(steps, count), count)
        memory.point(steps, inputs, out, rows)
        self.engine.run_at(memory.address)
        if steps * count <= CHUNK_ROWS:
            self._idle.append(memory)

    def push_function(
        self, lock: threading.Lock, shape: tuple[int, ...], beside: tuple[np.ndarray, ...], steps: int = 1
    ) -> Push | None:
        """A quick way in, for chunks of all sequences together.

        lock: whoever has it may step the states. shape: of one step of x; up to so many steps can come where it is
        [I]. beside: the other inputs, of so many steps. None where this Python can have no such function, and where
        several threads may be worth while: it does not ask how many there are.
        """
        count, work = len(self.state), len(self.state) * self.engine.layout.weight_count
        if count > 1 and work > WORTH_A_THREAD:
            return None
        held = KEEPS_THE_LOCK // max(1, work)
        memories = [_Memory(self, room, count, alone=room <= held) for room in dict.fromkeys((1, steps))]
        for memory in memories:
            # What x and y are follows with each call.
            memory.point(memory.room, (beside[0] if beside else memory.words, *beside), memory.words, None)
        chunks = Chunks(self.step.dtype, shape, self.step.output, held)
        calls = [memory.call for memory in memories]
        return push_function(self.engine.library.address("run"), chunks, calls, lock, (self, beside, memories))


def _room(steps: int, count: int) -> int:
    """For how many steps memory is made: chunks of other lengths may follow."""
    return 1 << (steps - 1).bit_length() if steps * count <= CHUNK_ROWS else steps


class _Memory:
    """The words of calls for one step, or for up to so many, of some sequences, and the memory that they point to.

    alone: they keep the interpreter's lock.
    """

    def __init__(self, bound: _Bound, steps: int, count: int, *, alone: bool = False) -> None:
        self.room, self.count, self._steps = steps, count, steps
        engine, layout = bound.engine, bound.engine.layout
        threads = get_num_threads() if steps * count * layout.weight_count > WORTH_A_THREAD else 1
        blocks = cut(count, parts(count, threads))
        most = max((size for _, size in blocks), default=0)
        span = max(1, min(steps, -(-CHUNK_ROWS // max(1, most))))
        areas, size = layout.scratch(most, span)
        needed = size * len(blocks)
        self.scratch = bound.step.common_scratch(needed) if alone else _aligned(needed, bound.step.dtype)
        self.record = np.zeros((len(blocks), BLOCK_WORDS), np.int64)
        for k, (begin, rows) in enumerate(blocks):
            self.record[k, :4] = begin, rows, steps, address(self.scratch) + k * size * self.scratch.itemsize
        self.batch_sizes = np.full(steps, count, np.int64)
        self.offsets = np.arange(steps, dtype=np.int64) * count
        words = bound.words | {
            "blocks": address(self.record),
            "batch_sizes": address(self.batch_sizes),
            "offsets": address(self.offsets),
            "count": len(blocks),
            "threads": min(threads, len(blocks)),
            "pool": pool() if threads > 1 else 0,
            "span": span,
        }
        words |= {f"at:{name}": place for name, place in areas.items()}
        widths = {**engine.program.inputs, **engine.program.outers}
        words |= {f"stride:{name}": widths[name].width for name in layout.outer}
        self.words = engine.words(words)
        self.address = address(self.words)
        self.places = [layout.words.get(f"outer:{name}", -1) for name in bound.step.inputs]
        self.out, self.index = layout.words["outer:y"], layout.words["index"]

    def fits(self, steps: int, count: int) -> bool:
        return count == self.count and (steps == self.room or 1 < steps < self.room)

    def point(self, steps: int, inputs: tuple[np.ndarray, ...], out: np.ndarray, rows: np.ndarray | None) -> None:
        """Let the words say what the next call is about."""
        words = self.words
        for place, array in zip(self.places, inputs, strict=True):
            if place >= 0:
                words[place] = address(array)
        words[self.out] = address(out)
        words[self.index] = 0 if rows is None else address(rows)
        if steps != self._steps:
            self.record[:, 2] = self._steps = steps

    @property
    def call(self) -> Call:
        return Call(self.words, self.places[0], self.out, self.record[0, 2:3], self.room)


WORTH_A_THREAD = 1_000_000
"""Products of one call, in numbers multiplied, from which a second thread is asked: some 20 microseconds of work."""

KEEPS_THE_LOCK = 250_000
"""Products of one call up to which the interpreter's lock is kept: to give it away and get it back takes a part of a
microsecond where nobody waits for it, and where somebody does, more than such a call.
"""


def _aligned(count: int, dtype: np.dtype) -> np.ndarray:
    """Memory that begins where a cache line begins."""
    spare = ALIGNED // dtype.itemsize
    whole: Any = np.empty(count + spare, dtype)
    first = (-address(whole) % ALIGNED) // dtype.itemsize
    return whole[first : first + count]
