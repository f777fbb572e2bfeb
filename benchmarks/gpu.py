"""Layers on the triton backend beside torch.nn (cuDNN) and a loop in Python, on one GPU:

    python benchmarks/gpu.py                         every size; a table, and build/gpu.json
    python benchmarks/gpu.py --cells lstm mingru --hidden 256 --dtypes bfloat16
    python benchmarks/gpu.py --quick                 a few sizes, to see that it runs
    TRITON_INTERPRET=1 python benchmarks/gpu.py --quick --device cpu
                                                     the same on Triton's interpreter: its times say nothing of a GPU

Competitors take turns in one run; times are medians, by events of the device, of calls that are made one after another.
Memory is the peak of one training call above what the layer and its input hold. `graph` is one step of a stream,
replayed from a CUDA graph. Nothing is left out where it fails: the row says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from everloop import Recurrent, cells, use_backend

OF_TORCH = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
OUT = Path(__file__).parents[1] / "build" / "gpu.json"


def main() -> None:
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py: torch finds no GPU; --device cpu with TRITON_INTERPRET=1 tries the code")
    print(_machine(options.device), flush=True)
    rows: list[dict[str, Any]] = []
    sizes = itertools.product(options.cells, options.dtypes, options.steps, options.hidden, options.batch)
    for cell, dtype, steps, hidden, batch in sizes:
        row = {"cell": cell, "dtype": dtype, "steps": steps, "hidden": hidden, "batch": batch}
        rows.append(row | measure(cell, getattr(torch, dtype), steps, hidden, batch, options))
        print(line(rows[-1]), flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"machine": _machine(options.device), "rows": rows}, indent=1), encoding="utf-8")
    print(f"{OUT} is written")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru", "elman", "mgu", "indrnn", "mingru", "lru"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--hidden", nargs="+", type=int, default=[64, 128, 256, 512, 768, 1024])
    parser.add_argument("--steps", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.cells == ["all"]:
        options.cells = cells.names()
    if options.quick:
        options.cells, options.dtypes, options.batch, options.hidden, options.steps, options.repeats = (
            ["lstm", "mingru"], ["float32"], [2], [16], [4], 2,
        )  # fmt: skip
    return options


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name() if device == "cuda" else "Triton's interpreter"
    return f"{name}, torch {torch.__version__}"


def measure(
    cell: str, dtype: torch.dtype, steps: int, hidden: int, batch: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds forward and for training, megabytes of training, by competitor; and microseconds of a step."""
    device, found = options.device, {}
    ours = Recurrent(cell, hidden, hidden, device=device, dtype=dtype)
    competitors: dict[str, tuple[Any, str]] = {"triton": (ours, "triton"), "loop": (ours, "reference")}
    if cell in OF_TORCH:
        competitors["torch"] = (OF_TORCH[cell](hidden, hidden, batch_first=True, device=device, dtype=dtype), "auto")
    x = torch.randn(batch, steps, hidden, device=device, dtype=dtype, requires_grad=True)
    for what, call in (("forward", _forward), ("training", _train)):
        calls = {name: _bound(call, layer, backend, x) for name, (layer, backend) in competitors.items()}
        found[what] = times(calls, device, options.repeats)
    found["megabytes"] = {name: peak(_bound(_train, *one, x), device) for name, one in competitors.items()}
    found["graph"] = step_in_graph(ours, x, options.repeats) if device == "cuda" else None
    return found


def _bound(call: Callable[..., None], layer: Any, backend: str, x: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        with use_backend(backend):
            call(layer, x)

    return run


def _forward(layer: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        layer(x)


def _train(layer: Any, x: torch.Tensor) -> None:
    layer.zero_grad()
    layer(x)[0].sum().backward()


def times(calls: dict[str, Callable[[], None]], device: str, repeats: int) -> dict[str, float | str]:
    """Medians in milliseconds, the calls taking turns; why, where one fails."""
    found: dict[str, float | str] = {}
    for name, call in calls.items():
        try:
            call()
            call()
        except Exception as error:  # a row of the table, not the end of it
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    spans: dict[str, list[float]] = {name: [] for name in calls if name not in found}
    for _ in range(repeats):
        for name in spans:
            spans[name].append(clocked(calls[name], device))
    return found | {name: statistics.median(values) for name, values in spans.items()}


def clocked(call: Callable[[], None], device: str) -> float:
    if device != "cuda":
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def peak(call: Callable[[], None], device: str) -> float | None:
    """Megabytes at most, above what is held before."""
    if device != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def step_in_graph(layer: Recurrent, x: torch.Tensor, repeats: int) -> float | str:
    """Microseconds of one step, recorded once and replayed."""
    try:
        with use_backend("triton"), torch.no_grad():
            one = x[:, :1].detach().clone()
            _, state = layer(one)
            for _ in range(3):
                layer(one, state)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                layer(one, state)
        replay = {"replay": lambda: [graph.replay() for _ in range(100)] and None}
        found = times(replay, "cuda", repeats)["replay"]
        return found if isinstance(found, str) else 10 * found
    except Exception as error:  # a row of the table, not the end of it
        return f"{type(error).__name__}: {error}".splitlines()[0]


def line(row: dict[str, Any]) -> str:
    """One row of the table; ratios are how many times as long as ours the others take."""
    words = [f"{row['cell']:<10} {row['dtype']:<9} T {row['steps']:<5} H {row['hidden']:<5} B {row['batch']:<4}"]
    for what in ("forward", "training"):
        ours = row[what]["triton"]
        words.append(f"{what} {ours:.3f} ms" if isinstance(ours, float) else f"{what}: {ours}")
        for name, other in row[what].items():
            if name != "triton" and isinstance(ours, float):
                words.append(f"{name} {other / ours:.2f}x" if isinstance(other, float) else f"{name}: {other}")
    if isinstance(row["graph"], float):
        words.append(f"step {row['graph']:.1f} us")
    return "  ".join(words)


if __name__ == "__main__":
    main()
