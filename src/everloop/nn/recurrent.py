"""`Recurrent`: any cell as a layer over whole sequences."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop import cells
from everloop.compiler.ahead import ahead
from everloop.lang.cell import Cell
from everloop.lang.draw import Draw
from everloop.lang.graph import Graph
from everloop.nn.function import Recurrence
from everloop.nn.packing import Packing
from everloop.nn.start import start
from everloop.stream import Layers, Stream, StreamPool, save_layer


class Recurrent(nn.Module):
    """Run a cell over sequences: one layer or several, one direction or both, ragged or not.

    Shapes, with B sequences, T steps, I inputs, H units, L layers, D directions (1 or 2):

        x [B, T, I] -> y [B, T, D * H], state: a named tuple with [L * D, B, H] for each state of the cell

    The index of a layer and direction in a state is `layer * D + direction`, as in torch. y holds the last
    layer's output, both directions side by side; past the end of a sequence it is zero. The final state of the
    reverse direction is the one after its last step, the first of the sequence.

    cell: a name (`everloop.cells.names()`) or what `@cell` makes of a function.
    sizes: the sizes that the cell names beside input and hidden, as in `sizes={"proj": 64}`.
    dropout: share of the outputs of every layer but the last that are set to zero in training.

    Differs from torch.nn.LSTM and its like: batch first, always; one bias where one suffices; states are
    named; matrices that meet a state start orthogonal, those that meet the input as Glorot and Bengio 2010,
    biases at zero or as the cell says (`b.f` = 1 for an LSTM). Differs from Keras: a layer returns the whole
    sequence and the state.
    """

    def __init__(
        self,
        cell: str | Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        *,
        sizes: Mapping[str, int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cell = cells.get(cell)
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            _whole(name, value)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout: {dropout!r} came; expected a share of 0 or more and less than 1")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.dropout = bidirectional, dropout
        self.sizes = _all_sizes(self.cell, input_size, hidden_size, dict(sizes or {}))
        graph = self.cell.graph
        self._name, self._states = self.cell.name, {name: str(leaf.size) for name, leaf in graph.states.items()}
        self._side_inputs = {name: size for name, size in _beside(graph).items() if name not in graph.draws}
        # Nothing is drawn, turned or delayed before the kernel: a batch can be taken as it lies in memory.
        self._plain = not (bidirectional or graph.draws or ahead(graph).values)
        directions = 2 if bidirectional else 1
        # Knows the device and type of the layer, which may have no parameters.
        self.register_buffer("_like", torch.empty(0, device=device, dtype=dtype), persistent=False)
        factory = {"device": device, "dtype": dtype}
        self.layers = nn.ModuleList(
            nn.ModuleList(_Layer(self.cell, self.sizes | {"input": width}, factory) for _ in range(directions))
            for width in self._widths()[:-1]
        )
        # Of every layer and direction: (state, width, start value).
        self._starts = [
            [(name, layer.sizes[size], graph.start[name]) for name, size in self._states.items()]
            for layer in self._all_layers()
        ]

    @property
    def output_size(self) -> int:
        """Features of y: those of the cell's output, for each direction."""
        return self._widths()[-1]

    def _widths(self) -> list[int]:
        """Features of the input of each layer, and of what the last one puts out."""
        size = self.cell.graph.outputs["y"].size
        assert size is not None
        assert size.name is not None
        widths = [self.input_size]
        for _ in range(self.num_layers):
            # An output as wide as its input is wider in every layer of two directions.
            width = widths[-1] if size.name == "input" else self.sizes[size.name]
            widths.append(width * (2 if self.bidirectional else 1))
        return widths

    def stream(self, batch: int = 1, weights: str | None = None) -> Stream:
        """A live sequence (or `batch` side by side), with the weights as they are now: `push` steps, [T, I] or [I],
        NumPy in and NumPy out. All layers are one call per step. ValueError if the layer runs in both directions.

        weights: how matrices are stored, "bfloat16" or "int8" (None: as the layer computes).
        """
        return Layers.of(self).stream(batch, self._stream_type(), weights)

    def pool(self, weights: str | None = None, idle: float | None = None) -> StreamPool:
        """Live sequences that come and go, stepped together; one that is not pushed for `idle` seconds is closed."""
        return Layers.of(self).pool(self._stream_type(), weights, idle=idle)

    def _stream_type(self) -> Any:
        return np.float64 if self.get_buffer("_like").dtype == torch.float64 else np.float32

    def save(self, path: str | Path) -> None:
        """Keep the layer in one file, for `everloop.load(path)`, which needs no torch."""
        save_layer(self, path)

    def reset_parameters(self) -> None:
        for layer in self._all_layers():
            layer.reset_parameters()

    def forward(
        self,
        x: Tensor,
        state: Sequence[Tensor] | Tensor | None = None,
        lengths: Sequence[int] | Tensor | None = None,
        side: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        """x [B, T, I], state as returned (None: the cell's start values), lengths [B] of a padded batch.

        side: the side inputs of the cell by name, known at every step, given to every layer and direction: [B, T, F],
        or [B, T] where the cell has one number per step. One that is not given has the cell's value for that.
        """
        if x.dim() != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x: {tuple(x.shape)} came; expected [B, T, {self.input_size}]")
        if not x.is_floating_point():
            raise ValueError(f"x: {x.dtype} came; expected numbers of a floating type, such as torch.float32")
        batch, time, _ = x.shape
        packing = Packing.full(batch, time) if lengths is None else Packing.of(lengths, batch, time, x.device)
        steps = packing.steps(x) if self._plain else None
        whole = steps is not None
        initial = self._initial(state, packing, x, whole)
        beside = self._side(side or {}, packing, x, whole) if side or self._side_inputs else {}
        rows = packing.pack(x) if steps is None else steps
        final: list[dict[str, Tensor]] = []
        for depth, directions in enumerate(self.layers):
            outputs = []
            for direction, layer in enumerate(directions):  # type: ignore[arg-type]
                given = {"x": rows, **beside}
                if direction:
                    given = {name: packing.turned(array) for name, array in given.items()}
                y, last = layer(given, initial[len(final)], packing)
                outputs.append(packing.turned(y) if direction else y)
                final.append(last)
            rows = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if self.dropout and depth < self.num_layers - 1:
                rows = nn.functional.dropout(rows, self.dropout, self.training)
        if not whole:
            final = [{name: packing.original(array) for name, array in last.items()} for last in final]
        states = [_stack([last[name] for last in final]) for name in self._states]
        return packing.unpack(rows), self._state(states)

    def start_state(self, batch: int) -> Any:
        """The state before the first step, [L * D, B, H] each."""
        starts = self._start(batch, self.get_buffer("_like"))
        return self._state(_stack([start[name] for start in starts]) for name in self._states)

    def _start(self, batch: int, like: Tensor) -> list[dict[str, Tensor]]:
        """The states before the first step, of every layer and direction, [B, H] each."""
        return [
            {name: like.new_full((batch, width), _within(value, like.dtype)) for name, width, value in starts}
            for starts in self._starts
        ]

    def _state(self, arrays: Iterable[Tensor]) -> Any:
        return _state(self._name, tuple(self._states), tuple(arrays))

    def _state_shape(self, size: str, batch: int) -> tuple[int, int, int]:
        width = max(layer.sizes[size] for layer in self._all_layers())
        return self.num_layers * (2 if self.bidirectional else 1), batch, width

    def _side(self, side: Mapping[str, Tensor], packing: Packing, x: Tensor, whole: bool) -> dict[str, Tensor]:
        """The side inputs that a caller gives, [N, F] each; whole: [T, B, F]."""
        known, start = self._side_inputs, self.cell.graph.start
        for name in known:
            if name not in side and name not in start:
                raise ValueError(f"side: {name} is missing; {self.cell.name} needs it at every step")
        packed: dict[str, Tensor] = {}
        for name, array in side.items():
            if name not in known:
                raise ValueError(f"side: {name!r} came; {self.cell.name} has {', '.join(known) or 'no side inputs'}")
            size = known[name]
            widths = [layer.sizes[size] if size else 1 for layer in self._all_layers()]
            if max(widths) != min(widths):
                raise ValueError(
                    f"side: {name} came; it is as wide as the input of a layer, and the {self.num_layers} layers have "
                    f"inputs of {widths[0]} and {widths[-1]} features: use one layer of {self.cell.name} at a time"
                )
            found = _side_input(name, array, packing, widths[0], not size).to(x)
            packed[name] = found.transpose(0, 1) if whole else packing.pack(found)
        return packed

    def _initial(
        self, state: Sequence[Tensor] | Tensor | None, packing: Packing, x: Tensor, whole: bool
    ) -> list[dict[str, Tensor]]:
        """The states before the first step, of every layer and direction, [B, H] each; packed order, if not whole."""
        if state is None:
            return self._start(packing.batch, x)
        given = (state,) if isinstance(state, Tensor) else tuple(state)
        if len(given) != len(self._states):
            raise ValueError(
                f"state: {len(given)} values came; expected {len(self._states)}: {', '.join(self._states)}"
            )
        for (name, size), array in zip(self._states.items(), given, strict=True):
            expected = self._state_shape(size, packing.batch)
            if array.shape != expected:
                raise ValueError(f"state {name}: {tuple(array.shape)} came; expected {expected}")
        arrays = [array.to(x) for array in given]
        return [
            {
                name: (array[place] if whole else packing.sort(array[place]))[:, :width]
                for (name, width, _), array in zip(starts, arrays, strict=True)
            }
            for place, starts in enumerate(self._starts)
        ]

    def _all_layers(self) -> Iterator[_Layer]:
        for directions in self.layers:
            yield from directions  # type: ignore[misc]

    def extra_repr(self) -> str:
        parts = [self.cell.name, str(self.input_size), str(self.hidden_size)]
        parts += [f"num_layers={self.num_layers}"] if self.num_layers > 1 else []
        parts += ["bidirectional=True"] if self.bidirectional else []
        parts += [f"dropout={self.dropout}"] if self.dropout else []
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"Recurrent({self.extra_repr()})"


class _Layer(nn.Module):
    """One layer in one direction: a cell's parameters, one array per stack, and its recurrence."""

    def __init__(self, cell: Cell, sizes: dict[str, int], factory: dict[str, Any]) -> None:
        super().__init__()
        self.sizes = sizes
        self.recurrence = Recurrence(cell, sizes)
        self._beside = _beside(cell.graph)
        for stack, members in cell.graph.stacks.items():
            shapes = [param.shape(sizes) for param in members]
            shape = [sum(rows for rows, *_ in shapes), *shapes[0][1:]]
            self.register_parameter(stack, nn.Parameter(torch.empty(shape, **factory)))
        self.reset_parameters()

    def forward(
        self, inputs: dict[str, Tensor], states: dict[str, Tensor], packing: Packing
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the graph takes and is not given, the layer draws, or fills with the cell's own value."""
        graph, like = self.recurrence.cell.graph, inputs["x"]
        for name, size in self._beside.items():
            width = self.sizes[size] if size else 1
            if name in graph.draws:
                inputs[name] = self._drawn(graph.draws[name], width, like, packing.batch_sizes)
            elif name not in inputs:
                inputs[name] = like.new_full((width,), graph.start[name]).expand(*like.shape[:-1], width)
        return self.recurrence(inputs, states, self._parameters, packing)  # type: ignore[arg-type]

    def _drawn(self, draw: Draw, width: int, like: Tensor, batch_sizes: Sequence[int]) -> Tensor:
        """A mask or noise for every packed row [N, F]; in evaluation, its mean."""
        rows = like.shape[0]
        if not self.training:
            return like.new_full((rows, width), draw.mean)
        count = rows if draw.every == "step" or not rows else batch_sizes[0]
        if draw.kind == "normal":
            values = draw.amount * torch.randn(count, width, dtype=like.dtype, device=like.device)
        else:
            values = draw.scale * torch.bernoulli(like.new_full((count, width), draw.amount))
        if count == rows:
            return values
        return torch.cat([values[:running] for running in batch_sizes])

    @torch.no_grad()
    def reset_parameters(self) -> None:
        cell, sizes = self.recurrence.cell, self.recurrence.sizes
        for stack, members in cell.graph.stacks.items():
            begin = 0
            for param in members:
                rows = param.shape(sizes)[0]
                start(self.get_parameter(stack)[begin : begin + rows], param, cell)
                begin += rows


@cache
def _within(value: float, dtype: torch.dtype) -> float:
    """A start value that lies beyond the range of a half type: its end stands for it."""
    limits = torch.finfo(dtype)
    return min(max(value, limits.min), limits.max)


def _stack(arrays: list[Tensor]) -> Tensor:
    """[B, F] each as one array; where layers differ in width, the narrower ones have zeros behind."""
    if len(arrays) == 1:
        return arrays[0][None]
    width = max(array.shape[1] for array in arrays)
    return torch.stack([nn.functional.pad(array, (0, width - array.shape[1])) for array in arrays])


def _beside(graph: Graph) -> dict[str, str]:
    """The inputs beside x, and the size of each; empty: one number."""
    return {name: str(leaf.size or "") for name, leaf in graph.inputs.items() if name != "x"}


def _side_input(name: str, given: Tensor, packing: Packing, width: int, scalar: bool) -> Tensor:
    """A side input as [B, T, F]."""
    array = given[..., None] if scalar and given.dim() == 2 else given
    expected = (packing.batch, packing.time, width)
    if array.shape != expected:
        also = f" or {expected[:2]}" if scalar else ""
        raise ValueError(f"side {name}: {tuple(given.shape)} came; expected {expected}{also}")
    return array


def _all_sizes(cell: Cell, input_size: int, hidden_size: int, given: dict[str, int]) -> dict[str, int]:
    graph = cell.graph
    for name, value in given.items():
        if name in ("input", "hidden"):
            raise ValueError(f"sizes: {name!r} came; that is the argument {name}_size")
        _whole(f"sizes: {name}", value)
    known = {"input": input_size, "hidden": hidden_size} | graph.sizes | given
    if "hidden" not in graph.size_names and hidden_size != input_size:
        raise ValueError(
            f"hidden_size: {hidden_size} came; cell {graph.name} is as wide as its input: expected {input_size}"
        )
    missing = [name for name in graph.size_names if name not in known]
    if missing:
        wanted = ", ".join(f'"{name}": ...' for name in missing)
        raise ValueError(f"cell {graph.name} needs a size for {', '.join(missing)}: sizes={{{wanted}}}")
    unknown = [name for name in given if name not in graph.size_names]
    if unknown:
        raise ValueError(f"sizes: cell {graph.name} has no size {unknown[0]!r}; it has {', '.join(graph.size_names)}")
    return known


def _whole(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r} came; expected a whole number of 1 or more")


@cache
def _state_type(cell: str, states: tuple[str, ...]) -> Any:
    made = namedtuple(f"{re.sub('[^a-zA-Z0-9]', '', cell.title())}State", states)
    # The type has no place where pickle could find it: it is made again.
    made.__reduce__ = lambda self: (_state, (cell, states, tuple(self)))  # type: ignore[method-assign]
    return made


def _state(cell: str, states: tuple[str, ...], arrays: tuple[Tensor, ...]) -> Any:
    return _state_type(cell, states)(*arrays)
