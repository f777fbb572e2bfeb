"""What the operators of `everloop.nn.operator` do with real arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from everloop.backends import REFERENCE, use_backend
from everloop.nn.function import Recurrence, find
from everloop.nn.packing import Packing
from everloop.nn.runner import Runner
from everloop.nn.transforms import How, kinds_of, kinds_of_results, split, together


class Call:
    """The arguments of an operator, put in order."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        given: Tensor | None,
        key: str,
        backend: str,
        reverse: bool,
    ) -> None:
        self.recurrence: Recurrence = find(key)
        self.given, self.backend, self.reverse = given, backend, reverse
        self.arrays = [*inputs, *states, *weights]
        self.named = self.by_name(self.arrays)
        x = inputs[0]
        self.whole, self.shape = x.dim() == 3, x.shape[:-1]
        self.x = x
        self.batch: Any = states[0].shape[0] if states else self.shape[-1] if self.whole else None
        if self.batch is None:
            # Packed rows of a cell without states: those of the first step.
            assert given is not None
            self.batch = int(given[0]) if len(given) else 0

    @property
    def names(self) -> tuple[str, ...]:
        found = self.recurrence
        return (*found.inputs, *found.states, *found.stacks)

    def by_name(self, arrays: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Inputs, states and weights."""
        found, rest = self.recurrence, iter(arrays)
        a, b, c = ({name: next(rest) for name in part} for part in (found.inputs, found.states, found.stacks))
        return a, b, c

    def wanted(self, wanted: Sequence[bool]) -> frozenset[str]:
        return frozenset(name for name, want in zip(self.names, wanted, strict=True) if want)

    @property
    def packing(self) -> Packing:
        if self.whole:
            time, batch = self.shape
            if self.given is None:
                return Packing.full(batch, time)
            return Packing.of(self.given, batch, time, self.x.device)
        assert self.given is not None
        sizes = tuple(count for count in self.given.tolist() if count)
        return Packing(self.batch, len(sizes), sizes, given=self.given)

    @property
    def runner(self) -> Runner:
        x = self.x
        # What does not fit together is torch's to convert, or to refuse: a kernel would read over the end.
        fits = all(array.dtype is x.dtype and array.device == x.device for array in self.arrays)
        return self.recurrence.runner(self.backend if fits else REFERENCE, x.device, x.dtype)

    @property
    def takes_groups(self) -> bool:
        return self.recurrence.plain and self.runner.takes_groups(self.whole, self.reverse)

    def room(self, wanted: Sequence[bool]) -> Tensor | None:
        """Memory for what the kernel keeps; None if nothing is wanted, or it cannot say how much that is."""
        if not any(wanted) or not self.recurrence.plain or self.x.device.type == "meta":
            return None
        runner, names = self.runner, self.wanted(wanted)
        runner.make_ready(names)
        keeps = getattr(runner.kernel, "keeps", None)
        if keeps is None or not runner.as_they_lie(self.whole, self.reverse):
            return None
        rows = self.shape[0] * self.shape[1] if self.whole else self.shape[0]
        dtype = getattr(torch, runner.kernel.kept_dtype.removeprefix("torch."))  # type: ignore[attr-defined]
        return self.x.new_empty(keeps(names, self.batch, rows), dtype=dtype)

    def run(
        self, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor], weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with use_backend(self.backend):
            return self.recurrence.run(inputs, states, weights, self.packing, self.reverse)

    @property
    def output_widths(self) -> list[int]:
        graph, sizes = self.recurrence.graph, self.recurrence.sizes
        return [sizes[str(graph.outputs[name].size)] for name in self.recurrence.outputs]

    def blank_rows(self, width: int) -> Tensor:
        """Room for a value of every row, in memory batch first."""
        if not self.whole:
            return self.x.new_empty(*self.shape, width)
        time, batch = self.shape
        return self.x.new_empty(batch, time, width).transpose(0, 1)

    def laid_out(self, outputs: Mapping[str, Tensor], final: Mapping[str, Tensor]) -> list[Tensor]:
        """Outputs and final states as `blank_rows` promises them, each in memory of its own."""
        rows = [outputs[name] for name in self.recurrence.outputs]
        laid = [y.transpose(0, 1).contiguous().transpose(0, 1) if self.whole else y.contiguous() for y in rows]
        return self._apart([*laid, *(final[name].contiguous() for name in self.recurrence.states)])

    def own(self, arrays: Sequence[Tensor]) -> list[Tensor]:
        """Gradients as they are promised: without gaps, each in memory of its own."""
        return self._apart([array.contiguous() for array in arrays])

    def _apart(self, arrays: Sequence[Tensor]) -> list[Tensor]:
        seen = {array.untyped_storage().data_ptr() for array in self.arrays}
        found = []
        for array in arrays:
            place = array.untyped_storage().data_ptr()
            found.append(array.clone() if place in seen else array)
            seen.add(place)
        return found


def group_by_group(
    call: Call, grads: Sequence[Tensor], wanted: Sequence[bool], there: Sequence[bool], groups: int
) -> list[Tensor]:
    found = call.recurrence
    counts = len(found.inputs), len(found.states), len(found.stacks)
    how = How(found.key, call.backend, call.reverse, counts, len(found.outputs))
    kinds = kinds_of(how)
    arrays = (call.given, *call.arrays, *grads)
    parts = []
    for given, *rest in split(arrays, ("sequences", *kinds, *kinds_of_results(how, there)), groups):
        lists, handed = how.lists(rest), rest[how.arrays :]
        how_it_is = given, found.key, call.backend, call.reverse, wanted, there, 0
        parts.append(torch.ops.everloop.recurrence_gradient(*lists, handed, None, *how_it_is))
    return together(parts, [kind for kind, want in zip(kinds, wanted, strict=True) if want], of_weights=torch.stack)


def gradients(
    call: Call,
    leaves: Sequence[Tensor],
    grads: Sequence[Tensor],
    wanted: Sequence[bool],
    there: Sequence[bool],
    create_graph: bool = False,
) -> list[Tensor]:
    """The gradients of the wanted leaves, by doing it all again."""
    outputs, final = call.run(*call.by_name(leaves))
    made = [*(outputs[name] for name in call.recurrence.outputs), *(final[name] for name in call.recurrence.states)]
    results = [result for result, one in zip(made, there, strict=True) if one]
    return pulled_back(results, grads, [leaf for leaf, want in zip(leaves, wanted, strict=True) if want], create_graph)


def pulled_back(
    results: Sequence[Tensor], grads: Sequence[Tensor], ends: Sequence[Tensor], create_graph: bool = False
) -> list[Tensor]:
    """The gradients of the ends, from those of the results; zero where there is none."""
    pairs = [(result, grad) for result, grad in zip(results, grads, strict=True) if result.requires_grad]
    if not pairs or not ends:
        return [torch.zeros_like(end) for end in ends]
    found = torch.autograd.grad(
        [result for result, _ in pairs],
        ends,
        [grad for _, grad in pairs],
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return list(found)


_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.BackendSelect).add(torch._C.DispatchKey.ADInplaceOrView)
_GRADIENTS = [getattr(torch._C.DispatchKey, f"Autograd{kind}") for kind in ("Functionality", "Other", "NestedTensor")]


@contextmanager
def differentiable() -> Iterator[None]:
    """Inside an operator, torch's own gradients are off, and modes may listen; here it is as outside of any."""
    left_out = torch._C._dispatch_tls_local_exclude_set()
    for key in _GRADIENTS:
        left_out = left_out.remove(key)
    with torch._C._ForceDispatchKeyGuard(_KEYS, left_out), torch.enable_grad():
        yield
