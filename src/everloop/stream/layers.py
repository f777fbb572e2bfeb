"""A trained layer in NumPy: what torch's has learned, run and streamed without torch, and kept in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from everloop.compiler.compose import compose, joint_sizes
from everloop.lang.cell import Cell
from everloop.lang.graph import Graph
from everloop.stream.engine import Engine
from everloop.stream.kept_cell import keep_cell, kept_cell
from everloop.stream.pool import StreamPool
from everloop.stream.stream import Stream
from everloop.stream.weights import members, stacked

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Part:
    """A graph with the lengths of its sizes and its weights, one array per stack."""

    graph: Graph
    sizes: dict[str, int]
    weights: dict[str, np.ndarray]

    def engine(self, dtype: Any = np.float32, weights: str | None = None) -> Engine:
        """weights: what they are stored in, see `Engine`."""
        return Engine(self.graph, self.sizes, self.weights, dtype, weights)


def joined(parts: Sequence[Part], names: Sequence[str] | None = None) -> Part:
    """Parts put one on top of the other, the lowest first, as one: see `compose`."""
    called = [str(k) for k in range(len(parts))] if names is None else list(names)
    graph = compose([part.graph for part in parts], called)
    held = {
        f"{name}.{param}": array
        for name, part in zip(called, parts, strict=True)
        for param, array in members(part.graph, part.sizes, part.weights).items()
    }
    return Part(graph, joint_sizes(graph, [part.sizes for part in parts], called), stacked(graph, held))


@dataclass(frozen=True, eq=False)
class Layers:
    """The layers of one `Recurrent`, with what they have learned.

    sizes: the lengths of the cell's sizes in the first layer. weights: the arrays by the names that they have in the
    torch layer: `layers.0.1.W` is the stack W of layer 0 in direction 1.
    """

    cell: Cell
    sizes: dict[str, int]
    num_layers: int
    bidirectional: bool
    weights: dict[str, np.ndarray]

    @classmethod
    def of(cls, layer: Any) -> Layers:
        """Of a `Recurrent`. Half-precision weights are widened."""
        arrays = {name: array(tensor) for name, tensor in layer.state_dict().items()}
        return cls(layer.cell, dict(layer.sizes), layer.num_layers, layer.bidirectional, arrays)

    @property
    def output_size(self) -> int:
        return self.widths[-1]

    @property
    def widths(self) -> list[int]:
        """Features of the input of each layer, and of what the last one puts out."""
        size = str(self.cell.graph.outputs["y"].size)
        found = [self.sizes["input"]]
        for _ in range(self.num_layers):
            width = found[-1] if size == "input" else self.sizes[size]
            found.append(width * (2 if self.bidirectional else 1))
        return found

    @cached_property
    def parts(self) -> list[list[Part]]:
        """Each layer in each direction."""
        directions = range(2 if self.bidirectional else 1)
        return [
            [self._part(layer, direction, width) for direction in directions]
            for layer, width in enumerate(self.widths[:-1])
        ]

    def _part(self, layer: int, direction: int, width: int) -> Part:
        graph, front = self.cell.graph, f"layers.{layer}.{direction}."
        missing = [f"{front}{stack}" for stack in graph.stacks if f"{front}{stack}" not in self.weights]
        if missing:
            raise ValueError(f"weights: {missing[0]} is missing; there are {', '.join(sorted(self.weights)) or 'none'}")
        found = {stack: self.weights[f"{front}{stack}"] for stack in graph.stacks}
        return Part(graph, self.sizes | {"input": width}, found)

    def one_step(self) -> list[Part]:
        """The layers from the lowest up, where they can go on step by step; ValueError where they cannot."""
        if self.bidirectional:
            raise ValueError(
                "a layer of both directions cannot be streamed: the reverse one begins at the end of the sequence, "
                "which a stream has not seen yet. Train with bidirectional=False"
            )
        return [part for (part,) in self.parts]

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
        for directions in self._engines:
            streams = [Stream.of(engine, len(x)) for engine in directions]
            ys = [_whole(stream, x if k == 0 else x[:, ::-1]) for k, stream in enumerate(streams)]
            x = np.concatenate([y if k == 0 else y[:, ::-1] for k, y in enumerate(ys)], axis=-1)
        return x

    @cached_property
    def _engines(self) -> list[list[Engine]]:
        return [[part.engine() for part in directions] for directions in self.parts]


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
        "cell": keep_cell(found.cell),
        "sizes": found.sizes,
        "layers": found.num_layers,
        "bidirectional": found.bidirectional,
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
    if version != FORMAT:
        raise ValueError(f"{path}: format {version!r} came; this Everloop reads format {FORMAT}")
    return _made(facts, weights, path)


def _made(facts: Mapping[str, Any], weights: dict[str, np.ndarray], path: Path) -> Layers:
    try:
        cell = kept_cell(facts["cell"], str(path))
        return Layers(cell, dict(facts["sizes"]), int(facts["layers"]), bool(facts["bidirectional"]), weights)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: its header is damaged ({error!r})") from None
