"""Kernels for bfloat16 and float16: those of float32, with everything widened on the way in and rounded on the way out.
The values between two steps keep all digits of float32, as those of a reference that rounds every one of them do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from everloop.backends.llvm.kernel import NOTHING, LlvmKernel

HALVES = ("torch.bfloat16", "torch.float16")


class HalfKernel:
    """A kernel of float32 for a type of half as many bits. Inputs are kept as they came, all else in float32."""

    takes_steps = LlvmKernel.takes_steps
    takes_reverse = LlvmKernel.takes_reverse

    def __init__(self, kernel: LlvmKernel, dtype: str) -> None:
        self._kernel, self._dtype = kernel, getattr(torch, dtype.removeprefix("torch."))
        self.kept_dtype = kernel.kept_dtype
        self.prepare, self.keeps, self.kept_in = kernel.prepare, kernel.keeps, kernel.kept_in

    @property
    def source(self) -> str:
        return self._kernel.source

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        *,
        keep: bool,
        wanted: frozenset[str] = NOTHING,
        **more: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        given = _wide(inputs), _wide(states), _wide(weights)
        outputs, final, saved = self._kernel.forward(*given, batch_sizes, keep=keep, wanted=wanted, **more)
        return self._narrow(outputs), self._narrow(final), {name: inputs.get(name, saved[name]) for name in saved}

    def backward(
        self,
        saved: Mapping[str, Tensor],
        grads: Mapping[str, Tensor | None],
        final_grads: Mapping[str, Tensor | None],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        wanted: frozenset[str],
        **more: Any,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        given = _wide(saved), _wide(grads), _wide(final_grads), _wide(weights)
        inputs, states, stacks = self._kernel.backward(*given, batch_sizes, wanted, **more)
        return self._narrow(inputs), self._narrow(states), self._narrow(stacks)

    def _narrow(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: array.to(self._dtype) for name, array in arrays.items()}


def _wide(arrays: Mapping[str, Tensor | None]) -> dict[str, Any]:
    return {name: array if array is None else array.float() for name, array in arrays.items()}
