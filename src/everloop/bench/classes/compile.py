"""How long the first calls of a cell take beyond later ones: with no cache on disk, and in a next process with one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch

from everloop import Recurrent
from everloop.bench import goals
from everloop.bench.apart import apart
from everloop.bench.classes import cells, sequence
from everloop.bench.contest import row
from everloop.bench.machine import environment
from everloop.bench.options import Options
from everloop.bench.problem import Problem, ours
from everloop.bench.row import OURS, Check, Figure, Row

SHAPE = (8, 10, 128, 128)
AGAIN = 3
"""Processes with a cache, after the one that fills it."""


def rows(options: Options) -> Iterator[Row]:
    """On one thread: compiling takes no more, and what is called is small."""
    for cell in options.cells((*sequence.CELLS, *cells.CELLS)):
        yield compiled(cell, replace(options, threads=1))


def compiled(cell: str, options: Options) -> Row:
    cold = [_measured(cell, options, "") for _ in range(1 if options.quick else AGAIN)]
    with tempfile.TemporaryDirectory() as folder:
        _measured(cell, options, folder)
        warm = [_measured(cell, options, folder) for _ in range(1 if options.quick else AGAIN)]
    kinds = list(cold[0])
    figures = {OURS: Figure.of([sum(found.values()) for found in cold])}
    figures |= {kind: Figure.of([found[kind] for found in cold]) for kind in kinds}
    figures["next process"] = Figure.of([sum(found.values()) for found in warm])
    promised = {"step": goals.COMPILE_STEP, OURS: goals.COMPILE_ALL, "next process": goals.COMPILE_AGAIN}
    checks = [
        Check(
            "seconds for all kernels" if name == OURS else f"seconds, {name}",
            figure.median,
            promised.get(name),
            True,
            name,
        )
        for name, figure in figures.items()
    ]
    return row("compile", Problem.of(cell, SHAPE, "first call"), options, figures, checks)


def _measured(cell: str, options: Options, cache: str) -> dict[str, float]:
    given = environment(options.threads) | {"EVERLOOP_CACHE": cache}
    return apart(__name__, "first_calls", cell, SHAPE, options.threads, environment=given)


def first_calls(cell: str, shape: tuple[int, int, int, int], threads: int) -> dict[str, float]:
    """Seconds of the first call of each kind beyond later ones. For a process of its own.

    Another cell goes first, so that what a process does once, whatever the cell, is done.
    """
    torch.set_num_threads(threads)
    other, (batch, steps, inputs, units) = "elman" if cell != "elman" else "lstm", shape
    kinds = {"forward": shape, "training": shape}
    if hasattr(Recurrent, "stream"):
        kinds = {"step": (1, 1, inputs, units)} | kinds
    found = {}
    for name, sizes in ((other, (batch, steps, 3, 5)), (cell, shape)):
        for kind in kinds:
            small = (1, 1, *sizes[2:]) if kind == "step" else sizes
            found[kind] = _first(name, small, kind)
    return found


def _first(cell: str, shape: tuple[int, int, int, int], kind: str) -> float:
    """A layer is made, and called: from the definition of the cell to the first result."""
    begin = time.perf_counter()
    problem = Problem.of(cell, shape, kind)
    run = ours(problem).run
    run()
    first = time.perf_counter() - begin
    return max(0.0, first - median(_seconds(run) for _ in range(5)))


def _seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
