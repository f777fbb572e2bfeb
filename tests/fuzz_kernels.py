"""Kernels against the reference in float64, on random cells, sizes, lengths, types and threads, until the time is up:

make fuzz                                   ten minutes or ten thousand shapes, whichever comes first
make fuzz FUZZ="--seconds 3600 --first 5"   an hour, from kernel 5 on
make fuzz FUZZ="--only 5.17"                shape 17 of kernel 5 alone, as a failure names it
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType

import torch

from everloop import cells
from everloop.backends import Kernel
from everloop.lang.cell import Cell
from everloop.nn.function import Recurrence
from everloop.testing import Trial, check_kernel, kernel_of

SHAPES = 40
"""Shapes that one kernel is tried with: making it takes longer than running it."""

# Above some size the units of one sequence are shared out among the threads.
LARGE = (200, 257)
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 129)
BATCHES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64)

# In single precision a comparison can come out the other way, and then nothing is close.
JUMPS = {"gt", "ge", "where", "floor", "max", "stop", "maximum", "minimum"}


def main() -> int:
    options = _options()
    cells_made = _random_cells()
    only = [int(part) for part in options.only.split(".")] if options.only else []
    began, tried, failed, kernels = time.monotonic(), 0, 0, 0
    for number in only[:1] or count(options.first):
        try:
            kernel, recurrence, dtype = kernel_number(number, options.backend, cells_made)
        except NotImplementedError as refusal:
            print(f"{number}: {refusal}", flush=True)
            continue
        kernels += 1
        for shape in only[1:] or range(SHAPES):
            trial, threads = shape_number(number, shape, recurrence, dtype)
            torch.set_num_threads(threads)
            tried += 1
            try:
                check_kernel(kernel, recurrence.graph, recurrence.sizes, trial)
            except Exception as error:
                failed += 1
                print(
                    f"{number}.{shape}: {threads} threads, {recurrence.sizes}, {type(error).__name__}: {error}",
                    flush=True,
                )
                if failed >= options.failures:
                    return _report(tried, kernels, failed, began)
            if tried >= options.shapes or time.monotonic() - began > options.seconds:
                return _report(tried, kernels, failed, began)
    return _report(tried, kernels, failed, began)


def kernel_number(number: int, backend: str, cells_made: ModuleType) -> tuple[Kernel, Recurrence, str]:
    """Every second kernel is of a made-up cell, the others are of those of the catalogue in turn."""
    source = random.Random(number)
    made_up = number % 2
    cell = _made(source, cells_made) if made_up else cells.get(cells.names()[number // 2 % len(cells.names())])
    lengths = LARGE if source.random() < 0.1 else LENGTHS
    sizes = {name: source.choice(lengths) for name in cell.graph.size_names}
    jumps = any(node.op in JUMPS for node in cell.graph.nodes)
    dtype = "float64" if made_up and jumps else source.choice(("float32", "float64"))
    return *kernel_of(backend, cell, sizes, dtype), dtype


def _made(source: random.Random, cells_made: ModuleType) -> Cell:
    names = sorted(cells_made.OPERATIONS)
    lines = source.randint(1, 12)
    return cells_made.made([(source.choice(names), *(source.randint(0, 30) for _ in range(3))) for _ in range(lines)])


def shape_number(number: int, shape: int, recurrence: Recurrence, dtype: str) -> tuple[Trial, int]:
    """Lengths of all kinds, mostly short; and how many threads."""
    of_kernel, source = random.Random(f"frozen {number}"), random.Random(f"{number}.{shape}")
    graph = recurrence.graph
    batch = source.choice(BATCHES)
    steps = (
        source.choice((0, 1, 1, 2, 3, 3, 4, 5, 7)) if source.random() < 0.9 else source.randint(20, 300 // batch + 20)
    )
    trial = Trial(_batch_sizes(source, batch, steps), dtype=dtype, seed=source.randrange(1 << 30))
    leaves = [*graph.inputs, *graph.states, *graph.stacks]
    frozen = frozenset(of_kernel.sample(leaves, of_kernel.randint(0, len(leaves) - 1)))
    results = [*graph.outputs, *graph.states]
    trial = replace(
        trial,
        idle=source.choice((0, 0, 1, 3)),
        frozen=frozen if source.random() < 0.3 else frozenset(),
        unused=frozenset(source.sample(results, source.choice((0, 0, 1)))) if len(results) > 1 else frozenset(),
        strided=source.random() < 0.3,
    )
    return trial, source.choice((1, 1, 2, 3))


def _batch_sizes(source: random.Random, batch: int, steps: int) -> tuple[int, ...]:
    if source.random() < 0.4:
        return (batch,) * steps
    lengths = [source.randint(0, steps) for _ in range(batch)]
    return tuple(found for t in range(steps) if (found := sum(length > t for length in lengths)))


def _report(tried: int, kernels: int, failed: int, began: float) -> int:
    seconds = time.monotonic() - began
    print(f"{tried} shapes of {kernels} kernels in {seconds:.0f} s: {failed} failed")
    return int(failed > 0)


def _random_cells() -> ModuleType:
    """The made-up cells of the compiler's tests."""
    file = Path(__file__).parent / "compiler" / "test_random_cells.py"
    spec = importlib.util.spec_from_file_location("random_cells", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="llvm", help="whose kernels")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "600")))
    parser.add_argument("--shapes", type=int, default=10_000, help="how many at most")
    parser.add_argument("--first", type=int, default=0, help="the kernel to begin with")
    parser.add_argument("--failures", type=int, default=5, help="failures to end after")
    parser.add_argument("--only", default="", help="one kernel (5), or one shape of it (5.17)")
    return parser.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        # Thousands of kernels that nobody runs again have no place among those on disk.
        os.environ["EVERLOOP_CACHE"] = folder
        sys.exit(main())
