"""Does every cell learn to remember? A small model of each is trained on made-up problems of memory.

    python benchmarks/memory.py [CELL ...] [--json docs/memory.json]

A cell passes when its error on 1000 sequences that it was not trained on is below half of that of the trivial answer.
All cells get the same tries, in the same order, until one passes: the adding problem with one layer, then with two, at
three learning rates each; then copy memory, likewise. In a try the cell is as it comes (options, start values), with
32 units and a linear readout; batches are 32 new sequences, the optimizer is Adam, gradients are clipped to length 1.
The sequences grow: those of training are short at first, and longer ones come when these are passed; what counts is
the error at full length. Everything is drawn from one seed.

The results of the cells named (all unless named) go into the file as they come; what it says of others stays.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import product, starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import everloop
from everloop import Recurrent, cells
from everloop.data.sets import synthetic

HIDDEN = 32
BATCH = 32
TEST = 1000
MOST = 3000
"""Updates before a try is given up."""
EVERY = 50
"""Updates between two looks at the test error."""
GROWING = (10, 20, 40, 70)
"""Steps to be passed before the full number."""
PASSES = 0.5
"""The share of the trivial answer's error that has to be undercut."""


@dataclass(frozen=True)
class Adding:
    steps: int
    inputs = 2
    outputs = 1
    trivial = synthetic.ADDING_TRIVIAL

    def of(self, steps: int) -> Adding:
        """The same problem over other steps."""
        return replace(self, steps=steps)

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        x, target = synthetic.adding(count, self.steps, generator)
        return torch.from_numpy(x), torch.from_numpy(target)

    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        """outputs [B, T, 1] of the readout at every step, of which the last one answers."""
        return (outputs[:, -1, 0] - target).square().mean()


@dataclass(frozen=True)
class CopyMemory:
    steps: int
    length: int
    symbols: int

    @property
    def inputs(self) -> int:
        return self.symbols + 2

    @property
    def outputs(self) -> int:
        return self.symbols + 1

    @property
    def trivial(self) -> float:
        return synthetic.copy_memory_trivial(self.steps, length=self.length, symbols=self.symbols)

    def of(self, steps: int) -> CopyMemory:
        """The same problem over another delay."""
        return replace(self, steps=steps)

    def draw(self, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        x, target = synthetic.copy_memory(count, self.steps, generator, length=self.length, symbols=self.symbols)
        return torch.from_numpy(x), torch.from_numpy(target)

    def error(self, outputs: Tensor, target: Tensor) -> Tensor:
        """outputs [B, T, F] of the readout at every step."""
        return nn.functional.cross_entropy(outputs.flatten(0, 1), target.flatten())


Problem = Adding | CopyMemory

PROBLEMS: dict[str, Problem] = {
    "adding problem, T = 100": Adding(100),
    "copy memory, 3 symbols of 8, delay 30": CopyMemory(30, 3, 8),
}
ADDING = next(iter(PROBLEMS))


@dataclass(frozen=True)
class Try:
    task: str
    layers: int
    rate: float


TRIES = tuple(starmap(Try, product(PROBLEMS, (1, 2), (1e-2, 3e-3, 1e-3))))


@dataclass(frozen=True)
class Outcome:
    updates: int
    seconds: float
    error: float
    """On the test sequences, of full length."""
    trivial: float
    reached: int
    """The most steps with which the cell passed; 0 if with none."""

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


def train(cell: str, problem: Problem, *, layers: int, rate: float, most: int = MOST, seed: int = 0) -> Outcome:
    """Train until the cell passes, or until `most` updates, or until the error is no number."""
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(cell, problem.inputs, problem.outputs, layers)
    generator = np.random.default_rng([seed, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    updates, reached = 0, 0
    for stage in (*(problem.of(steps) for steps in GROWING if steps < problem.steps), problem):
        passes = False
        while updates < most and not passes:
            for _ in range(min(EVERY, most - updates)):
                _update(model, optimizer, stage, generator)
                updates += 1
            error = error_of(model, stage, seed)
            passes = error < PASSES * stage.trivial
            if not math.isfinite(error):
                break
        if not passes:
            break
        reached = stage.steps
    return Outcome(updates, time.perf_counter() - began, error_of(model, problem, seed), problem.trivial, reached)


def _update(model: Model, optimizer: torch.optim.Optimizer, problem: Problem, generator: np.random.Generator) -> None:
    x, target = problem.draw(BATCH, generator)
    optimizer.zero_grad()
    problem.error(model(x), target).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def error_of(model: Model, problem: Problem, seed: int) -> float:
    x, target = problem.draw(TEST, np.random.default_rng([seed, 1]))
    return problem.error(model(x), target).item()


def survey(cell: str, tries: Iterable[Try] = TRIES) -> dict[str, Any]:
    """Try after try, until one passes: that one, or else the one that adds over most steps; the others are `before`."""
    failed: list[dict[str, Any]] = []
    for recipe in tries:
        outcome = train(cell, PROBLEMS[recipe.task], layers=recipe.layers, rate=recipe.rate)
        row = _row(recipe, outcome)
        print(f"{cell:<22}{_words(row)}", flush=True)
        if outcome.passes:
            return {"passes": True, **row, "before": failed}
        failed.append(row)
    best = max(failed, key=lambda row: (row["task"] == ADDING, row["reached"], -(row["error"] or math.inf)))
    return {"passes": False, **best, "before": [row for row in failed if row is not best]}


def _row(recipe: Try, outcome: Outcome) -> dict[str, Any]:
    # What is no number has no place in JSON.
    error = float(f"{outcome.error:.3g}") if math.isfinite(outcome.error) else None
    found = {"updates": outcome.updates, "seconds": round(outcome.seconds), "error": error}
    return {**asdict(recipe), **found, "trivial": round(outcome.trivial, 3), "reached": outcome.reached}


def _words(row: dict[str, Any]) -> str:
    layers = "one layer" if row["layers"] == 1 else f"{row['layers']} layers"
    return (
        f"{row['task']}, {layers}, rate {row['rate']:g}: {row['error']} (trivial {row['trivial']}) "
        f"after {row['updates']} updates, {row['seconds']} s, passes {row['reached']} steps"
    )


def settings() -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "command": "python benchmarks/memory.py",
        "versions": f"everloop {everloop.__version__}, torch {torch.__version__.split('+')[0]}, "
        f"Python {platform.python_version()}",
        "machine": f"{platform.system()} on {platform.machine()}, one thread",
        "hidden": HIDDEN,
        "batch": BATCH,
        "most_updates": MOST,
        "growing": GROWING,
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
