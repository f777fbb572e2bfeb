"""The one autograd function: a layer's recurrence on packed sequences, for any cell and any backend."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from itertools import accumulate, compress
from typing import Any

import torch
from torch import Tensor

from everloop.backends import REFERENCE, Kernel, asked, compile_kernel, warn_of_failure
from everloop.backends._evaluate import evaluate
from everloop.backends._values import Values, Weights
from everloop.backends.reference import ReferenceKernel
from everloop.compiler.ahead import ahead
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.cell import Cell
from everloop.lang.expr import Expr
from everloop.lang.graph import Graph
from everloop.nn.packing import Packing


class Recurrence:
    """One cell with its sizes, ready to run: the states that need no past, matrices made of others, the kernel."""

    def __init__(self, cell: Cell, sizes: dict[str, int]) -> None:
        self.cell, self.sizes = cell, sizes
        found = ahead(cell.graph)
        self.graph = kernel_graph(found.graph)
        self._early = {name: plan(_graph_of(name, value, found.graph)) for name, value in found.values.items()}
        members = {stack: tuple(param.name for param in params) for stack, params in self.graph.stacks.items()}
        held = {stack: tuple(param.name for param in params) for stack, params in cell.graph.stacks.items()}
        # Where the kernel takes other arrays than the layer holds: the members of these, nothing for those held.
        gathered = {stack: names if held.get(stack) != names else () for stack, names in members.items()}
        self._gathered = gathered if members != held else {}
        self._kernels: dict[tuple[str, torch.device, torch.dtype], _Compiled] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Recurrence, (self.cell, self.sizes)

    def __deepcopy__(self, _: Any) -> Recurrence:
        return self

    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        packing: Packing,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x and the side inputs [N, F] and states [B, H] give the outputs [N, H] and the final states [B, H]; packed,
        longest first. They may be [T, B, F], and states in the order of the batch: then what comes out is so, too.
        """
        early: dict[str, Tensor] = {}
        if self._early or self._gathered:
            members = Weights(self.cell.graph, self.sizes, weights, inputs["x"])
            if self._early:
                inputs, early = self._run_early(inputs, states, members, packing.batch_sizes)
                states = {name: states[name] for name in self.graph.states}
            if self._gathered:
                stacks = self._gathered.items()
                weights = {stack: members.stacked(names) if names else weights[stack] for stack, names in stacks}
        outputs, final = self._kernel(inputs["x"], weights)(inputs, states, weights, packing)
        return outputs["y"], {**final, **early} if early else final

    def _run_early(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        members: Weights,
        batch_sizes: Sequence[int],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inputs, with the states that need no past among them, and the final values of these."""
        given, final, total = dict(inputs), {}, inputs["x"].shape[0]
        for name, schedule in self._early.items():
            graph = schedule.graph
            values = Values(members, self.sizes, inputs["x"])
            values.update({leaf: given[other] for other, leaf in graph.inputs.items() if other in given})
            evaluate(schedule.before, values, total)
            given[name], final[name] = delay(values.rows(graph.outputs["y"], total), states[name], batch_sizes)
        return given, final

    def ran_on(self, x: Tensor) -> str:
        """The backend whose kernel has run arrays like x, if any has."""
        found = self._kernels.get((asked(), x.device, x.dtype))
        return found.backend if found else ""

    def _kernel(self, x: Tensor, weights: Mapping[str, Tensor]) -> _Compiled:
        device, dtype, backend = x.device, x.dtype, asked()
        for array in weights.values():
            if array.dtype is not dtype or array.device != device:
                # What does not fit together is torch's to convert, or to refuse.
                backend = REFERENCE
        key = (backend, device, dtype)
        found = self._kernels.get(key)
        if found is None:
            backend, kernel = compile_kernel(self.graph, self.sizes, device.type, str(dtype), backend)
            found = self._kernels[key] = _Compiled(backend, kernel, self.graph, self.sizes)
        return found


def _graph_of(name: str, value: Expr, graph: Graph) -> Graph:
    """A graph of one value that needs no state."""
    return Graph(f"{graph.name}, {name}", graph.inputs, {}, graph.params, {}, {"y": value})


def delay(new: Tensor, first: Tensor, batch_sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """New values of all steps [N, F] and the old value before the first [B, F] give the old values [N, F] and the last
    new ones [B, F]; packed, longest first.
    """
    if not batch_sizes:
        return new, first
    running = batch_sizes[0]
    if running == batch_sizes[-1] == first.shape[0]:
        return torch.cat([first, new[:-running]]), new[-running:]
    began = list(accumulate(batch_sizes, initial=0))
    steps = zip(began, batch_sizes[1:], strict=False)
    rows = [torch.arange(begin, begin + count) for begin, count in steps]
    before = new.index_select(0, torch.cat(rows).to(new.device)) if rows else new[:0]
    lengths = [bisect_left(batch_sizes, -row, key=operator.neg) for row in range(running)]
    ends = [began[length - 1] + row for row, length in enumerate(lengths)]
    last = new.index_select(0, torch.tensor(ends, device=new.device))
    return torch.cat([first[:running], before]), torch.cat([last, first[running:]])


class _Compiled:
    """A cell's kernel as a function of tensors that torch can differentiate, any number of times."""

    def __init__(self, backend: str, kernel: Kernel, graph: Graph, sizes: dict[str, int]) -> None:
        self.backend, self._kernel, self._graph, self._sizes = backend, kernel, graph, sizes
        self.inputs, self.states, self.stacks = tuple(graph.inputs), tuple(graph.states), tuple(graph.stacks)
        self.outputs = tuple(graph.outputs)
        self.wanted = cache(self._wanted)
        self.kernel_for = cache(self._kernel_for)

    @property
    def takes_steps(self) -> bool:
        """Whether arrays may come as [T, B, F], as they lie in memory."""
        return getattr(self._kernel, "takes_steps", False)

    @cached_property
    def reference(self) -> ReferenceKernel:
        """What torch can look into."""
        return ReferenceKernel(self._graph, self._sizes)

    def _kernel_for(self, wanted: frozenset[str] | None) -> Kernel:
        """The kernel, ready for these gradients, or for none at all; the reference where it cannot be made ready."""
        prepare = getattr(self._kernel, "prepare", None)
        if prepare is not None:
            try:
                prepare(wanted)
            except Exception as error:
                warn_of_failure(self.backend, self._graph.name, error)
                self.backend, self._kernel = REFERENCE, self.reference
                raise _Replaced from error
        return self._kernel

    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        packing: Packing,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        whole = inputs["x"].dim() == 3
        if not whole or self.takes_steps:
            try:
                return self._run(inputs, states, weights, packing)
            except _Replaced:
                return self(inputs, states, weights, packing)
        try:
            outputs, final = self._run(*_packed(inputs, states, packing), weights, packing)
        except _Replaced:
            return self(inputs, states, weights, packing)
        return _unpacked(outputs, final, packing)

    def _run(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        packing: Packing,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if torch.is_grad_enabled():
            tensors = [weights[name] for name in self.stacks]
            tensors += [inputs[name] for name in self.inputs]
            tensors += [states[name] for name in self.states]
            if any(tensor.requires_grad for tensor in tensors):
                return self.name(_Loop.apply(self, packing, (inputs, states, weights), *tensors))
        kernel, more = self.kernel_for(None), _ordered(inputs["x"], packing)
        outputs, final, _ = kernel.forward(
            inputs, states, weights, packing.batch_sizes, keep=False, wanted=NOTHING, **more
        )
        return outputs, final

    def sort(self, tensors: Sequence[Tensor]) -> _Given:
        """Inputs, states and stacks by name, from all of them in a row."""
        a, b = len(self.stacks), len(self.stacks) + len(self.inputs)
        return (
            dict(zip(self.inputs, tensors[a:b], strict=True)),
            dict(zip(self.states, tensors[b:], strict=True)),
            self.weights(tensors),
        )

    def weights(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.stacks, tensors, strict=False))

    def name(self, results: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Outputs and final states by name, or their gradients, from all of them in a row."""
        count = len(self.outputs)
        return (
            dict(zip(self.outputs, results[:count], strict=True)),
            dict(zip(self.states, results[count:], strict=True)),
        )

    def row(self, outputs: Mapping[str, Tensor], final: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return (*(outputs[name] for name in self.outputs), *(final[name] for name in self.states))

    def _wanted(self, needed: tuple[bool, ...]) -> frozenset[str]:
        return frozenset(compress((*self.stacks, *self.inputs, *self.states), needed))


class _Replaced(Exception):
    """The kernel could not be made ready; another one has its place."""


def _packed(
    inputs: Mapping[str, Tensor], states: Mapping[str, Tensor], packing: Packing
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """[T, B, F] and [B, F] as [N, F] and [B, F] longest first."""
    return (
        {name: packing.pack(array.transpose(0, 1)) for name, array in inputs.items()},
        {name: packing.sort(array) for name, array in states.items()},
    )


def _unpacked(
    outputs: Mapping[str, Tensor], final: Mapping[str, Tensor], packing: Packing
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return (
        {name: packing.unpack(array).transpose(0, 1) for name, array in outputs.items()},
        {name: packing.original(array) for name, array in final.items()},
    )


def _ordered(x: Tensor, packing: Packing) -> dict[str, Any]:
    """The order of sequences of several lengths, for a kernel that gets them as they are."""
    return {"order": packing.order} if x.dim() == 3 and packing.order is not None else {}


NOTHING: frozenset[str] = frozenset()
_Given = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]]


class _Loop(torch.autograd.Function):
    """A kernel's forward and backward."""

    @staticmethod
    def forward(ctx: Any, run: _Compiled, packing: Packing, given: _Given, *tensors: Tensor) -> tuple[Tensor, ...]:
        wanted = run.wanted(ctx.needs_input_grad[3:])
        more = _ordered(given[0]["x"], packing)
        kernel = run.kernel_for(wanted)
        outputs, final, saved = kernel.forward(*given, packing.batch_sizes, keep=True, wanted=wanted, **more)
        ctx.run, ctx.packing, ctx.wanted, ctx.names, ctx.more = run, packing, wanted, tuple(saved), more
        ctx.save_for_backward(*tensors, *saved.values())
        ctx.set_materialize_grads(False)
        return run.row(outputs, final)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        run: _Compiled = ctx.run
        arrays = ctx.saved_tensors
        count = len(arrays) - len(ctx.names)
        tensors, kept = arrays[:count], arrays[count:]
        if all(grad is None for grad in grads):
            return (None,) * (3 + len(tensors))
        if torch.is_grad_enabled():
            return None, None, None, *_by_torch(run, ctx.packing, tensors, grads)
        saved = dict(zip(ctx.names, kept, strict=True))
        outputs, final = run.name(grads)
        inputs, states, stacks = run.kernel_for(ctx.wanted).backward(
            saved, outputs, final, run.weights(tensors), ctx.packing.batch_sizes, ctx.wanted, **ctx.more
        )
        return (
            None,
            None,
            None,
            *(stacks.get(name) for name in run.stacks),
            *(inputs.get(name) for name in run.inputs),
            *(states.get(name) for name in run.states),
        )


def _by_torch(
    run: _Compiled, packing: Packing, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradient as something that can be differentiated again: by torch, through the reference."""
    inputs, states, weights = run.sort(tensors)
    whole = inputs["x"].dim() == 3
    if whole:
        inputs, states = _packed(inputs, states, packing)
    outputs, final, _ = run.reference.forward(inputs, states, weights, packing.batch_sizes, keep=False)
    if whole:
        outputs, final = _unpacked(outputs, final, packing)
    pairs = [
        (result, grad)
        for result, grad in zip(run.row(outputs, final), grads, strict=True)
        if grad is not None and result.requires_grad
    ]
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in pairs],
            wanted,
            [grad for _, grad in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(next(found) if tensor.requires_grad else None for tensor in tensors)
