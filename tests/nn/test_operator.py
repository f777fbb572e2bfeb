"""The operator `everloop::recurrence`: it gives what the shorter way gives, to whoever looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, hessian, jacrev, vmap
from torch.utils.flop_counter import FlopCounterMode

from everloop import cells
from everloop.backends import use_backend
from everloop.lang.cell import Cell, cell
from everloop.lang.functions import tanh
from everloop.nn.function import KNOWN, Recurrence, find
from everloop.nn.packing import Packing
from everloop.testing import KERNEL, SAME, Tolerance, assert_close

DOUBLE = torch.float64
T, B = 5, 3
LENGTHS = torch.tensor([3, 5, 0])
Parts = Mapping[str, Tensor]


@cell(states="h", gates="h")
def homemade(x, h, W, U):
    return tanh(W.h @ x + U.h @ h)


# No states, a scan, made weights, states that need no past, several states, blocks, a start value far off.
NAMES = ["elman", "lstm", "gru", "projection_lstm", "mingru", "antisymmetric", "qrnn", "lmu", "cornn"]
CELLS: list[Cell] = [*map(cells.get, NAMES), homemade]


@dataclass
class Case:
    """A cell with arrays for it."""

    run: Recurrence
    inputs: dict[str, Tensor]
    states: dict[str, Tensor]
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, made: Cell, seed: int = 0, batch: int = B) -> Case:
        graph, draw = made.graph, torch.Generator().manual_seed(seed)
        sizes = {"input": 4, "hidden": 6} | graph.sizes
        sizes |= {name: 5 for name in graph.size_names if name not in sizes}
        run = Recurrence(made, sizes)

        def normal(*shape: int) -> Tensor:
            return 0.5 * torch.randn(shape, dtype=DOUBLE, generator=draw)

        inputs = {name: normal(T, batch, sizes[str(leaf.size)]) for name, leaf in graph.inputs.items()}
        states = {name: normal(batch, sizes[str(leaf.size)]) for name, leaf in graph.states.items()}
        weights = {}
        for stack, members in graph.stacks.items():
            shapes = [member.shape(sizes) for member in members]
            weights[stack] = normal(sum(shape[0] for shape in shapes), *shapes[0][1:])
        return cls(run, inputs, states, weights)

    @property
    def arrays(self) -> list[Tensor]:
        return [*self.inputs.values(), *self.states.values(), *self.weights.values()]

    def call(self, arrays: list[Tensor], packing: Packing, reverse: bool, way: str) -> list[Tensor]:
        """All outputs and final states. way: "run" for the shorter one, "_by_operator"."""
        rest = iter(arrays)
        parts = [{name: next(rest) for name in part} for part in (self.inputs, self.states, self.weights)]
        outputs, final = getattr(self.run, way)(*parts, packing, reverse)
        return [*(outputs[name] for name in self.run.outputs), *(final[name] for name in self.run.states)]

    def gradients(self, packing: Packing, reverse: bool, way: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Results, first and second gradients."""
        leaves = [array.clone().requires_grad_() for array in self.arrays]
        made = self.call(leaves, packing, reverse, way)
        weights = [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape) for y in made]
        loss = sum((y * w).sum() for y, w in zip(made, weights, strict=True))
        first = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)  # type: ignore[arg-type]
        bent = sum(one.square().sum() for one in first)
        second = torch.autograd.grad(bent, leaves, materialize_grads=True)  # type: ignore[arg-type]
        return made, list(first), list(second)


FULL = Packing.full(B, T)


def packing(ragged: bool) -> Packing:
    return Packing.of(LENGTHS, B, T, torch.device("cpu")) if ragged else FULL


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("made", CELLS, ids=lambda made: made.name)
def test_the_operator_is_the_shorter_way(made: Cell, ragged: bool, reverse: bool) -> None:
    case = Case.of(made)
    expected = case.gradients(packing(ragged), reverse, "run")
    found = case.gradients(packing(ragged), reverse, "_by_operator")
    # A second gradient squares what the first has rounded.
    for kind, one, other, tolerance in zip(
        ("result", "gradient", "second gradient"), found, expected, (SAME, SAME, KERNEL["float64"]), strict=True
    ):
        for k, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_close(a, b, tolerance, f"{kind} {k}")


def test_packed_rows() -> None:
    case = Case.of(cells.get("gru"))
    sizes = torch.tensor([3, 2, 2, 1])
    rows = Packing(3, 4, tuple(sizes.tolist()), given=sizes)
    case.inputs = {name: array.flatten(0, 1)[:8] for name, array in case.inputs.items()}
    for reverse in (False, True):
        expected = case.gradients(rows, reverse, "run")
        found = case.gradients(rows, reverse, "_by_operator")
        for one, other in zip(found, expected, strict=True):
            for a, b in zip(one, other, strict=True):
                assert_close(a, b, KERNEL["float64"])


@pytest.mark.parametrize("given", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_torch_s_own_check_of_operators(backend: str, given: Tensor | None) -> None:
    case = Case.of(cells.get("lstm"))
    lists = [[a.requires_grad_() for a in part.values()] for part in (case.inputs, case.states, case.weights)]
    call = torch.ops.everloop.recurrence.default
    for want in (False, True):
        # What is kept has places that nobody writes to: two runs differ there.
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        more = () if want else ("test_aot_dispatch_dynamic",)
        how = (given, case.run.key, backend, False, [want] * len(case.arrays))
        torch.library.opcheck(call, (*lists, *how), test_utils=(*checks, *more))


def test_what_is_kept_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.of(cells.get("lstm"))
    runner = case.run.runner("auto", torch.device("cpu"), DOUBLE)
    calls: list[Any] = []
    forward = runner.forward
    monkeypatch.setattr(runner, "forward", lambda *a, **k: calls.append(k["wanted"]) or forward(*a, **k))
    leaves = [array.clone().requires_grad_() for array in case.arrays]
    sum(y.sum() for y in case.call(leaves, FULL, False, "_by_operator")).backward()  # type: ignore[union-attr]
    assert calls == [frozenset(["x", "h", "c", "W", "U", "b"])]


def test_frozen_arrays_are_not_worked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.of(cells.get("lstm"))
    runner = case.run.runner("auto", torch.device("cpu"), DOUBLE)
    seen: list[frozenset[str]] = []
    backward = runner.backward
    monkeypatch.setattr(runner, "backward", lambda *a, **k: seen.append(k["wanted"]) or backward(*a, **k))
    for way in ("run", "_by_operator"):
        leaves = [array.clone() for array in case.arrays]
        leaves[-1].requires_grad_()
        sum(y.sum() for y in case.call(leaves, FULL, False, way)).backward()  # type: ignore[union-attr]
    assert seen == [frozenset(["b"])] * 2


# -- torch.func ------------------------------------------------------------------------------------------------------


def outputs_of(case: Case, **given: Any) -> Callable[..., Tensor]:
    """y as a function of x, or of what is named."""

    def y(x: Tensor, states: Parts = case.states, weights: Parts = case.weights) -> Tensor:
        batch = x.shape[1]
        return case.run({"x": x}, states, weights, given.get("packing", Packing.full(batch, T)))[0]["y"]

    return y


FUNC = [cells.get(name) for name in ("lstm", "gru", "qrnn", "mingru")]


SAMPLED = [*FUNC, *map(cells.get, ("elman", "slstm", "projection_lstm", "antisymmetric", "lmu"))]


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("made", SAMPLED, ids=lambda made: made.name)
def test_per_sample_gradients(made: Cell, ragged: bool, reverse: bool, backend: str) -> None:
    """Of samples that are two sequences each; of all weights, and of the inputs."""
    batch = 2 * B
    case = Case.of(made, batch=batch)
    lengths = torch.tensor([3, 5, 0, 5, 2, 1]).view(B, 2) if ragged else None

    def loss(weights: Parts, x: Tensor, states: Parts, lengths: Tensor | None) -> Tensor:
        given = None if lengths is None else lengths
        outputs, final = case.run({"x": x}, states, weights, Packing(2, T, (2,) * T, given=given), reverse)
        return outputs["y"].square().sum() + sum(array.sin().sum() for array in final.values())

    x = case.inputs["x"].unflatten(1, (B, 2))
    states = {name: array.unflatten(0, (B, 2)) for name, array in case.states.items()}
    with use_backend(backend):
        found = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 1, 0, None if lengths is None else 0), out_dims=(0, 1))(
            case.weights, x, states, lengths
        )
    for k in range(B):
        leaves = {name: array.clone().requires_grad_() for name, array in case.weights.items()}
        leaf = x[:, k].clone().requires_grad_()
        packing = Packing.full(2, T) if lengths is None else Packing.of(lengths[k], 2, T, x.device)
        outputs, final = case.run({"x": leaf}, {n: s[k] for n, s in states.items()}, leaves, packing, reverse)
        total = outputs["y"].square().sum() + sum(array.sin().sum() for array in final.values())
        expected = torch.autograd.grad(total, [*leaves.values(), leaf], materialize_grads=True)
        for name, one in zip(leaves, expected, strict=False):
            assert_close(found[0][name][k], one, KERNEL["float64"], name)
        assert_close(found[1][:, k], expected[-1], KERNEL["float64"], "x")


def test_per_sample_gradients_go_backwards_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.of(cells.get("lstm"))
    runner = case.run.runner("auto", torch.device("cpu"), DOUBLE)
    calls: list[str] = []
    for name in ("forward", "backward"):
        way = getattr(runner, name)
        monkeypatch.setattr(runner, name, lambda *a, _way=way, _name=name, **k: calls.append(_name) or _way(*a, **k))

    def loss(weights: Parts, x: Tensor) -> Tensor:
        return case.run({"x": x[:, None]}, {n: s[:1] for n, s in case.states.items()}, weights, Packing.full(1, T))[0][
            "y"
        ].sum()

    vmap(grad(loss), in_dims=(None, 1))(case.weights, case.inputs["x"])
    assert calls == ["forward", "backward"]


def test_what_is_made_of_per_sample_gradients_has_a_gradient() -> None:
    case = Case.of(cells.get("lstm"))
    leaves = {name: array.clone().requires_grad_() for name, array in case.weights.items()}
    x = case.inputs["x"].clone().requires_grad_()

    def loss(weights: Parts, x: Tensor) -> Tensor:
        one = {name: state[:1] for name, state in case.states.items()}
        return case.run({"x": x[:, None]}, one, weights, Packing.full(1, T))[0]["y"].square().sum()

    per_sample = vmap(grad(loss), in_dims=(None, 1))(leaves, x)
    found = torch.autograd.grad(sum(g.sin().sum() for g in per_sample.values()), [*leaves.values(), x])  # type: ignore[arg-type]
    total = torch.zeros((), dtype=DOUBLE)
    for k in range(B):
        first = torch.autograd.grad(loss(leaves, x[:, k]), list(leaves.values()), create_graph=True)
        total = total + sum(g.sin().sum() for g in first)
    expected = torch.autograd.grad(total, [*leaves.values(), x])
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, KERNEL["float64"])


@pytest.mark.parametrize("made", FUNC, ids=lambda made: made.name)
def test_transforms_of_torch(made: Cell) -> None:
    case = Case.of(made)
    y, x = outputs_of(case), case.inputs["x"]
    assert_close(jacrev(y)(x), torch.autograd.functional.jacobian(y, x), SAME, "jacrev")
    many = torch.stack([x, 2 * x])
    assert_close(vmap(y)(many), torch.stack([y(x), y(2 * x)]), SAME, "vmap")
    found = grad(lambda x: vmap(y)(torch.stack([x, 2 * x])).square().sum())(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(y(leaf).square().sum() + y(2 * leaf).square().sum(), leaf)
    assert_close(found, expected, SAME, "grad of vmap")
    twice = vmap(vmap(y))(torch.stack([many, 3 * many]))
    assert_close(twice[1, 1], y(6 * x), SAME, "vmap of vmap")

    def bent(x: Tensor) -> Tensor:
        return y(x).sin().sum()

    second = jacrev(jacrev(bent))(x)
    assert_close(second, torch.autograd.functional.hessian(bent, x), KERNEL["float64"], "second")
    sets = {name: torch.stack([array, 1.5 * array]) for name, array in case.weights.items()}
    ensemble = vmap(lambda weights: y(x, case.states, weights))(sets)
    assert_close(ensemble[1], y(x, case.states, {name: 1.5 * array for name, array in case.weights.items()}), SAME)


def test_vmap_over_ragged_batches() -> None:
    case = Case.of(cells.get("lstm"))
    y, x = outputs_of(case, packing=packing(True)), case.inputs["x"]
    assert_close(vmap(y)(torch.stack([x, 2 * x]))[1], y(2 * x), SAME)


def test_forward_mode_is_refused_in_words() -> None:
    case = Case.of(cells.get("lstm"))
    with pytest.raises((RuntimeError, NotImplementedError), match="jvp"):
        hessian(lambda x: outputs_of(case)(x).sum())(case.inputs["x"])


def test_a_third_derivative_is_refused_in_words() -> None:
    case = Case.of(cells.get("elman"))

    def bent(x: Tensor) -> Tensor:
        return outputs_of(case)(x).sin().sum()

    with pytest.raises(NotImplementedError, match="a third derivative of a recurrence"):
        grad(lambda x: grad(lambda x: grad(bent)(x).square().sum())(x).sum())(case.inputs["x"])


# -- modes -----------------------------------------------------------------------------------------------------------


def test_flops() -> None:
    case = Case.of(cells.get("lstm"))
    leaves = [array.clone().requires_grad_() for array in case.arrays]
    with FlopCounterMode(display=False) as mode:
        case.run(*split(case, leaves), FULL)[0]["y"].sum().backward()
    gates, inputs, units = 4 * 6, 4, 6
    forward = 2 * T * B * gates * (inputs + units)
    assert list(mode.get_flop_counts()["Global"].values()) == [forward, 2 * forward]


def test_flops_of_frozen_weights() -> None:
    case = Case.of(cells.get("lstm"))
    leaves = [array.clone() for array in case.arrays]
    leaves[0].requires_grad_()
    with FlopCounterMode(display=False) as mode:
        case.run(*split(case, leaves), FULL)[0]["y"].sum().backward()
    forward = 2 * T * B * 24 * 10
    assert mode.get_total_flops() == 2 * forward


def split(case: Case, arrays: list[Tensor]) -> list[dict[str, Tensor]]:
    rest = iter(arrays)
    return [{name: next(rest) for name in part} for part in (case.inputs, case.states, case.weights)]


def test_the_meta_device() -> None:
    case = Case.of(cells.get("lstm"))
    leaves = [array.to("meta").requires_grad_() for array in case.arrays]
    outputs, final = case.run(*split(case, leaves), FULL)
    assert (outputs["y"].shape, outputs["y"].device.type) == ((T, B, 6), "meta")
    assert final["c"].shape == (B, 6)
    outputs["y"].sum().backward()
    assert [leaf.grad.shape for leaf in leaves if leaf.grad is not None] == [leaf.shape for leaf in leaves]


def test_fake_tensors() -> None:
    case = Case.of(cells.get("gru"))
    with FakeTensorMode() as mode:
        leaves = [mode.from_tensor(array).requires_grad_() for array in case.arrays]
        outputs, _ = case.run(*split(case, leaves), FULL)
        outputs["y"].sum().backward()
    real, *_ = case.call(case.arrays, FULL, False, "_by_operator")
    assert (outputs["y"].shape, outputs["y"].stride()) == (real.shape, real.stride())


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_autocast_computes_in_the_type_of_the_weights(dtype: torch.dtype) -> None:
    case = Case.of(cells.get("lstm"))
    arrays = [array.to(dtype) for array in case.arrays]
    inputs, states, weights = split(case, arrays)
    rounded = {"x": inputs["x"].bfloat16()}
    expected = case.run({"x": rounded["x"].to(dtype)}, states, weights, FULL)[0]["y"]
    with torch.autocast("cpu", torch.bfloat16):
        found = case.run(rounded, states, weights, FULL)[0]["y"]
    assert found.dtype is dtype
    assert torch.equal(found, expected)
    with torch.autocast("cpu", torch.bfloat16), use_backend("reference"):
        found = case.run(rounded, states, weights, FULL)[0]["y"]
    assert_close(found, expected, EXACT[dtype])


EXACT: dict[torch.dtype, Tolerance] = {torch.float32: KERNEL["float32"], DOUBLE: KERNEL["float64"]}


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_of_the_catalogue_needs_no_layer() -> None:
    run = Recurrence(cells.get("gru"), {"input": 2, "hidden": 7})
    key = run.key
    del run
    KNOWN.pop(key, None)
    assert find(key).sizes == {"input": 2, "hidden": 7}


def test_a_key_of_nobody_s_cell_is_refused_in_words() -> None:
    with pytest.raises(LookupError, match="the cell homemade 1, which this process does not know: keep a layer"):
        find('{"cell": "homemade 1", "sizes": {}, "watched": []}')


def test_watched_values_are_outputs() -> None:
    case = Case.of(cells.get("lstm"))
    watching = Recurrence(case.run.cell, case.run.sizes, ("c", "f"))
    outputs, final = watching(case.inputs, case.states, case.weights, packing(True))
    plain, _ = case.run(case.inputs, case.states, case.weights, packing(True))
    assert list(outputs) == ["y", "c", "f"]
    assert_close(outputs["y"], plain["y"], SAME)
    assert_close(outputs["c"][LENGTHS[0] - 1, 0], final["c"][0], SAME)
    assert torch.equal(outputs["f"][LENGTHS[0] :, 0], torch.zeros(T - 3, 6, dtype=DOUBLE))
    with pytest.raises(ValueError, match="lstm has no state or named value 'q'; there are"):
        Recurrence(case.run.cell, case.run.sizes, ("q",))
