"""Phased LSTM: each unit is open for a short part of a period of its own."""

from everloop.lang.cell import cell
from everloop.lang.functions import exp, mod, sigmoid, tanh, where


@cell(
    states="h c t",
    gates="i f g o",
    source="Neil, Pfeiffer, Liu 2016, Phased LSTM",
    year=2016,
    when="a thousand steps or more, or events at odd times: most units skip most steps",
    inputs="dt",
    start={"dt": 1.0},
    init={"b.f": 1.0, "p": (1.0, 5.0), "s": (0.0, 1.0)},
)
def phased_lstm(x, h, c, t, dt, W, U, b, p, s, *, share=0.05, leak=0.001):
    """As `lstm`; a time gate k mixes the new h and c with the old: up and down within `share` of each period.

    The period is exp(p) and s shifts it, counted in periods; t is the time. Periods start between e and e^5, as the
    authors recommend in their code for sequences of hundreds of steps.
    Side input: dt, the time since the step before (1 unless given).
    Options: share, the open part of a period; leak, how much a closed unit lets through (the paper: 0 in testing).
    torch, Keras, ONNX: have no such cell. Without the paper's optional peepholes.
    Beware: units are open together less often than you think; periods should span the gaps in your data.
    """
    t = t + dt
    phase = mod(t / exp(p.t) - s.t, 1)
    k = where(phase < share / 2, 2 * phase / share, where(phase < share, 2 - 2 * phase / share, leak * phase))
    a = W @ x + U @ h + b
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    inner = f * c + i * g
    return k * (o * tanh(inner)) + (1 - k) * h, k * inner + (1 - k) * c, t
