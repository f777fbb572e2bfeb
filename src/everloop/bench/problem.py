"""What is to be computed, the same for everybody: a cell with its weights, inputs, and the gradient of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from everloop import Recurrent, cells
from everloop.compiler.ahead import plan_ahead
from everloop.compiler.cost import measure, usual_sizes
from everloop.lang.cell import Cell
from everloop.testing import FLOAT32, assert_close

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rival:
    """run: what is timed. read: its result in our layout: y [B, T, F]; in training the gradients by name too."""

    run: Callable[[], Any]
    read: Callable[[Any], Arrays]


@dataclass(frozen=True, eq=False)
class Problem:
    """shape: B, T, I, H. what: step (one after another from one sequence, B = T = 1), forward, or training: forward
    and the gradients of the input and of all weights, from a gradient of y that is given.
    """

    cell: Cell
    shape: tuple[int, int, int, int]
    what: str
    layer: Recurrent
    x: Tensor
    side: dict[str, Tensor]
    dy: Tensor

    @staticmethod
    def of(cell: str | Cell, shape: tuple[int, int, int, int], what: str) -> Problem:
        found = cells.get(cell)
        batch, time, inputs, units = shape
        sizes = usual_sizes(found.graph, inputs, units)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            named = {name: sizes[name] for name in found.graph.size_names if name not in ("input", "hidden")}
            layer = Recurrent(found, inputs, units, sizes=named)
            x = torch.randn(batch, time, inputs)
            side = {
                name: torch.rand(batch, time, 1 if leaf.size is None else sizes[str(leaf.size)])
                for name, leaf in found.graph.inputs.items()
                if name != "x" and name not in found.graph.draws
            }
            dy = torch.randn(batch, time, layer.output_size)
        # Half of what a layer starts with: some cells start where a hundred steps make a rounding error a visible one,
        # and whoever computes the same could not be told from who does not.
        with torch.no_grad():
            for weights in layer.parameters():
                weights.mul_(0.5)
        for given in (x, *side.values()):
            given.requires_grad_(what == "training")
        return Problem(found, shape, what, layer.eval(), x, side, dy)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """By the name of the family, one member's rows over the next's."""
        return {name.removeprefix("layers.0.0."): array.detach() for name, array in self.layer.named_parameters()}

    @property
    def sizes(self) -> dict[str, int]:
        """The length of each size of the cell."""
        _, _, inputs, units = self.shape
        return usual_sizes(self.cell.graph, inputs, units)

    @property
    def steps(self) -> int:
        batch, time, _, _ = self.shape
        return batch * time

    @property
    def flops(self) -> int:
        """Of all matrix products. Each has two more in backward, of as many operations: one for what it acted on, one
        for its weights."""
        cost = measure(plan_ahead(self.cell.graph), self.sizes)
        products = cost.before.products + cost.loop.products + cost.after.products
        return self.steps * products * (3 if self.what == "training" else 1)

    @property
    def has_products(self) -> bool:
        """In the loop; those before it are one large product, whatever the cell."""
        return any(stage.products for stage in plan_ahead(self.cell.graph).stages)


def ours(problem: Problem) -> Rival:
    if problem.what == "step":
        stream, x = problem.layer.stream(batch=1), problem.x[0, 0].numpy()  # type: ignore[operator]
        side = {name: array[0, 0].numpy() for name, array in problem.side.items()} or None
        return Rival(lambda: stream.push(x, side), lambda y: {"y": y.reshape(1, 1, -1).copy()})

    def forward(x: Tensor) -> Tensor:
        return problem.layer(x, side=problem.side)[0]

    return module_rival(problem, forward, dict(problem.layer.named_parameters()))


def module_rival(problem: Problem, forward: Callable[[Tensor], Tensor], weights: Mapping[str, Tensor]) -> Rival:
    """x -> y [B, T, F] in torch. weights: what is trained, by the name of the family."""
    if problem.what != "training":

        def infer() -> Tensor:
            with torch.inference_mode():
                return forward(problem.x)

        return Rival(infer, lambda y: {"y": y.numpy()})

    leaves = [problem.x, *problem.side.values(), *weights.values()]

    def train() -> tuple[Tensor | None, ...]:
        y = forward(problem.x)
        return (y.detach(), *torch.autograd.grad(y, leaves, problem.dy, allow_unused=True))

    names = ["y", "x", *problem.side, *(name.removeprefix("layers.0.0.") for name in weights)]
    # Weights that are not trained have no gradient: those of a reservoir.
    return Rival(train, lambda found: {k: v.numpy() for k, v in zip(names, found, strict=True) if v is not None})


def disagreements(problem: Problem, rivals: dict[str, Rival], expected: Rival) -> dict[str, str]:
    """Those that compute something else, and what. Steps are taken three times: their state goes on."""
    found: dict[str, str] = {}
    for _ in range(3 if problem.what == "step" else 1):
        right = expected.read(expected.run())
        for name, rival in rivals.items():
            found.update(_difference(name, rival.read(rival.run()), right))
    return found


def _difference(name: str, actual: Arrays, expected: Arrays) -> dict[str, str]:
    for what in [key for key in expected if key in actual]:
        # The largest value sets the scale: a gradient is a sum over all steps, near zero where large terms cancel.
        scale = max(float(np.abs(expected[what]).max()), 1e-30)
        try:
            assert_close(actual[what] / scale, expected[what] / scale, FLOAT32, what)
        except AssertionError as error:
            return {name: f"{name} was not timed, because it computes something else: {error}"}
    return {}
