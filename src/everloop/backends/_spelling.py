"""The operations of the language in torch: what each of them is, for tensors [N, F] and numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Value = Tensor | float


def _on_numbers_too(function: Callable[..., Tensor]) -> Callable[..., Value]:
    """The function of tensors for tensors and numbers; of numbers alone, it gives a number."""

    def spelled(*args: Value) -> Value:
        # The most frequent case by far, in a loop where every microsecond is one per step.
        if len(args) == 1 and isinstance(args[0], Tensor):
            return function(args[0])
        like = next((arg for arg in args if isinstance(arg, Tensor)), None)
        if like is None:
            return function(*(torch.tensor(arg, dtype=torch.float64) for arg in args)).item()
        return function(*(arg if isinstance(arg, Tensor) else like.new_tensor(arg) for arg in args))

    return spelled


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    """At a tie the gradient belongs to b; NaN in either wins."""
    return torch.where((a > b) | a.isnan(), a, b)


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where((a < b) | a.isnan(), a, b)


SPELLING: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "exp": _on_numbers_too(torch.exp),
    "expm1": _on_numbers_too(torch.expm1),
    "log": _on_numbers_too(torch.log),
    "log1p": _on_numbers_too(torch.log1p),
    "sqrt": _on_numbers_too(torch.sqrt),
    "tanh": _on_numbers_too(torch.tanh),
    "sigmoid": _on_numbers_too(torch.sigmoid),
    "sin": _on_numbers_too(torch.sin),
    "cos": _on_numbers_too(torch.cos),
    "floor": _on_numbers_too(torch.floor),
    "stop": _on_numbers_too(torch.detach),
    "maximum": _on_numbers_too(_maximum),
    "minimum": _on_numbers_too(_minimum),
    "gt": _on_numbers_too(lambda a, b: (a > b).to(a.dtype)),
    "ge": _on_numbers_too(lambda a, b: (a >= b).to(a.dtype)),
    "where": _on_numbers_too(lambda condition, a, b: torch.where(condition != 0, a, b)),
    "sum": lambda a: a.sum(-1, keepdim=True),
    "max": lambda a: a.amax(-1, keepdim=True),
    "transpose": torch.t,
    "compose": torch.matmul,
    "expm": lambda a: _expm(a),
    "frechet": lambda a, g: _frechet(a, g),
}


def _frechet(matrix: Tensor, direction: Tensor) -> Tensor:
    """The derivative of the matrix exponential in a direction: a corner of the exponential of a larger matrix."""
    n = matrix.shape[0]
    doubled = torch.cat([torch.cat([matrix, direction], 1), torch.cat([torch.zeros_like(matrix), matrix], 1)])
    return _expm(doubled)[:n, n:]


def _expm(matrix: Tensor) -> Tensor:
    # In single precision at least: torch's series for the half types loses everything.
    wide = torch.promote_types(matrix.dtype, torch.float32)
    return torch.linalg.matrix_exp(matrix.to(wide)).to(matrix.dtype)


def outer(rows: Tensor, columns: Tensor, blocks: int = 1) -> Tensor:
    """The sum over N of the outer products of [N, R] and [N, C]: [R, C], or its diagonal blocks [R, C / blocks]."""
    if blocks == 1:
        return rows.t() @ columns
    parts = torch.einsum("nkr,nkc->krc", rows.unflatten(-1, (blocks, -1)), columns.unflatten(-1, (blocks, -1)))
    return parts.flatten(0, 1)


def cumulative(value: Value, backwards: bool) -> Tensor:
    assert isinstance(value, Tensor)
    return value.flip(-1).cumsum(-1).flip(-1) if backwards else value.cumsum(-1)


def multiply_blocks(matrix: Tensor, vector: Tensor, op: str, blocks: int, members: int) -> Tensor:
    """Block-diagonal matrices of equal size, over each other in [R, C / blocks], times the rows of a vector.

    matmul: vector [N, C] gives [N, R]; matmul_t, the transposed: [N, R] gives [N, C], summed over the members.
    """
    kept = matrix.reshape(members, blocks, -1, matrix.shape[1])
    rows = torch.atleast_2d(vector)
    if op == "matmul":
        made = torch.einsum("nkc,gkrc->ngkr", rows.unflatten(-1, (blocks, -1)), kept)
    else:
        made = torch.einsum("ngkr,gkrc->nkc", rows.unflatten(-1, (members, blocks, -1)), kept)
    return made.reshape(*vector.shape[:-1], math.prod(made.shape[1:]))
