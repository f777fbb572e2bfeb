"""A graph as a step on NumPy arrays, for streams: weights laid out once, states in place, one call for a chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from everloop.backends.llvm.engine import CHUNK_ROWS, Engine, cut, parts, pool
from everloop.backends.llvm.layout import BLOCK_WORDS
from everloop.backends.llvm.lower import Program, Request
from everloop.backends.llvm.narrow import write_panels
from everloop.backends.llvm.native import Call, Chunks, Push, address, push_function
from everloop.backends.llvm.relay import relay
from everloop.backends.llvm.threads import get_num_threads
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.graph import Graph

ALIGNED = 64


class LlvmStep:
    """One step of a graph, compiled: in one way for calls of one step, of however many sequences, and in another for
    calls of several, which work out the products of all their inputs first.

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
        self.dtype, self._members, self._weight = np.dtype(dtype), members, weight
        self._request = Request(self.graph, sizes, outer=self.graph.outputs)
        # What no kernel can do is to be said now, and not by the first long call.
        Program(self._request)
        self.single = Engine(replace(self._request, single=True), self.dtype.name, weight)
        self.output = self.single.program.outers["y"].width
        self.products = self.single.layout.weight_count
        self._several: Engine | None = None
        self._compiling = threading.Lock()
        self._common = _aligned(0, self.dtype)

    @property
    def several(self) -> Engine:
        with self._compiling:
            if self._several is None:
                self._several = Engine(self._request, self.dtype.name, self._weight)
            return self._several

    def pack(self, weights: Mapping[str, np.ndarray]) -> Weights:
        found, engine = self._members(weights), self.single
        stacks = {}
        for stack, params in self.graph.stacks.items():
            rows = np.concatenate([found[param.name] for param in params])
            stacks[stack] = _aligned(rows.size, self.dtype)
            stacks[stack][:] = rows.ravel()
        packed = _zeros(engine.layout.packed_size, self.dtype)
        if engine.layout.weight:
            params = self.graph.params.values()
            write_panels(engine.layout, {param.name: found[param.name] for param in params if param.is_matrix}, packed)
        words = dict.fromkeys(engine.layout.words, 0) | _weight_words(stacks, packed)
        arguments = engine.words(words)
        engine.pack_at(address(arguments))
        vectors = {stack: array for stack, array in stacks.items() if not self.graph.stacks[stack][0].is_matrix}
        return Weights(vectors, engine, packed)

    def bytes(self, packed: Weights) -> int:
        return packed.bytes

    def common_scratch(self, count: int) -> np.ndarray:
        """Scratch memory for calls that keep the interpreter's lock, of which there is one at a time: what thousands of
        streams use in turn stays in the cache.
        """
        if len(self._common) < count:
            self._common = _aligned(count, self.dtype)
        return self._common

    def bind(self, packed: Weights, state: np.ndarray) -> Callable[..., None]:
        """What steps the states in place: see `everloop.stream.engine`."""
        return _Bound(self, packed, state)


class Weights:
    """Weights as the engines of a step read them: vectors as they are, matrices laid out.

    Those of an engine are there from its first use. Where nobody has used the other one so far, its own go then: only
    what makes calls of one step and of several holds its weights twice.
    """

    def __init__(self, vectors: Mapping[str, np.ndarray], engine: Engine, packed: np.ndarray) -> None:
        self._vectors, self._packed = vectors, {engine: packed}
        self._used: set[Engine] = set()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(array.nbytes for array in (*self._vectors.values(), *self._packed.values()))

    def use(self, engine: Engine) -> dict[str, int]:
        """The words that say where the weights of an engine are, from now on and as long as this object is there."""
        with self._lock:
            if engine not in self._packed:
                ((other, packed),) = self._packed.items()
                made = _zeros(engine.layout.packed_size, packed.dtype)
                relay(other.layout, packed, engine.layout, made)
                self._packed = {engine: made} | ({other: packed} if other in self._used else {})
            self._used.add(engine)
            return _weight_words(self._vectors, self._packed[engine])


def _weight_words(stacks: Mapping[str, np.ndarray], packed: np.ndarray) -> dict[str, int]:
    words = {f"stack:{name}": address(array) for name, array in stacks.items()}
    return words | {"packed": address(packed), "ready": 1}


class _Bound:
    """A step, its weights and the states of some sequences."""

    def __init__(self, step: LlvmStep, weights: Weights, state: np.ndarray) -> None:
        self.step, self.weights, self.state = step, weights, state
        self._words: dict[Engine, dict[str, int]] = {}
        self._idle: list[_Memory] = []

    def __call__(self, steps: int, inputs: tuple[np.ndarray, ...], out: np.ndarray, rows: np.ndarray | None) -> None:
        count = len(self.state) if rows is None else len(rows)
        threads = self._threads(steps, count)
        # Another thread may be in the middle of a call: each call takes memory nobody else has.
        memory = None
        while self._idle and memory is None:
            found = self._idle.pop()
            memory = found if found.fits(steps, count, threads) else None
        memory = memory or _Memory(self, _room(steps, count), count, threads)
        memory.point(steps, inputs, out, rows)
        memory.run(memory.address)
        # Of one step it is no larger than the states.
        if steps == 1 or steps * count <= CHUNK_ROWS:
            self._idle.append(memory)

    def _threads(self, steps: int, count: int) -> int:
        products = self.step.products
        alone = steps * count * products <= WORTH_A_THREAD or (count == 1 and products <= SHARES_A_STEP)
        return 1 if alone else get_num_threads()

    def words(self, engine: Engine) -> dict[str, int]:
        """What all calls of an engine have in common."""
        if engine not in self._words:
            words = dict.fromkeys(engine.layout.words, 0) | self.weights.use(engine)
            place = address(self.state)
            for name, leaf in self.step.graph.states.items():
                for side in ("start", "final"):
                    words[f"{side}:{name}"], words[f"step {side}:{name}"] = place, self.state.shape[1]
                place += engine.program.width(leaf) * self.state.itemsize
            self._words[engine] = words
        return self._words[engine]

    def push_function(
        self,
        lock: threading.Lock,
        shape: tuple[int, ...],
        beside: tuple[np.ndarray, ...],
        *,
        one: bool,
        several: int,
    ) -> Push | None:
        """A quick way in, for chunks of all sequences together, as long as one thread does for them.

        lock: whoever has it may step the states. shape: of one step of x. one: arrays of one step come. several: up to
        so many steps come in one array, where shape is [I]. beside: the other inputs, of so many steps. None where this
        Python can have no such function, and where every call is worth several threads: it does not ask how many there
        are.
        """
        work = max(1, len(self.state) * self.step.products)
        held, most = KEEPS_THE_LOCK // work, WORTH_A_THREAD // work
        rooms = [1] * (one and most >= 1) + [min(several, most)] * (min(several, most) > 1)
        if not rooms:
            return None
        memories = [_Memory(self, room, len(self.state), 1, alone=room <= held) for room in rooms]
        calls = {}
        for memory in memories:
            # What x and y are follows with each call.
            memory.point(memory.room, (beside[0] if beside else memory.words, *beside), memory.words, None)
            calls["one" if memory.room == 1 else "several"] = memory.call
        # The calls that made the caller ask for it were the last of their kind: their memory can go.
        self._idle.clear()
        chunks = Chunks(self.step.dtype, shape, self.step.output, held)
        return push_function(chunks, calls.get("one"), calls.get("several"), lock, (self, beside, memories))


def _room(steps: int, count: int) -> int:
    """For how many steps memory is made: chunks of other lengths may follow."""
    return 1 << (steps - 1).bit_length() if steps * count <= CHUNK_ROWS else steps


class _Memory:
    """The words of calls for one step, or for up to so many, of some sequences, and the memory that they point to.

    alone: they keep the interpreter's lock.
    """

    def __init__(self, bound: _Bound, steps: int, count: int, threads: int, *, alone: bool = False) -> None:
        self.room, self.count, self.threads, self._steps = steps, count, threads, steps
        engine = bound.step.single if steps == 1 else bound.step.several
        layout, shared = engine.layout, count == 1 and threads > 1
        self._code = engine.shared if shared else engine
        self.run = self._code.run_at
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
        self.order = np.arange(count, dtype=np.int64)
        self.offsets = np.arange(steps, dtype=np.int64) * count
        self.ends = np.zeros(count, np.int64)
        words = bound.words(engine) | {
            "blocks": address(self.record),
            "batch_sizes": address(self.batch_sizes),
            "offsets": address(self.offsets),
            "order": address(self.order),
            "ends": address(self.ends),
            "count": len(blocks),
            "threads": threads if shared else min(threads, len(blocks)),
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

    def fits(self, steps: int, count: int, threads: int) -> bool:
        there = steps == self.room or 1 < steps < self.room
        return there and (count, threads) == (self.count, self.threads)

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
        kernel = self._code.library.address("run")
        return Call(kernel, self.words, self.places[0], self.out, self.record[0, 2:3], self.room)


WORTH_A_THREAD = 1_000_000
"""Products of one call, in numbers multiplied, from which a second thread is asked: some 40 microseconds of work. To
wake a thread that has nothing to do takes as long, so less would gain only where steps come without a pause.
"""

SHARES_A_STEP = 250_000
"""Products of one step from which threads share the units of a sequence: they meet at every step."""

KEEPS_THE_LOCK = 125_000
"""Products of one call up to which the interpreter's lock is kept: to give it away and get it back takes a part of a
microsecond where nobody waits for it, and where somebody does, more than such a call.
"""


def _zeros(count: int, dtype: np.dtype) -> np.ndarray:
    made = _aligned(count, dtype)
    made[:] = 0
    return made


def _aligned(count: int, dtype: np.dtype) -> np.ndarray:
    """Memory that begins where a cache line begins."""
    spare = ALIGNED // dtype.itemsize
    whole: Any = np.empty(count + spare, dtype)
    first = (-address(whole) % ALIGNED) // dtype.itemsize
    return whole[first : first + count]
