"""The one autograd function: a layer's recurrence on packed sequences, for any cell and any backend."""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from everloop.backends import Kernel, choose
from everloop.backends._values import Values, Weights
from everloop.backends.reference import evaluate
from everloop.compiler.ahead import ahead
from everloop.compiler.plan import label, plan, split
from everloop.lang.cell import Cell
from everloop.lang.expr import Expr
from everloop.lang.graph import Graph


class Recurrence:
    """One cell with its sizes, ready to run: what precedes the loop, the loop's kernel, what follows it."""

    def __init__(self, cell: Cell, sizes: dict[str, int]) -> None:
        self.cell, self.sizes = cell, sizes
        early = ahead(cell.graph)
        self.plan = plan(early.graph)
        self._early = {name: plan(_graph_of(name, value, early.graph)) for name, value in early.values.items()}
        self.loop = split(self.plan)
        self._labels = dict(zip(self.loop.outputs, self.plan.history, strict=True))
        names = label(self.plan.graph)
        self._packs = tuple(tuple(names[node] for node in pack) for pack in self.plan.feeds)
        self._fixed = {f"{names[node]}.fixed": node for node in self.plan.fixed if node.size is not None}
        self._kernels: dict[tuple[str, str], Kernel] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Recurrence, (self.cell, self.sizes)

    def __deepcopy__(self, _: Any) -> Recurrence:
        return self

    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x and the side inputs [N, F] and states [B, H] give the outputs [N, H] and the final states [B, H]; packed,
        longest first.
        """
        graph, x = self.plan.graph, inputs["x"]
        total = x.shape[0]
        members = Weights(self.cell.graph, self.sizes, weights, x)
        values = Values(members, self.sizes, x)
        values.update({graph.inputs[name]: array for name, array in inputs.items()})
        final: dict[str, Tensor] = {}
        for name, schedule in self._early.items():
            evaluate(schedule.before, values, total)
            new = values.rows(schedule.graph.outputs["y"], total)
            values[graph.inputs[name]], final[name] = delay(new, states[name], batch_sizes)
        evaluate(self.plan.before, values, total)
        if graph.states:
            final |= self._loop(values, {name: states[name] for name in graph.states}, members, batch_sizes)
        evaluate(self.plan.after, values, total)
        return values.rows(graph.outputs["y"], total), {name: final[name] for name in states}

    def _loop(
        self, values: Values, states: Mapping[str, Tensor], members: Weights, batch_sizes: Sequence[int]
    ) -> dict[str, Tensor]:
        """Run the kernel; `values` receives the histories. The final states."""
        total = values.like.shape[0]
        packs = [values.pack(pack, total) for pack in self.plan.feeds]
        fixed = {leaf: values[node] for leaf, node in self._fixed.items()}
        stacks = [self._loop_stack(stack, members, fixed) for stack in self.loop.stacks]
        call = _Call(
            self._kernel(values.like),
            self._packs,
            tuple(states),
            tuple(self.loop.stacks),
            tuple(self.loop.outputs),
            tuple(batch_sizes),
        )
        histories, final = call.run(packs, list(states.values()), stacks)
        values.update({self._labels[name]: array for name, array in histories.items()})
        return final

    def _loop_stack(self, stack: str, members: Weights, fixed: Mapping[str, Any]) -> Tensor:
        names = tuple(param.name for param in self.loop.stacks[stack])
        return fixed[names[0]] if names[0] in fixed else members.stacked(names)

    def _kernel(self, x: Tensor) -> Kernel:
        key = (x.device.type, str(x.dtype))
        if key not in self._kernels:
            self._kernels[key] = choose(self.loop, *key).compile(self.loop, self.sizes)
        return self._kernels[key]


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


@dataclass(frozen=True)
class _Call:
    """One run of a kernel: what each of the tensors is."""

    kernel: Kernel
    packs: tuple[tuple[str, ...], ...]
    states: tuple[str, ...]
    stacks: tuple[str, ...]
    outputs: tuple[str, ...]
    batch_sizes: tuple[int, ...]

    def run(
        self, packs: list[Tensor], states: list[Tensor], stacks: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        tensors = (*packs, *states, *stacks)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            results = _Loop.apply(self, *tensors)
            count = len(self.outputs)
            return (
                dict(zip(self.outputs, results[:count], strict=True)),
                dict(zip(self.states, results[count:], strict=True)),
            )
        histories, final, _ = self.forward(tensors, keep=False)
        return histories, final

    def forward(self, tensors: Sequence[Tensor], *, keep: bool) -> Any:
        return self.kernel.forward(*self.sort(tensors), list(self.batch_sizes), keep=keep)

    def sort(self, tensors: Sequence[Tensor]) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
        a, b = len(self.packs), len(self.packs) + len(self.states)
        return (
            dict(zip(self.packs, tensors[:a], strict=True)),
            dict(zip(self.states, tensors[a:b], strict=True)),
            dict(zip(self.stacks, tensors[b:], strict=True)),
        )


class _Loop(torch.autograd.Function):
    """The loop, with its gradient from the cell's own backward step."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        histories, final, saved = call.forward(tensors, keep=True)
        ctx.call, ctx.saved_names, ctx.outputs = call, list(saved), list(histories)
        ctx.save_for_backward(*tensors, *saved.values())
        return (*histories.values(), *final.values())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        count = len(call.packs) + len(call.states) + len(call.stacks)
        tensors, kept = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if torch.is_grad_enabled():
            return None, *_differentiable(call, tensors, grads)
        outputs = dict(zip(ctx.outputs, grads[: len(ctx.outputs)], strict=True))
        final = dict(zip(call.states, grads[len(ctx.outputs) :], strict=True))
        saved = dict(zip(ctx.saved_names, kept, strict=True))
        packs, initial, weights = call.kernel.backward(
            saved, outputs, final, call.sort(tensors)[2], list(call.batch_sizes), call.packs
        )
        return (
            None,
            *packs,
            *(initial[name] for name in call.states),
            *(weights[name] for name in call.stacks),
        )


def _differentiable(call: _Call, tensors: Sequence[Tensor], grads: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradient as something that can be differentiated again: by torch, through the loop run once more."""
    histories, final, _ = call.forward(tensors, keep=False)
    results = [*histories.values(), *final.values()]
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    pairs = [(result, grad) for result, grad in zip(results, grads, strict=True) if result.requires_grad]
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
