"""The programs that `everloop show CELL --as numpy` and `--as torch` print compute what the layer computes."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from everloop import cells
from everloop.export import numpy_source, torch_source
from everloop.lang.cell import Cell, cell
from everloop.lang.functions import (
    blocks,
    cos,
    cumsum,
    exp,
    expm,
    expm1,
    features,
    fixed,
    floor,
    largest,
    maximum,
    norm,
    position,
    relu,
    shift,
    sigmoid,
    sin,
    sized,
    softmax,
    softplus,
    stop_gradient,
    tanh,
    total,
    where,
    window,
)  # fmt: skip
from everloop.lang.transforms import layer_norm, residual, zoneout
from everloop.nn import Recurrent
from everloop.testing import SAME, assert_close

ODD: dict[str, Cell] = {}


def odd(made: Cell) -> Cell:
    ODD[made.name] = made
    return made


# Names that the programs, Python, NumPy or torch use themselves.


@odd
@cell(states="h c", gates="lambda x", inputs="params T", start={"params": 0.5, "T": 1.0})
def names_of_the_program(x, h, c, params, T, W, U, np, torch, self):
    grads = W.x @ x + U.x @ h + np.x
    steps = tanh(grads * torch.x + params)
    t = sigmoid(getattr(W, "lambda") @ x + self.h)
    y = T * t
    state = steps * y + c
    return state, state - c


@odd
@cell(states="y dy x_t", gates="f f_g")
def names_of_gradients(x, y, dy, x_t, U, b, u):
    dh = tanh(U.f @ x + U.f_g @ y + b.f)
    dy_t = dh * u.f_g + dy
    x = dh - x_t
    return dy_t, tanh(x), x_t + dh


@odd
@cell(states="h", gates="g i1")
def names_without_letters(x, h, W, U, b):
    _ = W.g @ x + b.g
    __ = tanh(_ + U.g @ h)
    _1 = sigmoid(W.i1 @ x)
    print = __ * _1
    return print + h * (1 - _1)


@odd
@cell(states="h", gates="g")
def names_of_functions(x, h, W, U, b):
    exp = W.g @ x
    sigmoid = tanh(exp + U.g @ h + b.g)
    check = softplus(sigmoid)
    len = check * sigmoid
    return len * maximum(exp, len)


# What the language has beside the cells of the catalogue.


@odd
@cell(states="h", gates="h g", sizes={"rank": 2}, init={"A": "normal", "U": "identity", "u": (0.5, 1.5)})
def made_matrices(x, h, W, U, A, B, u):
    skew = expm(0.3 * (U.h - U.h.T))
    low = A.h @ B.h
    inner = sized(B.h @ h, "rank") * u.g
    return tanh(skew @ h + tanh(low) @ h + A.h @ inner + W.h @ x) * u.h


@odd
@cell(states="h", gates="h")
def fixed_matrices(x, h, W, U):
    ring = fixed(lambda i, j: where(i > j, 0.5, 0.1 * j))
    return tanh(W.h @ x + ring @ h + (stop_gradient(U.h) - sin(U.h)) @ h)


@odd
@cell(states="h", gates="a b", init={"U": "orthogonal"})
def heads(x, h, W, U, V, d, *, heads=2):
    a = W @ x + blocks(U, heads) @ h + blocks(V, heads) @ (h * d.a)
    return tanh(a.a) * sigmoid(a.b) + blocks(V, heads).a @ d.b


@odd
@cell(states="h", gates="h", inputs="dt mask:input weight:hidden", start={"dt": 2.0, "mask": 1.0})
def side_inputs(x, h, dt, mask, weight, W, U):
    decay = exp(-dt * maximum(weight, 0.1))
    return decay * h + tanh(W.h @ where(mask > 0.7, x, mask * x) + U.h @ h) * dt


@odd
@cell(states="h", gates="h", init={"b": lambda u, k, n: (k + u) / n})
def delays(x, h, W, U, b):
    now, before, earlier = window(x, 3)
    return tanh(W[0].h @ now + W[1].h @ before + W[2].h @ earlier + U.h @ shift(h, 2) + b.h)


@odd
@cell(states="h", gates="h")
def every_function(x, h, W, U, b):
    a = W.h @ x + U.h @ h + b.h
    e = expm1(0.1 * a) + sin(a) * cos(h) + floor(3 * a) / 10
    p = softmax(a) + cumsum(softmax(h)) - cumsum(0.1 * a, reverse=True)
    s = stop_gradient(e) * p + where(a > stop_gradient(h), p, e) * largest(a)
    return tanh(s + position(a) / 10 + relu(total(s)) * norm(e)) + where(a > 0, 1, 0.5)


@odd
@cell(states="h", gates="h")
def numbers_alone(x, h, W, u):
    scale = exp(features(h) / 8) + where(1.0, 0.5, u.h)
    return tanh(W.h @ x + h / scale + (u.h > 0) * h + exp(u.h)), exp(u.h) * 0.1 + h * 0


@odd
@cell(states="h c", gates="h")
def exchanged(x, h, c, W):
    return c, h + 0.1 * (W.h @ x)


@odd
@cell(states="h", gates="h")
def long_sum(x, h, W, U):
    a = W.h @ x + U.h @ h
    for k in range(200):
        a = a + (0.001 * k) * h
    return tanh(a / 500)


ODD["transformed"] = zoneout(layer_norm(residual(cells.get("gru"))), 0.1)
CELLS = {**{name: cells.get(name) for name in cells.names()}, **ODD}


@dataclass
class Problem:
    """A layer with random parameters, its input and a state on its way; what it gives for them and all gradients."""

    layer: Recurrent
    x: Tensor
    state: list[Tensor]
    side: dict[str, Tensor]
    y: Tensor
    last: list[Tensor]
    dy: Tensor
    dlast: list[Tensor]
    grads: dict[str, Tensor] = field(default_factory=dict)


@cache
def problem(name: str) -> Problem:
    made = CELLS[name]
    sizes = {size: 5 for size in made.graph.size_names if size not in ("input", "hidden")}
    width = 3 if "hidden" in made.graph.size_names else 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = Recurrent(made, width, 4, sizes=sizes, dtype=torch.float64).eval()
        for parameter in layer.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        x = torch.randn(2, 4, width, dtype=torch.float64)
        lengths = {"input": width, "hidden": 4, **sizes}
        side = {
            key: torch.rand(2, 4, 1 if leaf.size is None else lengths[str(leaf.size)], dtype=torch.float64) + 0.2
            for key, leaf in made.graph.inputs.items()
            if key != "x" and key not in made.graph.draws
        }
        with torch.no_grad():
            _, state = layer(x, side=side)
        # A little off, because functions may have kinks where states come to rest.
        state = [array + 0.01 * torch.randn_like(array) for array in state]
        leaves = {"x": x, **{f"side {key}": array for key, array in side.items()}}
        leaves |= {f"state {key}": array for key, array in zip(made.graph.states, state, strict=True)}
        for leaf in leaves.values():
            leaf.requires_grad_()
        y, last = layer(x, state, side=side)
        dy, dlast = torch.randn_like(y), [torch.randn_like(array) for array in last]
    leaves |= dict(layer.named_parameters())
    grads = gradients([y, *last], [dy, *dlast], leaves.values())
    return Problem(layer, x, state, side, y, list(last), dy, dlast, dict(zip(leaves, grads, strict=True)))


def gradients(results: Sequence[Tensor], weights: Sequence[Tensor], leaves: Iterable[Tensor]) -> list[Tensor]:
    leaves = list(leaves)
    number = sum((result * weight).sum() for result, weight in zip(results, weights, strict=True))
    if not number.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(number, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


def run_text(text: str, name: str) -> SimpleNamespace:
    """The program as a module."""
    space: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec"), space)
    return SimpleNamespace(**space)


def members(made: Cell, names: Iterable[str], arrays: dict[str, Tensor], lengths: dict[str, int]) -> dict[str, Tensor]:
    """The stacked arrays of a layer as one for each of the program's parameters, which come in the order of ours."""
    found: dict[str, Tensor] = {}
    for stack, params in made.graph.stacks.items():
        rows = arrays[f"layers.0.0.{stack}"].split([lengths[str(param.sizes[0])] for param in params])
        found |= {param.name: part for param, part in zip(params, rows, strict=True)}
    return {own: found[name] for own, name in zip(names, made.graph.held, strict=True)}


@pytest.mark.parametrize("name", CELLS)
def test_the_numpy_program_is_the_layer(name: str) -> None:
    made, known = CELLS[name], problem(name)
    lengths = known.layer.sizes
    program = run_text(numpy_source.source(made), name)
    arguments = {key: lengths[key.removesuffix("_size")] for key in sizes_of(program.init)}
    own = program.init(**arguments)
    params = {
        key: value.detach().numpy()
        for key, value in members(made, own, dict(known.layer.named_parameters()), lengths).items()
    }
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in params.items()}
    state = [array[0].detach().numpy() for array in known.state]
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        side = side_of(made, program.forward, {key: array.detach().numpy() for key, array in known.side.items()})
        y, last, tape = program.forward(params, known.x.detach().numpy(), state, **side)
        dlast = [array[0].numpy() for array in known.dlast]
        grads, *dinputs, dstate = program.backward(params, tape, known.dy.numpy(), dlast)
    same_results(known, y, last)
    expected = members(made, own, known.grads, lengths)
    for key, grad in grads.items():
        assert_close(grad, expected[key], SAME, f"the gradient of {key}")
    given = [key for key in made.graph.inputs if key not in made.graph.draws]
    for key, grad in zip(given, dinputs, strict=False):
        assert_close(grad, known.grads["x" if key == "x" else f"side {key}"], SAME, f"the gradient of {key}")
    for key, grad in zip(made.graph.states, dstate, strict=True):
        assert_close(grad, known.grads[f"state {key}"][0], SAME, f"the gradient of the first state {key}")


@pytest.mark.parametrize("name", CELLS)
def test_the_torch_program_is_the_layer(name: str) -> None:
    made, known = CELLS[name], problem(name)
    program = run_text(torch_source.source(made), name)
    (module_class,) = [v for v in vars(program).values() if isinstance(v, type) and issubclass(v, torch.nn.Module)]
    arguments = {key: known.layer.sizes[key.removesuffix("_size")] for key in sizes_of(module_class.__init__)}
    module = module_class(**arguments).double()
    weights = {key.removeprefix("layers.0.0."): value for key, value in known.layer.state_dict().items()}
    module.load_state_dict(weights)
    side = side_of(made, module.forward, known.side)
    state = tuple(array[0] for array in known.state)
    y, last = module(known.x, state, **side)
    same_results(known, y, last)
    leaves = {"x": known.x, **{f"side {key}": array for key, array in known.side.items()}}
    leaves |= {f"state {key}": array for key, array in zip(made.graph.states, known.state, strict=True)}
    leaves |= {f"layers.0.0.{key}": parameter for key, parameter in module.named_parameters()}
    weights = [known.dy, *(array[0] for array in known.dlast)]
    for key, grad in zip(leaves, gradients([y, *last], weights, leaves.values()), strict=True):
        assert_close(grad, known.grads[key], SAME, f"the gradient of {key}")


def same_results(known: Problem, y: Any, last: Sequence[Any]) -> None:
    assert_close(y, known.y, SAME, "y")
    for key, array, expected in zip(known.layer.cell.graph.states, last, known.last, strict=True):
        assert_close(array, expected[0], SAME, f"the last state {key}")


def sizes_of(function: Any) -> list[str]:
    code = function.__code__
    return [name for name in code.co_varnames[: code.co_argcount] if name.endswith("_size")]


def side_of(made: Cell, function: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Side inputs by the names that the program has for them: which come in our order."""
    graph = made.graph
    ours = [name for name in graph.inputs if name != "x"]
    theirs = list(inspect.signature(function).parameters)[-len(ours) :] if ours else []
    return {own: arrays[name] for own, name in zip(theirs, ours, strict=True) if name in arrays}


PRINTED = [
    *((numpy_source, name) for name in ("gru", "slstm", "gru_d", "lru", "made_matrices", "every_function", "heads")),
    *((torch_source, name) for name in ("gru", "names_of_the_program", "made_matrices")),
]


@pytest.mark.parametrize(("form", "name"), PRINTED)
def test_a_program_runs_as_it_is_printed(form: Any, name: str, tmp_path: Path) -> None:
    """It needs nothing of ours, warns of nothing, and finds its own gradient right."""
    file = tmp_path / "program.py"
    file.write_text(form.source(CELLS[name]), encoding="utf-8")
    command = [sys.executable, "-I", "-W", "error", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "everloop" not in {line.split()[1] for line in file.read_text().splitlines() if line.startswith("import")}
    wanted = "largest difference" if form is numpy_source else "y (2, 5, "
    assert wanted in ran.stdout


def test_the_numpy_program_notices_a_wrong_gradient() -> None:
    text = numpy_source.source(cells.get("lstm"))
    program = run_text(text, "right")
    assert program.check() < 1e-6
    wrong = run_text(text.replace("di * (i * (1 - i))", "di * (i * (1 + i))"), "wrong")
    assert wrong.check() > 1e-6


@pytest.mark.parametrize("form", [numpy_source, torch_source])
def test_a_program_is_the_same_every_time_and_can_be_read(form: Any) -> None:
    for name, made in CELLS.items():
        text = form.source(made)
        assert text == form.source(CELLS[name]() if not made.rewrites else made)
        assert max(map(len, text.splitlines())) <= 160
        assert text.isascii() or not str(made.source).isascii()


@pytest.mark.parametrize("name", ["lstm", "gru_d", "delays"])
def test_programs_take_no_steps_and_no_sequences(name: str) -> None:
    made = CELLS[name]
    numpy_program = run_text(numpy_source.source(made), name)
    torch_program = run_text(torch_source.source(made), name)
    (module_class,) = [v for v in vars(torch_program).values() if isinstance(v, type)]
    params, module = numpy_program.init(input_size=3, hidden_size=4), module_class(3, 4)
    for batch, time in ((2, 0), (0, 3)):
        x = np.zeros((batch, time, 3))
        state = numpy_program.start(batch, **{key: 4 if "h" in key else 3 for key in sizes_of(numpy_program.start)})
        y, last, tape = numpy_program.forward(params, x, state)
        assert y.shape == (batch, time, 4)
        grads, dx, *_ = numpy_program.backward(params, tape, y, last)
        assert dx.shape == x.shape
        assert not any(grad.any() for grad in grads.values())
        y, last = module(torch.zeros(batch, time, 3))
        assert y.shape == (batch, time, 4)
        assert [part.shape[0] for part in last] == [batch] * len(state)


def test_parameters_start_as_the_cell_says() -> None:
    lstm = run_text(numpy_source.source(cells.get("lstm")), "lstm").init(input_size=3, hidden_size=4)
    assert [float(lstm[f"b_{gate}"].sum()) for gate in "ifgo"] == [0.0, 4.0, 0.0, 0.0]
    assert_close(lstm["U_i"] @ lstm["U_i"].T, np.eye(4))
    made = run_text(numpy_source.source(ODD["made_matrices"]), "made").init(input_size=3, hidden_size=4, rank_size=2)
    assert_close(made["U_h"], np.eye(4))
    assert made["A_h"].shape == (4, 2)
    assert 0.5 <= made["u_h"].min() <= made["u_h"].max() <= 1.5
    started = run_text(numpy_source.source(ODD["delays"]), "delays").init(input_size=3, hidden_size=4)
    assert [int(4 * value) for value in started["b_h"]] == [0, 1, 2, 3]
    module = run_text(torch_source.source(ODD["delays"]), "delays").Delays(3, 4)
    assert [int(4 * value) for value in module.b.tolist()] == [0, 1, 2, 3]
    slstm = run_text(numpy_source.source(cells.get("slstm")), "slstm")
    assert [part.min() for part in slstm.start(2, 4)] == [0, 0, 0, -1e30]


def test_a_function_of_another_place_is_told_with_those_it_calls() -> None:
    lru = run_text(numpy_source.source(cells.get("lru")), "lru").init(input_size=3, hidden_size=4)
    layer = Recurrent("lru", 3, 4, dtype=torch.float64)
    assert_close(lru["nu_s"], layer.get_parameter("layers.0.0.nu"))
    assert_close(lru["gamma_s"], layer.get_parameter("layers.0.0.gamma"))


@pytest.mark.parametrize("form", [numpy_source, torch_source])
def test_a_function_that_cannot_be_told_is_said_to_be_missing(form: Any) -> None:
    far = 3.0

    @cell(states="h", gates="h", init={"b": lambda u, k, n: far * k})
    def closed(x, h, W, b):
        return tanh(W.h @ x + b.h) * h

    text = form.source(closed)
    assert "a function of its own" in text
    run_text(text, "closed")


@pytest.mark.parametrize("form", [numpy_source, torch_source])
def test_a_graph_alone_is_enough(form: Any) -> None:
    of_cell, of_graph = form.source(cells.get("gru")), form.source(cells.get("gru").graph)
    assert of_graph == of_cell.replace("Cho et al. 2014, in the form of cuDNN (reset after the product).\n", "")


@pytest.mark.parametrize("form", [numpy_source, torch_source])
def test_a_step_may_be_longer_than_python_can_nest(form: Any) -> None:
    @cell(states="h", gates="h")
    def long(x, h, W):
        a = W.h @ x
        for k in range(1100):
            a = a + (0.001 * k) * h
        return tanh(a / 500)

    text = form.source(long)
    compile(text, "long", "exec")
    assert max(map(len, text.splitlines())) <= 160
