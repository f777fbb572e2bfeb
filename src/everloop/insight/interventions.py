"""What if that unit were silent? Hold units of any cell at a value, or edit a live state, and run on.

with intervene(network, Hold(3)):          # unit 3 of the first state of the first layer is 0 at every step
    model.predict_proba(["a film"])

edit_state(stream, {"0.h": {3: 1.0}})      # between two steps of a live stream
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor, nn

from everloop.lang.cell import Cell
from everloop.lang.expr import Expr, rebuild
from everloop.lang.functions import carry_composites
from everloop.lang.graph import Graph
from everloop.nn import Recurrent
from everloop.nn.function import Recurrence
from everloop.nn.layer import Layer
from everloop.nn.packing import Packing

KEEP, PUT = "keep_", "put_"


@dataclass(frozen=True)
class Hold:
    """Units of a state that have a value instead of the one that the step works out, for whatever reads them: the
    output of the step, the next step, the layer above.

    state: its name ("": the first of the cell). layer, direction (0 or 1, the one that reads from the end): where.
    steps: at which steps of x (None: at all). module: the path of the layers in the network, as in
    `network.named_modules()` ("": the first there are).
    """

    units: int | Sequence[int]
    value: float = 0.0
    state: str = ""
    layer: int = 0
    direction: int = 0
    steps: Sequence[int] | None = None
    module: str = ""

    @property
    def unit_list(self) -> list[int]:
        return [self.units] if isinstance(self.units, int) else list(self.units)


@contextmanager
def intervene(network: nn.Module, *holds: Hold) -> Iterator[None]:
    """Within the block, the layers of the network run with these units held; after it, as before.

    network: a `Recurrent`, or any module with one inside. Gradients flow through what is not held.
    """
    changed: dict[Layer, list[Hold]] = {}
    for hold in holds:
        changed.setdefault(_layer_of(network, hold), []).append(hold)
    before = {layer: layer._watching for layer in changed}
    try:
        for layer, some in changed.items():
            layer._watching = HeldRecurrences(layer, some)  # type: ignore[assignment]
        yield
    finally:
        for layer, recurrences in before.items():
            layer._watching = recurrences


class Live(Protocol):
    """A stream, of a layer or of a trained model."""

    def snapshot(self) -> bytes: ...
    def restore(self, snapshot: bytes, /) -> Any: ...


def edit_state(stream: Live, values: Mapping[str, Any]) -> None:
    """Set the state of a live stream, of a layer or of a trained model: it goes on from there.

    values: by the names of `stream.state`, either a whole array or units with their values, {"0.h": {3: 1.0}}. The
    step that was read last has given its output already; the next one sees the edit.
    """
    content = stream.snapshot()
    size = int.from_bytes(content[:8], "little")
    facts = json.loads(content[8 : 8 + size])["__metadata__"]
    arrays = {name: array.copy() for name, array in load(content).items()}
    for name, given in values.items():
        if name not in arrays:
            raise ValueError(f"state: {name!r} came; the stream has {', '.join(arrays)}")
        arrays[name] = _edited(name, arrays[name], given)
    stream.restore(save(arrays, facts))


def _edited(name: str, array: np.ndarray, given: Any) -> np.ndarray:
    """array [n, F], of n sequences side by side."""
    if isinstance(given, Mapping):
        for unit, value in given.items():
            _check_unit(name, unit, array.shape[-1])
            array[..., unit] = value
        return array
    whole = np.asarray(given, array.dtype)
    if whole.shape not in (array.shape, array.shape[1:]):
        raise ValueError(f"state {name}: an array of shape {whole.shape} came; expected {array.shape[1:]}")
    return np.ascontiguousarray(np.broadcast_to(whole, array.shape))


# Holding units of a layer.


def held(cell: Cell) -> Cell:
    """The cell with two more inputs for each of its states, `keep_h` and `put_h`: the new h is keep_h * h + put_h,
    for all that reads it. Where they are not given, the cell is what it was."""
    return cell.rewritten(Held(tuple(cell.states)))


@dataclass(frozen=True)
class Held:
    states: tuple[str, ...]
    name = "held"

    def __call__(self, graph: Graph) -> Graph:
        inputs, start = dict(graph.inputs), dict(graph.start)
        keep, put = ({state: _input(front, state, graph) for state in self.states} for front in (KEEP, PUT))
        for front, value in ((keep, 1.0), (put, 0.0)):
            inputs |= {leaf.attr: leaf for leaf in front.values()}
            start |= {leaf.attr: value for leaf in front.values()}
        # A value that two states are handed is held in one of them; one that the step is given is none of its own.
        owner = {graph.new[state]: state for state in reversed(self.states) if graph.new[state].args}
        made: dict[Expr, Expr] = {}
        done: dict[Expr, Expr] = {}
        for node in graph.nodes:
            made[node] = done[node] = rebuild(node, tuple(done[arg] for arg in node.args))
            if node in owner:
                done[node] = keep[owner[node]] * made[node] + put[owner[node]]
        carry_composites(made)
        new = {name: done[value] for name, value in graph.new.items()}
        for state in self.states:
            value = graph.new[state]
            if owner.get(value) != state:
                new[state] = keep[state] * made[value] + put[state]
        return dataclasses.replace(
            graph,
            inputs=inputs,
            start=start,
            new=new,
            outputs={name: done[value] for name, value in graph.outputs.items()},
            names={done.get(value, value): name for value, name in graph.names.items()},
        )


def _input(front: str, state: str, graph: Graph) -> Expr:
    name = f"{front}{state}"
    if name in graph.inputs or name in graph.states:
        raise ValueError(f"{graph.name} has a value {name} of its own: rename it, so that units can be held")
    return Expr("input", (), name, graph.states[state].size)


class HeldRecurrences:
    """What a layer runs in place of its recurrences, by what is watched."""

    def __init__(self, layer: Layer, holds: Sequence[Hold]) -> None:
        self.cell, self.sizes, self.holds = held(layer.recurrence.cell), layer.sizes, list(holds)
        self.widths = {name: layer.widths[name] for name in layer.recurrence.cell.states}
        self._made: dict[tuple[str, ...], Recurrence] = {}

    def __contains__(self, watched: tuple[str, ...]) -> bool:
        return True

    def __getitem__(self, watched: tuple[str, ...]) -> Any:
        if watched not in self._made:
            self._made[watched] = Recurrence(self.cell, self.sizes, watched)

        def run(
            inputs: dict[str, Tensor], states: dict[str, Tensor], weights: Any, packing: Packing, reverse: bool
        ) -> Any:
            return self._made[watched](inputs | self._beside(inputs["x"], packing), states, weights, packing, reverse)

        return run

    def _beside(self, x: Tensor, packing: Packing) -> dict[str, Tensor]:
        """keep and put of every state, in the form of x: [T, B, F] or packed rows [N, F]."""
        step = torch.arange(len(x)) if x.dim() == 3 else packing.places(len(x))[0]
        found: dict[str, Tensor] = {}
        for state, width in self.widths.items():
            keep, put = torch.ones(len(x), width), torch.zeros(len(x), width)
            for hold in self.holds:
                if (hold.state or next(iter(self.widths))) == state:
                    there = torch.ones(len(x), 1) if hold.steps is None else _among(step, hold.steps)[:, None].float()
                    keep[:, hold.unit_list] *= 1 - there
                    put[:, hold.unit_list] = put[:, hold.unit_list] * (1 - there) + hold.value * there
            for name, rows in ((f"{KEEP}{state}", keep), (f"{PUT}{state}", put)):
                found[name] = rows.to(x) if x.dim() == 2 else rows.to(x)[:, None].expand(*x.shape[:2], width)
        return found


def _among(step: Tensor, steps: Sequence[int]) -> Tensor:
    return torch.isin(step, torch.tensor(list(steps), dtype=step.dtype))


def _layer_of(network: nn.Module, hold: Hold) -> Layer:
    """The layer and direction that a hold is for; ValueError naming what is not there."""
    found = {path: module for path, module in network.named_modules() if isinstance(module, Recurrent)}
    if not found:
        raise ValueError(f"a {type(network).__name__} came, with no Recurrent in it: there are no units to hold")
    if hold.module and hold.module not in found:
        raise ValueError(f"module: {hold.module!r} came; there are {', '.join(map(repr, found))}")
    recurrent = found[hold.module] if hold.module else next(iter(found.values()))
    directions = 2 if recurrent.bidirectional else 1
    if not 0 <= hold.layer < recurrent.num_layers or not 0 <= hold.direction < directions:
        raise ValueError(
            f"layer {hold.layer}, direction {hold.direction} came; there are {recurrent.num_layers} layers and "
            f"{directions} direction{'s' if directions > 1 else ''}, counted from 0"
        )
    layer: Layer = recurrent.layers[hold.layer][hold.direction]  # type: ignore[index]
    states = list(layer.recurrence.cell.states)
    if hold.state and hold.state not in states:
        raise ValueError(f"state: {hold.state!r} came; {layer.recurrence.cell.name} has {', '.join(states)}")
    for unit in hold.unit_list:
        _check_unit(hold.state or states[0], unit, layer.widths[hold.state or states[0]])
    return layer


def _check_unit(state: str, unit: Any, width: int) -> None:
    if isinstance(unit, bool) or not isinstance(unit, int | np.integer) or not 0 <= unit < width:
        raise ValueError(f"state {state}: unit {unit!r} came; expected one of its {width} units, counted from 0")
