"""The one autograd function: a layer's recurrence on packed sequences, for any cell and any backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from everloop.backends import Kernel, choose
from everloop.backends.reference import Values, Weights, evaluate
from everloop.compiler.plan import label, plan, split
from everloop.lang.cell import Cell


class Recurrence:
    """One cell with its sizes, ready to run: what precedes the loop, the loop's kernel, what follows it."""

    def __init__(self, cell: Cell, sizes: dict[str, int]) -> None:
        self.cell, self.sizes = cell, sizes
        self.plan = plan(cell.graph)
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
        x: Tensor,
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x [N, I] and states [B, H] give the outputs [N, H] and the final states [B, H]; packed, longest first."""
        graph, total = self.plan.graph, x.shape[0]
        members = Weights(graph, self.sizes, weights)
        values = Values(members, self.sizes, x)
        values[graph.inputs["x"]] = x
        evaluate(self.plan.before, values, total)
        packs = [values.pack(pack, total) for pack in self.plan.feeds]
        fixed = {leaf: values[node] for leaf, node in self._fixed.items()}
        stacks = [self._loop_stack(stack, members, fixed) for stack in self.loop.stacks]
        call = _Call(
            self._kernel(x),
            self._packs,
            tuple(states),
            tuple(self.loop.stacks),
            tuple(self.loop.outputs),
            tuple(batch_sizes),
        )
        histories, final = call.run(packs, list(states.values()), stacks)
        values.update({self._labels[name]: array for name, array in histories.items()})
        evaluate(self.plan.after, values, total)
        return values.rows(graph.outputs["y"], total), final

    def _loop_stack(self, stack: str, members: Weights, fixed: Mapping[str, Any]) -> Tensor:
        names = [param.name for param in self.loop.stacks[stack]]
        return fixed[names[0]] if names[0] in fixed else members.stacked(names)

    def _kernel(self, x: Tensor) -> Kernel:
        key = (x.device.type, str(x.dtype))
        if key not in self._kernels:
            self._kernels[key] = choose(self.loop, *key).compile(self.loop, self.sizes)
        return self._kernels[key]


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
