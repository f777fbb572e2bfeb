"""What torch and its users do with modules, done with every kind of layer."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from everloop.nn import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell
from everloop.nn.runner import Runner
from everloop.testing import BFLOAT16, FLOAT32, SAME, Tolerance, assert_close

DOUBLE = torch.float64
Total = Callable[[Any], Tensor]


def same(found: list[Tensor], expected: list[Tensor], tolerance: Tolerance = SAME) -> None:
    for k, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert_close(one, other, tolerance, f"{k}")


# -- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [1, 4])
def test_first_and_second_gradients(subject: Any, time: int) -> None:
    names = [name for name, _ in subject.module.named_parameters()]
    x, beside = subject.x(2, time).requires_grad_(), subject.beside(2, time)

    def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        made = functional_call(subject.module, dict(zip(names, weights, strict=True)), (x,), beside)
        return tuple(tree_leaves(made))

    inputs = (x, *subject.module.parameters())
    assert gradcheck(run, inputs, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not"])
def test_activation_checkpoints(subject: Any, reentrant: bool, total: Total) -> None:
    x = subject.x()
    expected = subject.gradients(x)
    leaf, parameters = x.clone().requires_grad_(), list(subject.module.parameters())
    made = checkpoint(lambda x: tuple(subject.results(x)), leaf, use_reentrant=reentrant)
    total(made).backward()
    none = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    same([*made, leaf.grad, *none], expected)


def test_checkpoints_draw_the_same_dropout_again() -> None:
    layer = Recurrent("lstm", 3, 4, 2, dropout=0.5, recurrent_dropout=0.3, weight_drop=0.3, dtype=DOUBLE)
    x = torch.randn(2, 5, 3, dtype=DOUBLE)
    found = []
    for wrap in (False, True):
        torch.manual_seed(7)
        y = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False) if wrap else layer(x)[0]
        found.append([y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))])
    same(*found)


def test_hooks_on_what_is_saved(subject: Any) -> None:
    x, kept = subject.x(), 0

    def keep(array: Tensor) -> Any:
        nonlocal kept
        kept += array.numel()
        return array.numpy(force=True).copy()

    expected = subject.gradients(x)
    leaf, parameters = x.clone().requires_grad_(), list(subject.module.parameters())
    for context in (saved_tensors_hooks(keep, torch.from_numpy), save_on_cpu()):
        with context:
            made = subject.results(leaf)
        weights = [torch.linspace(-1, 1, y.numel(), dtype=DOUBLE).view(y.shape) for y in made]
        same([*made, *torch.autograd.grad(made, [leaf, *parameters], weights, materialize_grads=True)], expected)
    assert kept >= x.numel()


# -- no work for what is frozen --------------------------------------------------------------------------------------


@pytest.fixture
def worked_for(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str]]]:
    """What was run, forward or backward, and whose gradients were asked for."""
    calls: list[tuple[str, set[str]]] = []
    forward, backward = Runner.forward, Runner.backward

    def watch(name: str, method: Any) -> None:
        def run(self: Runner, *args: Any, **options: Any) -> Any:
            calls.append((name, set(options.get("wanted", ()))))
            return method(self, *args, **options)

        monkeypatch.setattr(Runner, name, run)

    watch("forward", forward)
    watch("backward", backward)
    return calls


def test_frozen_weights_are_not_worked_for(worked_for: list[tuple[str, set[str]]]) -> None:
    layer = Recurrent("lstm", 3, 4, dtype=DOUBLE)
    frozen = layer.get_parameter("layers.0.0.U").requires_grad_(False)
    layer(torch.randn(2, 5, 3, dtype=DOUBLE))[0].sum().backward()
    assert worked_for == [("forward", {"W", "b"}), ("backward", {"W", "b"})]
    assert frozen.grad is None
    assert layer.get_parameter("layers.0.0.W").grad is not None


def test_layers_below_the_first_that_learns_only_run(worked_for: list[tuple[str, set[str]]]) -> None:
    layer = LSTM(3, 4, 3, batch_first=True, dtype=DOUBLE)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name == "weight_hh_l1")
    x = torch.randn(2, 5, 3, dtype=DOUBLE)
    layer(x)[0].sum().backward()
    assert worked_for == [
        ("forward", set()),
        ("forward", {"U"}),
        ("forward", {"x"}),
        ("backward", {"x"}),
        ("backward", {"U"}),
    ]
    assert [name for name, p in layer.named_parameters() if p.grad is not None] == ["weight_hh_l1"]


def test_only_the_input_learns(worked_for: list[tuple[str, set[str]]]) -> None:
    layer = GRU(3, 4, batch_first=True, dtype=DOUBLE).requires_grad_(False)
    x = torch.randn(2, 5, 3, dtype=DOUBLE, requires_grad=True)
    layer(x)[0].sum().backward()
    assert worked_for == [("forward", {"x"}), ("backward", {"x"})]
    worked_for.clear()
    assert not layer(x.detach())[0].requires_grad
    assert worked_for == [("forward", set())]


# -- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_types(subject: Any, dtype: torch.dtype, total: Total) -> None:
    module = subject.make(dtype=dtype)
    module.load_state_dict(subject.module.state_dict())
    x = subject.x(dtype=dtype)
    exact = subject.make(dtype=DOUBLE)
    exact.load_state_dict(module.state_dict())
    found = subject.gradients(x, module, list(module.parameters()))
    expected = subject.gradients(x.double(), exact, list(exact.parameters()))
    assert {array.dtype for array in found} == {dtype}
    same(found, expected, {DOUBLE: SAME, torch.float32: FLOAT32}.get(dtype, BFLOAT16))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, -2).contiguous().transpose(0, -2),
    "reversed": lambda x: x.mT.contiguous().mT,
    "with gaps": lambda x: torch.stack([x, -x], -1)[..., 0],
    "rows of more": lambda x: torch.cat([x, -x])[: len(x)],
    "every other": lambda x: torch.stack([x, -x], 1).flatten(0, 1)[::2],
    "one sequence, expanded": lambda x: x[:1].expand(x.shape),
    "one feature, expanded": lambda x: x[..., :1].expand(x.shape),
    "one number, expanded": lambda x: x.flatten()[0].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_memory(subject: Any, layout: str) -> None:
    x = LAYOUTS[layout](subject.x())
    expected = subject.gradients(x.contiguous())
    leaf = x.detach().requires_grad_()
    made = subject.results(leaf)
    weights = [torch.linspace(-1, 1, y.numel(), dtype=DOUBLE).view(y.shape) for y in made]
    ends = [leaf, *subject.module.parameters()]
    same([*made, *torch.autograd.grad(made, ends, weights, materialize_grads=True)], expected)


# -- autocast --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("subject", ["deep", "lengths", "mask", "scan", "mixed"], indirect=True)
def test_under_autocast_layers_compute_in_the_type_of_their_weights(subject: Any, dtype: torch.dtype) -> None:
    module, x = subject.make(dtype=dtype), subject.x(dtype=dtype)
    expected = subject.gradients(x, module, list(module.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        found = subject.gradients(x, module, list(module.parameters()))
        rounded = subject.results(x.bfloat16(), module) if dtype is torch.float32 else found
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert {array.dtype for array in rounded} == {dtype}


PAIRS: list[Any] = [
    (LSTM, nn.LSTM),
    (GRU, nn.GRU),
    (RNN, nn.RNN),
    (LSTMCell, nn.LSTMCell),
    (GRUCell, nn.GRUCell),
    (RNNCell, nn.RNNCell),
]


@pytest.mark.parametrize("of_input", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours.__name__ for ours, _ in PAIRS])
def test_under_autocast_drop_ins_are_torch(ours: Any, theirs: Any, of_input: torch.dtype) -> None:
    one, other = ours(3, 4), theirs(3, 4)
    other.load_state_dict(one.state_dict())
    x = torch.randn((2, 3) if issubclass(ours, nn.RNNCellBase) else (5, 2, 3), dtype=of_input)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = tree_leaves(one(x)), tree_leaves(other(x))
    assert [array.dtype for array in found] == [array.dtype for array in expected]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# -- no numbers, or not yet ------------------------------------------------------------------------------------------


def test_the_meta_device(subject: Any, total: Total) -> None:
    x, beside = subject.x(), subject.beside()
    expected = subject.results(x)
    module = subject.make(dtype=DOUBLE, device="meta")
    on_meta = {name: array.to("meta") if isinstance(array, Tensor) else array for name, array in beside.items()}
    made = tree_leaves(module(x.to("meta"), **on_meta))
    assert [(array.shape, array.device.type) for array in made] == [(array.shape, "meta") for array in expected]
    total(made).backward()
    assert any(parameter.grad is not None for parameter in module.parameters())
    module.zero_grad()
    module.to_empty(device="cpu").load_state_dict(subject.module.state_dict())
    same(subject.results(x, module), expected)
    with torch.device("meta"):
        assigned = subject.make(dtype=DOUBLE)
    assigned.load_state_dict(subject.module.state_dict(), assign=True)
    assert not any(parameter.is_meta for parameter in assigned.parameters())


def test_fake_tensors(subject: Any, total: Total) -> None:
    x, beside = subject.x(), subject.beside()
    expected = subject.results(x)
    with FakeTensorMode() as mode:
        module = subject.make(dtype=DOUBLE)
        fake = {name: mode.from_tensor(a) if isinstance(a, Tensor) else a for name, a in beside.items()}
        made = tree_leaves(module(mode.from_tensor(x), **fake))
        total(made).backward()
    assert [(array.shape, array.dtype) for array in made] == [(array.shape, array.dtype) for array in expected]


# -- tracing, and parameters that others put in place ----------------------------------------------------------------


class Flat(nn.Module):
    """What comes out in a row, as torch.jit knows it."""

    def __init__(self, subject: Any) -> None:
        super().__init__()
        self.module, self.given = subject.module, subject.beside()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(tree_leaves(self.module(x, **self.given)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_torch_jit_trace(subject: Any) -> None:
    traced = torch.jit.trace(Flat(subject).eval(), (subject.x(),))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    # What comes beside x was traced as it was.
    sizes = [(3, 5)] if subject.name in ("lengths", "mask") else [(3, 5), (2, 9), (1, 1)]
    for one in (traced, torch.jit.load(file)):
        for size in sizes:
            x = subject.x(*size)
            same(list(one(x)), tree_leaves(subject.module(x, **subject.beside(*size))))
    x = subject.x()
    parameters = list(traced.parameters())
    made = list(traced(x.requires_grad_()))
    weights = [torch.linspace(-1, 1, y.numel(), dtype=DOUBLE).view(y.shape) for y in made]
    by_name = dict(zip([n.removeprefix("module.") for n, _ in traced.named_parameters()], parameters, strict=True))
    ends = [x, *(by_name[name] for name, _ in subject.module.named_parameters())]
    same([*made, *torch.autograd.grad(made, ends, weights, materialize_grads=True)], subject.gradients(x))


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_parametrizations(subject: Any, total: Total) -> None:
    name = next(name for name, array in subject.module.named_parameters() if array.dim() == 2)
    path, _, leaf = name.rpartition(".")
    x = subject.x()
    scaled = copy.deepcopy(subject.module)
    with torch.no_grad():
        scaled.get_parameter(name).mul_(2)
    module = copy.deepcopy(subject.module)
    parametrize.register_parametrization(module.get_submodule(path), leaf, Twice())
    same(subject.results(x, module), subject.results(x, scaled))
    total(subject.results(x, module)).backward()
    assert module.get_submodule(path).parametrizations[leaf].original.grad is not None
    parametrize.remove_parametrizations(module.get_submodule(path), leaf)
    same(subject.results(x, module), subject.results(x, scaled))
    parametrizations.weight_norm(module.get_submodule(path), leaf)
    same(subject.results(x, module), subject.results(x, scaled))
    total(subject.results(x, module)).backward()
    assert module.get_submodule(path).parametrizations[leaf].original0.grad is not None


def test_parameters_of_a_call(subject: Any) -> None:
    x, beside = subject.x(), subject.beside()
    other = subject.make(dtype=DOUBLE)
    before = subject.results(x)
    found = functional_call(subject.module, dict(other.named_parameters()), (x,), beside)
    same(tree_leaves(found), subject.results(x, other))
    same(subject.results(x), before)


# -- counting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [LSTM, Recurrent], ids=["LSTM", "Recurrent"])
def test_operations_of_an_lstm(make: Any) -> None:
    batch, time, inputs, units = 2, 7, 3, 4
    layer = LSTM(inputs, units, batch_first=True) if make is LSTM else Recurrent("lstm", inputs, units)
    x = torch.randn(batch, time, inputs, requires_grad=True)
    state = tuple(torch.zeros(1, batch, units, requires_grad=True) for _ in range(2))
    with FlopCounterMode(display=False) as ours:
        layer(x, state)[0].sum().backward()
    forward = 2 * batch * time * (4 * units) * (inputs + units)
    counts = ours.get_flop_counts()["Global"]
    assert {str(op): count for op, count in counts.items()} == {
        "everloop.recurrence": forward,
        "everloop.recurrence_gradient": 2 * forward,
    }
    cell = nn.LSTMCell(inputs, units)
    with FlopCounterMode(display=False) as theirs:
        now, total = (state[0][0], state[1][0]), torch.zeros(())
        for step in x.unbind(1):
            now = cell(step, now)
            total = total + now[0].sum()
        total.backward()
    assert ours.get_total_flops() == theirs.get_total_flops()


# -- the same again --------------------------------------------------------------------------------------------------


def test_two_runs_are_equal_to_the_bit(subject: Any) -> None:
    module, x = subject.make(dtype=torch.float32), subject.x(dtype=torch.float32)
    first, again = (subject.gradients(x, module, list(module.parameters())) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


NOISY: dict[str, Any] = {
    "dropout": {"dropout": 0.5},
    "input": {"input_dropout": 0.5},
    "output": {"output_dropout": 0.5},
    "variational": {"dropout": 0.5, "input_dropout": 0.3, "output_dropout": 0.3, "variational": True},
    "recurrent": {"recurrent_dropout": 0.5},
    "zoneout": {"zoneout": 0.5},
    "weights": {"weight_drop": 0.5},
}


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: GRU(3, 4, 2, dropout=0.5),
    **{name: lambda options=options: Recurrent("gru", 3, 4, 2, **options) for name, options in NOISY.items()},
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_seed_gives_the_same_dropout(name: str) -> None:
    layer = LAYERS[name]()
    x = torch.randn(5, 4, 3)

    def run(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        y = layer(x)[0]
        return [y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]

    first, again, other = run(1), run(1), run(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    layer.eval()
    assert torch.equal(run(1)[0], run(2)[0])
