"""Time of a training step of a minGRU layer, parallel in time, beside the same layer step by step and torch.nn.

    OMP_NUM_THREADS=1 python benchmarks/scan.py [--threads 1] [--lengths 128 512 1024 4096 16384]

"ours" is `Recurrent("mingru")`; "loop" is the same cell as one writes it by hand: one product for all gates, then
torch operations step by step under torch's own autograd; "kernel" is our own loop, step by step. All rivals run in
one process, interleaved; the median is shown in milliseconds, and the ratio is the rival's time over ours (more than
1: ours is faster). Then the peak of memory of a forward and backward pass, as multiples of one array [N, H].
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

import everloop
from everloop import Recurrent
from everloop.backends import reference

SHAPES = [(1, 64, 64), (1, 256, 256), (8, 64, 64), (8, 64, 256)]  # B, I, H
LENGTHS = [128, 512, 1024, 4096, 16384]

# Rivals whose step takes longer than this many seconds are left out of longer sequences.
PATIENCE = 4.0


class LoopMinGRU(nn.Module):
    """A minGRU as one writes it by hand."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.x, self.units = nn.Linear(inputs, 2 * units), units

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(x.shape[0], self.units)
        z, n = self.x(x).chunk(2, -1)
        z = torch.sigmoid(z)
        keep, add = 1 - z, z * n
        outputs = []
        for a, b in zip(keep.unbind(1), add.unbind(1), strict=True):
            h = a * h + b
            outputs.append(h)
        return torch.stack(outputs, 1), h


def training_step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        layer.zero_grad(set_to_none=True)
        layer(x)[0].square().mean().backward()

    return run


def step_by_step(run: Callable[[], None]) -> Callable[[], None]:
    def slowly() -> None:
        with mock.patch.object(reference, "scan", return_value=None):
            run()

    return slowly


def medians(rivals: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Milliseconds of each, interleaved so that noise meets all alike; at least three rounds."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    begin = time.perf_counter()
    while not all(len(found) > 3 for found in times.values()) or time.perf_counter() - begin < seconds:
        for name, run in rivals.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        if time.perf_counter() - begin > PATIENCE and all(len(found) > 1 for found in times.values()):
            break
    return {name: 1e3 * statistics.median(found[1:]) for name, found in times.items()}


def peak(shape: tuple[int, int, int, int], threads: int) -> float:
    """The most memory that a training step needs at once, in arrays [N, H]. Linux only."""
    torch.set_num_threads(threads)
    b, t, i, h = shape
    layer, x = Recurrent("mingru", i, h), torch.randn(b, t, i)
    training_step(layer, x[:, :64])()
    before = _kilobytes("VmRSS")
    training_step(layer, x)()
    return 1024 * (_kilobytes("VmHWM") - before) / (4 * b * t * h)


def _kilobytes(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each line of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"everloop {everloop.__version__}, torch {torch.__version__}, {platform.processor() or platform.machine()}, "
          f"{arguments.threads} thread(s)")  # fmt: skip
    print(f"{'B, I, H':<14}{'T':>7}{'ours ms':>10}{'loop':>9}{'kernel':>9}{'nn.GRU':>9}{'nn.LSTM':>9}")
    for b, i, h in SHAPES:
        slow: set[str] = set()
        for t in arguments.lengths:
            x = torch.randn(b, t, i)
            ours = training_step(Recurrent("mingru", i, h), x)
            rivals = {"ours": ours, "loop": training_step(LoopMinGRU(i, h), x), "kernel": step_by_step(ours)}
            rivals |= {
                module.__name__: training_step(module(i, h, batch_first=True), x) for module in (nn.GRU, nn.LSTM)
            }
            found = medians({name: run for name, run in rivals.items() if name not in slow}, arguments.seconds)
            ratios = [
                f"{found[name] / found['ours']:>9.2f}" if name in found else f"{'-':>9}" for name in [*rivals][1:]
            ]
            print(f"{f'{b}, {i}, {h}':<14}{t:>7}{found['ours']:>10.2f}{''.join(ratios)}", flush=True)
            slow |= {name for name, ms in found.items() if name != "ours" and 4 * ms > 1e3 * PATIENCE}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for b in (1, 8):
            shape = (b, 16384, 256, 256)
            times = pool.apply(peak, (shape, arguments.threads))
            print(f"memory of forward and backward, B, T, I, H = {shape}: {times:.1f} arrays [N, H]")


if __name__ == "__main__":
    main()
