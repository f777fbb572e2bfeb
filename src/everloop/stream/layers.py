"""A trained layer in NumPy: what torch's has learned, run and streamed without torch, and kept in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from everloop.compiler.compose import compose, joint_sizes
from everloop.lang.cell import Cell
from everloop.lang.graph import Graph
from everloop.lang.transforms import residual
from everloop.stream.engine import Engine
from everloop.stream.kept_cell import keep_cell, kept_cell
from everloop.stream.pool import StreamPool
from everloop.stream.stream import Stream
from everloop.stream.weights import length, members, stacked

FORMAT = 2
# What the header of a file says of all layers.
HOW = ("bidirectional", "skip", "reverse", "keep_order")
SKIPS = (None, "residual", "dense")
# In front of the state whose first value an array is.
START = "start_"


@dataclass(frozen=True, eq=False)
class Part:
    """A graph with the lengths of its sizes and its weights, one array per stack.

    starts: the first values of states that have learned them. takes: of how many parts below it takes the outputs,
    side by side, see `compose`.
    """

    graph: Graph
    sizes: dict[str, int]
    weights: dict[str, np.ndarray]
    starts: dict[str, np.ndarray] = field(default_factory=dict)
    takes: int = 1

    def engine(self, dtype: Any = np.float32, weights: str | None = None) -> Engine:
        """weights: what they are stored in, see `Engine`."""
        return Engine(self.graph, self.sizes, self.weights, dtype, weights, self.starts)


def joined(parts: Sequence[Part], names: Sequence[str] | None = None) -> Part:
    """Parts put one on top of the other, the lowest first, as one: see `compose`."""
    called = [str(k) for k in range(len(parts))] if names is None else list(names)
    graph = compose([part.graph for part in parts], called, [part.takes for part in parts])
    held, starts = {}, {}
    for name, part in zip(called, parts, strict=True):
        found = members(part.graph, part.sizes, part.weights)
        held |= {f"{name}.{param}": array for param, array in found.items()}
        starts |= {f"{name}.{state}": array for state, array in part.starts.items()}
    return Part(graph, joint_sizes(graph, [part.sizes for part in parts], called), stacked(graph, held), starts)


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of one `Recurrent`, with what they have learned.

    cells, sizes: the cell of each layer and the lengths of its sizes, its input among them. weights: the arrays by the
    names that they have in the torch layer: `layers.0.1.W` is the stack W of layer 0 in direction 1, and
    `layers.0.1.start_h` the learned start of its state h. skip, reverse, keep_order: as for `Recurrent`.
    """

    cells: tuple[Cell, ...]
    sizes: tuple[dict[str, int], ...]
    weights: dict[str, np.ndarray]
    bidirectional: bool = False
    skip: str | None = None
    reverse: bool = False
    keep_order: bool = True

    def __post_init__(self) -> None:
        if self.skip not in SKIPS:
            raise ValueError(f"skip: {self.skip!r} came; expected None, 'residual' or 'dense'")
        if not self.cells or len(self.cells) != len(self.sizes):
            raise ValueError(
                f"{len(self.cells)} cells and {len(self.sizes)} sizes came; expected one of both per layer"
            )
        for k, sizes in enumerate(self.sizes):
            expected = sum(self.widths[k + 1 - self._takes(k) : k + 1])
            if sizes["input"] != expected:
                raise ValueError(f"sizes: an input of {sizes['input']} came for layer {k}, which is given {expected}")

    @classmethod
    def of(cls, layer: Any) -> Layers:
        """Of a `Recurrent`. Half-precision weights are widened."""
        # By attribute: a parametrization may have taken a parameter's place.
        weights = {
            f"layers.{k}.{direction}.{name}": array(getattr(one, name))
            for k, directions in enumerate(layer.layers)
            for direction, one in enumerate(directions)
            for name in _names(layer.cells[k])
            if hasattr(one, name)
        }
        how = {"reverse": layer.reverse, "keep_order": layer.keep_order}
        return cls(layer.cells, tuple(layer.layer_sizes), weights, layer.bidirectional, layer.skip, **how)

    @classmethod
    def alike(
        cls, cell: Cell, sizes: Mapping[str, int], num_layers: int, bidirectional: bool, weights: dict[str, np.ndarray]
    ) -> Layers:
        """Of one cell and, their inputs aside, of one size. sizes: of the first layer."""
        each = [dict(sizes)]
        for _ in range(num_layers - 1):
            width = _output_width(cell, each[-1]) * (2 if bidirectional else 1)
            each.append({**sizes, "input": width})
        return cls((cell,) * num_layers, tuple(each), weights, bidirectional)

    @property
    def num_layers(self) -> int:
        return len(self.cells)

    @property
    def input_size(self) -> int:
        return self.sizes[0]["input"]

    @property
    def output_size(self) -> int:
        return self.widths[-1]

    @cached_property
    def widths(self) -> list[int]:
        """Features of x, and of what each layer puts out."""
        directions = 2 if self.bidirectional else 1
        pairs = zip(self.cells, self.sizes, strict=True)
        return [self.input_size, *(directions * _output_width(cell, sizes) for cell, sizes in pairs)]

    def _takes(self, layer: int) -> int:
        """Of how many outputs below a layer takes; x is the lowest."""
        return layer + 1 if self.skip == "dense" else 1

    def _adds(self, layer: int) -> bool:
        """Whether a layer adds its input to its output."""
        return self.skip == "residual" and self.sizes[layer]["input"] == self.widths[layer + 1]

    @cached_property
    def parts(self) -> list[list[Part]]:
        """Each layer in each direction, without what it adds to its output."""
        directions = range(2 if self.bidirectional else 1)
        return [[self._part(layer, direction) for direction in directions] for layer in range(self.num_layers)]

    def _part(self, layer: int, direction: int) -> Part:
        graph, front = self.cells[layer].graph, f"layers.{layer}.{direction}."
        missing = [f"{front}{stack}" for stack in graph.stacks if f"{front}{stack}" not in self.weights]
        if missing:
            raise ValueError(f"weights: {missing[0]} is missing; there are {', '.join(sorted(self.weights)) or 'none'}")
        found = {stack: self.weights[f"{front}{stack}"] for stack in graph.stacks}
        learned = {state: f"{front}{START}{state}" for state in graph.states}
        starts = {state: self.weights[name] for state, name in learned.items() if name in self.weights}
        return Part(graph, self.sizes[layer], found, starts, self._takes(layer))

    def one_step(self) -> list[Part]:
        """The layers from the lowest up, where they can go on step by step; ValueError where they cannot."""
        if self.bidirectional:
            raise ValueError(
                "a layer of both directions cannot be streamed: the reverse one begins at the end of the sequence, "
                "which a stream has not seen yet. Train with bidirectional=False"
            )
        if self.reverse:
            raise ValueError(
                "a layer that reads in reverse cannot be streamed: it begins at the end of the sequence, which a "
                "stream has not seen yet. Train with reverse=False"
            )
        return [
            replace(part, graph=residual(self.cells[layer]).graph) if self._adds(layer) else part
            for layer, (part,) in enumerate(self.parts)
        ]

    def stream(self, batch: int = 1, dtype: Any = np.float32, weights: str | None = None) -> Stream:
        """A live sequence, or several side by side: all layers in one call per step.

        weights: what they are stored in, float32, bfloat16 or int8 (None: dtype); `Stream.accuracy` measures what fewer
        bits cost.
        """
        return Stream.of(joined(self.one_step()).engine(dtype, weights), batch)

    def pool(self, dtype: Any = np.float32, weights: str | None = None, **how: Any) -> StreamPool:
        """Live sequences that come and go. dtype, weights: as for `stream`; options as `StreamPool`."""
        return StreamPool.of(joined(self.one_step()).engine(dtype, weights), **how)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Whole sequences of one length, from the start: x [B, T, I] gives [B, T, D * H], in float32."""
        if not len(x):
            return np.zeros((0, x.shape[1], self.output_size), np.float32)
        x = np.asarray(x, np.float32)
        ys = [x[:, ::-1] if self.reverse else x]
        for layer, directions in enumerate(self._engines):
            below = np.concatenate(ys[-self._takes(layer) :], axis=-1)
            y = _both(directions, below)
            ys.append(y + below if self._adds(layer) else y)
        return ys[-1][:, ::-1].copy() if self.reverse and self.keep_order else ys[-1]

    @cached_property
    def _engines(self) -> list[list[Engine]]:
        return [[part.engine() for part in directions] for directions in self.parts]


def _names(cell: Cell) -> list[str]:
    """The names that the arrays of a layer in one direction may have."""
    return [*cell.graph.stacks, *(f"{START}{state}" for state in cell.graph.states)]


def _output_width(cell: Cell, sizes: Mapping[str, int]) -> int:
    return length(cell.graph.outputs["y"].size, sizes)


def _both(directions: Sequence[Engine], x: np.ndarray) -> np.ndarray:
    """The outputs of one direction, or of both, side by side."""
    streams = [Stream.of(engine, len(x)) for engine in directions]
    ys = [_whole(stream, x if k == 0 else x[:, ::-1]) for k, stream in enumerate(streams)]
    return np.concatenate([y if k == 0 else y[:, ::-1] for k, y in enumerate(ys)], axis=-1)


def _whole(stream: Stream, x: np.ndarray) -> np.ndarray:
    return stream.push(x) if stream.batch > 1 else stream.push(x[0])[None]


def array(tensor: Any) -> np.ndarray:
    """A tensor of torch as an array; NumPy has no bfloat16, so half types are widened."""
    plain = tensor.detach().cpu()
    return (plain.float() if plain.element_size() < 4 else plain).numpy()


def save_layer(layer: Any, path: str | Path) -> None:
    """Keep a `Recurrent` (or `Layers`) in one file, for `load_layer`: safetensors whose header says how it is made."""
    found = layer if isinstance(layer, Layers) else Layers.of(layer)
    facts = {
        "format": FORMAT,
        "layers": [
            {"cell": keep_cell(cell), "sizes": sizes} for cell, sizes in zip(found.cells, found.sizes, strict=True)
        ],
        **{name: getattr(found, name) for name in HOW},
    }
    plain = {name: np.ascontiguousarray(weights) for name, weights in found.weights.items()}
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(save(plain, {"everloop": json.dumps(facts)}))
    partial.replace(target)


def load_layer(path: str | Path) -> Layers:
    """A layer kept by `save_layer`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} to load a layer from")
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        weights = load(content)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None
    try:
        facts = json.loads(header["__metadata__"]["everloop"])
        version = facts["format"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no layer of Everloop; expected a file that save_layer wrote") from None
    if not isinstance(version, int) or version not in MADE:
        raise ValueError(f"{path}: format {version!r} came; this Everloop reads formats 1 to {FORMAT}")
    try:
        return MADE[version](facts, weights, path)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: its header is damaged ({error!r})") from None


def _made_of_one_cell(facts: Mapping[str, Any], weights: dict[str, np.ndarray], path: Path) -> Layers:
    """Of format 1, in which all layers are alike."""
    cell = kept_cell(facts["cell"], str(path))
    return Layers.alike(cell, facts["sizes"], int(facts["layers"]), bool(facts["bidirectional"]), weights)


def _made(facts: Mapping[str, Any], weights: dict[str, np.ndarray], path: Path) -> Layers:
    cells = tuple(kept_cell(layer["cell"], str(path)) for layer in facts["layers"])
    sizes = tuple(dict(layer["sizes"]) for layer in facts["layers"])
    return Layers(cells, sizes, weights, **{name: facts[name] for name in HOW})


MADE = {1: _made_of_one_cell, 2: _made}
