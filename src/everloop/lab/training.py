"""A small model on a made-up problem, trained update by update: what Watch it learn and Race both run."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop import cells
from everloop.compiler.cost import usual_sizes
from everloop.lab.problems import Batch, Problem
from everloop.lang.cell import Cell
from everloop.lang.read import read_cell
from everloop.nn import Recurrent

# Examples of an update, and of the batch that is held out to look at.
BATCH, HELD_OUT = 32, 128

_DRAWING = threading.Lock()


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """torch draws from this seed inside, and outside as if nothing had happened. One thread at a time: torch has one
    generator for all of them.
    """
    with _DRAWING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def chosen_cell(given: str | dict[str, str]) -> Cell:
    """A cell of the catalogue by name, or the one that is typed in {"text": ...}. No file is read."""
    if isinstance(given, dict):
        return typed_cell(given["text"])
    if given.endswith(".py"):
        raise ValueError(f"cell: {given!r} came; expected a name of the catalogue or {{'text': ...}}")
    return cells.get(given)


def typed_cell(text: str) -> Cell:
    """The cell of a text, traced, so that whatever is wrong with it is said now."""
    cell = read_cell(text)
    try:
        _ = cell.graph
    except AttributeError as error:  # a member that the cell does not have
        raise ValueError(str(error)) from error
    return cell


class Model(nn.Module):
    """Recurrent layer and linear readout. truncation: steps after which the state goes on without its gradient (0:
    never), as in truncated back-propagation through time."""

    def __init__(self, cell: Cell, problem: Problem, hidden: int, truncation: int = 0) -> None:
        super().__init__()
        sizes = usual_sizes(cell.graph, problem.features, hidden)
        own = {name: length for name, length in sizes.items() if name not in ("input", "hidden")}
        self.recurrent = Recurrent(cell, problem.features, hidden, sizes=own)
        self.linear = nn.Linear(self.recurrent.output_size, problem.outputs)
        self.truncation = truncation

    def forward(self, x: Tensor) -> Tensor:
        window, state, made = self.truncation or x.shape[1], None, []
        for begin in range(0, x.shape[1], window):
            y, state = self.recurrent(x[:, begin : begin + window], state)
            state = state.detach()
            made.append(y)
        return self.linear(torch.cat(made, 1))

    @property
    def count(self) -> int:
        """Of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


@dataclass(frozen=True)
class Update:
    """norm: of the gradient, before clipping."""

    step: int
    loss: float
    norm: float
    clipped: bool


@dataclass
class Training:
    """One model, its optimizer (Adam) and its examples. The same seed gives the same examples whatever the cell.

    clip: the largest norm of a gradient; 0 does not clip. forget_bias: what `b.f` starts at, for a cell that has it.
    """

    cell: Cell
    problem: Problem
    length: int
    hidden: int
    lr: float
    seed: int = 0
    clip: float = 0.0
    truncation: int = 0
    forget_bias: float | None = None
    step: int = 0
    clips: int = 0
    seconds: float = 0.0
    model: Model = field(init=False)

    def __post_init__(self) -> None:
        self._examples = np.random.default_rng(self.seed)
        with drawn_from(self.seed):
            self.model = Model(self.cell, self.problem, self.hidden, self.truncation)
        if self.forget_bias is not None:
            self._start_forgetting_at(self.forget_bias)
        self.optimizer = torch.optim.Adam(self.model.parameters(), self.lr)
        self.grow_to(self.length)

    def _start_forgetting_at(self, value: float) -> None:
        graph = self.cell.graph
        if "b.f" not in graph.held:
            raise ValueError(f"forget_bias: {value} came; {self.cell.name} has no bias b.f of a forget gate")
        layer: Any = self.model.recurrent.layers[0][0]  # type: ignore[index]
        for stack, members in graph.stacks.items():
            rows = [param.shape(layer.sizes)[0] for param in members]
            for param, part in zip(members, layer.get_parameter(stack).split(rows), strict=True):
                if param.name == "b.f":
                    with torch.no_grad():
                        part.fill_(value)

    def grow_to(self, length: int) -> None:
        """Go on with examples of another length."""
        self.length = length
        self.held_out = self.problem.batch(HELD_OUT, length, np.random.default_rng(self.seed + 1))

    def set(self, lr: float | None = None, clip: float | None = None, truncation: int | None = None) -> None:
        """Go on with other settings."""
        if lr is not None:
            self.lr = lr
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        if clip is not None:
            self.clip = clip
        if truncation is not None:
            self.truncation = self.model.truncation = truncation

    def update(self) -> Update:
        """One batch, one step of the optimizer."""
        began = time.perf_counter()
        batch = self.problem.batch(BATCH, self.length, self._examples)
        self.optimizer.zero_grad()
        loss = batch.loss(self.model(batch.x))
        loss.backward()
        parameters = list(self.model.parameters())
        norm = float(nn.utils.clip_grad_norm_(parameters, self.clip or math.inf))
        clipped = 0 < self.clip < norm
        self.optimizer.step()
        self.step += 1
        self.clips += clipped
        self.seconds += time.perf_counter() - began
        return Update(self.step, float(loss.detach()), norm, clipped)

    @torch.no_grad()
    def answers(self) -> tuple[Batch, Tensor]:
        """The batch held out, and what the model says to it."""
        return self.held_out, self.model(self.held_out.x)
