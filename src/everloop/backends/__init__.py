"""Backends turn the graph of a cell into a kernel that runs. One file each, discovered; of those that do not refuse,
the one of the highest rank is taken, or the one that is asked for by name.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import threading
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from everloop.lang.graph import Graph

AUTO, REFERENCE = "auto", "reference"
VARIABLE = "EVERLOOP_BACKEND"


class Kernel(Protocol):
    """A compiled cell. Arrays are packed: [N, F] holds the rows of step 0, then those of step 1, and so on; step t has
    batch_sizes[t] rows, longest sequences first; a state has a row for every sequence, also for those of no step.
    Arrays come as they lie in memory, which may be in any way, and stay as they are. `source` shows what was compiled.

    A kernel that compiles when it is first called has `prepare(wanted)`, too, which compiles what `forward` and
    `backward` will need (None: `forward` without `keep`): where that fails, the reference runs instead.

    A kernel with `takes_steps = True` may get inputs as [T, B, F] and states in the order of the caller, and gives what
    it makes so; forward and backward then take a further `order`, int64 [B]: the sequences, longest first, where they
    differ in length. What lies past the end of a sequence is not read, and is zero in what comes out.

    One with `takes_reverse = True` may then get `reverse=True`, forward and backward: every sequence is read from its
    own end to its start, and what comes out lies in the order of the inputs.

    One with `takes_groups = True` may get `groups`, backward on [T, B, F] alone: of so many groups of sequences of one
    size, one after the other, each has gradients of the stacks of its own, [groups, ...].

    One that chooses anew for every shape says so in `notes`, words for each of the calls that it has run.

    A kernel with `keeps(wanted, sequences, rows)` says, from sizes alone (ints, or symbols of torch), how many numbers
    of type `kept_dtype` forward keeps at most. rows: of all steps, [N, F] or [T, B, F] without F. Its forward may get
    `room`, one axis of exactly so many, and keeps in it alone: `kept_in(room, inputs, sequences, shape)` gives what
    backward reads (shape: that of an input without F), in another call or at another number of threads, too.
    """

    @property
    def source(self) -> str: ...

    def forward(
        self,
        inputs: Mapping[str, Any],
        states: Mapping[str, Any],
        weights: Mapping[str, Any],
        batch_sizes: Sequence[int],
        *,
        keep: bool,
        wanted: frozenset[str],
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Inputs {name: [N, F]}, states {name: [B, F]} and stacks of weights {name: array} give the outputs
        {name: [N, F]}, the final states {name: [B, F]}, and, with `keep`, what `backward` reads, by names of its own.

        wanted: the inputs, states and stacks whose gradient `backward` will be asked for.
        """
        ...

    def backward(
        self,
        saved: Mapping[str, Any],
        grads: Mapping[str, Any],
        final_grads: Mapping[str, Any],
        weights: Mapping[str, Any],
        batch_sizes: Sequence[int],
        wanted: frozenset[str],
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """What `forward` kept, and the gradients of outputs and of final states (None: nobody used that one; one at
        least is given), give the gradients of the wanted inputs, initial states and stacks, by name.

        May be called again with the same `saved`.
        """
        ...


class Backend(Protocol):
    """device: as torch names its type ("cpu", "cuda"). dtype: as torch spells it ("torch.float32")."""

    name: str
    rank: int

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        """Empty if this backend can run the graph; otherwise the reason, in words."""
        ...

    def compile(self, graph: Graph, sizes: dict[str, int], device: str, dtype: str) -> Kernel:
        """graph: as `everloop.compiler.kernel.kernel_graph` gives it; sizes: the length of each of its sizes."""
        ...


# -- which there are -------------------------------------------------------------------------------------------------


@cache
def backends() -> tuple[Backend, ...]:
    """Every backend, the preferred ones first."""
    return tuple(sorted(map(_loaded, names()), key=lambda backend: -backend.rank))


@cache
def names() -> tuple[str, ...]:
    """The names of all backends, none of them loaded."""
    own = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return tuple(sorted({*own, *_outside()}))


@cache
def _loaded(name: str) -> Backend:
    outside = _outside()
    return outside[name].load() if name in outside else importlib.import_module(f"{__name__}.{name}").backend


@cache
def _outside() -> dict[str, Any]:
    """Backends of other packages."""
    return {entry.name: entry for entry in entry_points(group="everloop.backends")}


# -- which one is taken ----------------------------------------------------------------------------------------------


class _Asked(threading.local):
    """The names that `use_backend` has set in this thread, the innermost last."""

    def __init__(self) -> None:
        self.names: list[str] = []


_asked = _Asked()
_process = [""]


class use_backend:
    """Run on one backend, by its name; None or "auto": on the preferred one that does not refuse.

        with use_backend("reference"):    in this block, for this thread alone
            layer(x)
        use_backend("reference")          from now on, for the whole process

    The innermost block counts, then the process, then the environment variable EVERLOOP_BACKEND. What is differentiated
    runs backward on the backend that ran it forward.
    """

    def __init__(self, name: str | None) -> None:
        self.name = _known(name or AUTO)
        self._before = _process[0]
        _process[0] = self.name

    def __enter__(self) -> None:
        _process[0] = self._before
        _asked.names.append(self.name)

    def __exit__(self, *_: object) -> None:
        _asked.names.pop()


def asked() -> str:
    """The name of the backend to run on here and now, or "auto"."""
    if _asked.names:
        return _asked.names[-1]
    return _process[0] or os.environ.get(VARIABLE) or AUTO


def choose(graph: Graph, device: str, dtype: str, name: str) -> Backend:
    """The backend of this name, or, for "auto", the first that does not refuse."""
    if _known(name) != AUTO:
        backend = _loaded(name)
        reason = backend.refuses(graph, device, dtype)
        if reason:
            raise NotImplementedError(f"backend {name} was asked for and does not run {graph.name}: {reason}")
        return backend
    reasons = []
    for backend in backends():
        reason = backend.refuses(graph, device, dtype)
        if not reason:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    raise NotImplementedError(f"no backend runs {graph.name} on {device} in {dtype}: {'; '.join(reasons)}")


def compile_kernel(graph: Graph, sizes: dict[str, int], device: str, dtype: str, name: str) -> tuple[str, Kernel]:
    """A kernel, and the name of the backend that made it: the one of this name, or the one that is chosen; where it
    fails, the reference, with a warning.
    """
    backend = choose(graph, device, dtype, name)
    if backend.name != REFERENCE:
        try:
            return backend.name, backend.compile(graph, sizes, device, dtype)
        except Exception as error:
            warn_of_failure(backend.name, graph.name, error)
    return REFERENCE, _loaded(REFERENCE).compile(graph, sizes, device, dtype)


_warned: set[tuple[str, str]] = set()


def warn_of_failure(backend: str, cell: str, error: Exception) -> None:
    """Say once that the reference runs a cell because a backend could not compile it."""
    if (backend, cell) not in _warned:
        _warned.add((backend, cell))
        warnings.warn(
            f"backend {backend} failed to compile {cell}: the reference runs it instead, as right and slower. Please "
            f"report this, it should not happen: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=3,
        )


def _known(name: str) -> str:
    if name != AUTO and name not in names():
        raise ValueError(f"no backend is named {name!r}; there are {', '.join(names())}, and {AUTO!r} for the fastest")
    return name
