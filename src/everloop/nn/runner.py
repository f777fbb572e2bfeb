"""A kernel on the arrays of a layer, whichever of its forms they have, read in either direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import compress
from typing import Any

from torch import Tensor

from everloop.backends import REFERENCE, Kernel, warn_of_failure
from everloop.backends.reference import ReferenceKernel
from everloop.lang.graph import Graph
from everloop.nn.packing import Packing

NOTHING: frozenset[str] = frozenset()
Arrays = Mapping[str, Tensor]


class Runner:
    """The kernel of a graph on one backend, for one device and type.

    Inputs and outputs are all [T, B, F] (whole: in the order of the caller) or all [N, F] (packed: step by step,
    longest sequence first), states [B, F] in the same order.
    """

    def __init__(self, backend: str, kernel: Kernel, graph: Graph, sizes: dict[str, int]) -> None:
        self._graph, self._sizes = graph, sizes
        self._take(backend, kernel)
        self.inputs, self.states, self.stacks = tuple(graph.inputs), tuple(graph.states), tuple(graph.stacks)
        self.outputs = tuple(graph.outputs)
        self._ready: set[frozenset[str] | None] = set()
        self._wanted: dict[tuple[bool, ...], frozenset[str]] = {}

    def _take(self, backend: str, kernel: Kernel) -> None:
        self.backend, self.kernel = backend, kernel
        self._takes_steps = getattr(kernel, "takes_steps", False)
        self._takes_reverse = self._takes_steps and getattr(kernel, "takes_reverse", False)

    @cached_property
    def reference(self) -> Runner:
        """The same in operations that torch can differentiate, any number of times."""
        if self.backend == REFERENCE:
            return self
        return Runner(REFERENCE, ReferenceKernel(self._graph, self._sizes), self._graph, self._sizes)

    def make_ready(self, wanted: frozenset[str] | None) -> None:
        """Compile what these gradients need (None: no gradient); where that fails, the reference runs from now on."""
        if wanted in self._ready:
            return
        prepare = getattr(self.kernel, "prepare", None)
        if prepare is not None:
            try:
                prepare(wanted)
            except Exception as error:
                warn_of_failure(self.backend, self._graph.name, error)
                self._take(REFERENCE, self.reference.kernel)
        self._ready.add(wanted)

    def forward(
        self,
        inputs: Arrays,
        states: Arrays,
        weights: Arrays,
        packing: Packing,
        *,
        reverse: bool,
        keep: bool,
        wanted: frozenset[str] = NOTHING,
        room: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Outputs, final states, and with `keep` what `backward` reads."""
        whole = inputs["x"].dim() == 3
        how: dict[str, Any] = {"keep": keep, "wanted": wanted}
        if room is not None:
            how["room"] = room
        if self.as_they_lie(whole, reverse):
            how |= _layout(whole, packing, reverse)
            return self.kernel.forward(inputs, states, weights, packing.batch_sizes, **how)
        outputs, final, saved = self.kernel.forward(
            _packed(inputs, whole, reverse, packing),
            _sorted(states, whole, packing),
            weights,
            packing.batch_sizes,
            **how,
        )
        return _unpacked(outputs, whole, reverse, packing), _unsorted(final, whole, packing), saved

    def backward(
        self,
        saved: Arrays,
        grads: Mapping[str, Tensor | None],
        final_grads: Mapping[str, Tensor | None],
        weights: Arrays,
        packing: Packing,
        *,
        whole: bool,
        reverse: bool,
        wanted: frozenset[str],
        groups: int = 0,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """The gradients of inputs, initial states and stacks, from those of outputs and final states. groups: see
        `takes_groups`.
        """
        if self.as_they_lie(whole, reverse):
            how = _layout(whole, packing, reverse) | ({"groups": groups} if groups else {})
            return self.kernel.backward(saved, grads, final_grads, weights, packing.batch_sizes, wanted, **how)
        inputs, states, stacks = self.kernel.backward(
            saved,
            _packed(grads, whole, reverse, packing),
            _sorted(final_grads, whole, packing),
            weights,
            packing.batch_sizes,
            wanted,
        )
        return _unpacked(inputs, whole, reverse, packing), _unsorted(states, whole, packing), stacks

    def takes_groups(self, whole: bool, reverse: bool) -> bool:
        """Whether `backward` can give gradients of the weights for so many groups of sequences, each by itself."""
        return whole and self.as_they_lie(whole, reverse) and getattr(self.kernel, "takes_groups", False)

    def as_they_lie(self, whole: bool, reverse: bool) -> bool:
        """Whether the kernel takes arrays of this form itself."""
        if whole:
            return self._takes_reverse if reverse else self._takes_steps
        return not reverse

    def sort(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Inputs, states and stacks by name, from all of them in a row."""
        a, b = len(self.stacks), len(self.stacks) + len(self.inputs)
        return (
            dict(zip(self.inputs, tensors[a:b], strict=True)),
            dict(zip(self.states, tensors[b:], strict=True)),
            self.weights(tensors),
        )

    def row(self, inputs: Mapping[str, Any], states: Mapping[str, Any], stacks: Mapping[str, Any]) -> list[Any]:
        """All of them in a row; None for what is not there."""
        return [
            *(stacks.get(name) for name in self.stacks),
            *(inputs.get(name) for name in self.inputs),
            *(states.get(name) for name in self.states),
        ]

    def weights(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.stacks, tensors, strict=False))

    def name(self, results: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Outputs and final states by name, or their gradients, from all of them in a row."""
        count = len(self.outputs)
        return (
            dict(zip(self.outputs, results[:count], strict=True)),
            dict(zip(self.states, results[count:], strict=True)),
        )

    def results(self, outputs: Arrays, final: Arrays) -> tuple[Tensor, ...]:
        return (*(outputs[name] for name in self.outputs), *(final[name] for name in self.states))

    def wanted(self, needed: tuple[bool, ...]) -> frozenset[str]:
        """The names of what needs a gradient, from all in a row."""
        found = self._wanted.get(needed)
        if found is None:
            found = self._wanted[needed] = frozenset(compress((*self.stacks, *self.inputs, *self.states), needed))
        return found


def _layout(whole: bool, packing: Packing, reverse: bool) -> dict[str, Any]:
    """What a kernel has to know of arrays that it takes as they lie."""
    more: dict[str, Any] = {}
    if whole and packing.order is not None:
        more["order"] = packing.order
    if reverse:
        more["reverse"] = True
    return more


def _packed(arrays: Mapping[str, Any], whole: bool, reverse: bool, packing: Packing) -> dict[str, Any]:
    """Packed rows [N, F], each sequence the other way round where it is read so."""
    found = dict(arrays)
    if whole:
        found = {name: None if a is None else packing.pack(a.transpose(0, 1)) for name, a in found.items()}
    if reverse:
        found = {name: None if a is None else packing.turned(a) for name, a in found.items()}
    return found


def _unpacked(arrays: Arrays, whole: bool, reverse: bool, packing: Packing) -> dict[str, Tensor]:
    found = dict(arrays)
    if reverse:
        found = {name: packing.turned(array) for name, array in found.items()}
    if whole:
        found = {name: packing.unpack(array).transpose(0, 1) for name, array in found.items()}
    return found


def _sorted(arrays: Mapping[str, Any], whole: bool, packing: Packing) -> Mapping[str, Any]:
    if not whole or packing.order is None:
        return arrays
    return {name: None if array is None else packing.sort(array) for name, array in arrays.items()}


def _unsorted(arrays: dict[str, Tensor], whole: bool, packing: Packing) -> dict[str, Tensor]:
    if not whole or packing.order is None:
        return arrays
    return {name: packing.original(array) for name, array in arrays.items()}
