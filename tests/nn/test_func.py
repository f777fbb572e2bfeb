"""Layers under torch.func, against loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev, stack_module_state, vjp, vmap
from torch.utils._pytree import tree_leaves

from everloop.testing import KERNEL, SAME, assert_close

Total = Callable[[Any], Tensor]
SINGLE = ["deep", "lengths", "mask", "scan", "mixed", "LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]
every = pytest.mark.parametrize("subject", SINGLE, indirect=True)
few = pytest.mark.parametrize("subject", ["deep", "mask", "scan", "LSTM", "GRUCell"], indirect=True)


def loss_of(subject: Any, total: Total) -> Callable[..., Tensor]:
    """A number that parameters and x give."""

    def loss(parameters: dict[str, Tensor], x: Tensor, beside: dict[str, Any]) -> Tensor:
        made = functional_call(subject.module, parameters, (x,), beside)
        return total([array.sin() for array in tree_leaves(made)])

    return loss


def parameters_of(subject: Any) -> dict[str, Tensor]:
    return {name: array.detach() for name, array in subject.module.named_parameters()}


def by_torch(loss: Callable[..., Tensor], parameters: dict[str, Tensor], *rest: Any) -> list[Tensor]:
    leaves = {name: array.clone().requires_grad_() for name, array in parameters.items()}
    return list(torch.autograd.grad(loss(leaves, *rest), list(leaves.values())))


@every
def test_per_sample_gradients(subject: Any, total: Total) -> None:
    loss, parameters = loss_of(subject, total), parameters_of(subject)
    x, beside = subject.x(), subject.beside()

    def of_one(parameters: dict[str, Tensor], x: Tensor, beside: dict[str, Tensor]) -> Tensor:
        return loss(parameters, x[None], {name: array[None] for name, array in beside.items()})

    found = vmap(grad(of_one), in_dims=(None, 0, 0))(parameters, x, beside)
    for k in range(len(x)):
        one = {name: array[k : k + 1] for name, array in beside.items()}
        for name, expected in zip(parameters, by_torch(loss, parameters, x[k : k + 1], one), strict=True):
            assert_close(found[name][k], expected, SAME, f"{name} of sample {k}")


@every
def test_ensembles(subject: Any) -> None:
    modules = [subject.make(dtype=torch.float64) for _ in range(3)]
    x, beside = subject.x(), subject.beside()
    stacked, buffers = stack_module_state(modules)  # type: ignore[arg-type]
    found = vmap(lambda p, b: functional_call(subject.module, (p, b), (x,), beside))(stacked, buffers)
    for k, module in enumerate(modules):
        for one, other in zip(tree_leaves(found), subject.results(x, module), strict=True):
            assert_close(one[k], other, SAME, f"module {k}")


@few
def test_grad_and_vjp(subject: Any, total: Total) -> None:
    loss, parameters = loss_of(subject, total), parameters_of(subject)
    x, beside = subject.x(), subject.beside()
    expected = by_torch(loss, parameters, x, beside)
    value, pull = vjp(lambda p: loss(p, x, beside), parameters)
    (pulled,) = pull(torch.full_like(value, 2.0))
    for name, one in zip(parameters, expected, strict=True):
        assert_close(grad(loss)(parameters, x, beside)[name], one, SAME, name)
        assert_close(pulled[name], 2 * one, SAME, name)


@few
def test_vmap(subject: Any) -> None:
    many, beside = torch.stack([subject.x(), subject.x()]), subject.beside()
    found = vmap(lambda x: subject.module(x, **beside))(many)
    last = vmap(lambda x: subject.module(x, **beside), in_dims=-1, out_dims=1)(many.movedim(0, -1))
    for k, x in enumerate(many):
        for one, other, expected in zip(tree_leaves(found), tree_leaves(last), subject.results(x), strict=True):
            assert_close(one[k], expected)
            assert_close(other[:, k], expected)


@pytest.mark.parametrize("subject", ["lengths", "mask", "scan", "GRU", "LSTMCell"], indirect=True)
def test_jacobians_and_hessians(subject: Any, total: Total) -> None:
    x, beside = subject.x(2, 2), subject.beside(2, 2)

    def y(x: Tensor) -> Tensor:
        return tree_leaves(subject.module(x, **beside))[0]

    expected = torch.autograd.functional.jacobian(y, x)
    assert_close(jacrev(y)(x), expected)
    assert_close(jacrev(y, chunk_size=3)(x), expected)

    def bent(x: Tensor) -> Tensor:
        return total([y(x).sin()])

    second = torch.autograd.functional.hessian(bent, x)
    assert_close(jacrev(jacrev(bent))(x), second, KERNEL["float64"])
    assert_close(jacrev(grad(bent))(x), second, KERNEL["float64"])
    each = vmap(jacrev(grad(bent)))(torch.stack([x, 2 * x]))
    assert_close(each[0], second, KERNEL["float64"])
