"""Legendre memory unit: a sliding window of a learned signal, as polynomials, and a nonlinear state beside it."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import expm, fixed, mod, position, tanh, total, where


@cell(
    states="h m:memory",
    gates="u h",
    source="Voelker, Kajic, Eliasmith 2019, Legendre Memory Units",
    year=2019,
    when="a known span of time matters: the last `span` steps of one signal are kept whole in few numbers",
    init={"e": lambda u, k, n: (2 * u - 1) * math.sqrt(3 / n), "e.m": 0.0, "U": "glorot", "V": "glorot"},
    sizes={"memory": 32},
)
def lmu(x, h, m, W, U, V, e, *, span=100.0):
    """One number u, read off x, h and m, is written to m: Legendre coefficients of its last `span` steps.

    m follows dm/dt = (A m + B u) / span with fixed A and B, exact for u held over a step. Because A's first
    column is -B, that step is M (m - u) + u with M = expm(A / span), where u is added to the first entry only.
    Option: span, the steps that the window reaches back. The size `memory` is the number of polynomials.
    torch, Keras, ONNX: have no such cell (keras-lmu has, and feeds back neither h nor m unless told so).
    Beware: of everything that x holds, m sees one number a step.
    """
    # A, row i and column j: (2 i + 1) times -1 above the diagonal, else -1, +1, -1 ... downwards from it.
    A = fixed(lambda i, j: (2 * i + 1) * where(j > i, -1, 2 * mod(i + j, 2) - 1))
    u = total(e.u * x) + total(e.h * h) + total(e.m * m)
    first = where(position(m) > 0, 0, 1) * u
    m = expm(A / span) @ (m - first) + first
    return tanh(W.h @ x + U.h @ h + V.h @ m), m
