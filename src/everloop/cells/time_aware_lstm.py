"""Time-aware LSTM: part of the cell state is discounted by the time that has passed."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import log, sigmoid, tanh


@cell(
    states="h c",
    gates="i f g o",
    source="Baytas et al. 2017, Patient Subtyping via Time-Aware LSTM Networks",
    year=2017,
    when="visits, purchases, logs: events with gaps of very different length between them",
    inputs="dt",
    start={"dt": 0.0},
    init={"b.f": 1.0},
)
def time_aware_lstm(x, h, c, dt, W, U, V, b):
    """As `lstm`, after a short-term part of c, tanh(V c + b), has been scaled by 1 / log(e + dt).

    Side input: dt, the time since the step before, in a unit that makes differences count (days, months); 0
    unless given, which discounts nothing.
    torch, Keras, ONNX: have no such cell. The authors' code has a sigmoid where the paper has tanh.
    Beware: this is often called T-LSTM, as is the strongly typed `t_lstm`.
    """
    short = tanh(V.c @ c + b.c)
    c = c - short + short / log(math.e + dt)
    a = W @ x + U @ h + b
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * c + i * g
    return o * tanh(c), c
