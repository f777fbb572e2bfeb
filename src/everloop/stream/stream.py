"""One live stream: a sequence, or several side by side, of which the next steps come when they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from everloop.lang.graph import Graph
from everloop.stream.accuracy import Accuracy
from everloop.stream.engine import Engine

# Steps of the longest chunk that takes the quick way.
LONGEST = 64


class Stream:
    """Push steps in, get outputs back; the state stays here. However a sequence is cut into chunks, what comes out is
    the same.

    graph, sizes, weights: one step and its parameters, as for `Engine`; a trained layer or task makes all of it:
    `layer.stream()`, `load(run).stream()`. batch: how many sequences go side by side, all at the same pace (for
    sequences that come and go there is `StreamPool`). dtype, storage: what is computed in, and what weights are stored
    in; as for `Engine`.

    One stream is one order of steps, so two threads cannot push it at once: the second gets a RuntimeError. Different
    streams, forks too, run in different threads at the same time.
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Mapping[str, int],
        weights: Mapping[str, np.ndarray],
        batch: int = 1,
        dtype: Any = np.float32,
        storage: str | None = None,
    ) -> None:
        self._begin(Engine(graph, sizes, weights, dtype, storage), batch)

    @classmethod
    def of(cls, engine: Engine, batch: int = 1) -> Self:
        """A stream of an engine that is there already, and may have others."""
        made = cls.__new__(cls)
        made._begin(engine, batch)
        return made

    def _begin(self, engine: Engine, batch: int) -> None:
        if not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch: {batch!r} came; expected a whole number of 1 or more")
        self.engine, self.batch = engine, batch
        self._array = np.tile(engine.start, (batch, 1))
        self._run = engine.step.bind(engine.packed, self._array)
        self._lock = threading.Lock()
        rows = () if batch == 1 else (batch,)
        self._one, self._out = (*rows, engine.features), (*rows, engine.output)
        self._quick, self._singly, self._room = _not_for_me, False, 0

    def _expect(self, steps: int) -> None:
        """Have a quick way for chunks like the one that came, and like those before: what is only for others is not
        made.
        """
        singly = self._singly or steps == 1
        room = LONGEST if 1 < steps <= LONGEST and self.batch == 1 else self._room
        if (singly, room) != (self._singly, self._room):
            self._singly, self._room = singly, room
            self._quick = self._quick_way()

    def _quick_way(self) -> Callable[[Any], np.ndarray | None]:
        """What `push` tries first: None where a chunk is not for it."""
        engine, make = self.engine, getattr(self._run, "push_function", None)
        if make is None or len(engine.inputs) > len(engine.defaults) + 1:
            return _not_for_me
        beside = engine.arrange(np.zeros((max(1, self._room), self.batch, engine.features)), {})[1:]
        return make(self._lock, self._one, beside, one=self._singly, several=self._room) or _not_for_me

    def push(self, chunk: Any, side: Mapping[str, Any] | None = None) -> np.ndarray:
        """The outputs of the next steps: [T, I] gives [T, H], and one step [I] gives [H]; with a batch of B, [B, T, I]
        gives [B, T, H], and one step [B, I] gives [B, H].

        side: the side inputs by name, of the same steps: [T, F], or [T] where there is one number per step (for one
        step [F], or a number; with a batch, B in front). Those that are not given have the cell's value for that.
        """
        if side is None:
            y = self._quick(chunk)
            if y is None and type(chunk) is not np.ndarray:
                y = self._quick(np.asarray(chunk))
            if y is not None:
                return y
        with self._alone():
            return self._push(chunk, side or {})

    def _push(self, chunk: Any, side: Mapping[str, Any]) -> np.ndarray:
        x, one = np.asarray(chunk), self._one
        several = x.ndim == len(one) + 1
        if x.shape != (*one[:-1], *(x.shape[-2:-1] if several else ()), one[-1]):
            chunks = ", ".join(map(str, (*one[:-1], "T", one[-1])))
            raise ValueError(f"push: an array of shape {x.shape} came; expected [{chunks}], or one step {list(one)}")
        self.engine.check_side(side)
        steps = x.shape[-2] if several else 1
        beside = {name: self._beside(name, array, steps, several) for name, array in side.items()}
        inputs = self.engine.arrange(self._by_step(x, steps, one[-1]), beside)
        out = np.empty((steps, self.batch, self.engine.output), self.engine.dtype)
        if steps:
            self._run(steps, inputs, out, None)
            self._expect(steps)
        width = self._out[-1]
        return out.swapaxes(0, 1).reshape((*one[:-1], steps, width) if several else self._out)

    def _beside(self, name: str, given: Any, steps: int, several: bool) -> np.ndarray:
        """A side input as [T, B, F]."""
        array, width = np.asarray(given), self.engine.inputs[name]
        expected = (*self._one[:-1], *((steps,) if several else ()), width)
        if array.shape != expected and (width > 1 or array.shape != expected[:-1]):
            raise ValueError(f"side {name}: an array of shape {array.shape} came; expected {expected}")
        return self._by_step(array, steps, width)

    def _by_step(self, array: np.ndarray, steps: int, width: int) -> np.ndarray:
        """[B, T, F], or less, as [T, B, F]."""
        return array.reshape(self.batch, steps, width).swapaxes(0, 1)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(False):
            raise _busy()
        try:
            yield
        finally:
            self._lock.release()

    @property
    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state, by name: [H] each, or [B, H] with a batch."""
        with self._alone():
            return self.engine.named(self._array if self.batch > 1 else self._array[0])

    def reset(self) -> None:
        """Back to the start: the next step is the first one."""
        with self._alone():
            self._array[:] = self.engine.start

    def snapshot(self, extra: Mapping[str, np.ndarray] | None = None) -> bytes:
        """The state as bytes, to keep or to send; `restore` takes it up, in this process or another.

        extra: arrays to be kept beside it.
        """
        with self._alone():
            return self.engine.write(self._array, extra)

    def restore(self, snapshot: bytes) -> dict[str, np.ndarray]:
        """Go on from a snapshot of a stream of the same model. What was kept beside the state is returned."""
        state, extra = self.engine.read(snapshot, self.batch)
        with self._alone():
            self._array[:] = state
        return extra

    def __str__(self) -> str:
        return f"{self.batch} x {self.engine}"

    def accuracy(self, x: Any, exact: Stream, side: Mapping[str, Any] | None = None) -> Accuracy:
        """How far the outputs for a sequence x [T, I], or sequences [B, T, I], are from those of another stream, such
        as one of the same model whose weights are stored in full. Both from their starts; neither stream moves.

        side: as for `push`.
        """
        x = np.asarray(x)
        batch = len(x) if x.ndim == 3 else 1
        chunk = x.reshape(-1, x.shape[-1]) if batch == 1 else x
        ys = [type(self).of(one.engine, batch).push(chunk, side) for one in (self, exact)]
        sizes = {"bytes": self.engine.bytes, "exact_bytes": exact.engine.bytes}
        return Accuracy.of(self.engine.storage, *ys, **sizes)

    def fork(self) -> Self:
        """Another stream that goes on from here by itself. Weights and code are shared."""
        other = self.of(self.engine, self.batch)
        with self._alone():
            other._array[:] = self._array
        return other


def _not_for_me(chunk: Any) -> None:
    """Every chunk goes the general way."""


def _busy() -> RuntimeError:
    return RuntimeError("another thread is using this stream: give each thread a stream of its own (fork)")
