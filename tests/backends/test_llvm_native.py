"""The quick way into a step: the same numbers as the general one, whatever comes, and nothing lost or kept."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from everloop import cells
from everloop.backends.llvm import native
from everloop.stream import Engine, Stream
from everloop.testing import FLOAT32, SAME, assert_close

# Small enough to keep the interpreter's lock, and large enough to give it away.
SHORT, LONG = 4, 300


def engine(cell: str = "lstm", hidden: int = SHORT, dtype: Any = np.float32) -> Engine:
    graph, sizes = cells.get(cell).graph, {"input": 3, "hidden": hidden}
    numbers = np.random.default_rng(hidden)
    weights = {
        stack: numbers.normal(0, hidden**-0.5, [sum(p.shape(sizes)[0] for p in params), *params[0].shape(sizes)[1:]])
        for stack, params in graph.stacks.items()
    }
    return Engine(graph, sizes, weights, dtype)


def pushed(engine: Engine, batch: int = 1) -> Stream:
    """A stream that has its quick way for one step, which comes with the first one."""
    made = Stream.of(engine, batch)
    made.push(np.zeros(made._one))
    made.reset()
    return made


def general(stream: Stream, chunk: Any) -> np.ndarray:
    """What a stream without a quick way gives."""
    plain = Stream.of(stream.engine, stream.batch)
    plain._array[:] = stream._array
    return plain._push(chunk, {})


@pytest.fixture
def stream() -> Stream:
    return pushed(engine())


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=3).astype(np.float32)


@pytest.fixture
def without() -> Iterator[None]:
    native.available.cache_clear()
    yield
    native.available.cache_clear()


def test_this_python_has_it() -> None:
    """These tests would all hold where there is none."""
    assert native.available()


class TestNumbers:
    @pytest.mark.parametrize("cell", ["lstm", "gru", "elman", "mingru", "gru_d"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("hidden", [3, 17])
    def test_of_a_step(self, cell: str, dtype: Any, hidden: int) -> None:
        made = pushed(engine(cell, hidden, dtype))
        for row in np.random.default_rng(0).normal(size=(4, 3)).astype(dtype):
            expected, y = general(made, row), made._quick(row)
            assert y is not None
            assert_close(y, expected, FLOAT32 if dtype == np.float32 else SAME)
            assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
            assert y.flags.owndata
            assert y.flags.writeable

    def test_of_several_sequences(self) -> None:
        made = pushed(engine(), 5)
        for rows in np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32):
            expected, y = general(made, rows), made._quick(rows)
            assert y is not None
            assert_close(y, expected, FLOAT32)

    def test_of_several_steps(self, stream: Stream) -> None:
        xs = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
        whole = Stream.of(stream.engine).push(xs)
        first = stream.push(xs[:2])
        parts = [xs[2:3], xs[3:7], xs[7], xs[8:40], xs[40:]]
        ys = [stream._quick(part) for part in parts]
        assert_close(np.concatenate([first, *(np.atleast_2d(y) for y in ys)]), whole, FLOAT32)

    def test_of_a_chunk_of_one_step(self, stream: Stream, x: np.ndarray) -> None:
        """Whether or not longer ones came before."""
        for before in (x, np.stack([x, x])):
            stream.push(before)
            expected, y = general(stream, x[None]), stream._quick(x[None])
            assert y is not None
            assert_close(y, expected, FLOAT32)

    def test_of_what_has_come_before(self, x: np.ndarray) -> None:
        """Chunks have a quick way once such a chunk came; code and weights for others are not made."""
        made = Stream.of(engine())
        xs = np.stack([x, x, x])
        assert made._quick(x) is None
        made.push(xs)
        assert made._quick(x) is None
        assert made._quick(xs) is not None
        made.push(x)
        assert made._quick(x) is not None
        assert made._quick(xs[:2]) is not None

    def test_of_a_long_step(self) -> None:
        made = pushed(engine(hidden=LONG))
        for row in np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32):
            expected, y = general(made, row), made._quick(row)
            assert y is not None
            assert_close(y, expected, FLOAT32)

    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x.astype(np.float64),
            lambda x: x.astype(np.float16),
            lambda x: x.astype(">f4"),
            lambda x: x.astype(np.int8),
            lambda x: x.astype(bool),
            lambda x: x.astype(object),
            lambda x: x.repeat(2)[::2],
            lambda x: x[::-1],
            lambda x: np.frombuffer(x.tobytes(), np.float32),
            lambda x: np.frombuffer(b"." + x.tobytes(), np.float32, offset=1),
            lambda x: np.broadcast_to(x[0], 3),
        ],
    )
    def test_of_any_array(self, stream: Stream, x: np.ndarray, change: Any) -> None:
        given = change(x)
        kept, expected = given.copy(), general(stream, given)
        y = stream._quick(given)
        assert y is not None
        assert_close(y, expected, FLOAT32)
        assert (given == kept).all()

    @pytest.mark.parametrize("change", [list, tuple, memoryview, lambda x: x.view(type("Derived", (np.ndarray,), {}))])
    def test_of_whatever_becomes_an_array(self, stream: Stream, x: np.ndarray, change: Any) -> None:
        expected = general(stream, x)
        y = stream.push(change(x))
        assert type(y) is np.ndarray
        assert_close(y, expected, FLOAT32)

    def test_of_streams_in_turn(self) -> None:
        """Streams of one engine share what a step needs only while it runs."""
        shared = engine(hidden=17)
        xs = np.random.default_rng(0).normal(size=(5, 3, 3)).astype(np.float32)
        streams = [Stream.of(shared) for _ in range(5)]
        wide = Stream.of(shared, 5)
        found = []
        for t in range(3):
            found.append(np.stack([stream.push(row) for stream, row in zip(streams, xs[:, t], strict=True)]))
            assert_close(wide.push(xs[:, t]), found[-1], FLOAT32)
        assert_close(np.stack(found, 1), Stream.of(shared, 5).push(xs), FLOAT32)

    def test_outputs_are_the_callers_own(self, stream: Stream, x: np.ndarray) -> None:
        first = stream.push(x)
        kept = first.copy()
        second = stream.push(x)
        assert not np.shares_memory(first, second)
        assert (first == kept).all()
        first[:] = np.nan
        assert np.isfinite(stream.push(x)).all()


class TestOthers:
    @pytest.mark.parametrize(
        "other",
        [
            None,
            3.0,
            "abc",
            [1.0, 2.0, 3.0],
            (),
            object(),
            np.ndarray,
            np.float32(1),
            np.zeros(()),
            np.zeros(0),
            np.zeros(4),
            np.zeros((0, 3)),
            np.zeros((1, 4)),
            np.zeros((1, 1, 3)),
            np.zeros((5, 3)),
            np.zeros((1,) * 32),
            np.ma.zeros(3),
            np.zeros(3).view(type("Derived", (np.ndarray,), {})),
            np.recarray(3, [("a", np.float32)]),
            memoryview(b"abc"),
        ],
        ids=lambda other: type(other).__name__,
    )
    def test_are_left_to_the_general_way(self, stream: Stream, x: np.ndarray, other: Any) -> None:
        stream.push(x)
        before = stream._array.copy()
        assert stream._quick(other) is None
        assert (stream._array == before).all()

    def test_steps_so_large_that_threads_share_them(self) -> None:
        made = pushed(engine(hidden=512))
        assert made._quick(np.zeros(3, np.float32)) is None

    def test_a_batch_of_another_size(self) -> None:
        made = pushed(engine(), 2)
        assert [made._quick(np.zeros(shape, np.float32)) for shape in ((3,), (1, 3), (3, 3), (2, 4), (2, 1, 3))] == [
            None
        ] * 5

    def test_chunks_too_long(self, stream: Stream) -> None:
        xs = np.zeros((200, 3), np.float32)
        stream.push(xs[:2])
        assert stream._quick(xs[:2]) is not None
        assert stream._quick(xs) is None
        assert stream._quick(xs[:0]) is None
        assert stream.push(xs).shape == (200, SHORT)

    @pytest.mark.parametrize("value", ["a word", None, (1, 2)])
    def test_what_cannot_be_converted(self, stream: Stream, value: Any) -> None:
        given = np.empty(3, object)
        given[:] = 1.0
        given[1] = value
        before, counted = stream._array.copy(), sys.getrefcount(given)
        try:
            expected = type(None), general(stream, given)
        except (TypeError, ValueError) as error:
            expected = type(error), None
        if expected[1] is None:
            with pytest.raises(expected[0]):
                stream.push(given)
            assert (stream._array == before).all()
        assert sys.getrefcount(given) == counted

    def test_arguments(self, stream: Stream, x: np.ndarray) -> None:
        quick: Any = stream._quick
        for wrong in ((), (x, x)):
            with pytest.raises(TypeError):
                quick(*wrong)
        with pytest.raises(TypeError):
            quick(x=x)


class TestReferences:
    def test_are_given_back(self, stream: Stream, x: np.ndarray) -> None:
        stream.push(np.zeros((4, 3)))
        wide, several, wrong = x.astype(np.float64), np.zeros((4, 3), np.float32), np.zeros(7)
        watched = (x, wide, several, wrong, x.dtype, wide.dtype, stream._quick, stream._lock, np.ndarray)
        before = [sys.getrefcount(one) for one in watched]
        for _ in range(1000):
            for given in (x, wide, several, wrong):
                y = stream._quick(given)
            with stream._lock:
                stream._quick(x)
        del y, given
        assert [sys.getrefcount(one) for one in watched] == before

    def test_outputs_are_held_once(self, stream: Stream, x: np.ndarray) -> None:
        y, fresh = stream._quick(x), np.zeros(3)
        assert sys.getrefcount(y) == sys.getrefcount(fresh)

    @pytest.mark.parametrize("hidden", [SHORT, LONG])
    def test_nothing_is_kept(self, hidden: int) -> None:
        made = pushed(engine(hidden=hidden))
        given = [np.ones(3, np.float32), np.ones(3), np.ones((4, 3), np.float32), np.ones(5)]
        for one in given[:3]:
            made.push(one)
        tracemalloc.start()
        try:
            sizes = []
            for _ in range(3):
                for _ in range(500):
                    for one in given:
                        made._quick(one)
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        # A leak would be thousands of arrays; what the measuring itself keeps is a few.
        assert sizes[2] - sizes[1] < 1000 * sys.getsizeof(np.zeros(0))


class TestLife:
    def test_a_function_outlives_its_stream(self, x: np.ndarray) -> None:
        made = pushed(engine())
        expected, quick = general(made, x), made._quick
        gone = weakref.ref(made)
        del made
        assert gone() is None
        gc.collect()
        garbage = [np.full(1 << 12, np.nan) for _ in range(100)]
        y = quick(x)
        assert y is not None
        assert_close(y, expected, FLOAT32)
        assert len(garbage) == 100

    def test_a_stream_goes_at_once(self) -> None:
        """Without the collector of cycles: streams of a server come and go."""
        made = Stream.of(engine())
        states = weakref.ref(made._array)
        gc.disable()
        try:
            made.push(np.zeros((3, 3)))
            del made
            assert states() is None
        finally:
            gc.enable()

    def test_an_open_stream_is_its_state_and_little_else(self) -> None:
        shared = engine(hidden=64)
        pushed(shared)
        tracemalloc.start()
        try:
            streams = [pushed(shared) for _ in range(100)]
            each = tracemalloc.get_traced_memory()[0] / len(streams)
        finally:
            tracemalloc.stop()
        assert each < shared.width * 4 + 8192

    def test_nothing_is_left_of_many_streams(self) -> None:
        """An object takes 16 bytes or more. Other things in the process come and go, some hundred bytes of them."""
        shared, many = engine(), 500

        def use() -> None:
            for _ in range(many):
                made = Stream.of(shared)
                made.push(np.zeros(3, np.float32))
                made.push(np.zeros((3, 3), np.float32))

        def held() -> int:
            gc.collect()  # and with it the tuples that Python keeps to use them again
            return tracemalloc.get_traced_memory()[0]

        use()
        tracemalloc.start()
        try:
            use()
            before = held()
            use()
            use()
            after = held()
        finally:
            tracemalloc.stop()
        assert after - before < many * 16


class TestThreads:
    @pytest.mark.parametrize("hidden", [SHORT, LONG])
    def test_a_stream_that_somebody_has(self, hidden: int) -> None:
        made, row = pushed(engine(hidden=hidden)), np.ones(3, np.float32)
        before = made._array.copy()
        with made._lock:
            assert made._quick(row) is None
            with pytest.raises(RuntimeError, match="another thread is using this stream"):
                made.push(row)
        assert (made._array == before).all()
        assert made._quick(row) is not None
        assert not made._lock.locked()

    @pytest.mark.parametrize("hidden", [SHORT, LONG])
    def test_every_push_is_done_once_or_refused(self, hidden: int) -> None:
        made, row = Stream.of(engine(hidden=hidden)), np.ones(3, np.float32)
        done: list[int] = []

        def push() -> None:
            count = 0
            for _ in range(400):
                try:
                    made.push(row)
                except RuntimeError:
                    continue
                count += 1
            done.append(count)

        _together([push] * 4)
        alone = Stream.of(made.engine)
        for _ in range(sum(done)):
            alone.push(row)
        assert len(done) == 4
        assert (alone._array == made._array).all()

    @pytest.mark.parametrize("hidden", [SHORT, LONG])
    def test_streams_of_their_own(self, hidden: int) -> None:
        shared = engine(hidden=hidden)
        xs = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
        found: dict[int, np.ndarray] = {}

        def push(k: int) -> None:
            made = Stream.of(shared)
            found[k] = np.stack([made.push(row) for row in xs])

        _together([lambda k=k: push(k) for k in range(4)])
        alone = Stream.of(shared)
        expected = np.stack([alone.push(row) for row in xs])
        assert sorted(found) == [0, 1, 2, 3]
        assert all((ys == expected).all() for ys in found.values())

    def test_a_long_step_lets_others_run(self) -> None:
        """While one thread is in a long chunk, another one gets on: it sees the stream in use."""
        made = Stream.of(engine(hidden=LONG))
        xs = np.zeros((2, 3), np.float32)
        made.push(xs)
        assert made._quick(xs) is not None
        seen, over = threading.Event(), threading.Event()

        def look() -> None:
            while not over.is_set():
                if made._lock.locked():
                    seen.set()

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            for _ in range(50_000):
                made._quick(xs)
                if seen.is_set():
                    break
        finally:
            over.set()
            watcher.join()
        assert seen.is_set()


def _together(tasks: list[Any]) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=task) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


class TestWithout:
    """Where objects are not as expected: no quick way, and the same numbers."""

    def test_another_python(self, without: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.python_implementation", lambda: "PyPy")
        self._check()

    def test_a_missing_function(self, without: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "_PYTHON", (*native._PYTHON, "PyObject_NoSuchFunction"))
        self._check()

    def test_other_arrays(self, without: None, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = [(name, kind) for name, kind in native._Array._fields_ if name != "strides"]
        monkeypatch.setattr(native, "_Array", type("_Array", (native.ctypes.Structure,), {"_fields_": moved}))
        self._check()

    def _check(self) -> None:
        assert not native.available()
        made = Stream.of(engine())
        xs = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
        assert made._quick(xs[0]) is None
        ys = [*(made.push(row) for row in xs[:3]), *made.push(xs[3:])]
        native.available.cache_clear()
        assert_close(np.stack(ys), Stream.of(made.engine).push(xs), FLOAT32)
