"""The one autograd function: a kernel forward and backward, differentiable any number of times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from everloop.nn.packing import Packing
from everloop.nn.runner import Arrays, Runner


def run(
    runner: Runner, inputs: Arrays, states: Arrays, weights: Arrays, packing: Packing, reverse: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs and final states, on what torch differentiates if it is asked to."""
    if torch.is_grad_enabled():
        tensors = runner.row(inputs, states, weights)
        if any(tensor.requires_grad for tensor in tensors):
            return runner.name(_Loop.apply(runner, packing, reverse, (inputs, states, weights), *tensors))
    runner.make_ready(None)
    outputs, final, _ = runner.forward(inputs, states, weights, packing, reverse=reverse, keep=False)
    return outputs, final


class _Loop(torch.autograd.Function):
    """A kernel's forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        runner: Runner,
        packing: Packing,
        reverse: bool,
        given: tuple[Arrays, Arrays, Arrays],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        wanted = runner.wanted(ctx.needs_input_grad[BESIDE:])
        runner.make_ready(wanted)
        outputs, final, saved = runner.forward(*given, packing, reverse=reverse, keep=True, wanted=wanted)
        ctx.runner, ctx.packing, ctx.reverse, ctx.wanted, ctx.names = runner, packing, reverse, wanted, tuple(saved)
        ctx.save_for_backward(*tensors, *saved.values())
        ctx.set_materialize_grads(False)
        # What is a view of something else could not be changed in place.
        return tuple(made.clone() if made._is_view() else made for made in runner.results(outputs, final))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        runner: Runner = ctx.runner
        arrays = ctx.saved_tensors
        count = len(arrays) - len(ctx.names)
        tensors, kept = arrays[:count], arrays[count:]
        if all(grad is None for grad in grads):
            return (None,) * (BESIDE + len(tensors))
        if torch.is_grad_enabled():
            found = _by_torch(runner.reference, ctx.packing, ctx.reverse, tensors, grads)
            return *(None,) * BESIDE, *found
        outputs, final = runner.name(grads)
        found = runner.backward(
            dict(zip(ctx.names, kept, strict=True)),
            outputs,
            final,
            runner.weights(tensors),
            ctx.packing,
            whole=tensors[len(runner.stacks)].dim() == 3,
            reverse=ctx.reverse,
            wanted=ctx.wanted,
        )
        return *(None,) * BESIDE, *runner.row(*found)


BESIDE = 4
"""Arguments of `_Loop.forward` before the tensors."""


def _by_torch(
    runner: Runner, packing: Packing, reverse: bool, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradient as something that can be differentiated again: by torch, through the reference."""
    # One array may be made of another (the last input of the input): each as if it stood alone.
    tensors = [tensor.view_as(tensor) if tensor.requires_grad else tensor for tensor in tensors]
    outputs, final, _ = runner.forward(*runner.sort(tensors), packing, reverse=reverse, keep=False)
    pairs = [
        (result, grad)
        for result, grad in zip(runner.results(outputs, final), grads, strict=True)
        if grad is not None and result.requires_grad
    ]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in pairs],
            [tensor for tensor in tensors if tensor.requires_grad],
            [grad for _, grad in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(next(found) if tensor.requires_grad else None for tensor in tensors)
