"""Liquid time-constant network: the input changes how fast the state moves."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, softplus


@cell(
    states="h",
    gates="h",
    source="Hasani et al. 2021, Liquid Time-constant Networks",
    year=2021,
    when="small networks for control and sensors, sampled irregularly, whose dynamics should be readable",
    inputs="dt",
    start={"dt": 1.0},
    init={"a": (-1.0, 1.0), "r": lambda u, k, n: math.log(math.expm1(0.001 + 0.099 * u)), "b": -2.0},
)
def ltc(x, h, dt, W, U, b, a, r, *, unfolds=6, act=sigmoid):
    """dh/dt = -(rate + f) h + f a with f = act(W x + U h + b): f pulls h towards a, and faster the larger it is.

    Solved in `unfolds` semi-implicit steps ("fused" in the paper), which never overshoot. rate = softplus(r).
    Side input: dt, the time since the step before (1 unless given). Options: unfolds; act, positive (sigmoid).
    torch, Keras, ONNX: have no such cell. The package ncps has a relative with one sigmoid for each pair of units.
    Beware: every unfold is a product with U, and memory fades unless f and rate are small.
    """
    drive, step, rate = W.h @ x + b.h, dt / unfolds, softplus(r.h)
    for _ in range(int(unfolds)):
        f = act(drive + U.h @ h)
        h = (h + step * f * a.h) / (1 + step * (rate + f))
    return h
