"""Timing rivals against each other, fairly: in one process, taking turns."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from everloop.bench.row import Figure

SAMPLE = 2e-3
"""Seconds that a sample takes at least: shorter ones say more of the clock than of the work."""

FEWEST = 3
"""Rounds, however long they take."""

REST = 5e-3
"""Seconds before a sample, when there are several threads: those of the rival before wait a while for more work, and
keep a core busy doing so."""

WARM = 50e-3
"""Seconds of a call, below which one that is not timed goes before every sample: others have had the cache since, and
threads have gone to sleep."""


def compare(
    rivals: Mapping[str, Callable[[], object]], *, repeats: int, seconds: float, threads: int = 1
) -> dict[str, Figure]:
    """Seconds of one call of each. Rounds are `repeats`, or as many as `seconds` allow, at least FEWEST.

    Every round takes one sample of each, in turns, so that noise meets all alike, and begins with another rival.
    """
    names = list(rivals)
    paces = {name: _pace(run) for name, run in rivals.items()}
    times: dict[str, list[float]] = {name: [] for name in names}
    cores: dict[str, list[float]] = {name: [] for name in names}
    begin = time.perf_counter()
    with _uncollected():
        for turn in range(max(repeats, FEWEST)):
            if turn >= FEWEST and time.perf_counter() - begin > seconds:
                break
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if threads > 1:
                    time.sleep(REST)
                wall, processor = paces[name].sample(rivals[name])
                times[name].append(wall / paces[name].calls)
                cores[name].append(processor / wall)
    return {name: Figure.of(times[name], round(Figure.of(cores[name]).median, 2)) for name in names}


@dataclass(frozen=True)
class _Pace:
    """calls: in one sample. warm: whether a call goes before them."""

    calls: int
    warm: bool = True

    def sample(self, run: Callable[[], object]) -> tuple[float, float]:
        """Seconds, and seconds of the processor."""
        if self.warm:
            run()
        processor, wall = time.process_time(), time.perf_counter()
        for _ in range(self.calls):
            run()
        return time.perf_counter() - wall, time.process_time() - processor


def _pace(run: Callable[[], object]) -> _Pace:
    """As many calls as make a sample. The first ones of all are not counted: they compile, and grow buffers."""
    run()
    calls = 1
    while True:
        wall, _ = _Pace(calls).sample(run)
        if wall >= SAMPLE:
            return _Pace(calls, warm=wall < WARM)
        calls = max(2 * calls, min(100 * calls, math.ceil(calls * SAMPLE / max(wall, 1e-9))))


@contextmanager
def _uncollected() -> Iterator[None]:
    """A collection of garbage meets one rival and not the next."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
