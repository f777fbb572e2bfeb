"""What a layer holds, whatever its class: for each layer and direction a cell, and where its weights are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from everloop import cells
from everloop.lang.cell import Cell
from everloop.lang.functions import relu
from everloop.nn.layouts.systems import System, Written
from everloop.nn.recurrent import Recurrent

Array = NDArray[Any]
RecurrentLayer = Recurrent | nn.RNNBase
AnyLayer = TypeVar("AnyLayer", bound=RecurrentLayer)

TORCH = {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "d": "bias_hh"}
"""torch's names of our families."""

BIASES = ("b", "d")


@dataclass(frozen=True)
class Part:
    """One layer in one direction, and how another system writes its cell.

    names: where the module holds each family of parameters, its gates one below the other in the order of `gates`.
    """

    depth: int
    direction: str
    cell: Cell
    written: Written
    module: nn.Module
    names: Mapping[str, str]

    @property
    def layer(self) -> str:
        return f"layer {self.depth}"

    @property
    def where(self) -> str:
        return f"{self.layer}, {self.direction}"

    @property
    def inputs(self) -> int:
        return self._shape("W")[1]

    @property
    def hidden(self) -> int:
        return self._shape("U")[1]

    def gates(self, family: str) -> str:
        stacks = self.cell.graph.stacks
        # torch has two biases where our cell may have one.
        return "".join(param.slot for param in stacks[family if family in stacks else "b"])

    def read(self, family: str, gates: str) -> Array:
        """A family in another order of gates, as an array of its own; zeros for gates that the cell has not."""
        tensor = getattr(self.module, self.names[family]).detach().cpu()
        # NumPy has no bfloat16.
        array = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
        return reordered(array, self.gates(family), gates)

    def read_biases(self, gates: str) -> list[Array]:
        """As many as the other system has; none if the layer has none."""
        held = [self.read(family, gates) for family in BIASES if family in self.names]
        return _as_many(held, self.written.biases) if held else []

    def taken(self, W: Array, U: Array, biases: Sequence[Array]) -> dict[str, Array]:
        """Families as the layer holds them, of arrays in the other's order of gates."""
        held = [family for family in BIASES if family in self.names]
        if not held and any(array.any() for array in biases):
            raise ValueError(f"{self.where}: biases came, and the layer has none (bias=False); make one that has")
        fitting = _as_many(biases or [np.zeros(len(W), W.dtype)], len(held))
        found = {"W": W, "U": U} | dict(zip(held, fitting, strict=True))
        gates = self.written.gates
        return {family: reordered(array, gates, self.gates(family)) for family, array in found.items()}

    def write(self, weights: Mapping[str, Array]) -> None:
        """In place, so that an optimiser goes on knowing the parameters."""
        for family, array in weights.items():
            name = self.names[family]
            if parametrize.is_parametrized(self.module, name):
                like = getattr(self.module, name)
                setattr(self.module, name, torch.as_tensor(array, dtype=like.dtype, device=like.device))
            else:
                self.module.get_parameter(name).copy_(torch.as_tensor(array))

    def _shape(self, family: str) -> torch.Size:
        return getattr(self.module, self.names[family]).shape


def parts_of(layer: RecurrentLayer, system: System) -> list[list[Part]]:
    """The directions of each layer. ValueError for what the system has not."""
    if isinstance(layer, Recurrent):
        return _of_recurrent(layer, system)
    if isinstance(layer, nn.RNNBase):
        return _of_torch(layer, system)
    raise TypeError(f"a {type(layer).__name__} came; expected a Recurrent, or an LSTM, GRU or RNN of torch")


@torch.no_grad()
def fill(weights: Sequence[tuple[Part, Mapping[str, Array]]]) -> None:
    """Whoever calls has checked everything by now: all is filled, or nothing."""
    for part, found in weights:
        part.write(found)


def check_shape(what: str, array: Array, shape: tuple[int, ...], whose: str = "") -> None:
    if array.shape != shape:
        raise ValueError(f"{what}: {array.shape} came; expected {shape}{whose}")


def reordered(array: Array, given: str, wanted: str) -> Array:
    """Gates one below the other, in another order; zeros for one that was not given."""
    gates = dict(zip(given, np.split(array, len(given)), strict=True))
    return np.concatenate([gates.get(gate, np.zeros_like(gates[given[0]])) for gate in wanted])


def _of_recurrent(layer: Recurrent, system: System) -> list[list[Part]]:
    if layer.skip is not None:
        raise ValueError(f"skip={layer.skip!r} came; {system.name} has plain stacks of layers")
    if layer.learn_start:
        raise ValueError(f"learn_start=True came; first states are not among the weights of {system.name}")
    found = []
    for depth, (cell, directions) in enumerate(zip(layer.cells, layer.layers, strict=True)):
        written = system.written(cell, f"layer {depth}")
        names = {family: family for family in cell.graph.stacks}
        ways = ["backward"] if layer.reverse else ["forward", "backward"]
        found.append(
            [Part(depth, way, cell, written, module, names) for way, module in zip(ways, directions, strict=False)]  # type: ignore[arg-type]
        )
    return found


def _of_torch(layer: nn.RNNBase, system: System) -> list[list[Part]]:
    cell, torchs = _cell_of(layer), TORCH if layer.bias else {family: TORCH[family] for family in ("W", "U")}
    written = system.written(cell, "layer 0")
    ends = {"forward": "", "backward": "_reverse"} if layer.bidirectional else {"forward": ""}
    return [
        [
            Part(depth, way, cell, written, layer, {family: f"{name}_l{depth}{end}" for family, name in torchs.items()})
            for way, end in ends.items()
        ]
        for depth in range(layer.num_layers)
    ]


def _cell_of(layer: nn.RNNBase) -> Cell:
    if layer.proj_size:
        return cells.get("projection_lstm")
    if layer.mode == "RNN_RELU":
        return cells.get("elman")(act=relu)
    return cells.get({"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "elman"}[layer.mode])


def _as_many(biases: Sequence[Array], count: int) -> list[Array]:
    """Biases that are added up anyway, as another number of them; the sum goes into the first."""
    if len(biases) == count or not count:
        return list(biases[:count])
    return [sum(biases[1:], start=biases[0]), *[np.zeros_like(biases[0])] * (count - 1)]
