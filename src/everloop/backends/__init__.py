"""Backends turn the loop of a plan into a kernel that runs. One file each, discovered; the highest rank that
does not refuse is taken.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from everloop.lang.graph import Graph


class Kernel(Protocol):
    """A compiled loop. Arrays are packed: [N, F] holds the rows of step 0, then those of step 1, and so on; step t
    has batch_sizes[t] rows, longest sequences first. `source` shows what was compiled.
    """

    source: str

    def forward(
        self, inputs: Any, states: Any, weights: Any, batch_sizes: list[int], *, keep: bool
    ) -> tuple[Any, Any, Any]:
        """Packs of inputs {names: [N, F]}, states {name: [B, H]} and stacks of weights {name: array} give the outputs
        {name: [N, F]}, the final states {name: [B, H]}, and, with `keep`, what `backward` reads {name: [N, F]}.
        """
        ...

    def backward(
        self, saved: Any, grads: Any, final_grads: Any, weights: Any, batch_sizes: list[int], packs: Any
    ) -> tuple[Any, Any, Any]:
        """What `forward` kept, and the gradients of outputs and final states, give the gradients of the packs (a list),
        of the initial states and of the stacks of weights (by name).
        """
        ...


class Backend(Protocol):
    name: str
    rank: int

    def refuses(self, graph: Graph, device: str, dtype: str) -> str:
        """Empty if this backend can run the loop; otherwise the reason, in words."""
        ...

    def compile(self, graph: Graph, sizes: dict[str, int]) -> Kernel: ...


@cache
def backends() -> tuple[Backend, ...]:
    """Every backend, the preferred ones first."""
    own = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    found = [importlib.import_module(f"{__name__}.{name}").backend for name in own]
    found += [entry.load() for entry in entry_points(group="everloop.backends")]
    return tuple(sorted(found, key=lambda backend: -backend.rank))


def choose(graph: Graph, device: str, dtype: str) -> Backend:
    """The first backend that does not refuse."""
    reasons = []
    for backend in backends():
        reason = backend.refuses(graph, device, dtype)
        if not reason:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    raise NotImplementedError(f"no backend runs {graph.name} on {device} in {dtype}: {'; '.join(reasons)}")
