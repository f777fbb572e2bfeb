"""Time of a forward and of a training step of `Recurrent` beside torch.nn and a Python loop over torch operations.

    python benchmarks/layers.py [--threads 1] [--repeats 15]

All rivals run in one process, interleaved, and the median of the repeats is shown, in milliseconds; the ratio is the
rival's time over ours (more than 1: ours is faster). The loop is what one writes by hand: torch operations step
by step, torch's own autograd.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import everloop
from everloop import Recurrent

SHAPES = [(1, 100, 64, 64), (8, 50, 128, 128), (32, 64, 64, 128), (256, 28, 28, 128), (32, 100, 128, 256)]
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "elman": nn.RNN}


class LoopLSTM(nn.Module):
    """An LSTM as one writes it by hand."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(inputs, 4 * units), nn.Linear(units, 4 * units)
        self.units = units

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = c = x.new_zeros(x.shape[0], self.units)
        outputs = []
        for step in x.unbind(1):
            i, f, g, o = (self.x(step) + self.h(h)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, 1), h


def infer(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            layer(x)

    return run


def training_step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        layer.zero_grad(set_to_none=True)
        layer(x)[0].square().mean().backward()

    return run


def medians(rivals: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Milliseconds of each, interleaved so that noise meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for run in rivals.values():
        run()
    for _ in range(repeats):
        for name, run in rivals.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"everloop {everloop.__version__}, torch {torch.__version__}, {platform.processor() or platform.machine()}, "
          f"{arguments.threads} thread(s)")  # fmt: skip
    print(f"{'cell':<8}{'B, T, I, H':<20}{'what':<10}{'ours ms':>9}{'torch.nn':>10}{'loop':>8}")
    rows = []
    for name, module in TORCH.items():
        for b, t, i, h in SHAPES:
            x = torch.randn(b, t, i)
            layers = {"ours": Recurrent(name, i, h), "torch": module(i, h, batch_first=True)}
            if name == "lstm":
                layers["loop"] = LoopLSTM(i, h)
            for what, prepare in (("forward", infer), ("training", training_step)):
                found = medians({k: prepare(layer, x) for k, layer in layers.items()}, arguments.repeats)
                rows.append({"cell": name, "shape": [b, t, i, h], "what": what, "ms": found})
                ratio = {k: v / found["ours"] for k, v in found.items()}
                loop = f"{ratio['loop']:>8.2f}" if "loop" in ratio else ""
                print(
                    f"{name:<8}{f'{b}, {t}, {i}, {h}':<20}{what:<10}{found['ours']:>9.2f}{ratio['torch']:>10.2f}{loop}"
                )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
