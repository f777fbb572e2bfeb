"""Does every cell learn to remember? A small model of each is trained on made-up problems of memory.

    python benchmarks/memory.py [CELL ...] [--json docs/memory.json]

A cell passes when its error on 1000 sequences that it was not trained on is below half of that of the trivial answer.
All cells get the same tries, in the same order, until one passes: the adding problem in one layer, then in two; then
copy memory. A try is the cell as it is (options and start values as they come), 32 units, a linear readout, batches
of 32 new sequences, Adam, gradients clipped to length 1. Everything is drawn from one seed.

The results of the cells named (all unless named) go into the file as they come; what it says of others stays.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

import everloop
from everloop import Recurrent, cells
from everloop.data import synthetic

HIDDEN = 32
BATCH = 32
TEST = 1000
EVERY = 50
"""Updates between two looks at the test error."""
PASSES = 0.5
"""The share of the trivial answer's error that has to be undercut."""


class Problem(Protocol):
    inputs: int
    outputs: int
    trivial: float

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]: ...
    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        """outputs [B, T, F] of the readout at every step."""
        ...


class Adding:
    inputs, outputs, trivial = 2, 1, synthetic.ADDING_TRIVIAL

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        x, target = synthetic.adding(count, self.steps, generator)
        return torch.from_numpy(x), torch.from_numpy(target)

    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs[:, -1, 0] - target).square().mean()


class CopyMemory:
    def __init__(self, delay: int, length: int, symbols: int) -> None:
        self.delay, self.shape = delay, {"length": length, "symbols": symbols}
        self.inputs, self.outputs = symbols + 2, symbols + 1
        self.trivial = synthetic.copy_memory_trivial(delay, **self.shape)

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        x, target = synthetic.copy_memory(count, self.delay, generator, **self.shape)
        return torch.from_numpy(x), torch.from_numpy(target)

    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs.flatten(0, 1), target.flatten())


PROBLEMS: dict[str, Problem] = {
    "adding problem, T = 100": Adding(100),
    "copy memory, 5 symbols of 8, delay 30": CopyMemory(30, 5, 8),
}
ADD, COPY = PROBLEMS


@dataclass(frozen=True)
class Try:
    task: str
    layers: int
    rate: float
    most: int
    """Updates before the try is given up."""


TRIES = (
    Try(ADD, 1, 1e-2, 800),
    Try(ADD, 1, 3e-3, 1500),
    Try(ADD, 2, 1e-2, 1500),
    Try(ADD, 2, 3e-3, 1500),
    Try(ADD, 2, 1e-3, 1500),
    Try(COPY, 1, 1e-2, 1500),
    Try(COPY, 1, 3e-3, 1500),
    Try(COPY, 2, 3e-3, 1500),
)


@dataclass(frozen=True)
class Outcome:
    updates: int
    seconds: float
    error: float
    trivial: float

    @property
    def passes(self) -> bool:
        return self.error < PASSES * self.trivial


class Model(nn.Module):
    def __init__(self, cell: str, inputs: int, outputs: int, layers: int) -> None:
        super().__init__()
        graph = cells.get(cell).graph
        named = {size for size in graph.size_names if size not in ("input", "hidden", *graph.sizes)}
        self.layer = Recurrent(cell, inputs, HIDDEN, layers, sizes=dict.fromkeys(named, HIDDEN // 2))
        self.readout = nn.Linear(self.layer.output_size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.layer(x)[0])


def train(cell: str, problem: Problem, *, layers: int, rate: float, most: int, seed: int = 0) -> Outcome:
    """Train until the cell passes, or until `most` updates, or until the error is no number."""
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(cell, problem.inputs, problem.outputs, layers)
    drawn, tested = (np.random.default_rng([seed, part]) for part in range(2))
    test = problem.draw(TEST, tested)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=rate)
    error = math.inf
    for update in range(1, most + 1):
        x, target = problem.draw(BATCH, drawn)
        optimizer.zero_grad()
        problem.error(model(x), target).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if update % EVERY == 0 or update == most:
            with torch.no_grad():
                error = problem.error(model(test[0]), test[1]).item()
            outcome = Outcome(update, time.perf_counter() - began, error, problem.trivial)
            if outcome.passes or not math.isfinite(error):
                break
    return outcome


def survey(cell: str, tries: Iterable[Try] = TRIES) -> dict[str, Any]:
    """Try after try, until one passes: that one, or else the one that came nearest; `before` has those that failed."""
    failed: list[dict[str, Any]] = []
    for recipe in tries:
        outcome = train(cell, PROBLEMS[recipe.task], layers=recipe.layers, rate=recipe.rate, most=recipe.most)
        row = _row(recipe, outcome)
        print(f"{cell:<22}{_words(row)}", flush=True)
        if outcome.passes:
            return {"passes": True, **row, "before": failed}
        failed.append(row)
    best = min(failed, key=lambda row: math.inf if row["error"] is None else row["error"] / row["trivial"])
    return {"passes": False, **best, "before": [row for row in failed if row is not best]}


def _row(recipe: Try, outcome: Outcome) -> dict[str, Any]:
    # What is no number has no place in JSON.
    error = float(f"{outcome.error:.3g}") if math.isfinite(outcome.error) else None
    found = {"updates": outcome.updates, "seconds": round(outcome.seconds), "error": error}
    return {**asdict(recipe), **found, "trivial": round(outcome.trivial, 3)}


def _words(row: dict[str, Any]) -> str:
    layers = "one layer" if row["layers"] == 1 else f"{row['layers']} layers"
    return (
        f"{row['task']}, {layers}, rate {row['rate']:g}: {row['error']} (trivial {row['trivial']}) "
        f"after {row['updates']} updates, {row['seconds']} s"
    )


def settings() -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "command": "python benchmarks/memory.py",
        "versions": f"everloop {everloop.__version__}, torch {torch.__version__.split('+')[0]}, "
        f"Python {platform.python_version()}",
        "machine": f"{platform.system()} on {platform.machine()}, one core, shared with other work",
        "hidden": HIDDEN,
        "batch": BATCH,
        "test": TEST,
        "passes_below": PASSES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cells", nargs="*", default=cells.names(), metavar="CELL")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.cells:
        row = {"date": f"{datetime.now(UTC):%Y-%m-%d}", **survey(name)}
        if arguments.json:
            _write(arguments.json, {name: row})


def _write(file: Path, rows: dict[str, Any]) -> None:
    old = json.loads(file.read_text(encoding="utf-8"))["cells"] if file.exists() else {}
    known = {name: row for name, row in sorted((old | rows).items()) if name in cells.names()}
    file.write_text(json.dumps(settings() | {"cells": known}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
