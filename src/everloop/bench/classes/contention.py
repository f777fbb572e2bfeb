"""With every core but one kept busy by somebody else: time should be about that of one thread, never much more."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from everloop import Recurrent
from everloop.bench import goals
from everloop.bench.contest import measured, row
from everloop.bench.machine import cores
from everloop.bench.options import Options
from everloop.bench.peers import torch_layer
from everloop.bench.problem import Problem, disagreements, ours
from everloop.bench.row import OURS, Check, Figure, Row

TRAINING = (32, 100, 128, 256)
SMALL = (8, 50, 128, 128)
STEP = (1, 1, 256, 256)

# Ends with the process that started it, however that ends.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


def rows(options: Options) -> Iterator[Row | str]:
    if options.threads < 2 or cores() < 2:
        yield f"contention: left out, because it takes two threads and two cores; {options.threads} and {cores()} here"
        return
    for cell in options.cells(("lstm",)):
        if hasattr(Recurrent, "stream"):
            yield contended(Problem.of(cell, STEP, "step"), options)
        else:
            yield "contention: steps left out, because this version has no layer.stream()"
        yield contended(Problem.of(cell, SMALL if options.quick else TRAINING, "training"), options)


def contended(problem: Problem, options: Options) -> Row:
    """Ours is the time beside busy processes; it is held against our own time without them."""
    mine = ours(problem)
    theirs = {name: rival for name, rival in torch_layer.rivals(problem).items() if name == "torch.nn"}
    wrong = disagreements(problem, theirs, mine)
    timed = {OURS: mine.run} | {name: rival.run for name, rival in theirs.items() if name not in wrong}
    one = _with_threads(1, {OURS: timed[OURS]}, options)[OURS]
    alone = measured(timed, options)
    with busy(cores() - 1):
        beside = measured(timed, options)
    figures = {OURS: beside[OURS], "one thread alone": one, f"{options.threads} threads alone": alone[OURS]}
    found = beside[OURS].median
    checks = [
        Check("time over one thread's, alone", found / one.median, goals.CONTENTION, True, "one thread alone"),
        Check(f"time over {options.threads} threads', alone", found / alone[OURS].median, None, True, [*figures][-1]),
    ]
    if problem.what == "step":
        checks.append(Check("seconds of a step", found, goals.CONTENTION_STEP, True, OURS))
    if "torch.nn" in beside:
        figures |= {"torch.nn, busy": beside["torch.nn"], "torch.nn, alone": alone["torch.nn"]}
        checks.append(Check("torch.nn, busy too", beside["torch.nn"].median / found, figure="torch.nn, busy"))
    return row("contention", problem, options, figures, checks, wrong=list(wrong.values()))


def _with_threads(count: int, timed: dict[str, Callable[[], object]], options: Options) -> dict[str, Figure]:
    torch.set_num_threads(count)
    try:
        return measured(timed, replace(options, threads=count))
    finally:
        torch.set_num_threads(options.threads)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many other processes that do nothing but work."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        time.sleep(0.3)  # until they have started
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
