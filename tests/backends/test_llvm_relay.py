"""Weights laid out for calls of one step and for calls of several: the same ones, there when they are wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from everloop import cells
from everloop.backends.llvm.engine import Engine
from everloop.backends.llvm.relay import relay
from everloop.backends.llvm.step import LlvmStep
from everloop.lang.cell import Cell
from everloop.stream.weights import all_members

# Two layers of products, matrices in blocks, matrices made of others, values that are the same at all steps.
CELLS = ["lstm", "mogrifier_lstm", "slstm", "lmu", "exp_rnn", "layernorm_gru"]


class Laid:
    """The weights of a cell, as `pack` lays them out for either engine, and as they are laid out anew."""

    def __init__(self, cell: str | Cell, dtype: Any, weight: str = "", hidden: int = 21) -> None:
        graph = cells.get(cell).graph
        sizes = dict.fromkeys(graph.size_names, 6) | {"input": 5, "hidden": hidden} | dict(graph.sizes)
        numbers = np.random.default_rng(0)
        weights = {
            stack: numbers.normal(size=(sum(p.shape(sizes)[0] for p in params), *params[0].shape(sizes)[1:]))
            for stack, params in graph.stacks.items()
        }
        step = LlvmStep(graph, sizes, np.dtype(dtype), lambda given: all_members(graph, sizes, given), weight)
        self.single, self.several = step.single, step.several
        self.packed: dict[Engine, np.ndarray] = {}
        for engine in (self.single, self.several):
            step.single = engine
            self.packed[engine] = step.pack(weights)._packed[engine]

    def anew(self, source: Engine, target: Engine) -> np.ndarray:
        made = np.zeros_like(self.packed[target])
        relay(source.layout, self.packed[source], target.layout, made)
        return made


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("dtype", "weight"), [("float32", ""), ("float64", ""), ("float32", "bfloat16"), ("float32", "int8")]
)
def test_anew_is_as_at_first(cell: str, dtype: str, weight: str) -> None:
    laid = Laid(cell, dtype, weight)
    for source, target in ((laid.single, laid.several), (laid.several, laid.single)):
        assert laid.anew(source, target).tobytes() == laid.packed[target].tobytes()


@pytest.mark.parametrize("weight", ["", "int8"])
@pytest.mark.parametrize("hidden", [6, 18, 102])
def test_heads(hidden: int, weight: str) -> None:
    """The products of inputs, whole, are laid out in blocks where they meet those of a state with heads."""
    laid = Laid(cells.get("slstm")(heads=3), "float32", weight, hidden)
    blocks = [{one.blocks for _, one in engine.program.passes()} for engine in (laid.single, laid.several)]
    assert blocks == [{3}, {1, 3}]
    for source, target in ((laid.single, laid.several), (laid.several, laid.single)):
        assert laid.anew(source, target).tobytes() == laid.packed[target].tobytes()
