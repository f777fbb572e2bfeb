"""Thousands of live streams of one model, stepped as one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from everloop.lang.graph import Graph
from everloop.stream.engine import Engine

# An id is the row that its stream has, and above that how often the row had been given away before.
ROW = 32
# Ids of streams closed for idleness that are kept until somebody asks for them.
NEWS = 100_000


class StreamPool:
    """Streams that come and go, each at its own pace; whichever have input are stepped together.

    graph, sizes, weights, dtype, storage: as for `Stream`. idle: seconds without a push after which a stream is closed,
    at the next call of anything (None: never). clock: gives the seconds.

    May be called from many threads: a call waits for the one before.
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Mapping[str, int],
        weights: Mapping[str, np.ndarray],
        dtype: Any = np.float32,
        storage: str | None = None,
        *,
        idle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._begin(Engine(graph, sizes, weights, dtype, storage), idle, clock)

    @classmethod
    def of(cls, engine: Engine, *, idle: float | None = None, clock: Callable[[], float] = time.monotonic) -> Self:
        """A pool of an engine that is there already."""
        made = cls.__new__(cls)
        made._begin(engine, idle, clock)
        return made

    def _begin(self, engine: Engine, idle: float | None, clock: Callable[[], float]) -> None:
        if idle is not None and not idle > 0:
            raise ValueError(f"idle: {idle!r} came; expected seconds, more than 0, or None: never")
        self.engine, self.idle, self._clock = engine, idle, clock
        self._lock = threading.RLock()
        self._free: list[int] = []
        self._used = 0
        self._ids = np.zeros(0, np.int64)  # of each row: that of its stream, or of the one that it will have next
        self._pushed = np.zeros(0)  # when each row was pushed last; infinity: it is free
        self._array = np.zeros((0, engine.width), engine.dtype)
        self._news: deque[int] = deque(maxlen=NEWS)
        self._next_look = 0.0
        self._grow()

    def __len__(self) -> int:
        """How many streams are open."""
        with self._lock:
            self._close_idle()
            return self._used - len(self._free)

    def ids(self) -> list[int]:
        """The open streams."""
        with self._lock:
            self._close_idle()
            return self._ids[self._pushed < np.inf].tolist()

    def open(self, snapshot: bytes | None = None) -> int:
        """A new stream, at the start, or going on from a snapshot: of this pool, or of a `Stream` of the same model."""
        with self._lock:
            self._close_idle()
            state = self.engine.start if snapshot is None else self.engine.read(snapshot, 1)[0][0]
            row = self._free.pop() if self._free else self._new_row()
            self._array[row] = state
            self._touch(np.array([row]))
            return int(self._ids[row])

    def close(self, id: int) -> None:
        """End a stream and free its memory for the next one."""
        with self._lock:
            self._close_idle()
            self._release(self._rows([id]))

    def push(
        self, chunks: Mapping[int, Any], side: Mapping[int, Mapping[str, Any]] | None = None
    ) -> dict[int, np.ndarray]:
        """The outputs of the next steps of some streams: {id: [T, I]} gives {id: [T, H]}, and one step [I] gives [H].

        Chunks may differ in length. side: for each id what `Stream.push` takes. Nothing has happened if this raises.
        """
        with self._lock:
            self._close_idle()
            ids = list(chunks)
            rows = self._rows(ids)
            for id in side or {}:
                if id not in chunks:
                    raise ValueError(f"side: inputs for stream {id} came, and no chunk")
            given = [self._checked(id, chunks[id], (side or {}).get(id, {})) for id in ids]
            outs = self._run_ragged(rows, given)
            self._touch(rows)
            return {id: out if np.ndim(chunks[id]) == 2 else out[0] for id, out in zip(ids, outs, strict=True)}

    def step(self, ids: Sequence[int] | np.ndarray, x: Any, side: Mapping[str, Any] | None = None) -> np.ndarray:
        """One step of many streams: x [n, I], a row for each of the ids, gives [n, H]. side: [n, F] or [n]."""
        with self._lock:
            self._close_idle()
            rows = self._rows(ids)
            array, beside = np.asarray(x), side or {}
            if array.shape != (len(rows), self.engine.features):
                raise ValueError(
                    f"step: an array of shape {array.shape} came; expected {(len(rows), self.engine.features)}"
                )
            self.engine.check_side(beside)
            given = {name: self._beside(name, value, (len(rows),))[None] for name, value in beside.items()}
            out = np.empty((len(rows), self.engine.output), self.engine.dtype)
            if len(rows):
                self._run(1, self.engine.arrange(array[None], given), out, rows)
            self._touch(rows)
            return out

    def state(self, id: int) -> dict[str, np.ndarray]:
        """A copy of the state of a stream by name: [H] each."""
        with self._lock:
            self._close_idle()
            return self.engine.named(self._array[self._rows([id])[0]])

    def snapshot(self, id: int) -> bytes:
        """The state of a stream as bytes: `open` and `restore` take it, and so does a `Stream`."""
        with self._lock:
            self._close_idle()
            return self.engine.write(self._array[self._rows([id])])

    def restore(self, id: int, snapshot: bytes) -> None:
        """Let a stream go on from a snapshot."""
        with self._lock:
            self._close_idle()
            self._array[self._rows([id])] = self.engine.read(snapshot, 1)[0]

    def reset(self, id: int) -> None:
        """A stream back to the start."""
        with self._lock:
            self._close_idle()
            self._array[self._rows([id])] = self.engine.start

    def closed(self) -> list[int]:
        """The streams that were closed for idleness since this was last asked."""
        with self._lock:
            self._close_idle()
            found = list(self._news)
            self._news.clear()
            return found

    # Rows

    def _rows(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The rows of some streams; all must be open and each come once."""
        wanted = np.asarray(ids, np.int64).reshape(-1) if len(ids) else np.zeros(0, np.int64)
        rows = wanted & ((1 << ROW) - 1)
        inside = rows < self._used
        place = np.where(inside, rows, 0)
        known = inside & (self._ids[place] == wanted) & (self._pushed[place] < np.inf)
        if not known.all():
            idle = "" if self.idle is None else f", or for {self.idle:g} s nobody pushed it"
            raise KeyError(f"there is no open stream {wanted[~known][0]}: it was closed{idle}")
        if self._come_twice(rows):
            raise ValueError("a stream came twice in one call; expected each once")
        return rows

    def _come_twice(self, rows: np.ndarray) -> bool:
        """Whether any does: of two entries in one place the last one stays."""
        last, own = np.empty(self._used, np.int64), np.arange(len(rows))
        last[rows] = own
        return not np.array_equal(last[rows], own)

    def _new_row(self) -> int:
        if self._used == len(self._array):
            self._grow()
        self._ids[self._used] = self._used
        self._used += 1
        return self._used - 1

    def _grow(self) -> None:
        """Room for a quarter more."""
        more = max(64, len(self._array) // 4)
        self._ids = np.concatenate([self._ids, np.full(more, -1)])
        self._pushed = np.concatenate([self._pushed, np.full(more, np.inf)])
        self._array = np.concatenate([self._array, np.zeros((more, self.engine.width), self.engine.dtype)])
        self._run = self.engine.step.bind(self.engine.packed, self._array)

    def _touch(self, rows: np.ndarray) -> None:
        now = self._clock() if self.idle is not None else 0.0
        self._pushed[rows] = now

    def _release(self, rows: np.ndarray) -> None:
        self._ids[rows] += 1 << ROW
        self._pushed[rows] = np.inf
        self._free += rows.tolist()

    def _close_idle(self) -> None:
        """Close what has been idle for too long; looks only when something can have been."""
        if self.idle is None or not self._used:
            return
        now = self._clock()
        if now < self._next_look:
            return
        rows = np.flatnonzero(self._pushed <= now - self.idle)
        self._news.extend(self._ids[rows].tolist())
        self._release(rows)
        self._next_look = min(now, float(self._pushed.min())) + self.idle

    # Chunks

    def _checked(self, id: int, chunk: Any, side: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A chunk as [T, I] and its side inputs as [T, F]."""
        x, features = np.asarray(chunk), self.engine.features
        if x.ndim not in (1, 2) or x.shape[-1] != features:
            raise ValueError(
                f"push: for stream {id} an array of shape {x.shape} came; expected [T, {features}], or one step "
                f"[{features}]"
            )
        self.engine.check_side(side)
        beside = {name: self._beside(name, value, x.shape[:-1]) for name, value in side.items()}
        return x.reshape(-1, features), beside

    def _beside(self, name: str, given: Any, rows: tuple[int, ...]) -> np.ndarray:
        """A side input as [N, F]; rows: what comes before F in its shape."""
        array, width = np.asarray(given), self.engine.inputs[name]
        if array.shape != (*rows, width) and (width > 1 or array.shape != rows):
            raise ValueError(f"side {name}: an array of shape {array.shape} came; expected {(*rows, width)}")
        return array.reshape(-1, width)

    def _run_ragged(
        self, rows: np.ndarray, given: Sequence[tuple[np.ndarray, dict[str, np.ndarray]]]
    ) -> list[np.ndarray]:
        """Chunks of any lengths: longest first, and for each length the steps up to it in one call."""
        lengths = [len(x) for x, _ in given]
        order = sorted(range(len(given)), key=lambda k: -lengths[k])
        outs = [np.empty((length, self.engine.output), self.engine.dtype) for length in lengths]
        begin = 0
        for end in sorted({length for length in lengths if length}):
            running = [k for k in order if lengths[k] >= end]
            inputs = self._stacked([given[k] for k in running], slice(begin, end))
            out = np.empty((end - begin, len(running), self.engine.output), self.engine.dtype)
            self._run(end - begin, inputs, out, rows[running])
            for place, k in enumerate(running):
                outs[k][begin:end] = out[:, place]
            begin = end
        return outs

    def _stacked(
        self, given: Sequence[tuple[np.ndarray, dict[str, np.ndarray]]], steps: slice
    ) -> tuple[np.ndarray, ...]:
        """The inputs of some steps of some streams, [T, n, F] each; what one of them is not given is its default."""
        x = np.stack([x[steps] for x, _ in given], axis=1)
        side = {}
        for name in dict.fromkeys(name for _, beside in given for name in beside):
            parts = [beside[name][steps] if name in beside else self._default(name, len(x)) for _, beside in given]
            side[name] = np.stack(parts, axis=1)
        return self.engine.arrange(x, side)

    def _default(self, name: str, steps: int) -> np.ndarray:
        return np.full((steps, self.engine.inputs[name]), self.engine.defaults[name])
