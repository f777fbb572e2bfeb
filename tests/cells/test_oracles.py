"""Every cell against a second writing of it: torch's own layers, or the paper's formula once more, in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from everloop import cells
from everloop.lang.functions import relu
from everloop.nn import Recurrent
from everloop.testing import SAME, assert_close

B, T, IN, H, P = 4, 6, 3, 5, 2

# -- torch's own layers -------------------------------------------------------------------------------------------

# Family of the cell -> the parameter of torch.nn that it is; a sum of two where torch has a bias too many.
TORCH = {"W": ("weight_ih",), "U": ("weight_hh",), "b": ("bias_ih", "bias_hh")}
CASES: dict[str, tuple[Any, Callable[..., torch.nn.RNNBase], dict[str, tuple[str, ...]]]] = {
    "elman": ("elman", torch.nn.RNN, TORCH),
    "elman relu": (cells.get("elman")(act=relu), lambda *a, **k: torch.nn.RNN(*a, nonlinearity="relu", **k), TORCH),
    "lstm": ("lstm", torch.nn.LSTM, TORCH),
    "gru": ("gru", torch.nn.GRU, TORCH | {"b": ("bias_ih",), "d": ("bias_hh",)}),
    "projection_lstm": (
        "projection_lstm",
        lambda *a, **k: torch.nn.LSTM(*a, proj_size=P, **k),
        TORCH | {"P": ("weight_hr",)},
    ),
}
SHAPES = {"one": (1, False), "deep": (3, False), "both directions": (1, True), "deep, both directions": (2, True)}


@pytest.mark.parametrize("lengths", [None, [3, 6, 1, 4]], ids=["full", "ragged"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_equals_torch(case: str, shape: str, lengths: list[int] | None) -> None:
    torch.manual_seed(0)
    cell, torch_layer, names = CASES[case]
    layers, both = SHAPES[shape]
    theirs = torch_layer(IN, H, layers, batch_first=True, bidirectional=both).double()
    sizes = {"proj": P} if "proj" in cells.get(cell).graph.size_names else None
    ours = Recurrent(cell, IN, H, layers, bidirectional=both, sizes=sizes, dtype=torch.float64)
    twins = _copy(ours, theirs, names)

    x = torch.randn(B, T, IN, dtype=torch.float64, requires_grad=True)
    state = [torch.randn_like(array).requires_grad_() for array in ours.start_state(B)]
    y, final = ours(x, state, lengths)
    expected_y, expected_final = _run_torch(theirs, x, state, lengths)
    assert_close(y, expected_y, SAME, "y")
    for name, a, b in zip(ours.cell.states, final, expected_final, strict=True):
        assert_close(a, b, SAME, name)

    weights = [torch.randn_like(array) for array in (y, *final)]
    _number([y, *final], weights).backward()
    grads = [leaf.grad for leaf in (x, *state)]
    for leaf in (x, *state):
        leaf.grad = None
    _number([expected_y, *expected_final], weights).backward()
    for name, a, leaf in zip(["x", *ours.cell.states], grads, (x, *state), strict=True):
        assert_close(a, leaf.grad, SAME, f"gradient of {name}")
    for name, parameter in ours.named_parameters():
        for twin in twins[name]:
            assert_close(parameter.grad, twin.grad, SAME, f"gradient of {name}")


@torch.no_grad()
def _copy(
    ours: Recurrent, theirs: torch.nn.RNNBase, names: Mapping[str, tuple[str, ...]]
) -> dict[str, list[torch.nn.Parameter]]:
    """Give our layer torch's weights; say which of torch's parameters each of ours belongs to."""
    twins = {}
    for name, parameter in ours.named_parameters():
        _, depth, direction, family = name.split(".")
        end = f"_l{depth}" + ("_reverse" if direction == "1" else "")
        twins[name] = [theirs.get_parameter(twin + end) for twin in names[family]]
        parameter.copy_(torch.stack(list(twins[name])).sum(0))
    return twins


def _run_torch(
    layer: torch.nn.RNNBase, x: Tensor, state: Sequence[Tensor], lengths: list[int] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    given = tuple(state) if len(state) > 1 else state[0]
    if lengths is None:
        y, final = layer(x, given)
    else:
        packed, final = layer(pack_padded_sequence(x, torch.tensor(lengths), True, False), given)
        y, _ = pad_packed_sequence(packed, True, total_length=T)
    return y, final if isinstance(final, tuple) else (final,)


def _number(results: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    return torch.stack([(r * w).sum() for r, w in zip(results, weights, strict=True)]).sum()


# -- formulas, written a second time ------------------------------------------------------------------------------

Members = dict[str, dict[str, Tensor]]
"""The weights of one layer: family -> gate -> array."""


def sigma(v: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-v))


def peephole_lstm(p: Members, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    W, U, b, v = p["W"], p["U"], p["b"], p["p"]
    i = sigma(x @ W["i"].T + h @ U["i"].T + v["i"] * c + b["i"])
    f = sigma(x @ W["f"].T + h @ U["f"].T + v["f"] * c + b["f"])
    c = f * c + i * torch.tanh(x @ W["g"].T + h @ U["g"].T + b["g"])
    o = sigma(x @ W["o"].T + h @ U["o"].T + v["o"] * c + b["o"])
    return o * torch.tanh(c), c


def gru_before(p: Members, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    W, U, b = p["W"], p["U"], p["b"]
    r = sigma(x @ W["r"].T + h @ U["r"].T + b["r"])
    z = sigma(x @ W["z"].T + h @ U["z"].T + b["z"])
    n = torch.tanh(x @ W["n"].T + (r * h) @ U["n"].T + b["n"])
    return (n + z * (h - n),)


def indrnn(p: Members, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return (torch.clamp(x @ p["W"]["h"].T + h @ torch.diag(p["u"]["h"]) + p["b"]["h"], min=0),)


def mingru(p: Members, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    z = sigma(x @ p["W"]["z"].T + p["b"]["z"])
    return (torch.lerp(h, x @ p["W"]["n"].T + p["b"]["n"], z),)


def layernorm_lstm(p: Members, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    W, U, b, s, t = ({gate: family[gate] for gate in "ifgo"} for family in (p[name] for name in "WUbst"))

    def joint(family: dict[str, Tensor], v: Tensor, scale: dict[str, Tensor]) -> Tensor:
        long = v @ torch.cat(list(family.values())).T
        return torch.nn.functional.layer_norm(long, long.shape[-1:], torch.cat(list(scale.values())))

    i, f, g, o = (joint(W, x, s) + joint(U, h, t) + torch.cat(list(b.values()))).chunk(4, -1)
    c = sigma(f) * c + sigma(i) * torch.tanh(g)
    read = torch.nn.functional.layer_norm(c, c.shape[-1:], p["t"]["c"], p["b"]["c"])
    return sigma(o) * torch.tanh(read), c


GATES = {"peephole_lstm": "ifgo", "gru_before": "rzn", "indrnn": "h", "mingru": "zn", "layernorm_lstm": "ifgo"}
# Vectors that not every gate has, or that a state has too.
OTHERS = {("peephole_lstm", "p"): "ifo", ("layernorm_lstm", "t"): "ifgoc", ("layernorm_lstm", "b"): "ifgoc"}
FORMULAS = {f.__name__: f for f in (peephole_lstm, gru_before, indrnn, mingru, layernorm_lstm)}


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_formula_written_again(name: str) -> None:
    layer, x = _layer(name)
    state = [torch.randn_like(array[0]).requires_grad_() for array in layer.start_state(B)]
    y, final = layer(x, [array[None] for array in state])

    members = _members(layer, GATES[name], {f: g for (cell, f), g in OTHERS.items() if cell == name})
    now, ys = tuple(state), []
    for t in range(T):
        now = FORMULAS[name](members, x[:, t], *now)
        ys.append(now[0])
    expected = torch.stack(ys, 1)

    assert_close(y, expected, SAME, "y")
    for a, b in zip(final, now, strict=True):
        assert_close(a[0], b, SAME, "state")
    leaves = [x, *state, *layer.parameters()]
    weights = torch.randn_like(y)
    ours = torch.autograd.grad((y * weights).sum() + sum(a.square().sum() for a in final), leaves)
    theirs = torch.autograd.grad((expected * weights).sum() + sum(b.square().sum() for b in now), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b, SAME, "gradient")


def test_mingru_equals_its_closed_form() -> None:
    """Each candidate times what the later gates have let through: no loop."""
    layer, x = _layer("mingru")
    p = _members(layer, "zn", {})
    z, n = sigma(x @ p["W"]["z"].T + p["b"]["z"]), x @ p["W"]["n"].T + p["b"]["n"]
    kept = torch.cumprod(1 - z, 1)
    h = torch.randn(B, H, dtype=torch.float64)
    assert_close(layer(x, h[None])[0], kept * (h[:, None] + torch.cumsum(z * n / kept, 1)), SAME)


def test_slstm_equals_its_unstabilised_form() -> None:
    """The paper's plain form, with c and n themselves: what the stabilised ones are, times exp(m)."""
    layer, x = _layer("slstm")
    p = _members(layer, "ifzo", {})
    h = c = n = torch.zeros(B, H, dtype=torch.float64)
    ys = []
    for t in range(T):
        i, f, z, o = (x[:, t] @ p["W"][g].T + h @ p["U"][g].T + p["b"][g] for g in "ifzo")
        c = sigma(f) * c + torch.exp(i) * torch.tanh(z)
        n = sigma(f) * n + torch.exp(i)
        h = sigma(o) * c / n
        ys.append(h)
    y, final = layer(x)
    assert_close(y, torch.stack(ys, 1), SAME)
    assert_close(final.c[0] * torch.exp(final.m[0]), c, SAME)
    assert_close(final.n[0] * torch.exp(final.m[0]), n, SAME)


def test_slstm_stays_finite_where_the_plain_form_does_not() -> None:
    layer, x = _layer("slstm")
    x = (x * 1e4).requires_grad_()
    y, final = layer(x)
    (y.sum() + final.c.sum()).backward()
    assert y.abs().max() <= 1
    assert y.abs().max() > 0
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def _layer(name: str) -> tuple[Recurrent, Tensor]:
    torch.manual_seed(0)
    layer = Recurrent(name, IN, H, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer, torch.randn(B, T, IN, dtype=torch.float64, requires_grad=True)


def _members(layer: Recurrent, gates: str, others: Mapping[str, str]) -> Members:
    found = {}
    for name, array in layer.named_parameters():
        family = name.rpartition(".")[2]
        names = others.get(family, gates)
        found[family] = dict(zip(names, array.chunk(len(names)), strict=True))
    return found
