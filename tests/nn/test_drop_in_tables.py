"""torch's own tables of modules, run against ours: every constructor, input and error that it tests its layers with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.testing._internal.common_modules import ModuleErrorEnum, ModuleInfo, module_db

import everloop.nn
from everloop import use_backend
from everloop.testing import FLOAT32, SAME, assert_close

NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
TABLE: dict[str, ModuleInfo] = {
    info.module_cls.__name__: info for info in module_db if info.module_cls.__name__ in NAMES
}
TOLERANCES = {torch.float64: SAME, torch.float32: FLOAT32}
PACKED = {"with_packed_sequence": True}


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    """Asked for by name: few steps, and cells, run torch's own forward otherwise."""
    with use_backend("llvm"):
        yield


def samples(name: str, dtype: torch.dtype, training: bool, grad: bool) -> Iterator[Any]:
    info = TABLE[name]
    more = PACKED if name in ("RNN", "GRU") else {}
    found = info.module_inputs_func(info, "cpu", dtype, grad, training, **more)
    assert len(found) > 1
    return iter(found)


def pair(name: str, given: Any, dtype: torch.dtype, training: bool) -> tuple[nn.Module, nn.Module]:
    """torch's module and ours, made alike from one seed."""
    made = []
    for home in (nn, everloop.nn):
        torch.manual_seed(0)
        args, kwargs = given.constructor_input.args, given.constructor_input.kwargs
        made.append(getattr(home, name)(*args, **{"dtype": dtype, **kwargs}).train(training))
    expected, ours = made
    assert type(ours) is getattr(everloop.nn, name)
    for (key, right), (found, value) in zip(expected.state_dict().items(), ours.state_dict().items(), strict=True):
        assert key == found
        assert torch.equal(right, value)
    return expected, ours


def leaves(value: Any) -> list[Tensor]:
    """The tensors of what a module takes or gives."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Tensor):
        return [value]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple | list) else []


def results(module: nn.Module, arguments: Any, twice: bool) -> dict[str, list[Tensor]]:
    """What a module puts out, and the gradients of a function of all of it, and those of these."""
    arguments = copy.deepcopy(arguments)
    out = leaves(module(*arguments))
    wanted = [leaf for leaf in leaves(arguments) if leaf.requires_grad] + list(module.parameters())
    weights = [torch.linspace(-1, 1, leaf.numel(), dtype=leaf.dtype).reshape(leaf.shape) for leaf in out]
    total = sum((weight * leaf).sum() for weight, leaf in zip(weights, out, strict=True))
    found = {"results": out, "gradients": list(torch.autograd.grad(total, wanted, create_graph=twice))}
    if twice:
        again = sum(gradient.square().sum() for gradient in found["gradients"])
        second = torch.autograd.grad(again, wanted, allow_unused=True)
        found["second gradients"] = [
            torch.zeros_like(a) if g is None else g for g, a in zip(second, wanted, strict=True)
        ]
    return found


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_input_of_the_table_gives_the_same(name: str, dtype: torch.dtype, training: bool) -> None:
    """Outputs, states and the gradients of all that is differentiable; where layers are trained in float64, the second
    gradients, too: sums of what cancels, of inputs up to 9, say little in float32.
    """
    twice = training and dtype is torch.float64
    for given in samples(name, dtype, training, grad=True):
        expected, ours = pair(name, given, dtype, training)
        right, found = (results(module, given.forward_input.args, twice) for module in (expected, ours))
        for what, arrays in right.items():
            for k, (a, b) in enumerate(zip(found[what], arrays, strict=True)):
                assert a.dtype is dtype
                # What cancels in large gradients is rounded as they are.
                scale = max(1.0, b.abs().max().item())
                assert_close(a / scale, b / scale, TOLERANCES[dtype], f"{ours}, {what}, number {k}")


@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_need_no_gradient_give_the_same(name: str) -> None:
    for given in samples(name, torch.float64, training=False, grad=False):
        expected, ours = pair(name, given, torch.float64, training=False)
        with torch.no_grad():
            right, found = (leaves(module(*given.forward_input.args)) for module in (expected, ours))
        for a, b in zip(found, right, strict=True):
            assert not a.requires_grad
            assert_close(a, b, SAME, str(ours))


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_of_the_table_agrees(name: str) -> None:
    """The table says how a sequence by itself is one in a batch of one."""
    for given in samples(name, torch.float64, training=False, grad=False):
        if given.reference_fn is None or isinstance(given.forward_input.args[0], PackedSequence):
            continue
        _, ours = pair(name, given, torch.float64, training=False)
        arguments = given.forward_input.args
        right = given.reference_fn(ours, *arguments)
        for a, b in zip(leaves(ours(*arguments)), leaves(right), strict=True):
            assert_close(a, b, SAME, str(ours))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    given = list(samples(name, torch.float64, training=True, grad=True))[-1]
    _, ours = pair(name, given, torch.float64, training=True)
    arguments = given.forward_input.args
    inputs = [leaf.detach().requires_grad_() for leaf in leaves(arguments)]
    packed = arguments[0] if isinstance(arguments[0], PackedSequence) else None

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        x, *hx = tensors[: len(inputs)]
        x = x if packed is None else PackedSequence(x, packed.batch_sizes)
        state = (tuple(hx) if len(hx) > 1 else hx[0],) if hx else ()
        named = dict(zip(dict(ours.named_parameters()), tensors[len(inputs) :], strict=True))
        return tuple(leaves(torch.func.functional_call(ours, named, (x, *state))))

    tensors = (*inputs, *ours.parameters())
    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tensors, fast_mode=True)


def refused(make: Callable[[], Any]) -> tuple[type[BaseException], str]:
    with pytest.raises(Exception) as found:
        make()
    return found.type, str(found.value)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_error_of_the_table_is_the_same(name: str, dtype: torch.dtype) -> None:
    info = TABLE[name]
    assert info.module_error_inputs_func is not None
    cases = info.module_error_inputs_func(info, "cpu", dtype, False, True)
    assert len(cases) > 3
    for case in cases:
        given = case.module_error_input

        def run(home: Any, given: Any = given, whole: bool = case.error_on is ModuleErrorEnum.FORWARD_ERROR) -> None:
            module = getattr(home, name)(*given.constructor_input.args, **given.constructor_input.kwargs)
            if whole:
                module.to(given.constructor_input.kwargs.get("dtype", given.forward_input.args[0].dtype))
                module(*given.forward_input.args, **given.forward_input.kwargs)

        kind, message = refused(lambda: run(everloop.nn))
        assert (kind, message) == refused(lambda: run(nn))
        assert issubclass(kind, case.error_type)
