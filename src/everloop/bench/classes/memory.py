"""How much memory a training step needs at its peak, beside torch's: each in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from everloop.bench import goals
from everloop.bench.apart import apart
from everloop.bench.classes import sequence
from everloop.bench.contest import row
from everloop.bench.machine import environment
from everloop.bench.options import Options
from everloop.bench.peers import torch_layer, torch_loop
from everloop.bench.problem import Problem, Rival, ours
from everloop.bench.row import OURS, Check, Figure, Row

SHAPE = (64, 100, 256, 512)
SCAN = (1, 16384, 256, 256)
SMALL = (16, 50, 128, 256)
PEERS: dict[str, Callable[[Problem], dict[str, Rival]]] = {
    OURS: lambda problem: {OURS: ours(problem)},
    "torch.nn": torch_layer.rivals,
    "torch loop": torch_loop.rivals,
}


def rows(options: Options) -> Iterator[Row | str]:
    if not Path("/proc/self/status").exists() and sys.platform != "darwin":
        yield f"memory: left out, because it is not known how to ask {sys.platform} for the peak of a process"
        return
    for cell in options.cells((*sequence.CELLS, "mingru")):
        yield beside_torch(cell, SMALL if options.quick else SCAN if cell == "mingru" else SHAPE, options)


def beside_torch(cell: str, shape: tuple[int, int, int, int], options: Options) -> Row:
    given = environment(options.threads)
    problem = Problem.of(cell, shape, "training")
    names = [name for name, rivals in PEERS.items() if name in rivals(problem)]
    peaks = {
        name: float(apart(__name__, "peak", name, cell, shape, options.threads, environment=given)) for name in names
    }
    promised = {"torch.nn": goals.MEMORY}
    checks = [
        Check(f"peak over that of {name}", peaks[OURS] / peaks[name], promised.get(name), True, name)
        for name in names[1:]
    ]
    return row("memory", problem, options, {name: Figure.of([peaks[name]]) for name in names}, checks, unit="B")


def peak(name: str, cell: str, shape: tuple[int, int, int, int], threads: int) -> int:
    """Bytes that three training steps take at most, beyond what was there before them. For a process of its own.

    Two steps of the same cell come first, short in time: what is loaded and compiled then is not counted.
    """
    torch.set_num_threads(threads)
    short, whole = (Problem.of(cell, (shape[0], time, *shape[2:]), "training") for time in (2, shape[1]))
    warm, run = (PEERS[name](problem)[name].run for problem in (short, whole))
    warm()
    warm()
    _begin()
    before = _resident()
    for _ in range(3):
        run()
    return _most() - before


def _begin() -> None:
    """What the C library has free and keeps is given back: it would be taken for what was there before. And the most so
    far becomes what there is now, on Linux, where that can be said.
    """
    gc.collect()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def _resident() -> int:
    """Bytes now; where that is not told, the most so far, which is the same just after a start."""
    return _status("VmRSS") or _most()


def _most() -> int:
    return _status("VmHWM") or _usage()


def _status(name: str) -> int:
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def _usage() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, the only one to come here
