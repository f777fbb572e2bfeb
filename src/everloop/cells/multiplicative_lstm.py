"""LSTM whose recurrent matrix depends on the input."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, sized, tanh


@cell(
    states="h c",
    gates="m i f g o",
    source="Krause et al. 2016, Multiplicative LSTM for Sequence Modelling",
    year=2016,
    when="characters and bytes, where each symbol should act on the memory in its own way",
    init={"b.f": 1.0},
)
def multiplicative_lstm(x, h, c, W, U, V, b):
    """As `lstm`, but its gates see m = (W.m x) * (U.m h) instead of h.

    torch, Keras, ONNX: have no such cell. Used for large character models of text.
    Beware: a second product in every step, and m is of second order: keep the learning rate small.
    """
    m = sized(W.m @ x, "hidden") * (U.m @ h)
    i = sigmoid(W.i @ x + V.i @ m + b.i)
    f = sigmoid(W.f @ x + V.f @ m + b.f)
    g = tanh(W.g @ x + V.g @ m + b.g)
    o = sigmoid(W.o @ x + V.o @ m + b.o)
    c = f * c + i * g
    return o * tanh(c), c
