"""Cells with windows, delays, inner loops, heads, weight transforms, time gaps or complex states, each against a
second writing of its equations: in NumPy, from the paper, and by another road than the cell's wherever there is one
(complex numbers for pairs, lists for delays, sums over all steps for scans, blocks one by one for heads)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from everloop import cells
from everloop.lang.functions import identity, relu, sigmoid
from everloop.nn import Recurrent
from everloop.testing import FLOAT32, SAME, assert_close, check_cell

B, T, IN, H = 4, 6, 3, 6

Array = Any
"""A NumPy array, rows first: [B, features]."""

State = dict[str, Array]
Weights = dict[str, Array]
"""Members of families by their full names, as `W.f`."""

Oracle = Callable[..., tuple[list[Array], State]]
"""(weights, inputs [T] of [B, I], state, side inputs [T] of dictionaries, options) -> outputs [T], final state."""


# -- the pieces that papers are written in ---------------------------------------------------------------------------


def sigma(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def soft_plus(v: Array) -> Array:
    return np.logaddexp(0, v)


def swish(v: Array) -> Array:
    return v / (1 + np.exp(-v))


def times(p: Weights, name: str, v: Array) -> Array:
    """The matrix of that name times v, row by row."""
    return np.einsum("rc,bc->br", p[name], v)


def affine(p: Weights, gate: str, x: Array, h: Array | None = None) -> Array:
    return times(p, f"W.{gate}", x) + (0 if h is None else times(p, f"U.{gate}", h)) + p[f"b.{gate}"]


def each_step(step: Callable[..., tuple[Array, State]]) -> Oracle:
    """An oracle that is one step after another."""

    @functools.wraps(step)
    def run(p: Weights, xs: list[Array], s: State, side: list[State], **options: Any) -> tuple[list[Array], State]:
        ys = []
        for x, beside in zip(xs, side, strict=True):
            y, s = step(p, x, s, **beside, **options)
            ys.append(y)
        return ys, s

    return run


def plain_lstm(i: Array, f: Array, g: Array, o: Array, c: Array) -> tuple[Array, Array]:
    c = c * sigma(f) + np.tanh(g) * sigma(i)
    return np.tanh(c) * sigma(o), c


# -- scans: sums over all steps -----------------------------------------------------------------------------------


def run_through(shares: list[Array], news: list[Array], h: Array) -> list[Array]:
    """h_t = share_t h + new_t, each term by itself: what came at step k, times all the shares after k."""
    return [
        h * np.prod(shares[: t + 1], 0)
        + sum(news[k] * np.prod([np.ones_like(h), *shares[k + 1 : t + 1]], 0) for k in range(t + 1))
        for t in range(len(shares))
    ]


def scanned(shares: list[Array], news: list[Array], state: State, name: str) -> tuple[list[Array], State]:
    run = run_through(shares, news, state[name])
    return run, {name: run[-1]}


def minlstm(p: Weights, xs: list[Array], s: State, side: Any) -> tuple[list[Array], State]:
    pairs = [(sigma(affine(p, "f", x)), sigma(affine(p, "i", x))) for x in xs]
    shares = [f / (f + i) for f, i in pairs]
    news = [i / (f + i) * affine(p, "n", x) for (f, i), x in zip(pairs, xs, strict=True)]
    return scanned(shares, news, s, "h")


def mingru_log(p: Weights, xs: list[Array], s: State, side: Any) -> tuple[list[Array], State]:
    def g(v: float) -> float:
        return v + 0.5 if v >= 0 else 1 / (1 + math.exp(-v))

    z = [sigma(affine(p, "z", x)) for x in xs]
    news = [gate * np.vectorize(g)(affine(p, "n", x)) for gate, x in zip(z, xs, strict=True)]
    return scanned([1 - gate for gate in z], news, s, "h")


def t_rnn(p: Weights, xs: list[Array], s: State, side: Any) -> tuple[list[Array], State]:
    f = [sigma(affine(p, "f", x)) for x in xs]
    return scanned(f, [(1 - gate) * times(p, "W.z", x) for gate, x in zip(f, xs, strict=True)], s, "h")


def ssru(p: Weights, xs: list[Array], s: State, side: Any) -> tuple[list[Array], State]:
    cs, final = t_rnn(p, xs, {"h": s["c"]}, side)
    return [np.where(c > 0, c, 0) for c in cs], {"c": final["h"]}


def typed(p: Weights, xs: list[Array], s: State, gate: str) -> list[Array]:
    """V x_{t-1} + W x_t + b, with the list of all inputs."""
    inputs = [s["x_1"], *xs]
    return [
        times(p, f"V.{gate}", inputs[t]) + times(p, f"W.{gate}", inputs[t + 1]) + p[f"b.{gate}"] for t in range(len(xs))
    ]


def t_gru(p: Weights, xs: list[Array], s: State, side: Any) -> tuple[list[Array], State]:
    f, z, o = (typed(p, xs, s, gate) for gate in "fzo")
    hs = run_through([sigma(v) for v in f], [a * np.tanh(b) for a, b in zip(z, o, strict=True)], s["h"])
    return hs, {"h": hs[-1], "x_1": xs[-1]}


def t_lstm(p: Weights, xs: list[Array], s: State, side: Any) -> tuple[list[Array], State]:
    f, z, o = (typed(p, xs, s, gate) for gate in "fzo")
    news = [(1 - sigma(gate)) * v for gate, v in zip(f, z, strict=True)]
    cs = run_through([sigma(v) for v in f], news, s["c"])
    return [c * np.tanh(v) for c, v in zip(cs, o, strict=True)], {"c": cs[-1], "x_1": xs[-1]}


def convolved(p: Weights, xs: list[Array], s: State, gate: str, width: int) -> list[Array]:
    """A causal convolution over time, of the last inputs of the sequence before and those of this one."""
    inputs = [*(s[f"x_{k}"] for k in range(width - 1, 0, -1)), *xs]
    kernel = np.stack([p[f"W{width - 1 - j}.{gate}"] for j in range(width)])
    frames = np.stack([np.stack(inputs[t : t + width]) for t in range(len(xs))])
    return list(np.einsum("jrc,tjbc->tbr", kernel, frames) + p[f"b.{gate}"])


def delays(xs: list[Array], s: State, width: int) -> State:
    inputs = [*(s[f"x_{k}"] for k in range(width - 1, 0, -1)), *xs]
    return {f"x_{k}": inputs[-k] for k in range(1, width)}


def qrnn_f(p: Weights, xs: list[Array], s: State, side: Any, width: int = 2) -> tuple[list[Array], State]:
    z, f = (convolved(p, xs, s, gate, width) for gate in "zf")
    f = [sigma(v) for v in f]
    hs = run_through(f, [(1 - gate) * np.tanh(v) for gate, v in zip(f, z, strict=True)], s["h"])
    return hs, {"h": hs[-1], **delays(xs, s, width)}


def qrnn(p: Weights, xs: list[Array], s: State, side: Any, width: int = 2) -> tuple[list[Array], State]:
    cs, final = qrnn_f(p, xs, s | {"h": s["c"]}, side, width)
    final["c"] = final.pop("h")
    return [sigma(o) * c for o, c in zip(convolved(p, xs, s, "o", width), cs, strict=True)], final


def qrnn_ifo(p: Weights, xs: list[Array], s: State, side: Any, width: int = 2) -> tuple[list[Array], State]:
    z, i, f, o = (convolved(p, xs, s, gate, width) for gate in "zifo")
    cs = run_through([sigma(v) for v in f], [sigma(a) * np.tanh(b) for a, b in zip(i, z, strict=True)], s["c"])
    return [sigma(a) * c for a, c in zip(o, cs, strict=True)], {"c": cs[-1], **delays(xs, s, width)}


def rg_lru(p: Weights, xs: list[Array], s: State, side: Any, heads: int = 1) -> tuple[list[Array], State]:
    """As in the paper: a = sigmoid(Lambda), to the power 8 r; its Lambda is -p here."""

    def gate(name: str, v: Array) -> Array:
        parts = zip(np.split(p[f"A.{name}"], heads), np.split(v, heads, 1), strict=True)
        return sigma(np.concatenate([part @ block.T for block, part in parts], 1) + p[f"b.{name}"])

    a = 1 / (1 + np.exp(p["p.h"]))
    vs = [affine(p, "v", x) for x in xs]
    powers = [a ** (8 * gate("r", v)) for v in vs]
    news = [np.sqrt(1 - power**2) * gate("i", v) * v for power, v in zip(powers, vs, strict=True)]
    return scanned(powers, news, s, "h")


def complex_scan(turn: Array, news: list[Array], s: State) -> tuple[list[Array], State]:
    """s_t = turn^(t+1) s + sum of turn^(t-k) new_k, in complex numbers."""
    first = s["s"] + 1j * s["r"]
    states = [turn ** (t + 1) * first + sum(turn ** (t - k) * news[k] for k in range(t + 1)) for t in range(len(news))]
    return states, {"s": states[-1].real, "r": states[-1].imag}


def lru(p: Weights, xs: list[Array], s: State, side: Any, act: Any = swish) -> tuple[list[Array], State]:
    turn = np.exp(-np.exp(p["nu.s"]) + 1j * np.exp(p["theta.s"]))
    drive, read = p["W.s"] + 1j * p["W.r"], p["C.s"] + 1j * p["C.r"]
    states, final = complex_scan(turn, [np.exp(p["gamma.s"]) * (x @ drive.T) for x in xs], s)
    return [act((v @ read.T).real + times(p, "W.y", x)) for v, x in zip(states, xs, strict=True)], final


def s5(p: Weights, xs: list[Array], s: State, side: Any, act: Any = swish) -> tuple[list[Array], State]:
    """Zero-order hold by the complex formulas of S4D's own kernel: exp(L dt) and (exp(L dt) - 1) / L."""
    continuous, dt = -np.exp(p["decay.s"]) + 1j * p["turn.s"], np.exp(p["step.s"])
    turn = np.exp(continuous * dt)
    drive = ((turn - 1) / continuous)[:, None] * (p["W.s"] + 1j * p["W.r"])
    states, final = complex_scan(turn, [x @ drive.T for x in xs], s)
    read = p["C.s"] + 1j * p["C.r"]
    return [act(2 * (v @ read.T).real + times(p, "W.y", x)) for v, x in zip(states, xs, strict=True)], final


@each_step
def hgrn(p: Weights, x: Array, s: State, lower: float = 0.0) -> tuple[Array, State]:
    share = lower + (1 - lower) * sigma(affine(p, "k", x))
    new = swish(affine(p, "s", x)) + 1j * swish(affine(p, "r", x))
    state = share * np.exp(1j * p["theta.s"]) * (s["s"] + 1j * s["r"]) + (1 - share) * new
    long = np.concatenate([state.real, state.imag], 1)
    long = (long - long.mean(1, keepdims=True)) / np.sqrt(long.var(1, keepdims=True) + 1e-5)
    long = long * np.concatenate([p["t.s"], p["t.r"]]) + np.concatenate([p["d.s"], p["d.r"]])
    gate = swish(np.concatenate([affine(p, "p", x), affine(p, "q", x)], 1))
    y = (long * gate) @ np.concatenate([p["P.s"], p["P.r"]], 1).T + p["b.y"]
    return y, {"s": state.real, "r": state.imag}


def rwkv4(p: Weights, xs: list[Array], s: State, side: Any) -> tuple[list[Array], State]:
    """Without sums that run along: the weighted mean of all values, each weight by its age."""
    inputs, decay = [s["x_1"], *xs], np.exp(p["p.k"])

    def mixed(t: int, gate: str) -> Array:
        return times(p, f"W.{gate}", p[f"t.{gate}"] * inputs[t + 1] + (1 - p[f"t.{gate}"]) * inputs[t])

    ks, vs = [mixed(t, "k") for t in range(len(xs))], [mixed(t, "v") for t in range(len(xs))]
    earlier = s["a"] * np.exp(s["m"]), s["b"] * np.exp(s["m"])
    ys = []
    for t in range(len(xs)):
        weights = [np.exp(ks[j] - (t - 1 - j) * decay) for j in range(t)] + [np.exp(p["q.k"] + ks[t])]
        above = earlier[0] * np.exp(-t * decay) + sum(w * v for w, v in zip(weights, vs[: t + 1], strict=True))
        below = earlier[1] * np.exp(-t * decay) + sum(weights)
        ys.append(times(p, "P.y", sigma(mixed(t, "r")) * above / below))
    return ys, {"x_1": xs[-1]}


# -- steps on a weight that is worked out first ---------------------------------------------------------------------


@each_step
def antisymmetric(p: Weights, x: Array, s: State, step: float = 0.1, damping: float = 0.01) -> tuple[Array, State]:
    matrix = p["U.h"] - p["U.h"].T - damping * np.eye(H)
    h = s["h"] + step * np.tanh(s["h"] @ matrix.T + affine(p, "h", x))
    return h, {"h": h}


@each_step
def gated_antisymmetric(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    inside = s["h"] @ (p["U.h"] - p["U.h"].T - 0.01 * np.eye(H)).T
    h = s["h"] + 0.1 * sigma(inside + affine(p, "z", x)) * np.tanh(inside + affine(p, "h", x))
    return h, {"h": h}


@each_step
def lipschitz_rnn(p: Weights, x: Array, s: State, skew: float = 0.8, step: float = 0.1) -> tuple[Array, State]:
    """The paper's A = (1 - beta) (M + M^T) + beta (M - M^T) - gamma I, for both matrices."""
    a, w = ((1 - skew) * (p[n] + p[n].T) + skew * (p[n] - p[n].T) - 0.01 * np.eye(H) for n in ("U.a", "U.h"))
    h = s["h"] + step * (s["h"] @ a.T + np.tanh(s["h"] @ w.T + affine(p, "h", x)))
    return h, {"h": h}


@each_step
def exp_rnn(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    """The exponential of a skew matrix by its eigenvalues, which are imaginary: i times a Hermitian matrix."""
    angles, basis = np.linalg.eigh(-1j * (p["U.h"] - p["U.h"].T))
    rotation = (basis @ np.diag(np.exp(1j * angles)) @ basis.conj().T).real
    a = s["h"] @ rotation.T + times(p, "W.h", x)
    h = np.sign(a) * np.maximum(np.abs(a) + p["b.h"], 0)
    return h, {"h": h}


@each_step
def lmu(p: Weights, x: Array, s: State, span: float = 100.0) -> tuple[Array, State]:
    """A and B entry by entry as in the paper; zero-order hold by the exponential of [[A, B], [0, 0]]."""
    q = s["m"].shape[1]
    joint = np.zeros((q + 1, q + 1))
    for i in range(q):
        joint[i, q] = (2 * i + 1) * (-1) ** i
        for j in range(q):
            joint[i, j] = (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1))
    held = torch.matrix_exp(torch.from_numpy(joint / span)).numpy()
    u = (x * p["e.u"]).sum(1) + (s["h"] * p["e.h"]).sum(1) + (s["m"] * p["e.m"]).sum(1)
    m = np.concatenate([s["m"], u[:, None]], 1) @ held[:q].T
    h = np.tanh(times(p, "W.h", x) + times(p, "U.h", s["h"]) + times(p, "V.h", m))
    return h, {"h": h, "m": m}


@each_step
def clockwork_rnn(p: Weights, x: Array, s: State, modules: int = 7) -> tuple[Array, State]:
    """Unit by unit: which module it is in, whether that moves now, and which units it sees."""
    module = [k * modules // H for k in range(H)]
    now = round(s["t"][0, 0])
    h = s["h"].copy()
    for k in range(H):
        if now % 2 ** module[k] == 0:
            seen = [j for j in range(H) if module[j] >= module[k]]
            h[:, k] = np.tanh(x @ p["W.h"][k] + s["h"][:, seen] @ p["U.h"][k, seen] + p["b.h"][k])
    return h, {"h": h, "t": np.full_like(h, (now + 1) % 2 ** (modules - 1))}


@each_step
def plrnn(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    others = p["U.z"] - np.diag(np.diag(p["U.z"]))
    z = s["z"] @ np.diag(p["a.z"]) + np.clip(s["z"], 0, None) @ others.T + affine(p, "z", x)
    return z, {"z": z}


@each_step
def esn(p: Weights, x: Array, s: State, radius: float = 0.95, leak: float = 1.0) -> tuple[Array, State]:
    h = s["h"] + leak * (np.tanh(times(p, "W.h", x) + radius * times(p, "U.h", s["h"]) + p["b.h"]) - s["h"])
    return h, {"h": h}


def slstm(p: Weights, xs: list[Array], s: State, side: Any, heads: int = 1) -> tuple[list[Array], State]:
    """Head by head, and in the paper's plain form: c and n themselves, without the stabiliser."""
    h, c, n, ys = s["h"], s["c"] * np.exp(s["m"]), s["n"] * np.exp(s["m"]), []
    for x in xs:
        gates = {}
        for gate in "ifzo":
            blocks, parts = np.split(p[f"U.{gate}"], heads), np.split(h, heads, 1)
            within = [part @ block.T for block, part in zip(blocks, parts, strict=True)]
            gates[gate] = affine(p, gate, x) + np.concatenate(within, 1)
        c = sigma(gates["f"]) * c + np.exp(gates["i"]) * np.tanh(gates["z"])
        n = sigma(gates["f"]) * n + np.exp(gates["i"])
        h = sigma(gates["o"]) * c / n
        ys.append(h)
    return ys, {"h": h}


# -- several rounds within a step -----------------------------------------------------------------------------------


@each_step
def rhn(p: Weights, x: Array, s: State, depth: int = 3) -> tuple[Array, State]:
    v = s["s"]
    for k in range(depth):
        a = {g: v @ p[f"R{k}.{g}"].T + p[f"b{k}.{g}"] + (times(p, f"W.{g}", x) if k == 0 else 0) for g in "ht"}
        v = v + sigma(a["t"]) * (np.tanh(a["h"]) - v)
    return v, {"s": v}


@each_step
def fast_slow_lstm(p: Weights, x: Array, s: State, fast: int = 2) -> tuple[Array, State]:
    def lstm(row: list[tuple[str, Array]], bias: str, c: Array) -> tuple[Array, Array]:
        a = {g: sum(times(p, f"{name}.{g}", v) for name, v in row) + p[f"{bias}.{g}"] for g in "ifgo"}
        return plain_lstm(a["i"], a["f"] + 1, a["g"], a["o"], c)

    h, c = lstm([("W", x), ("U0", s["h"])], "b0", s["c"])
    slow, m = lstm([("P", h), ("Q", s["s"])], "d", s["m"])
    h, c = lstm([("V", slow), ("U1", h)], "b1", c)
    for k in range(2, fast):
        h, c = lstm([(f"U{k}", h)], f"b{k}", c)
    return h, {"h": h, "c": c, "s": slow, "m": m}


@each_step
def transition_gru(p: Weights, x: Array, s: State, depth: int = 2) -> tuple[Array, State]:
    h = s["h"]
    for k in range(depth):
        a = {g: p[f"b{k}.{g}"] + (times(p, f"W.{g}", x) if k == 0 else 0) for g in "rzn"}
        u = {g: times(p, f"U{k}.{g}", h) + p[f"d{k}.{g}"] for g in "rzn"}
        n = np.tanh(a["n"] + sigma(a["r"] + u["r"]) * u["n"])
        h = n + sigma(a["z"] + u["z"]) * (h - n)
    return h, {"h": h}


@each_step
def mogrifier_lstm(p: Weights, x: Array, s: State, rounds: int = 5) -> tuple[Array, State]:
    pair = [x, s["h"]]
    for k in range(1, rounds + 1):
        name = f"Q{(k - 1) // 2}.h" if k % 2 else f"R{k // 2 - 1}.h"
        scaled = (k + 1) % 2
        pair[scaled] = 2 * sigma(times(p, name, pair[1 - scaled])) * pair[scaled]
    x, h = pair
    h, c = plain_lstm(*(affine(p, gate, x, h) for gate in "ifgo"), s["c"])
    return h, {"h": h, "c": c}


@each_step
def nested_lstm(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    a = {g: affine(p, g, x, s["h"]) for g in "ifgo"}
    written, kept = sigma(a["i"]) * np.tanh(a["g"]), sigma(a["f"]) * s["c"]
    c, m = plain_lstm(*(times(p, f"P.{g}", written) + times(p, f"Q.{g}", kept) + p[f"d.{g}"] for g in "ifgo"), s["m"])
    h = sigma(a["o"]) * np.tanh(c)
    return h, {"h": h, "c": c, "m": m}


# -- time gaps ------------------------------------------------------------------------------------------------------


@each_step
def cfc(p: Weights, x: Array, s: State, dt: Array) -> tuple[Array, State]:
    q = 1.7159 * np.tanh(0.666 * affine(p, "q", x, s["h"]))
    f, g, a, b = (times(p, f"V.{gate}", q) + p[f"b.{gate}"] for gate in "fgab")
    t = sigma(a * dt + b)
    h = (1 - t) * np.tanh(f) + t * np.tanh(g)
    return h, {"h": h}


@each_step
def ltc(p: Weights, x: Array, s: State, dt: Array, unfolds: int = 6) -> tuple[Array, State]:
    """The paper's fused step, with its time constant tau = 1 / rate."""
    h, tau = s["h"], 1 / soft_plus(p["r.h"])
    for _ in range(unfolds):
        f = sigma(affine(p, "h", x, h))
        h = (h + dt / unfolds * f * p["a.h"]) / (1 + dt / unfolds * (1 / tau + f))
    return h, {"h": h}


def gru_d(p: Weights, xs: list[Array], s: State, side: list[State]) -> tuple[list[Array], State]:
    """Feature by feature, with the paper's list of intervals: delta = gap + (0 if seen at the step before)."""
    h, last, delta, ys = s["h"], s["v"].copy(), s["w"].copy(), []
    for x, beside in zip(xs, side, strict=True):
        mask, delta = beside["mask"], delta + beside["dt"]
        filled = np.empty_like(x)
        for row, d in np.ndindex(*x.shape):
            if mask[row, d] == 1:
                last[row, d] = filled[row, d] = x[row, d]
            else:
                fading = math.exp(-max(0.0, p["p.v"][d] * delta[row, d] + p["q.v"][d]))
                filled[row, d] = fading * last[row, d]
        h = np.exp(-np.clip(times(p, "D.h", delta) + p["d.h"], 0, None)) * h
        a = {g: times(p, f"W.{g}", filled) + times(p, f"V.{g}", mask) + p[f"b.{g}"] for g in "rzn"}
        r, z = (sigma(a[g] + times(p, f"U.{g}", h)) for g in "rz")
        h = (1 - z) * h + z * np.tanh(a["n"] + times(p, "U.n", r * h))
        delta = delta * (1 - mask)
        ys.append(h)
    return ys, {"h": h, "v": last, "w": delta}


@each_step
def phased_lstm(p: Weights, x: Array, s: State, dt: Array, share: float = 0.05) -> tuple[Array, State]:
    t, period = s["t"] + dt, np.exp(p["p.t"])
    phase = np.fmod(t - p["s.t"] * period, period) / period
    phase = np.where(phase < 0, phase + 1, phase)
    k = np.where(phase < share / 2, 2 * phase / share, 2 - 2 * phase / share)
    k = np.where(phase > share, 0.001 * phase, k)
    h, c = plain_lstm(*(affine(p, gate, x, s["h"]) for gate in "ifgo"), s["c"])
    h, c = k * h + (1 - k) * s["h"], k * c + (1 - k) * s["c"]
    return h, {"h": h, "c": c, "t": t}


@each_step
def time_aware_lstm(p: Weights, x: Array, s: State, dt: Array) -> tuple[Array, State]:
    short = np.tanh(times(p, "V.c", s["c"]) + p["b.c"])
    long = s["c"] - short
    h, c = plain_lstm(*(affine(p, gate, x, s["h"]) for gate in "ifgo"), long + short * (1 / np.log(np.e + dt)))
    return h, {"h": h, "c": c}


@each_step
def ctrnn(p: Weights, x: Array, s: State, dt: Array, act: Any = np.tanh) -> tuple[Array, State]:
    alpha = dt / np.exp(p["tau.v"])
    v = (1 - alpha) * s["v"] + alpha * (affine(p, "v", x) + times(p, "U.v", act(s["v"])))
    return act(v), {"v": v}


@each_step
def gru_ode(p: Weights, x: Array, s: State, dt: Array, steps: int = 2) -> tuple[Array, State]:
    h = s["h"]
    for _ in range(steps):
        r, z = (sigma(affine(p, gate, x, h)) for gate in "rz")
        slope = (1 - z) * (np.tanh(affine(p, "n", x, r * h)) - h)
        h = h + slope * dt / steps
    return h, {"h": h}


# -- the rest -------------------------------------------------------------------------------------------------------


def tau_gru(p: Weights, xs: list[Array], s: State, side: Any, delay: int = 4) -> tuple[list[Array], State]:
    hs = [*(s[f"h_{k}"] for k in range(delay, 0, -1)), s["h"]]
    for x in xs:
        u = np.tanh(affine(p, "u", x, hs[-1]))
        z = np.tanh(affine(p, "z", x, hs[-1 - delay]))
        g, a = sigma(affine(p, "g", x, hs[-1])), sigma(affine(p, "a", x, hs[-1]))
        hs.append(hs[-1] + g * (u + a * z - hs[-1]))
    return hs[-len(xs) :], {"h": hs[-1], **{f"h_{k}": hs[-1 - k] for k in range(1, delay + 1)}}


def higher_order_rnn(p: Weights, xs: list[Array], s: State, side: Any, order: int = 3) -> tuple[list[Array], State]:
    hs = [*(s[f"h_{k}"] for k in range(order - 1, 0, -1)), s["h"]]
    for x in xs:
        hs.append(np.tanh(affine(p, "h", x) + sum(times(p, f"U{k}.h", hs[-1 - k]) for k in range(order))))
    return hs[-len(xs) :], {"h": hs[-1], **{f"h_{k}": hs[-1 - k] for k in range(1, order)}}


@each_step
def on_lstm(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    """The master gates unit by unit: the chance that a split lies at this unit or before."""
    a = {gate: affine(p, gate, x, s["h"]) for gate in "ifgopq"}

    def cumax(v: Array) -> Array:
        e = np.exp(v)
        return np.stack([e[:, : k + 1].sum(1) / e.sum(1) for k in range(H)], 1)

    keep, write = cumax(a["p"]), 1 - cumax(a["q"])
    f = sigma(a["f"]) * keep * write + keep * (1 - write)
    i = sigma(a["i"]) * keep * write + write * (1 - keep)
    c = f * s["c"] + i * np.tanh(a["g"])
    h = sigma(a["o"]) * np.tanh(c)
    return h, {"h": h, "c": c}


@each_step
def irnn(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    h = np.clip(affine(p, "h", x, s["h"]), 0, None)
    return h, {"h": h}


@each_step
def leaky_rnn(p: Weights, x: Array, s: State, leak: float = 0.1) -> tuple[Array, State]:
    h = s["h"] + leak * (np.tanh(affine(p, "h", x, s["h"])) - s["h"])
    return h, {"h": h}


@each_step
def delta_rnn(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    v, w = times(p, "V.z", s["h"]), times(p, "W.z", x)
    d1, d2 = p["alpha.z"] * v * w, p["p.z"] * v + p["q.z"] * w
    r = sigma(w + p["b.r"])
    h = np.tanh((1 - r) * np.tanh(d1 + d2 + p["b.z"]) + r * s["h"])
    return h, {"h": h}


@each_step
def statistical_rnn(p: Weights, x: Array, s: State) -> tuple[Array, State]:
    means = np.concatenate([s[name] for name in "abcd"], 1)
    recap = np.clip(means @ np.concatenate([p[f"U.{name}"] for name in "abcd"], 1).T + p["v.r"], 0, None)
    features = np.clip(times(p, "W.p", x) + times(p, "V.p", recap) + p["v.p"], 0, None)
    weights = np.repeat([0.25, 0.5, 0.9, 0.99], H)
    means = weights * means + (1 - weights) * np.tile(features, 4)
    long = np.concatenate([means, features], 1)
    y = np.clip(long @ np.concatenate([p[f"P.{name}"] for name in "abcdp"], 1).T + p["v.y"], 0, None)
    return y, dict(zip("abcd", np.split(means, 4, 1), strict=True))


def rectified(v: Array) -> Array:
    return np.clip(v, 0, None)


def unchanged(v: Array) -> Array:
    return v


ORACLES: dict[str, Oracle] = {
    oracle.__name__: oracle
    for oracle in (
        # sums over all steps, no recurrence; windows as convolutions; complex numbers
        *(minlstm, mingru_log, t_rnn, ssru, t_gru, t_lstm, qrnn, qrnn_f, qrnn_ifo, rg_lru, lru, s5, hgrn, rwkv4),
        # matrices made otherwise: by eigenvalues, by a larger exponential, unit by unit, head by head
        *(antisymmetric, gated_antisymmetric, lipschitz_rnn, exp_rnn, lmu, clockwork_rnn, plrnn, esn, slstm),
        # the rounds of a step by name
        *(rhn, fast_slow_lstm, transition_gru, mogrifier_lstm, nested_lstm),
        # time gaps and masks, entry by entry
        *(cfc, ltc, gru_d, phased_lstm, time_aware_lstm, ctrnn, gru_ode),
        # delays as lists
        *(tau_gru, higher_order_rnn),
        *(on_lstm, irnn, leaky_rnn, delta_rnn, statistical_rnn),
    )
}
# (cell, its options, those of the oracle that are spelt otherwise)
OPTIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("qrnn", {"width": 3}, {}),
    ("qrnn_f", {"width": 1}, {}),
    ("qrnn_f", {"width": 4}, {}),
    ("qrnn_ifo", {"width": 1}, {}),
    ("rg_lru", {"heads": 2}, {}),
    ("lru", {"act": identity}, {"act": unchanged}),
    ("s5", {"act": identity}, {"act": unchanged}),
    ("hgrn", {"lower": 0.7}, {}),
    ("antisymmetric", {"step": 0.5, "damping": 0.1}, {}),
    ("lipschitz_rnn", {"skew": 0.5, "step": 0.02}, {}),
    ("lmu", {"span": 4.0}, {}),
    ("clockwork_rnn", {"modules": 3}, {}),
    ("esn", {"radius": 0.5, "leak": 0.3}, {}),
    ("slstm", {"heads": 2}, {}),
    ("slstm", {"heads": 3}, {}),
    ("rhn", {"depth": 1}, {}),
    ("rhn", {"depth": 5}, {}),
    ("fast_slow_lstm", {"fast": 4}, {}),
    ("transition_gru", {"depth": 3}, {}),
    ("mogrifier_lstm", {"rounds": 2}, {}),
    ("ltc", {"unfolds": 2}, {}),
    ("phased_lstm", {"share": 0.8}, {}),
    ("ctrnn", {"act": relu}, {"act": rectified}),
    ("ctrnn", {"act": sigmoid}, {"act": sigma}),
    ("gru_ode", {"steps": 5}, {}),
    ("tau_gru", {"delay": 1}, {}),
    ("higher_order_rnn", {"order": 1}, {}),
    ("leaky_rnn", {"leak": 1.0}, {}),
]


def spelled(value: Any) -> str:
    """The same in every process: a function by its name, without its address."""
    if isinstance(value, dict):
        return " ".join(f"{name}={spelled(item)}" for name, item in value.items())
    return getattr(value, "__name__", str(value))


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {name: (name, {}, {}) for name in ORACLES} | {
    f"{name} {spelled(options)}": (name, options, {**options, **others}) for name, options, others in OPTIONS
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_equations_written_again(case: str) -> None:
    name, options, known = CASES[case]
    layer = prepared(cells.get(name)(**options))
    graph = layer.cell.graph
    x = torch.randn(B, T, IN, dtype=torch.float64)
    side = drawn_side(layer)
    state = drawn_state(layer)
    y, final = layer(x, [array[None] for array in state.values()], side=side or None)

    beside = [{name: v[:, t].numpy() for name, v in side.items()} for t in range(T)]
    first = {name: array.numpy() for name, array in state.items()}
    xs = [v.numpy() for v in x.unbind(1)]
    expected_y, expected = ORACLES[name](weights(layer), xs, first, beside, **known)
    assert_close(y, np.stack(expected_y, 1), SAME, "y")
    found = dict(zip(graph.states, (array[0] for array in final), strict=True))
    assert set(found) - set(expected) == NOT_COMPARED.get(name, set())
    for part, array in expected.items():
        assert_close(found[part], array, SAME, f"the final state {part}")


# States that the paper's own form does not have: what a stabiliser makes of them is tested below.
NOT_COMPARED = {"slstm": {"c", "n", "m"}, "rwkv4": {"a", "b", "m"}}


def prepared(cell: Any) -> Recurrent:
    torch.manual_seed(0)
    names = [name for name in cell.graph.size_names if name not in ("input", "hidden")]
    layer = Recurrent(cell, IN, H, sizes=dict.fromkeys(names, 5), dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def drawn_state(layer: Recurrent) -> dict[str, torch.Tensor]:
    """Some state that the cell could be in: a time is 3, a waiting time and a normaliser are not negative."""
    found = {}
    for name, array in zip(layer.cell.graph.states, layer.start_state(B), strict=True):
        found[name] = torch.randn_like(array[0])
        if name == "t":
            found[name] = torch.full_like(array[0], 3.0)
        if name in ("w", "n") or (layer.cell.name, name) == ("rwkv4", "b"):
            found[name] = found[name].abs() + 0.1
    return found


def drawn_side(layer: Recurrent) -> dict[str, torch.Tensor]:
    """Time gaps from 0 to 2, and masks."""
    graph, found = layer.cell.graph, {}
    if "dt" in graph.inputs:
        found["dt"] = 2 * torch.rand(B, T, 1, dtype=torch.float64)
    if "mask" in graph.inputs:
        found["mask"] = torch.randint(0, 2, (B, T, IN)).to(torch.float64)
    return found


def weights(layer: Recurrent) -> Weights:
    found = {}
    for stack, members in layer.cell.graph.stacks.items():
        array = layer.get_parameter(f"layers.0.0.{stack}").detach()
        parts = array.split([layer.sizes[str(member.sizes[0])] for member in members])
        found |= {member.name: part.numpy() for member, part in zip(members, parts, strict=True)}
    return found


# -- what a cell is when an option or an input takes its simplest value -----------------------------------------------

# (cell, options, side inputs, the cell that it then is, its families under their names there)
REDUCED: list[tuple[str, dict[str, Any], dict[str, float], str, dict[str, str]]] = [
    ("transition_gru", {"depth": 1}, {}, "gru", {"U0": "U", "b0": "b", "d0": "d"}),
    ("mogrifier_lstm", {"rounds": 0}, {}, "lstm", {}),
    ("time_aware_lstm", {}, {"dt": 0.0}, "lstm", {}),
    ("gru_ode", {"steps": 1}, {"dt": 1.0}, "gru_before", {}),
    ("leaky_rnn", {"leak": 1.0}, {}, "elman", {}),
    ("higher_order_rnn", {"order": 1}, {}, "elman", {"U0": "U"}),
    ("clockwork_rnn", {"modules": 1}, {}, "elman", {}),
    ("slstm", {"heads": 1}, {}, "slstm", {}),
]


@pytest.mark.parametrize("case", REDUCED, ids=lambda case: f"{case[0]} is {case[3]}")
def test_simplest_values_give_simpler_cells(case: Any) -> None:
    name, options, side, simpler, families = case
    layer, known = prepared(cells.get(name)(**options)), prepared(cells.get(simpler))
    ours = weights(layer)
    theirs = {f"{families.get(full.split('.')[0], full.split('.')[0])}.{full.split('.')[1]}": full for full in ours}
    with torch.no_grad():
        for full, array in weights(known).items():
            torch.from_numpy(array).copy_(torch.from_numpy(ours[theirs[full]]))
    x = torch.randn(B, T, IN, dtype=torch.float64)
    given = {key: torch.full((B, T, 1), value, dtype=torch.float64) for key, value in side.items()}
    assert_close(layer(x, side=given or None)[0], known(x)[0], SAME)


def test_fully_seen_and_without_decay_gru_d_is_a_gru() -> None:
    """Except that its update gate says how much is new, and that the mask adds a constant to each gate."""
    layer, known = prepared(cells.get("gru_d")), prepared(cells.get("gru_before"))
    p, q = weights(layer), weights(known)
    for name in ("D.h", "d.h"):
        p[name][...] = -1.0
    for gate in "rzn":
        sign = -1 if gate == "z" else 1
        q[f"W.{gate}"][...] = sign * p[f"W.{gate}"]
        q[f"U.{gate}"][...] = sign * p[f"U.{gate}"]
        q[f"b.{gate}"][...] = sign * (p[f"b.{gate}"] + p[f"V.{gate}"].sum(1))
    x = torch.randn(B, T, IN, dtype=torch.float64)
    assert_close(layer(x)[0], known(x)[0], SAME)


def test_gru_d_never_looks_at_what_is_missing() -> None:
    layer = prepared(cells.get("gru_d"))
    x = torch.randn(B, T, IN, dtype=torch.float64)
    mask = torch.randint(0, 2, (B, T, IN)).to(torch.float64)
    holes = torch.where(mask > 0, x, torch.nan).requires_grad_()
    y, _ = layer(holes, side={"mask": mask})
    y.sum().backward()
    assert_close(y, layer(x, side={"mask": mask})[0], SAME)
    assert holes.grad is not None
    assert holes.grad.isfinite().all()
    assert (holes.grad[mask == 0] == 0).all()


# -- what the papers promise ----------------------------------------------------------------------------------------


def test_legendre_memory_of_a_signal_that_stays_is_flat() -> None:
    """The first polynomial is the constant one; and what came before the window is forgotten."""
    layer = prepared(cells.get("lmu")(span=3.0))
    p = weights(layer)
    for name in ("e.h", "e.m"):
        p[name][...] = 0.0
    x = torch.randn(B, 1, IN, dtype=torch.float64)
    _, final = layer(x.expand(-1, 200, -1))
    flat = torch.nn.functional.pad(x[:, 0] @ torch.from_numpy(p["e.u"])[:, None], (0, 4))
    assert_close(final.m[0], flat, SAME)


def test_exp_rnn_keeps_lengths() -> None:
    layer = prepared(cells.get("exp_rnn"))
    p = weights(layer)
    p["b.h"][...], p["W.h"][...] = 0.0, 0.0
    h = torch.randn(1, B, H, dtype=torch.float64)
    _, final = layer(torch.zeros(B, 100, IN, dtype=torch.float64), h)
    assert_close(final.h.norm(dim=-1), h.norm(dim=-1), SAME)


def test_rwkv4_states_are_those_sums_over_their_scale() -> None:
    layer = prepared(cells.get("rwkv4"))
    p, x = weights(layer), torch.randn(B, T, IN, dtype=torch.float64)
    with torch.no_grad():
        _, final = layer(x)
    inputs = [np.zeros((B, IN)), *(v.numpy() for v in x.unbind(1))]

    def mixed(t: int, gate: str) -> Array:
        return times(p, f"W.{gate}", p[f"t.{gate}"] * inputs[t + 1] + (1 - p[f"t.{gate}"]) * inputs[t])

    ages = [np.exp(mixed(t, "k") - (T - 1 - t) * np.exp(p["p.k"])) for t in range(T)]
    a, b, m = (array[0].numpy() for array in (final.a, final.b, final.m))
    assert_close(a * np.exp(m), sum(w * mixed(t, "v") for t, w in enumerate(ages)), SAME)
    assert_close(b * np.exp(m), sum(ages), SAME)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_slstm_states_are_the_plain_ones_over_their_scale(heads: int) -> None:
    layer = prepared(cells.get("slstm")(heads=heads))
    p, x = weights(layer), torch.randn(B, T, IN, dtype=torch.float64)
    y, final = layer(x)
    size, h, c, n = H // heads, np.zeros((B, H)), np.zeros((B, H)), np.zeros((B, H))
    for t in range(T):
        a = {gate: affine(p, gate, x[:, t].numpy()) for gate in "ifzo"}
        for gate in a:
            for k in range(heads):
                part = slice(k * size, (k + 1) * size)
                a[gate][:, part] += h[:, part] @ p[f"U.{gate}"][part].T
        c = sigma(a["f"]) * c + np.exp(a["i"]) * np.tanh(a["z"])
        n = sigma(a["f"]) * n + np.exp(a["i"])
        h = sigma(a["o"]) * c / n
        assert_close(y[:, t], h, SAME)
    scale = torch.exp(final.m[0])
    assert_close(final.c[0] * scale, c, SAME)
    assert_close(final.n[0] * scale, n, SAME)


@pytest.mark.parametrize("name", ["lru", "s5"])
def test_without_an_activation_a_state_space_is_linear(name: str) -> None:
    layer = prepared(cells.get(name)(act=identity))
    x, z = torch.randn(2, B, T, IN, dtype=torch.float64)
    assert_close(layer(2 * x - 3 * z)[0], 2 * layer(x)[0] - 3 * layer(z)[0], SAME)


def test_echo_states_are_not_trained() -> None:
    layer = prepared(cells.get("esn"))
    x = torch.randn(B, T, IN, dtype=torch.float64, requires_grad=True)
    layer(x)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    for parameter in layer.parameters():
        assert parameter.grad is None or not parameter.grad.any()


# -- start values ---------------------------------------------------------------------------------------------------


def started(name: str, hidden: int = 64) -> Weights:
    torch.manual_seed(0)
    return weights(Recurrent(name, IN, hidden, dtype=torch.float64))


def within(v: Array, low: float, high: float) -> bool:
    return bool((v >= low).all() and (v <= high).all() and v.max() - v.min() > (high - low) / 2)


def test_start_values_are_the_papers() -> None:
    assert within(1 / (1 + np.exp(started("rg_lru")["p.h"])), 0.9, 0.999)
    lru_start = started("lru")
    size = np.exp(-np.exp(lru_start["nu.s"]))
    assert within(size, 0.9, 0.999)
    assert within(np.exp(lru_start["theta.s"]), 0, 2 * math.pi)
    assert_close(np.exp(lru_start["gamma.s"]), np.sqrt(1 - size**2), SAME)
    s5_start = started("s5")
    assert_close(s5_start["turn.s"], np.pi * np.arange(64), SAME)
    assert_close(np.exp(s5_start["decay.s"]), np.full(64, 0.5), SAME)
    assert within(np.log(np.exp(s5_start["step.s"])), math.log(0.001), math.log(0.1))
    assert_close(started("irnn")["U.h"], np.eye(64), SAME)
    assert_close(started("hgrn")["theta.s"], 10000.0 ** (-2 * np.arange(64) / 64), SAME)
    reservoir = started("esn")["U.h"]
    assert_close(reservoir @ reservoir.T, np.eye(64), FLOAT32)
    assert within(np.exp(started("phased_lstm")["p.t"]), math.e, math.exp(5))
    assert within(np.exp(started("ctrnn")["tau.v"]), 1, 100)
    assert within(np.logaddexp(0, started("ltc")["r.h"]), 0.001, 0.1)


# -- the contract, with options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("slstm", {"heads": 2}),
        ("rg_lru", {"heads": 2}),
        ("qrnn", {"width": 3}),
        ("rhn", {"depth": 2}),
        ("fast_slow_lstm", {"fast": 3}),
        ("mogrifier_lstm", {"rounds": 3}),
        ("tau_gru", {"delay": 2}),
        ("clockwork_rnn", {"modules": 2}),
        ("lmu", {"span": 5.0}),
        ("s5", {"act": identity}),
    ],
    ids=spelled,
)
def test_options_keep_the_contract(name: str, options: dict[str, Any]) -> None:
    even = {"hidden": 4} if "heads" in options else {}
    check_cell(cells.get(name)(**options), sizes=even or None)


@pytest.mark.parametrize("heads", [0, 1.5, -1])
def test_heads_are_whole_numbers(heads: float) -> None:
    with pytest.raises(TypeError, match="whole number of 1 or more"):
        _ = cells.get("slstm")(heads=heads).graph


def test_heads_must_divide_the_units() -> None:
    with pytest.raises(ValueError, match="hidden = 6 is not 4 equal parts"):
        Recurrent(cells.get("slstm")(heads=4), IN, H)


def test_every_cell_of_this_file_has_an_oracle_and_a_source() -> None:
    for name in ORACLES:
        cell = cells.get(name)
        assert str(cell.year) in cell.source, name
        assert cell.when, name
        assert "Beware" in cell.doc, name
