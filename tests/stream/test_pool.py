"""Thousands of streams stepped together are each what it would be alone."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from everloop import cells
from everloop.stream import Engine, Stream, StreamPool
from everloop.testing import assert_close

Make = Callable[..., Any]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def engine() -> Engine:
    graph = cells.get("lstm").graph
    numbers = np.random.default_rng(0)
    sizes = {"input": 2, "hidden": 3}
    weights = {
        stack: numbers.normal(size=[sum(p.shape(sizes)[0] for p in members), *members[0].shape(sizes)[1:]])
        for stack, members in graph.stacks.items()
    }
    return Engine(graph, sizes, weights, np.float64)


ENGINE = engine()


class Lives(RuleBasedStateMachine):
    """Streams of a pool that come and go in any order, beside as many streams by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pool = StreamPool.of(ENGINE, idle=60, clock=self.clock)
        self.alone: dict[int, Stream] = {}
        self.pushed: dict[int, float] = {}
        self.gone: list[int] = []
        self.numbers = np.random.default_rng(1)

    def some(self, share: float) -> list[int]:
        ids = [id for id in self.alone if self.numbers.random() < share]
        self.numbers.shuffle(ids)
        return ids

    def expect_idle(self) -> None:
        for id in [id for id in self.alone if self.clock.now - self.pushed[id] >= 60]:
            self.lose(id)

    def lose(self, id: int) -> None:
        del self.alone[id], self.pushed[id]
        self.gone.append(id)

    @rule(count=st.integers(1, 100))
    def open(self, count: int) -> None:
        self.expect_idle()
        for _ in range(count):
            id = self.pool.open()
            assert id not in self.alone
            assert id not in self.gone
            self.alone[id], self.pushed[id] = Stream.of(ENGINE), self.clock.now

    @rule(share=st.floats(0, 1), longest=st.integers(0, 5))
    def push(self, share: float, longest: int) -> None:
        self.expect_idle()
        chunks = {}
        for id in self.some(share):
            steps = int(self.numbers.integers(0, longest + 1))
            chunks[id] = self.numbers.normal(size=(steps, 2) if steps % 3 else (2,))
        found = self.pool.push(chunks)
        assert list(found) == list(chunks)
        for id, chunk in chunks.items():
            assert_close(found[id], self.alone[id].push(chunk))
            self.pushed[id] = self.clock.now

    @rule(share=st.floats(0, 1))
    def step(self, share: float) -> None:
        self.expect_idle()
        ids = self.some(share)
        x = self.numbers.normal(size=(len(ids), 2))
        found = self.pool.step(np.array(ids, dtype=np.int64), x)
        for id, row, y in zip(ids, x, found, strict=True):
            assert_close(y, self.alone[id].push(row))
            self.pushed[id] = self.clock.now

    @rule(share=st.floats(0, 0.5))
    def close(self, share: float) -> None:
        self.expect_idle()
        for id in self.some(share):
            self.pool.close(id)
            self.lose(id)

    @rule(seconds=st.floats(0, 50))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def go_on_elsewhere(self) -> None:
        self.expect_idle()
        for id in self.some(0.2):
            new = self.pool.open(self.pool.snapshot(id))
            self.alone[new], self.pushed[new] = self.alone[id].fork(), self.clock.now
            self.pool.reset(id)
            self.alone[id].reset()

    @invariant()
    def states_are_those_of_streams_alone(self) -> None:
        self.expect_idle()
        assert sorted(self.pool.ids()) == sorted(self.alone)
        assert len(self.pool) == len(self.alone)
        for id in self.some(0.1):
            for name, array in self.pool.state(id).items():
                assert_close(array, self.alone[id].state[name])

    @invariant()
    def what_is_gone_is_refused(self) -> None:
        for id in self.gone[-3:]:
            with pytest.raises(KeyError, match=f"there is no open stream {id}: it was closed, or for 60 s nobody"):
                self.pool.push({id: np.zeros(2)})


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_snapshots_go_between_pools_and_streams(model: Make, numbers: np.random.Generator) -> None:
    made = model("gru")
    pool, stream, x = made.pool(), made.stream(), numbers.normal(size=(5, 3))
    id = pool.open()
    assert_close(pool.push({id: x})[id], stream.push(x))
    other = made.stream()
    other.restore(pool.snapshot(id))
    pool.restore(id, stream.snapshot())
    expected = stream.push(x)
    assert_close(other.push(x), expected)
    assert_close(pool.push({id: x})[id], expected)
    with pytest.raises(ValueError, match="snapshot: it is of another model"):
        model("lstm").pool().open(pool.snapshot(id))


def test_side_inputs(model: Make, numbers: np.random.Generator) -> None:
    made = model("gru_d", depth=1)
    pool = made.pool()
    a, b, c = (pool.open() for _ in range(3))
    x, dt, mask = numbers.normal(size=(3, 4, 3)), numbers.uniform(0, 2, (3, 4)), numbers.integers(0, 2, (3, 4, 3))
    sides = {a: {"dt": dt[0], "mask": mask[0]}, b: {"mask": mask[1]}}
    found = pool.push({a: x[0], b: x[1], c: x[2]}, sides)
    for k, id in enumerate((a, b, c)):
        assert_close(found[id], made.stream().push(x[k], sides.get(id)))
    streams = [made.stream() for _ in range(2)]
    pool.reset(a)
    pool.reset(b)
    both = pool.step([b, a], x[:2, 0], {"dt": dt[:2, 0]})
    for k in range(2):
        assert_close(both[k], streams[k].push(x[k, 0], {"dt": dt[k, 0]}))
    with pytest.raises(ValueError, match=r"side mask: an array of shape \(2,\) came; expected \(4, 3\)"):
        pool.push({a: x[0]}, {a: {"mask": np.zeros(2)}})
    with pytest.raises(ValueError, match=r"side mask: an array of shape \(2, 2\) came; expected \(2, 3\)"):
        pool.step([a, b], x[:2, 0], {"mask": np.zeros((2, 2))})
    one = pool.push({c: x[2, 0]}, {c: {"dt": 0.5, "mask": mask[2, 0]}})[c]
    other = made.stream()
    other.push(x[2])
    assert_close(one, other.push(x[2, 0], {"dt": 0.5, "mask": mask[2, 0]}))
    with pytest.raises(ValueError, match=r"side mask: an array of shape \(3, 2\) came; expected \(2, 3\)"):
        pool.step([a, b], x[:2, 0], {"mask": np.zeros((3, 2))})
    with pytest.raises(ValueError, match=f"side: inputs for stream {b} came, and no chunk"):
        pool.push({a: x[0]}, {b: {}})


class TestIdle:
    def test_they_are_closed_and_told(self, model: Make) -> None:
        clock = Clock()
        pool = model().pool(idle=10, clock=clock)
        early, late = pool.open(), pool.open()
        clock.now += 6
        pool.push({late: np.zeros(3)})
        assert pool.closed() == []
        clock.now += 6
        assert pool.ids() == [late]
        assert pool.closed() == [early]
        assert pool.closed() == []
        with pytest.raises(
            KeyError, match=f"there is no open stream {early}: it was closed, or for 10 s nobody pushed"
        ):
            pool.close(early)
        clock.now += 10
        assert len(pool) == 0

    def test_without_a_limit_they_stay(self, model: Make) -> None:
        clock = Clock()
        pool = model().pool(clock=clock)
        id = pool.open()
        clock.now += 1e9
        assert pool.ids() == [id]

    def test_mistakes(self, model: Make) -> None:
        with pytest.raises(ValueError, match="idle: 0 came; expected seconds, more than 0, or None"):
            model().pool(idle=0)


class TestMistakes:
    def test_nothing_has_happened(self, model: Make) -> None:
        pool = model().pool()
        a, b = pool.open(), pool.open()
        before = pool.snapshot(a)
        with pytest.raises(KeyError, match="there is no open stream 77"):
            pool.push({a: np.ones(3), 77: np.ones(3)})
        with pytest.raises(KeyError, match="there is no open stream -1"):
            pool.push({a: np.ones(3), -1: np.ones(3)})
        with pytest.raises(ValueError, match=rf"for stream {b} an array of shape \(2,\) came; expected \[T, 3\]"):
            pool.push({a: np.ones(3), b: np.ones(2)})
        with pytest.raises(ValueError, match="a stream came twice in one call"):
            pool.step([a, b, a], np.ones((3, 3)))
        with pytest.raises(ValueError, match=r"step: an array of shape \(3,\) came; expected \(1, 3\)"):
            pool.step([a], np.ones(3))
        assert pool.snapshot(a) == before

    def test_an_empty_pool(self, model: Make) -> None:
        pool = model().pool()
        assert pool.push({}) == {}
        assert pool.step([], np.zeros((0, 3))).shape == (0, 4)
        with pytest.raises(KeyError, match="there is no open stream 0: it was closed"):
            pool.close(0)


def test_many_threads(model: Make, numbers: np.random.Generator) -> None:
    made = model()
    pool, xs = made.pool(idle=1000), numbers.normal(size=(6, 50, 3))
    ids = [pool.open() for _ in xs]
    found: list[Any] = [None] * len(ids)

    def push(k: int) -> None:
        found[k] = np.concatenate([pool.push({ids[k]: row[None]})[ids[k]] for row in xs[k]])
        for _ in range(100):
            pool.close(pool.open())

    threads = [threading.Thread(target=push, args=(k,)) for k in range(len(ids))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, x in enumerate(xs):
        assert_close(found[k], made.stream().push(x))
    assert pool.ids() == ids


def test_memory_is_the_state_and_a_small_constant(model: Make) -> None:
    """10,000 streams, opened, stepped, and some of them closed and replaced."""
    made = model(hidden=64)
    pool, engine = made.pool(idle=60), made.engine()
    pool.step([pool.open()], np.zeros((1, 3)))
    streams = 10_000
    state = engine.width * engine.dtype.itemsize
    gc.collect()
    tracemalloc.start()
    try:
        ids = np.array([pool.open() for _ in range(streams)])
        for id in ids[::3]:
            pool.close(int(id))
        for _ in ids[::3]:
            pool.open()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    used -= ids.nbytes
    # Room grows by a quarter at a time; beside the state there are an id and a time.
    assert streams * state <= used <= 1.25 * streams * (state + 16) + 64 * state + 100_000
