"""The functions as numbers: accurate where their plain form is not, NaN where NaN goes in, the right side of a tie."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from everloop.lang import functions as f
from everloop.lang.cell import cell
from everloop.testing import FUNCTION, SAME, assert_close, derived_gradient, evaluate_step

EXTREMES = [-1e3, -700.0, -40.0, -1.0, -1e-3, -1e-20, 0.0, 1e-20, 1e-3, 1.0, 40.0, 700.0, 1e3]


def run(function: Callable[..., Any], *args: list[float]) -> tuple[Tensor, list[Tensor]]:
    """The function of rows of numbers, each number a row of one feature; and its derived gradient for each argument."""
    names = ["h", "a", "b"][: len(args)]
    steps: list[Callable[..., Any]] = [
        lambda x, h: function(h),
        lambda x, h, a: (function(h, a), h, a),
        lambda x, h, a, b: (function(h, a, b), h, a, b),
    ]
    step = steps[len(args) - 1]
    graph = cell(states=" ".join(names), gates="g")(step).graph
    state = {name: torch.tensor(arg, dtype=torch.float64)[:, None] for name, arg in zip(names, args, strict=True)}
    given = {"x": torch.zeros(len(args[0]), 1, dtype=torch.float64)}
    sizes = {"hidden": 1, "input": 1}
    outputs, new = evaluate_step(graph, given, state, sizes)
    zeros = {name: torch.zeros_like(value) for name, value in new.items()}
    grads = derived_gradient(graph, given, state, {"y": torch.ones_like(outputs["y"])}, zeros, sizes)
    return outputs["y"][:, 0], [grads[name][:, 0] for name in names]


def softplus(v: float) -> float:
    return max(v, 0.0) + math.log1p(math.exp(-abs(v)))


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v)) if v > 0 else math.exp(v) / (1 + math.exp(v))


ACCURATE: dict[str, tuple[Callable[[Any], Any], Callable[[float], float]]] = {
    "softplus": (f.softplus, softplus),
    "logsigmoid": (f.logsigmoid, lambda v: -softplus(-v)),
    "sigmoid": (f.sigmoid, sigmoid),
    "tanh": (f.tanh, math.tanh),
    "log1p of exp": (lambda v: f.log1p(f.exp(-f.absolute(v))), lambda v: math.log1p(math.exp(-abs(v)))),
    "log1p": (lambda v: f.log1p(f.absolute(v)), lambda v: math.log1p(abs(v))),
    "absolute": (f.absolute, abs),
    "relu": (f.relu, lambda v: max(v, 0.0)),
    "sqrt": (lambda v: f.sqrt(f.absolute(v)), lambda v: math.sqrt(abs(v))),
    "log": (lambda v: f.log(1 + f.absolute(v)), lambda v: math.log(1 + abs(v))),
    "identity": (f.identity, float),
}


@pytest.mark.parametrize("name", ACCURATE)
def test_accurate_far_out_and_close_to_zero(name: str) -> None:
    ours, reference = ACCURATE[name]
    values, _ = run(ours, EXTREMES)
    assert_close(values, [reference(v) for v in EXTREMES], FUNCTION, name)


@pytest.mark.parametrize(
    ("function", "slope"),
    [(f.softplus, sigmoid), (f.logsigmoid, lambda v: sigmoid(-v)), (f.sigmoid, lambda v: sigmoid(v) * sigmoid(-v))],
)
def test_slopes_are_accurate_far_out(function: Callable[[Any], Any], slope: Callable[[float], float]) -> None:
    points = [v for v in EXTREMES if v]
    _, (grads,) = run(function, points)
    assert_close(grads, [slope(v) for v in points], SAME, "slope")


@pytest.mark.parametrize(
    ("function", "value", "slopes"),
    [
        (f.maximum, 1.0, (0.0, 1.0)),
        (f.minimum, 1.0, (0.0, 1.0)),
        (lambda a, b: f.maximum(b, a), 1.0, (1.0, 0.0)),
    ],
)
def test_at_a_tie_the_second_has_the_gradient(function: Any, value: float, slopes: tuple[float, float]) -> None:
    values, grads = run(function, [1.0], [1.0])
    assert values.tolist() == [value]
    assert tuple(grad.item() for grad in grads) == slopes


def test_maximum_and_minimum_choose_and_hand_on() -> None:
    values, (a, b) = run(f.maximum, [1.0, 2.0], [2.0, 1.0])
    assert (values.tolist(), a.tolist(), b.tolist()) == ([2.0, 2.0], [0.0, 1.0], [1.0, 0.0])
    values, (a, b) = run(f.minimum, [1.0, 2.0], [2.0, 1.0])
    assert (values.tolist(), a.tolist(), b.tolist()) == ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0])


def test_relu_has_no_slope_at_zero() -> None:
    _, (grads,) = run(f.relu, [-1.0, 0.0, 1.0])
    assert grads.tolist() == [0.0, 0.0, 1.0]


def test_a_choice_hands_its_gradient_to_the_chosen_and_none_to_the_condition() -> None:
    values, grads = run(lambda c, a, b: f.where(c > 0, a * 2, b * 3), [1.0, 0.0, -1.0], [1.0] * 3, [1.0] * 3)
    assert values.tolist() == [2.0, 3.0, 3.0]
    assert [grad.tolist() for grad in grads] == [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 3.0, 3.0]]


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (lambda a, b: a > b, [0.0, 0.0, 1.0]),
        (lambda a, b: a >= b, [0.0, 1.0, 1.0]),
        (lambda a, b: a < b, [1.0, 0.0, 0.0]),
        (lambda a, b: a <= b, [1.0, 1.0, 0.0]),
    ],
)
def test_comparisons_are_one_or_zero_without_a_gradient(compare: Any, expected: list[float]) -> None:
    values, grads = run(lambda a, b: compare(a, b) + 0.0, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert values.tolist() == expected
    assert all(grad.abs().sum() == 0 for grad in grads)


@pytest.mark.parametrize(
    "function",
    [
        f.maximum,
        f.minimum,
        lambda a, b: f.maximum(b, a),
        lambda a, b: f.minimum(b, a),
        lambda a, b: f.where(b > 0, a, b),
        lambda a, b: f.where(b < 0, b, a),
        lambda a, b: f.relu(a),
        lambda a, b: f.absolute(a),
        lambda a, b: f.softplus(a),
        lambda a, b: f.norm(a),
    ],
)
def test_nan_is_not_hidden(function: Any) -> None:
    values, _ = run(function, [math.nan], [1.0])
    assert values.isnan().all()


def test_nan_that_is_not_chosen_does_no_harm() -> None:
    values, _ = run(lambda a, b: f.where(b > 0, b, a), [math.nan], [1.0])
    assert values.tolist() == [1.0]


def test_a_comparison_with_nan_does_not_hold() -> None:
    values, _ = run(lambda a, b: f.where(a > b, 1.0 + b, b), [math.nan], [1.0])
    assert values.tolist() == [1.0]


def test_norm_is_torchs_layer_norm() -> None:
    made = cell(states="h", gates="i f")(lambda x, h, U: f.norm(U @ h).f + f.norm(h, eps=0.1))
    torch.manual_seed(0)
    h, ui, uf = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 4), (4, 4), (4, 4)))
    given = {"x": h[:, :1], "U.i": ui, "U.f": uf}
    outputs, _ = evaluate_step(made.graph, given, {"h": h}, {"input": 1, "hidden": 4})
    joint = torch.nn.functional.layer_norm(torch.cat([h @ ui.T, h @ uf.T], -1), (8,))
    assert_close(outputs["y"], joint[:, 4:] + torch.nn.functional.layer_norm(h, (4,), eps=0.1), SAME)


def test_mean_is_one_number_per_row() -> None:
    made = cell(states="h", gates="h")(lambda x, h: h * 0.0 + f.mean(h) * h / h)
    h = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]], dtype=torch.float64)
    outputs, _ = evaluate_step(made.graph, {"x": h}, {"h": h}, {"input": 3, "hidden": 3})
    assert_close(outputs["y"], [[3.0] * 3, [4.0] * 3], SAME)


# -- against torch: values and gradients ------------------------------------------------------------------------------

PLAIN = torch.nn.functional
ELEMENTWISE: dict[str, tuple[Callable[[Any], Any], Callable[[Tensor], Tensor]]] = {
    "exp": (f.exp, torch.exp),
    "expm1": (f.expm1, torch.expm1),
    "sin": (f.sin, torch.sin),
    "cos": (f.cos, torch.cos),
    "floor": (f.floor, torch.floor),
    "silu": (f.silu, PLAIN.silu),
    "gelu": (f.gelu, lambda v: PLAIN.gelu(v, approximate="tanh")),
    "elu": (f.elu, PLAIN.elu),
    "softsign": (f.softsign, PLAIN.softsign),
    "hard_sigmoid": (f.hard_sigmoid, lambda v: (v / 6 + 0.5).clamp(0, 1)),
    "hard_tanh": (f.hard_tanh, PLAIN.hardtanh),
    "leaky_relu": (f.leaky_relu, PLAIN.leaky_relu),
    "leaky_relu 0.3": (lambda v: f.leaky_relu(v, 0.3), lambda v: PLAIN.leaky_relu(v, 0.3)),
    "square": (f.square, torch.square),
    "mod": (lambda v: f.mod(v, 1.5), lambda v: torch.remainder(v, 1.5)),
    "power": (lambda v: f.power(f.absolute(v) + 0.1, 2.5), lambda v: (v.abs() + 0.1) ** 2.5),
    "stop_gradient": (lambda v: f.stop_gradient(v) * v, lambda v: v.detach() * v),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_equals_torch(name: str) -> None:
    ours, theirs = ELEMENTWISE[name]
    numbers = [-700.3, -7.1, -2.9, -1.3, -0.4, -1e-9, 1e-9, 0.3, 0.9, 2.2, 3.4, 6.6, 20.4]
    value, (gradient,) = run(ours, numbers)
    v = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    expected = theirs(v)
    slope = torch.autograd.grad(expected.sum(), v, allow_unused=True, materialize_grads=True)[0]
    assert_close(value, expected, SAME, name)
    assert_close(gradient, slope, SAME, f"gradient of {name}")


VECTORS: dict[str, tuple[Callable[[Any], Any], Callable[[Tensor], Tensor]]] = {
    "softmax": (f.softmax, lambda v: v.softmax(-1)),
    "cumsum": (f.cumsum, lambda v: v.cumsum(-1)),
    "cumsum, reverse": (lambda v: f.cumsum(v, reverse=True), lambda v: v.flip(-1).cumsum(-1).flip(-1)),
    "largest": (lambda v: f.largest(v) * v, lambda v: v.amax(-1, keepdim=True) * v),
    "total": (lambda v: f.total(v) * v, lambda v: v.sum(-1, keepdim=True) * v),
    "mean": (lambda v: f.mean(v) * v, lambda v: v.mean(-1, keepdim=True) * v),
    "norm": (f.norm, lambda v: PLAIN.layer_norm(v, v.shape[-1:])),
    "position": (lambda v: f.position(v) * v, lambda v: torch.arange(v.shape[-1]) * v),
    "features": (lambda v: f.features(v) * v, lambda v: v.shape[-1] * v),
}


@pytest.mark.parametrize("name", VECTORS)
def test_of_a_vector_equals_torch(name: str) -> None:
    """Rows with ties, with numbers that overflow when exponentiated, and of one number many times over."""
    ours, theirs = VECTORS[name]
    rows = torch.tensor(
        [[0.5, -1.0, 0.5, 2.0], [3.0, 3.0, -2.0, 3.0], [900.0, 1000.0, -1000.0, 999.0], [-4.0, -4.5, -3.0, -5.0]],
        dtype=torch.float64,
        requires_grad=True,
    )
    graph = cell(states="h", gates="g")(lambda x, h: (ours(h), h)).graph
    sizes, x = {"hidden": 4, "input": 1}, torch.zeros(4, 1, dtype=torch.float64)
    outputs, _ = evaluate_step(graph, {"x": x}, {"h": rows}, sizes)
    weights = torch.cos(torch.arange(16.0, dtype=torch.float64)).reshape(4, 4)
    zeros = {"h": torch.zeros_like(rows)}
    gradient = derived_gradient(graph, {"x": x}, {"h": rows.detach()}, {"y": weights}, zeros, sizes)["h"]
    expected = theirs(rows)
    assert_close(outputs["y"], expected, SAME, name)
    assert_close(gradient, torch.autograd.grad((expected * weights).sum(), rows)[0], SAME, f"gradient of {name}")
