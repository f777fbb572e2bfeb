"""Large steps are shared by threads, and nobody sees it in the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from everloop import cells, set_num_threads
from everloop.backends.llvm.step import WORTH_A_THREAD
from everloop.stream import Engine, Stream, StreamPool
from everloop.testing import SAME, assert_close

LARGE, SMALL = 1024, 16


@pytest.fixture(autouse=True)
def as_usual() -> Iterator[None]:
    yield
    set_num_threads(0)


def engine(hidden: int) -> Engine:
    numbers = np.random.default_rng(hidden)
    weights = {
        "W": numbers.normal(size=(hidden, 3)),
        "U": numbers.normal(0, hidden**-0.5, (hidden, hidden)),
        "b": numbers.normal(size=hidden),
    }
    return Engine(cells.get("elman").graph, {"input": 3, "hidden": hidden}, weights, np.float64)


def with_threads(count: int, run: Callable[[], np.ndarray]) -> np.ndarray:
    set_num_threads(count)
    return run()


def used(stream: Stream | StreamPool) -> list[tuple[int, bool, int]]:
    """Of the calls made last: how many threads they may use, whether these share the units, and how many blocks."""
    run: Any = stream._run
    return [(one.threads, one._code.program.request.shared, len(one.record)) for one in run._idle]


class TestOneSequence:
    @pytest.mark.parametrize("steps", [1, 5])
    def test_of_many_units(self, numbers: np.random.Generator, steps: int) -> None:
        made = engine(LARGE)
        step: Any = made.step
        assert step.products > WORTH_A_THREAD
        xs = numbers.normal(size=(4, steps, 3))
        streams = [Stream.of(made) for _ in range(3)]

        def push(stream: Stream) -> np.ndarray:
            return np.concatenate([np.atleast_2d(stream.push(x if steps > 1 else x[0])) for x in xs])

        alone, *others = (with_threads(k + 1, lambda s=s: push(s)) for k, s in enumerate(streams))
        for ys in others:
            assert_close(ys, alone, SAME)
        assert [used(stream) for stream in streams] == [[(1, False, 1)], [(2, True, 1)], [(3, True, 1)]]

    def test_of_few_units(self) -> None:
        set_num_threads(2)
        made = Stream.of(engine(SMALL))
        run: Any = made._run
        assert [run._threads(steps, 1) for steps in (1, 10**6)] == [1, 1]

    def test_the_count_may_change_at_any_time(self) -> None:
        made = Stream.of(engine(LARGE))
        for count in (2, 1, 3):
            with_threads(count, lambda: made.push(np.zeros(3)))
            assert [threads for threads, *_ in used(made)] == [count]


def test_many_streams_of_a_pool(numbers: np.random.Generator) -> None:
    """Each thread steps some of them; whose turn it is, and which rows they have, is all the same."""
    made, count = engine(SMALL), 1 + WORTH_A_THREAD // (SMALL * SMALL)
    pools = [StreamPool.of(made) for _ in range(2)]
    ids = [[pool.open() for _ in range(count + 9)] for pool in pools]
    order = numbers.permutation(count + 9)[:count]
    xs = numbers.normal(size=(3, count, 3))

    def step(pool: StreamPool, own: np.ndarray) -> np.ndarray:
        return np.stack([pool.step(own[order], x) for x in xs])

    alone, together = (
        with_threads(k + 1, lambda p=pool, own=own: step(p, np.array(own)))
        for k, (pool, own) in enumerate(zip(pools, ids, strict=True))
    )
    assert [used(pool) for pool in pools] == [[(1, False, 1)], [(2, False, 4)]]
    assert_close(together, alone, SAME)
    assert_close(pools[1]._array, pools[0]._array, SAME)
