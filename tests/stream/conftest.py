"""Models to stream: layers of cells with random weights, in torch and as one graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from everloop.compiler.compose import compose, joint_sizes
from everloop.lang.graph import Graph
from everloop.nn import Recurrent
from everloop.stream import Engine, Stream, StreamPool


@dataclass(frozen=True)
class Model:
    """A layer, and what a stream of it is made of."""

    layer: Recurrent
    graph: Graph
    sizes: dict[str, int]
    weights: dict[str, np.ndarray]

    @property
    def parts(self) -> tuple[Graph, dict[str, int], dict[str, np.ndarray]]:
        return self.graph, self.sizes, self.weights

    def stream(self, batch: int = 1) -> Stream:
        return Stream(*self.parts, batch=batch, dtype=np.float64)

    def pool(self, **how: Any) -> StreamPool:
        return StreamPool(*self.parts, dtype=np.float64, **how)

    def engine(self) -> Engine:
        return Engine(*self.parts, dtype=np.float64)


@pytest.fixture
def model() -> Callable[..., Model]:
    import torch

    def make(cell: Any = "lstm", depth: int = 2, inputs: int = 3, hidden: int = 4) -> Model:
        torch.manual_seed(0)
        layer = Recurrent(cell, inputs, hidden, depth, dtype=torch.float64).eval()
        layers = [directions[0] for directions in layer.layers]
        graph = compose([layer.cell.graph] * depth)
        sizes = joint_sizes(graph, [one.sizes for one in layers])
        weights = {
            f"{k}.{name}": p.detach().numpy() for k, one in enumerate(layers) for name, p in one.named_parameters()
        }
        return Model(layer, graph, sizes, weights)

    return make


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(0)
