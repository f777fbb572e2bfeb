"""Nested LSTM: the memory of an LSTM is itself an LSTM."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, sized, tanh


@cell(
    states="h c m",
    gates="i f g o",
    source="Moniz, Krueger 2017, Nested LSTMs",
    year=2017,
    when="memory on two time scales within one layer, the inner one slower",
    init={"b.f": 1.0, "d.f": 1.0},
)
def nested_lstm(x, h, c, m, W, U, b, P, Q, d):
    """What an `lstm` would add up, i * g and f * c, goes into an inner LSTM as its input (P) and its past (Q).

    c is what the inner LSTM puts out, m its memory.
    torch, Keras, ONNX: have no such cell.
    Beware: c passes through gates and tanh twice a step, so only m carries gradients far.
    """
    a = W @ x + U @ h + b
    written = sized(sigmoid(a.i) * tanh(a.g), "hidden")
    inner = P @ written + Q @ (sigmoid(a.f) * c) + d
    m = sigmoid(inner.f) * m + sigmoid(inner.i) * tanh(inner.g)
    c = sigmoid(inner.o) * tanh(m)
    return sigmoid(a.o) * tanh(c), c, m
