"""A graph as a step on NumPy arrays, for streams: weights laid out once, states in place, one call for a chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from everloop.backends.llvm.engine import CHUNK_ROWS, Engine, cut, parts, pool
from everloop.backends.llvm.layout import BLOCK_WORDS
from everloop.backends.llvm.lower import Request
from everloop.backends.llvm.threads import num_threads
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.graph import Graph

ALIGNED = 64


class LlvmStep:
    """One step of a graph, compiled.

    sizes: the length of each size. members: the weights as `pack` gets them, to the graph's parameters by name (those
    made of others included).
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Mapping[str, int],
        dtype: np.dtype,
        members: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    ) -> None:
        self.graph = plan(kernel_graph(graph)).graph
        self.inputs = tuple(graph.inputs)
        self.dtype, self._members = np.dtype(dtype), members
        self.engine = Engine(Request(self.graph, sizes, outer=self.graph.outputs), self.dtype.name)
        self.output = self.engine.program.outers["y"].width

    def pack(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The weights by stack, and `packed`: laid out for the kernel."""
        found = self._members(weights)
        stacks = {}
        for stack, params in self.graph.stacks.items():
            rows = np.concatenate([found[param.name] for param in params])
            stacks[stack] = _aligned(rows.size, self.dtype)
            stacks[stack][:] = rows.ravel()
        packed = _aligned(self.engine.layout.packed_size, self.dtype)
        words = self.engine.words(dict.fromkeys(self.engine.layout.words, 0) | self._weight_words(stacks, packed))
        self.engine.pack_at(_address(words))
        return {**stacks, PACKED: packed}

    def _weight_words(self, stacks: Mapping[str, np.ndarray], packed: np.ndarray) -> dict[str, int]:
        words = {f"stack:{name}": _address(array) for name, array in stacks.items() if name != PACKED}
        return words | {"packed": _address(packed), "ready": 1}

    def bind(self, packed: Mapping[str, np.ndarray], state: np.ndarray) -> Callable[..., None]:
        """What steps the states in place: see `everloop.stream.engine`."""
        return _Bound(self, packed, state)


PACKED = "packed"


class _Bound:
    """A step, its weights and the states of some sequences."""

    def __init__(self, step: LlvmStep, packed: Mapping[str, np.ndarray], state: np.ndarray) -> None:
        self.step, self.engine, self.packed, self.state = step, step.engine, packed, state
        words = dict.fromkeys(self.engine.layout.words, 0) | step._weight_words(packed, packed[PACKED])
        place = _address(state)
        for name, leaf in step.graph.states.items():
            for side in ("start", "final"):
                words[f"{side}:{name}"], words[f"step {side}:{name}"] = place, state.shape[1]
            place += self.engine.program.width(leaf) * state.itemsize
        self.words = words
        self._idle: list[tuple[int, int, _Memory]] = []

    def __call__(self, steps: int, inputs: tuple[np.ndarray, ...], out: np.ndarray, rows: np.ndarray | None) -> None:
        count = len(self.state) if rows is None else len(rows)
        # Another thread may be in the middle of a call: each call takes memory nobody else has.
        found = None
        while self._idle and found is None:
            made_steps, made_count, memory = self._idle.pop()
            found = memory if (made_steps, made_count) == (steps, count) else None
        memory = found or _Memory(self, steps, count)
        words, places = memory.words, memory.places
        for place, array in zip(places, inputs, strict=True):
            if place >= 0:
                words[place] = _address(array)
        words[memory.out] = _address(out)
        words[memory.index] = 0 if rows is None else _address(rows)
        self.engine.run_at(memory.address)
        if steps * count <= CHUNK_ROWS:
            self._idle.append((steps, count, memory))


class _Memory:
    """The words of calls for so many steps and sequences, and the memory that they point to."""

    def __init__(self, bound: _Bound, steps: int, count: int) -> None:
        engine, layout = bound.engine, bound.engine.layout
        threads = num_threads() if steps * count * layout.packed_size > WORTH_A_THREAD else 1
        blocks = cut(count, parts(count, threads))
        most = max((size for _, size in blocks), default=0)
        span = max(1, min(steps, -(-CHUNK_ROWS // max(1, most))))
        areas, size = layout.scratch(most, span)
        self.scratch = _aligned(size * len(blocks), bound.step.dtype)
        self.record = np.zeros((len(blocks), BLOCK_WORDS), np.int64)
        for k, (begin, rows) in enumerate(blocks):
            self.record[k, :4] = begin, rows, steps, _address(self.scratch) + k * size * self.scratch.itemsize
        self.batch_sizes = np.full(steps, count, np.int64)
        self.offsets = np.arange(steps, dtype=np.int64) * count
        words = bound.words | {
            "blocks": _address(self.record),
            "batch_sizes": _address(self.batch_sizes),
            "offsets": _address(self.offsets),
            "count": len(blocks),
            "threads": min(threads, len(blocks)),
            "pool": pool() if threads > 1 else 0,
            "span": span,
        }
        words |= {f"at:{name}": place for name, place in areas.items()}
        widths = {**engine.program.inputs, **engine.program.outers}
        words |= {f"stride:{name}": widths[name].width for name in layout.outer}
        self.words = engine.words(words)
        self.address = _address(self.words)
        self.places = [layout.words.get(f"outer:{name}", -1) for name in bound.step.inputs]
        self.out, self.index = layout.words["outer:y"], layout.words["index"]


WORTH_A_THREAD = 1_000_000
"""Products of one call, in numbers multiplied, from which a second thread is asked: some 20 microseconds of work."""


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _aligned(count: int, dtype: np.dtype) -> np.ndarray:
    """Memory that begins where a cache line begins."""
    spare = ALIGNED // dtype.itemsize
    whole: Any = np.empty(count + spare, dtype)
    first = (-_address(whole) % ALIGNED) // dtype.itemsize
    return whole[first : first + count]
