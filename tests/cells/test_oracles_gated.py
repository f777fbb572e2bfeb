"""The gated cells against the papers' formulas, written a second time in NumPy; and what they become as torch's own.

Each formula is of one sequence and one step, on columns: `[W U] @ [x; h]` where the cell has `W @ x + U @ h`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from everloop import cells
from everloop.lang.functions import identity, tanh
from everloop.nn import Recurrent
from everloop.testing import FLOAT32, SAME, assert_close

B, T, IN, H = 3, 6, 3, 5
Array = NDArray[np.float64]
Weights = Mapping[str, Array]
"""The weights of one layer by name: `W.i`, `b.f`."""

# What each cell is held against, apart from the finite differences of `check_cell`. The formula is the paper's,
# or the authors' code where the paper leaves something open; what was read is named beside it.
ORACLES: dict[str, str] = {
    "atr": "second formula: paper, authors' code",
    "brc": "second formula: authors' code",
    "cfn": "second formula: paper",
    "cifg_lstm": "onnxruntime (test_oracles_onnx), second formula: paper",
    "cornn": "second formula: authors' code",
    "dsgu": "second formula: authors' code",
    "fastgrnn": "second formula: authors' code",
    "fastrnn": "torch.nn (as a simple network), second formula: authors' code",
    "intersection_rnn": "second formula: authors' code in TensorFlow 1",
    "janet": "second formula: authors' code",
    "jordan": "second formula: paper",
    "layernorm_gru": "second formula: paper",
    "lem": "second formula: authors' code",
    "light_ru": "second formula: paper",
    "ligru": "torch.nn (GRU that never resets), second formula: paper",
    "lstm_1997": "torch.nn (LSTM that never forgets), second formula: paper",
    "mgu": "second formula: paper",
    "mgu1": "second formula: paper",
    "mgu2": "second formula: paper",
    "mgu3": "second formula: paper",
    "mi_rnn": "torch.nn (as a simple network), second formula: paper",
    "minimal_rnn": "second formula: paper",
    "multiplicative_lstm": "second formula: paper",
    "mut1": "second formula: paper, JZS1 of Keras",
    "mut2": "second formula: paper, JZS2 of Keras",
    "mut3": "second formula: paper, JZS3 of Keras",
    "nas": "second formula: authors' code in TensorFlow 1",
    "nbrc": "second formula: authors' code",
    "ran": "second formula: authors' code",
    "res_lstm": "torch.nn (LSTM, without peepholes and shortcut), second formula: paper",
    "scrn": "second formula: paper",
    "sgu": "second formula: authors' code",
    "sru": "second formula: authors' code",
    "star": "second formula: paper",
    "ugrnn": "torch.nn (GRU that never resets), second formula: authors' code in TensorFlow 1",
    "unicornn": "second formula: authors' code",
    "wmc_lstm": "torch.nn (LSTM, without memory connections), second formula: paper",
}


def sigma(v: Any) -> Any:
    return 0.5 + 0.5 * np.tanh(v / 2)


def both(p: Weights, gate: str, x: Array, h: Array) -> Array:
    """W x + U h as one product."""
    return np.hstack([p[f"W.{gate}"], p[f"U.{gate}"]]) @ np.concatenate([x, h])


def clip(v: Array) -> Array:
    return np.clip(0.2 * v + 0.5, 0, 1)


def jordan(p: Weights, x: Array, s: Array, decay: float = 0.0) -> tuple[Array, ...]:
    y = sigma(p["V.y"] @ sigma(both(p, "h", x, s) + p["b.h"]) + p["b.y"])
    return y, y + decay * s


def lstm_1997(p: Weights, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    i, o = (sigma(both(p, gate, x, h) + p[f"b.{gate}"]) for gate in "io")
    new = c + i * np.tanh(both(p, "g", x, h) + p["b.g"])
    return o * np.tanh(new), new


def lstm_1997_squashed(p: Weights, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    i, o = (sigma(both(p, gate, x, h) + p[f"b.{gate}"]) for gate in "io")
    new = c + i * (4 * sigma(both(p, "g", x, h) + p["b.g"]) - 2)
    return o * (2 * sigma(new) - 1), new


def cifg_lstm(p: Weights, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    f = sigma(-both(p, "i", x, h) - p["b.i"])
    g, o = both(p, "g", x, h) + p["b.g"], both(p, "o", x, h) + p["b.o"]
    new = np.tanh(g) + f * (c - np.tanh(g))
    return sigma(o) * np.tanh(new), new


def multiplicative_lstm(p: Weights, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    # The recurrent matrix made of the input: V diag(W.m x) U.m.
    middle = np.diag(p["W.m"] @ x) @ p["U.m"]
    i, f, g, o = (p[f"W.{k}"] @ x + (p[f"V.{k}"] @ middle) @ h + p[f"b.{k}"] for k in "ifgo")
    new = sigma(f) * c + sigma(i) * np.tanh(g)
    return np.tanh(new) * sigma(o), new


def layernorm_gru(p: Weights, x: Array, h: Array, eps: float = 1e-5, inside: bool = True) -> tuple[Array, ...]:
    def normal(v: Array) -> Array:
        return (v - v.mean()) / (np.sqrt(v.var() + eps) if inside else np.sqrt(v.var()) + eps)

    def gates(family: str, v: Array) -> Array:
        return normal(np.concatenate([p[f"{family}.r"], p[f"{family}.z"]]) @ v)

    scale = {family: np.concatenate([p[f"{family}.r"], p[f"{family}.z"]]) for family in "stb"}
    r, z = np.split(sigma(scale["s"] * gates("W", x) + scale["t"] * gates("U", h) + scale["b"]), 2)
    n = np.tanh(p["s.n"] * normal(p["W.n"] @ x) + p["b.n"] + r * (p["t.n"] * normal(p["U.n"] @ h) + p["d.n"]))
    return (n + z * (h - n),)


def minimal_gated(p: Weights, x: Array, h: Array, f: Array) -> tuple[Array, ...]:
    return ((1 - f) * h + f * np.tanh(both(p, "h", x, f * h) + p["b.h"]),)


def mgu(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    return minimal_gated(p, x, h, sigma(both(p, "f", x, h) + p["b.f"]))


def mgu1(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    return minimal_gated(p, x, h, sigma(p["U.f"] @ h + p["b.f"]))


def mgu2(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    return minimal_gated(p, x, h, sigma(p["U.f"] @ h))


def mgu3(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    return minimal_gated(p, x, h, sigma(p["b.f"]))


def mut1(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    z, r = sigma(p["W.z"] @ x + p["b.z"]), sigma(both(p, "r", x, h) + p["b.r"])
    return (h + z * (np.tanh(p["U.h"] @ (r * h) + np.tanh(p["W.h"] @ x) + p["b.h"]) - h),)


def mut2(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    z, r = (sigma(both(p, gate, x, h) + p[f"b.{gate}"]) for gate in "zr")
    return (h + z * (np.tanh(both(p, "h", x, r * h) + p["b.h"]) - h),)


def mut3(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    z, r = sigma(both(p, "z", x, np.tanh(h)) + p["b.z"]), sigma(both(p, "r", x, h) + p["b.r"])
    return (h + z * (np.tanh(both(p, "h", x, r * h) + p["b.h"]) - h),)


def ligru(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    z, n = sigma(both(p, "z", x, h) + p["b.z"]), np.maximum(both(p, "h", x, h) + p["b.h"], 0)
    return (n + z * (h - n),)


def ugrnn(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    g, n = sigma(both(p, "g", x, h) + p["b.g"]), np.tanh(both(p, "h", x, h) + p["b.h"])
    return (n + g * (h - n),)


def janet(p: Weights, x: Array, h: Array, beta: float = 1.0) -> tuple[Array, ...]:
    f, n = both(p, "f", x, h) + p["b.f"], both(p, "h", x, h) + p["b.h"]
    return (h * sigma(f) + sigma(beta - f) * np.tanh(n),)


def fastrnn(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    rates = sigma(np.stack([p["alpha.h"], p["beta.h"]]))
    return ((rates * np.stack([np.tanh(both(p, "h", x, h) + p["b.h"]), h])).sum(0),)


def fastgrnn(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    z, n = sigma(both(p, "h", x, h) + p["b.z"]), np.tanh(both(p, "h", x, h) + p["b.h"])
    return (z * h + sigma(p["zeta.h"]) * n - sigma(p["zeta.h"]) * z * n + sigma(p["nu.h"]) * n,)


def minimal_rnn(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    z = np.tanh(p["W.z"] @ x + p["b.z"])
    u = sigma(np.hstack([p["U.u"], p["V.u"]]) @ np.concatenate([h, z]) + p["b.u"])
    return (z + u * (h - z),)


def cfn(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    f, i = (sigma(both(p, gate, x, h) + p[f"b.{gate}"]) for gate in "fi")
    return (f * np.tanh(h) + i * np.tanh(p["W.h"] @ x),)


def ran(p: Weights, x: Array, h: Array, c: Array, act: Any = np.tanh) -> tuple[Array, ...]:
    i, f = (sigma(both(p, gate, x, h) + p[f"b.{gate}"]) for gate in "if")
    new = np.diag(i) @ p["W.c"] @ x + f * c
    return act(new), new


def atr(p: Weights, x: Array, h: Array, act: Any = lambda v: v) -> tuple[Array, ...]:
    here, past = p["W.h"] @ x + p["b.h"], p["U.h"] @ h
    i, f = sigma(np.array([[1, 1], [1, -1]]) @ np.stack([here, past]))
    return (act(i * here + f * h),)


def star(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    k, z = sigma(both(p, "k", x, h) + p["b.k"]), np.tanh(p["W.z"] @ x + p["b.z"])
    return (np.tanh(h + k * (z - h)),)


def intersection_rnn(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    through_time, n, through_depth, y = (both(p, gate, x, h) + p[f"b.{gate}"] for gate in "pnqy")
    y, n = np.maximum(y, 0), np.tanh(n)
    return y + sigma(through_depth) * (x - y), n + sigma(through_time) * (h - n)


def nas(p: Weights, x: Array, h: Array, c: Array, product: bool = True) -> tuple[Array, ...]:
    here = [p[f"W.g{k}"] @ x for k in range(8)]
    past = [p[f"U.g{k}"] @ h + p[f"b.g{k}"] for k in range(8)]
    a = [u + v for u, v in zip(here, past, strict=True)]
    if product:
        a[3] = here[3] * past[3]
    second = [sigma(a[0]) * np.maximum(a[1], 0), sigma(a[2]) + np.maximum(a[3], 0), np.tanh(a[4]) * sigma(a[5])]
    left, right, upper = np.tanh(second)
    new = np.tanh(left + c) * right
    return np.tanh(new * np.tanh(upper + sigma(np.tanh(a[6]) + sigma(a[7])))), new


def sgu(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    g = np.tanh(p["U.g"] @ np.diag(p["W.g"] @ x + p["b.g"]) @ h)
    z = clip(both(p, "z", x, h) + p["b.z"])
    return (h + z * (np.logaddexp(0, g * h) - h),)


def dsgu(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    g = np.tanh(p["U.g"] @ np.diag(p["W.g"] @ x + p["b.g"]) @ h)
    z = clip(both(p, "z", x, h) + p["b.z"])
    return (h + z * (sigma(p["V.g"] @ np.diag(g) @ h) - h),)


def light_ru(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    return (h + sigma(both(p, "f", x, h) + p["b.f"]) * (np.tanh(p["W.h"] @ x) - h),)


def res_lstm(p: Weights, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    def gate(k: str, memory: Array) -> Array:
        return sigma(both(p, k, x, h) + np.diag(p[f"p.{k}"]) @ memory + p[f"b.{k}"])

    new = gate("f", c) * c + gate("i", c) * np.tanh(both(p, "g", x, h) + p["b.g"])
    return gate("o", new) * (np.hstack([p["P.h"], p["W.h"]]) @ np.concatenate([np.tanh(new), x])), new


def wmc_lstm(p: Weights, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    def gate(k: str, memory: Array) -> Array:
        return sigma(both(p, k, x, h) + np.tanh(p[f"V.{k}"] @ memory) + p[f"b.{k}"])

    new = gate("f", c) * c + gate("i", c) * np.tanh(both(p, "g", x, h) + p["b.g"])
    return gate("o", new) * np.tanh(new), new


def mi_rnn(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    # alpha p q + beta q + gamma p, from (alpha p + beta) (alpha q + gamma) = alpha (...) + beta gamma.
    here, past, alpha = p["W.h"] @ x, p["U.h"] @ h, p["alpha.h"]
    joint = (alpha * here + p["beta.h"]) * (alpha * past + p["gamma.h"]) - p["beta.h"] * p["gamma.h"]
    return (np.tanh(joint / alpha + p["b.h"]),)


def bistable(p: Weights, x: Array, h: Array, past: Callable[[str, int], float]) -> tuple[Array, ...]:
    """Unit by unit; `past` is what the gates of a unit see of h."""
    new = np.empty_like(h)
    for k, value in enumerate(h):
        a = 1 + np.tanh(p["W.a"][k] @ x + past("a", k) + p["b.a"][k])
        c = sigma(p["W.c"][k] @ x + past("c", k) + p["b.c"][k])
        new[k] = c * value + (1 - c) * np.tanh(p["W.h"][k] @ x + a * value)
    return (new,)


def brc(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    return bistable(p, x, h, lambda gate, k: p[f"u.{gate}"][k] * h[k])


def nbrc(p: Weights, x: Array, h: Array) -> tuple[Array, ...]:
    return bistable(p, x, h, lambda gate, k: p[f"U.{gate}"][k] @ h)


def cornn(
    p: Weights,
    x: Array,
    y: Array,
    z: Array,
    dt: float = 0.042,
    gamma: float = 2.7,
    epsilon: float = 4.7,
    old: bool = False,
) -> tuple[Array, ...]:
    drive = np.tanh(np.hstack([p["W.z"], p["V.z"], p["U.z"]]) @ np.concatenate([x, z, y]) + p["b.z"])
    new = z + dt * (drive - gamma * y - epsilon * z)
    return y + dt * (z if old else new), new


def unicornn(p: Weights, x: Array, y: Array, z: Array, dt: float = 0.19, alpha: float = 30.65) -> tuple[Array, ...]:
    new_y, new_z = y.copy(), z.copy()
    for k, step in enumerate(dt / (1 + np.exp(-p["c.z"]))):
        new_z[k] -= step * (np.tanh(y[k] * p["u.z"][k] + p["W.z"][k] @ x + p["b.z"][k]) + alpha * y[k])
        new_y[k] += step * new_z[k]
    return new_y, new_z


def lem(
    p: Weights, x: Array, y: Array, z: Array, dt: float = 1.0, old: bool = False, one_step: bool = False
) -> tuple[Array, ...]:
    step_y, step_z = (dt * sigma(both(p, gate, x, y) + p[f"b.{gate}"]) for gate in ("dy", "dz"))
    step_y = step_z if one_step else step_y
    new = z + step_z * (np.tanh(both(p, "z", x, y) + p["b.z"]) - z)
    drive = np.hstack([p["W.y"], p["V.y"]]) @ np.concatenate([x, z if old else new])
    return y + step_y * (np.tanh(drive + p["b.y"]) - y), new


def sru(p: Weights, x: Array, c: Array, act: Any = lambda v: v) -> tuple[Array, ...]:
    new, out = c.copy(), np.empty_like(c)
    for k in range(len(c)):
        f, r = (sigma(p[f"W.{gate}"][k] @ x + p[f"v.{gate}"][k] * c[k] + p[f"b.{gate}"][k]) for gate in "fr")
        here, shortcut = p["W.c"][k] @ x, p["W.s"][k] @ x
        new[k] = here + (c[k] - here) * f
        out[k] = shortcut + (act(new[k]) - shortcut) * r
    return out, new


def scrn(p: Weights, x: Array, h: Array, s: Array, keep: float = 0.95) -> tuple[Array, ...]:
    slow = (1 - keep) * p["W.s"] @ x + keep * s
    seen = np.hstack([p["W.h"], p["U.h"], p["V.h"]]) @ np.concatenate([x, h, slow])
    fast = sigma(seen + p["b.h"])
    return np.hstack([p["U.y"], p["V.y"]]) @ np.concatenate([fast, slow]), fast, slow


# Cell -> its formula; the result has the output in front if the output is no state.
FORMULAS: dict[str, Callable[..., tuple[Array, ...]]] = {
    f.__name__: f
    for f in (
        *(atr, brc, cfn, cifg_lstm, cornn, dsgu, fastgrnn, fastrnn, intersection_rnn, janet, jordan, layernorm_gru),
        *(lem, light_ru, ligru, lstm_1997, mgu, mgu1, mgu2, mgu3, mi_rnn, minimal_rnn, multiplicative_lstm),
        *(mut1, mut2, mut3, nas, nbrc, ran, res_lstm, scrn, sgu, sru, star, ugrnn, unicornn, wmc_lstm),
    )
}  # fmt: skip


def squash(v: Any) -> Any:
    """2 sigmoid(v) - 1."""
    return tanh(v / 2)


# The same with other options than the usual ones: cell, its options, formula, what the formula is told.
OPTIONS: dict[str, tuple[str, dict[str, Any], Callable[..., tuple[Array, ...]], dict[str, Any]]] = {
    "atr, bounded": ("atr", {"act": tanh}, atr, {"act": np.tanh}),
    "cornn, other constants": (
        "cornn",
        {"dt": 0.1, "gamma": 1.5, "epsilon": 0.3},
        cornn,
        {"dt": 0.1, "gamma": 1.5, "epsilon": 0.3},
    ),
    "janet, one gate": ("janet", {"beta": 0.0}, janet, {"beta": 0.0}),
    "jordan, decaying": ("jordan", {"decay": 0.7}, jordan, {"decay": 0.7}),
    "layernorm_gru, large eps": ("layernorm_gru", {"eps": 0.5}, layernorm_gru, {"eps": 0.5}),
    "lem, short steps": ("lem", {"dt": 0.3}, lem, {"dt": 0.3}),
    "lstm_1997, as in the paper": (
        "lstm_1997",
        {"write": lambda v: 2 * squash(v), "read": squash},
        lstm_1997_squashed,
        {},
    ),
    "ran, identity": ("ran", {"act": identity}, ran, {"act": lambda v: v}),
    "scrn, faster": ("scrn", {"keep": 0.5}, scrn, {"keep": 0.5}),
    "sru, bounded": ("sru", {"act": tanh}, sru, {"act": np.tanh}),
    "unicornn, other constants": ("unicornn", {"dt": 0.5, "alpha": 2.0}, unicornn, {"dt": 0.5, "alpha": 2.0}),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_formula_written_again(name: str) -> None:
    _compare(*_layer(name), FORMULAS[name], {})


@pytest.mark.parametrize("case", OPTIONS)
def test_equals_the_formula_with_other_options(case: str) -> None:
    name, options, formula, told = OPTIONS[case]
    _compare(*_layer(name, **options), formula, told)


def test_the_table_of_oracles_says_what_is_done() -> None:
    assert set(FORMULAS) == {name for name, oracle in ORACLES.items() if "second formula" in oracle} == set(ORACLES)
    assert set(REDUCED) == {name for name, oracle in ORACLES.items() if "torch.nn" in oracle}


# -- what others have got wrong -----------------------------------------------------------------------------------

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "cornn moving with the old velocity": ("cornn", {"old": True}),
    "lem with the old z": ("lem", {"old": True}),
    "lem with one step for both": ("lem", {"one_step": True}),
    "nas adding where it multiplies": ("nas", {"product": False}),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_is_not_what_a_known_mistake_makes_of_it(mistake: str) -> None:
    name, told = WRONG[mistake]
    with pytest.raises(AssertionError, match="values differ"):
        _compare(*_layer(name), FORMULAS[name], told, FLOAT32)


def test_the_eps_of_layernorm_gru_is_inside_the_root() -> None:
    """Where the variance is as small as eps, this is plain to see."""
    layer, x, state = _layer("layernorm_gru")
    x, state = x * 1e-3, [array * 1e-3 for array in state]
    _compare(layer, x, state, layernorm_gru, {})
    with pytest.raises(AssertionError, match="values differ"):
        _compare(layer, x, state, layernorm_gru, {"inside": False}, FLOAT32)


def test_the_eps_of_layernorm_lstm_is_inside_the_root() -> None:
    layer, x, state = _layer("layernorm_lstm")
    x, state = x * 1e-3, [array * 1e-3 for array in state]

    def formula(p: Weights, x: Array, h: Array, c: Array, inside: bool = True) -> tuple[Array, ...]:
        def normal(v: Array) -> Array:
            return (v - v.mean()) / (np.sqrt(v.var() + 1e-5) if inside else np.sqrt(v.var()) + 1e-5)

        W, U, s, t, b = (np.concatenate([p[f"{family}.{gate}"] for gate in "ifgo"]) for family in "WUstb")
        i, f, g, o = np.split(s * normal(W @ x) + t * normal(U @ h) + b, 4)
        new = sigma(f) * c + sigma(i) * np.tanh(g)
        return sigma(o) * np.tanh(p["t.c"] * normal(new) + p["b.c"]), new

    _compare(layer, x, state, formula, {})
    with pytest.raises(AssertionError, match="values differ"):
        _compare(layer, x, state, formula, {"inside": False}, FLOAT32)


def test_the_output_gate_of_peephole_lstm_sees_the_new_cell_state() -> None:
    def formula(p: Weights, x: Array, h: Array, c: Array, new_seen: bool = True) -> tuple[Array, ...]:
        a = {gate: both(p, gate, x, h) + p[f"b.{gate}"] for gate in "ifgo"}
        new = sigma(a["f"] + p["p.f"] * c) * c + sigma(a["i"] + p["p.i"] * c) * np.tanh(a["g"])
        return sigma(a["o"] + p["p.o"] * (new if new_seen else c)) * np.tanh(new), new

    _compare(*_layer("peephole_lstm"), formula, {})
    with pytest.raises(AssertionError, match="values differ"):
        _compare(*_layer("peephole_lstm"), formula, {"new_seen": False}, FLOAT32)


def test_the_two_forms_of_gru_differ() -> None:
    """With the same weights, no bias in the reset; they agree where nothing is reset."""
    after, x, state = _layer("gru")
    before, _, _ = _layer("gru_before")
    with torch.no_grad():
        after.get_parameter("layers.0.0.d").zero_()
        for family in "WUb":
            before.get_parameter(f"layers.0.0.{family}").copy_(after.get_parameter(f"layers.0.0.{family}"))
        with pytest.raises(AssertionError, match="values differ"):
            assert_close(after(x, state)[0], before(x, state)[0], FLOAT32)
        for layer in (after, before):
            layer.get_parameter("layers.0.0.b")[:H] = 1e3
        assert_close(after(x, state)[0], before(x, state)[0], SAME)


# -- what they become ---------------------------------------------------------------------------------------------

ALWAYS = 1e3
"""A sum whose sigmoid is 1."""

TORCH_GATES: dict[type[torch.nn.RNNBase], str] = {torch.nn.RNN: "h", torch.nn.LSTM: "ifgo", torch.nn.GRU: "rzn"}
# Cell, options -> torch's layer; which of torch's gates are the cell's own, by name; what has to be set, in the
# cell and in torch's layer (by gate), for both to be the same.
REDUCED: dict[str, tuple[Any, type[torch.nn.RNNBase], dict[str, str], dict[str, Any], dict[str, float]]] = {
    "fastrnn": (
        cells.get("fastrnn"),
        torch.nn.RNN,
        {"h": "h"},
        {"alpha.h": ALWAYS, "beta.h": -ALWAYS},
        {},
    ),
    "ligru": (
        cells.get("ligru")(act=tanh),
        torch.nn.GRU,
        {"z": "z", "n": "h"},
        {},
        {"r": ALWAYS},
    ),
    "lstm_1997": (cells.get("lstm_1997"), torch.nn.LSTM, {"i": "i", "g": "g", "o": "o"}, {}, {"f": ALWAYS}),
    "mi_rnn": (
        cells.get("mi_rnn"),
        torch.nn.RNN,
        {"h": "h"},
        {"alpha.h": 0.0, "beta.h": 1.0, "gamma.h": 1.0},
        {},
    ),
    "res_lstm": (
        cells.get("res_lstm"),
        torch.nn.LSTM,
        {gate: gate for gate in "ifgo"},
        {"p.i": 0.0, "p.f": 0.0, "p.o": 0.0, "W.h": 0.0, "P.h": torch.eye(H, dtype=torch.float64)},
        {},
    ),
    "ugrnn": (cells.get("ugrnn"), torch.nn.GRU, {"z": "g", "n": "h"}, {}, {"r": ALWAYS}),
    "wmc_lstm": (
        cells.get("wmc_lstm"),
        torch.nn.LSTM,
        {gate: gate for gate in "ifgo"},
        {"V.i": 0.0, "V.f": 0.0, "V.o": 0.0},
        {},
    ),
}


@pytest.mark.parametrize("name", REDUCED)
@torch.no_grad()
def test_becomes_a_layer_of_torch(name: str) -> None:
    cell, torch_layer, gates, ours_set, theirs_set = REDUCED[name]
    torch.manual_seed(0)
    theirs = torch_layer(IN, H, batch_first=True).double()
    rows = {gate: slice(k * H, (k + 1) * H) for k, gate in enumerate(TORCH_GATES[torch_layer])}
    layer, x, state = _layer(cell)
    for gate, value in theirs_set.items():
        theirs.bias_ih_l0[rows[gate]] = value
    for gate, own in gates.items():
        for mine, twin in (("W", theirs.weight_ih_l0), ("U", theirs.weight_hh_l0)):
            _weights(layer)[f"{mine}.{own}"].copy_(twin[rows[gate]])
        # torch's second bias of a GRU lies inside the reset, which is 1 here.
        _weights(layer)[f"b.{own}"].copy_(theirs.bias_ih_l0[rows[gate]] + theirs.bias_hh_l0[rows[gate]])
    for parameter, value in ours_set.items():
        _weights(layer)[parameter].copy_(torch.as_tensor(value))

    y, final = layer(x, state)
    expected, last = theirs(x, tuple(state) if len(state) > 1 else state[0])
    assert_close(y, expected, SAME, "y")
    for a, b in zip(final, last if isinstance(last, tuple) else (last,), strict=True):
        assert_close(a, b, SAME, "state")


@torch.no_grad()
def test_mut2_is_gru_before_with_its_update_gate_turned_round() -> None:
    ours, x, state = _layer("mut2")
    other, _, _ = _layer("gru_before")
    for family in "WUb":
        for gate, twin, sign in (("r", "r", 1), ("z", "z", -1), ("h", "n", 1)):
            _weights(other)[f"{family}.{twin}"].copy_(sign * _weights(ours)[f"{family}.{gate}"])
    assert_close(ours(x, state)[0], other(x, state)[0], SAME)


# -- the layer, and its weights -----------------------------------------------------------------------------------


def _layer(cell: Any, **options: Any) -> tuple[Recurrent, Tensor, list[Tensor]]:
    """A layer with weights that matter, a batch, and a state that is nowhere 0."""
    torch.manual_seed(0)
    found = cells.get(cell)(**options)
    sizes = {name: 4 for name in found.graph.size_names if name not in ("input", "hidden")}
    layer = Recurrent(found, IN, H, sizes=sizes, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(B, T, IN, dtype=torch.float64)
    return layer, x, [torch.randn_like(array) for array in layer.start_state(B)]


def _weights(layer: Recurrent) -> dict[str, Tensor]:
    """The parameters by name, as views of the layer's."""
    found = {}
    for stack, members in layer.cell.graph.stacks.items():
        rows = [layer.sizes[str(param.sizes[0])] for param in members]
        parts = layer.get_parameter(f"layers.0.0.{stack}").split(rows)
        found |= {param.name: part for param, part in zip(members, parts, strict=True)}
    return found


def _compare(
    layer: Recurrent,
    x: Tensor,
    state: list[Tensor],
    formula: Callable[..., tuple[Array, ...]],
    told: Mapping[str, Any],
    tolerance: Any = SAME,
) -> None:
    weights = {name: array.detach().numpy() for name, array in _weights(layer).items()}
    y, final = layer(x, state)
    for row in range(B):
        now = tuple(array[0, row].numpy() for array in state)
        ys = []
        for t in range(T):
            result = formula(weights, x[row, t].numpy(), *now, **told)
            now = result[-len(now) :]
            ys.append(result[0])
        assert_close(y[row], np.stack(ys), tolerance, f"y of sequence {row}")
        for name, a, b in zip(layer.cell.states, final, now, strict=True):
            assert_close(a[0, row], b, tolerance, f"final {name} of sequence {row}")
