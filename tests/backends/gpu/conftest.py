"""Triton's interpreter with programs that run side by side, and not one after another: a barrier between programs can
then be passed, and one that is missing is found. Which program goes on is drawn anew before whatever touches memory.
"""

from __future__ import annotations

import inspect
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest

interpreter = pytest.importorskip("triton.runtime.interpreter")

TOUCHES = ("create_atomic_rmw", "create_masked_load", "create_masked_store", "create_load", "create_store")


class Together:
    """Programs as threads, of which one runs at a time."""

    def __init__(self, places: list[tuple[int, int, int]], seed: int) -> None:
        self.draw, self.places = random.Random(seed), places
        self.left, self.now = list(places), places[0]
        self.turn = threading.Condition()
        self.mine = threading.local()
        self.errors: list[BaseException] = []

    def run(self, program: Any) -> None:
        threads = [threading.Thread(target=self._one, args=(program, place)) for place in self.places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _one(self, program: Any, place: tuple[int, int, int]) -> None:
        self.mine.place = place
        self._wait()
        try:
            program()
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.left.remove(place)
            self._go_on()

    def let_others(self) -> None:
        if self.errors:
            raise RuntimeError("another program failed")
        self._go_on()
        self._wait()

    def _go_on(self) -> None:
        with self.turn:
            self.now = self.draw.choice(self.left) if self.left else None
            self.turn.notify_all()

    def _wait(self) -> None:
        with self.turn:
            self.turn.wait_for(lambda: self.now == self.mine.place)
        interpreter.interpreter_builder.set_grid_idx(*self.mine.place)


SideBySide = Callable[..., AbstractContextManager[list[int]]]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> SideBySide:
    """Programs of a kernel run side by side in `with side_by_side(seed) as counts:`, so many of each kernel."""
    return partial(_side_by_side, monkeypatch)


@contextmanager
def _side_by_side(monkeypatch: pytest.MonkeyPatch, seed: int = 0) -> Iterator[list[int]]:
    builder, counts, running = interpreter.interpreter_builder, [], []

    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        known = inspect.getfullargspec(self.fn).args
        scope = interpreter._patch_lang(self.fn)
        try:
            given = inspect.getcallargs(self.fn, *args, **{k: v for k, v in kwargs.items() if k in known})
            given = {k: v if k in self.constexprs else interpreter._implicit_cvt(v) for k, v in given.items()}
            grid = (*self.grid, 1, 1)[:3]
            builder.set_grid_dim(*grid)
            programs = Together(list(itertools.product(*map(range, grid))), seed)
            counts.append(len(programs.places))
            running.append(programs)
            programs.run(lambda: self.fn(**given))
        finally:
            running.clear()
            scope.restore()

    def touching(method: Any) -> Any:
        def touch(*args: Any, **kwargs: Any) -> Any:
            if running:
                running[-1].let_others()
            return method(*args, **kwargs)

        return touch

    with monkeypatch.context() as patched:
        patched.setattr(interpreter.GridExecutor, "__call__", run)
        for name in TOUCHES:
            patched.setattr(builder, name, touching(getattr(builder, name)), raising=False)
        yield counts
