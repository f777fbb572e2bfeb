"""Residual LSTM: a shortcut past the memory, under the output gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i f g o",
    source="Kim, El-Khamy, Lee 2017, Residual LSTM: Design of a Deep Recurrent Architecture for "
    "Distant Speech Recognition",
    year=2017,
    when="stacks of ten lstm layers and more",
    init={"b.f": 1.0},
)
def res_lstm(x, h, c, W, U, b, p, P):
    """As `peephole_lstm`; the output gate lets out P tanh(c) and, beside it, the layer's own input.

    The paper adds x itself where it is as wide as h, and maps it elsewhere; here W.h always maps it.
    torch, Keras, ONNX: have no such cell. Used for speech recognition.
    Beware: one product more, at the end of every step; h has no bound, for W.h x has none.
    """
    i = sigmoid(W.i @ x + U.i @ h + p.i * c + b.i)
    f = sigmoid(W.f @ x + U.f @ h + p.f * c + b.f)
    c = f * c + i * tanh(W.g @ x + U.g @ h + b.g)
    o = sigmoid(W.o @ x + U.o @ h + p.o * c + b.o)
    return o * (P.h @ tanh(c) + W.h @ x), c
