"""A graph with its sizes and weights, ready to step: what the streams of one model share."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from everloop.backends import AUTO, asked
from everloop.backends._narrow import BYTES
from everloop.lang.expr import Expr, toposort
from everloop.lang.graph import Graph
from everloop.stream.numpy_step import NumpyStep
from everloop.stream.weights import all_members, length

FORMAT = 1
EXTRA = "beside."

Run = Callable[[int, tuple[np.ndarray, ...], np.ndarray, np.ndarray | None], None]
"""run(steps, inputs, out, rows): `steps` time steps, one or more, for n sequences, one or more.

inputs: one array for each of the graph's inputs, in their order, that holds [steps, n, F] values without gaps; out:
the same for the output, written. rows: which rows of the states the sequences are, int64 [n], each at most once (None:
all of them, n being their number). Arrays are of the step's type. Their shapes do not matter, only what they hold. May
be called from many threads at once, as long as no row is in two calls.
"""


class Step(Protocol):
    """A graph made to run, for some lengths of its sizes and one floating type."""

    def pack(self, weights: Mapping[str, np.ndarray]) -> Any:
        """The weights, one array per stack of the graph, in whatever form `bind` wants them. Nothing given is kept."""
        ...

    def bytes(self, packed: Any) -> int:
        """The memory of packed weights, as of now."""
        ...

    def bind(self, packed: Any, state: np.ndarray) -> Run:
        """What steps the states [m, S], in place: those of a sequence side by side, in the order of graph.states."""
        ...


def make_step(graph: Graph, sizes: Mapping[str, int], dtype: np.dtype, narrow: str = "") -> Step:
    """The compiled step; the one in NumPy where `use_backend` or EVERLOOP_BACKEND ask for another backend, and, with a
    warning, where no compiled one can be made. narrow: bfloat16 or int8, if matrices are stored so.
    """
    if asked() in (AUTO, "llvm"):
        try:
            from everloop.backends.llvm.step import LlvmStep

            return LlvmStep(graph, sizes, dtype, lambda weights: all_members(graph, sizes, weights), narrow)
        except Exception as error:
            _warn_once(graph.name, f"{type(error).__name__}: {error}")
    return NumpyStep(graph, sizes, dtype, narrow)


_warned: set[str] = set()


def _warn_once(graph: str, reason: str) -> None:
    if graph not in _warned:
        _warned.add(graph)
        warnings.warn(
            f"no step of {graph} could be compiled; it runs in NumPy instead, slower and just as right. "
            f"Please report this: {reason}",
            RuntimeWarning,
            stacklevel=4,
        )


class Engine:
    """A graph, compiled, with its weights.

    sizes: the lengths of the graph's sizes by name. weights: one array per stack of the graph (`Graph.stacks`).
    storage: what matrices are stored in, float32, bfloat16 or int8; computed is in dtype. bfloat16 keeps 8 bits of
    every weight; int8 keeps multiples of 1/127 of the largest weight that a result has (`Stream.accuracy` measures what
    that costs). None: dtype. starts: the first values of states that have learned them; the others have the graph's.
    """

    def __init__(
        self,
        graph: Graph,
        sizes: Mapping[str, int],
        weights: Mapping[str, np.ndarray],
        dtype: Any = np.float32,
        storage: str | None = None,
        starts: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.graph, self.dtype = graph, np.dtype(dtype)
        self.sizes = graph.sizes | dict(sizes)
        _check(graph, self.sizes, self.dtype)
        self.storage = _checked_storage(storage, self.dtype)
        self.step = make_step(graph, self.sizes, self.dtype, self.storage if self.storage in BYTES else "")
        self.packed = self.step.pack(weights)
        self.inputs = {name: length(leaf.size, self.sizes) for name, leaf in graph.inputs.items()}
        self.states = {name: length(leaf.size, self.sizes) for name, leaf in graph.states.items()}
        self.width = sum(self.states.values())
        self.output = length(graph.outputs["y"].size, self.sizes)
        self.starts = _checked_starts(starts or {}, self.states)
        self._digest = _digest_of({**weights, **{f"start of {name}": array for name, array in self.starts.items()}})

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {self.sizes[name]}" for name in self.graph.size_names)
        return f"{self.graph.name} ({sizes}) in {self.dtype}, weights in {self.storage}: {self.bytes:,} bytes"

    @property
    def bytes(self) -> int:
        """The memory of the weights, shared by all streams. Compiled steps lay them out once for single steps and once
        for longer chunks, each when such calls come: where both do, weights are there twice.
        """
        return self.step.bytes(self.packed)

    @property
    def features(self) -> int:
        """Features of x."""
        return self.inputs["x"]

    @cached_property
    def start(self) -> np.ndarray:
        """The states before the first step, side by side: [S]."""
        parts = [
            self.starts.get(name, np.full(width, self.graph.start.get(name, 0.0)))
            for name, width in self.states.items()
        ]
        return np.concatenate([np.zeros(0), *parts]).astype(self.dtype)

    @cached_property
    def defaults(self) -> dict[str, float]:
        """What side inputs are that nobody gives."""
        return {name: self._mean(name) for name in self.inputs if name in self.graph.start or name in self.graph.draws}

    def _mean(self, name: str) -> float:
        return self.graph.draws[name].mean if name in self.graph.draws else self.graph.start[name]

    def arrange(self, x: np.ndarray, side: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The inputs in the order of the graph, from x [T, n, I] and side inputs [T, n, F]."""
        given = {"x": x, **side}
        return tuple(
            np.ascontiguousarray(given[name], self.dtype)
            if name in given
            else np.full((*x.shape[:2], width), self.defaults[name], self.dtype)
            for name, width in self.inputs.items()
        )

    def check_side(self, names: Any) -> None:
        """Raise ValueError unless these are the side inputs that have to be given, or may be."""
        known = [name for name in self.inputs if name != "x"]
        for name in names:
            if name not in known:
                raise ValueError(f"side: {name!r} came; {self.graph.name} has {', '.join(known) or 'no side inputs'}")
        for name in known:
            if name not in names and name not in self.defaults:
                raise ValueError(f"side: {name} is missing; {self.graph.name} needs it at every step")

    def named(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """The states by name, copied, from [..., S]."""
        ends = np.cumsum([0, *self.states.values()])
        return {
            name: state[..., begin:end].copy() for name, begin, end in zip(self.states, ends, ends[1:], strict=False)
        }

    # Snapshots

    @cached_property
    def fingerprint(self) -> str:
        """What tells this engine from others: its graph, sizes, weights, and the types of numbers."""
        graph = self.graph
        made = {name: param.made for name, param in graph.params.items() if param.made is not None}
        facts = [_listed({**graph.inputs, **graph.new}), _listed(graph.outputs), _listed(made)]
        facts += [sorted(self.sizes.items()), sorted(self.defaults.items())]
        facts += [str(self.dtype), self.storage, self._digest]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def write(self, state: np.ndarray, extra: Mapping[str, np.ndarray] | None = None) -> bytes:
        """States [n, S] as a snapshot: safetensors, with the fingerprint of the model that they belong to."""
        facts = {"format": FORMAT, "model": self.fingerprint, "batch": len(state)}
        beside = {f"{EXTRA}{name}": np.ascontiguousarray(array) for name, array in (extra or {}).items()}
        return save(self.named(state) | beside, {"everloop.stream": json.dumps(facts)})

    def read(self, snapshot: bytes, batch: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The states of a snapshot [n, S] and what lies beside them; one of another model, or of another number of
        sequences, is refused.
        """
        facts, arrays = _unpacked(snapshot)
        if facts.get("format") != FORMAT:
            raise ValueError(f"snapshot: format {facts.get('format')!r} came; this Everloop reads format {FORMAT}")
        if facts.get("model") != self.fingerprint:
            raise ValueError(
                "snapshot: it is of another model (other equations, sizes, weights or number types); restore it in a "
                "stream of the model that it was taken from"
            )
        if facts.get("batch") != batch:
            raise ValueError(f"snapshot: it holds {facts.get('batch')} sequences; this stream has {batch}")
        parts = [np.zeros((batch, 0), self.dtype), *(arrays[name] for name in self.states)]
        extra = {name.removeprefix(EXTRA): array for name, array in arrays.items() if name not in self.states}
        return np.concatenate(parts, axis=1), extra


def _unpacked(snapshot: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not isinstance(snapshot, bytes | bytearray | memoryview):
        raise TypeError(f"snapshot: a {type(snapshot).__name__} came; expected the bytes that snapshot() gave")
    content = bytes(snapshot)
    try:
        size = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["everloop.stream"])
        return facts, load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"snapshot: these bytes are none, or damaged ({type(error).__name__}: {error})") from None


def _listed(values: Mapping[str, Expr]) -> list[Any]:
    """Expressions by name, as plain data."""
    order = toposort(values.values())
    place = {node: k for k, node in enumerate(order)}
    nodes = [(node.op, str(node.attr), str(node.size), [place[arg] for arg in node.args]) for node in order]
    return [nodes, [(name, place[node]) for name, node in values.items()]]


def _digest_of(weights: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        sha.update(array.data if array.size else b"")
    return sha.hexdigest()


def _check(graph: Graph, sizes: Mapping[str, int], dtype: np.dtype) -> None:
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype: {dtype} came; a stream computes in float32 or float64")
    missing = [name for name in graph.size_names if name not in sizes]
    if missing:
        raise ValueError(f"sizes: {missing[0]} is missing; {graph.name} has {', '.join(graph.size_names)}")
    for name in graph.size_names:
        if not isinstance(sizes[name], int) or sizes[name] < 1:
            raise ValueError(f"sizes: {name} = {sizes[name]!r} came; expected a whole number of 1 or more")
    for param in graph.params.values():
        param.shape(sizes)


def _checked_starts(starts: Mapping[str, np.ndarray], states: Mapping[str, int]) -> dict[str, np.ndarray]:
    found = {name: np.asarray(array) for name, array in starts.items()}
    for name, array in found.items():
        if name not in states:
            raise ValueError(f"starts: {name!r} came; there are {', '.join(states) or 'no states'}")
        if array.shape != (states[name],):
            raise ValueError(f"starts: {name} of shape {array.shape} came; expected {(states[name],)}")
    return found


def _checked_storage(storage: str | None, dtype: np.dtype) -> str:
    if storage is None or storage == dtype.name:
        return dtype.name
    front = f"storage of weights: {storage!r} came"
    if dtype != np.float32:
        raise ValueError(f"{front}; what is computed in {dtype} is stored so, fewer bits go with float32")
    if storage not in BYTES:
        raise ValueError(f"{front}; expected one of {', '.join([dtype.name, *BYTES])}")
    return storage
