"""LSTM with working memory connections."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i f g o",
    source="Landi et al. 2021, Working Memory Connections for LSTM",
    year=2021,
    when="long sequences, where lstm's gates should know what the memory holds",
    init={"b.f": 1.0},
)
def wmc_lstm(x, h, c, W, U, V, b):
    """As `lstm`; each gate also sees tanh(V c): i and f the old cell state, o the new one.

    torch, Keras, ONNX: have no such cell; a peephole is a diagonal V without the tanh. Used for image captions.
    Beware: a second product in every step, for o waits for the new c.
    """
    i = sigmoid(W.i @ x + U.i @ h + tanh(V.i @ c) + b.i)
    f = sigmoid(W.f @ x + U.f @ h + tanh(V.f @ c) + b.f)
    c = f * c + i * tanh(W.g @ x + U.g @ h + b.g)
    o = sigmoid(W.o @ x + U.o @ h + tanh(V.o @ c) + b.o)
    return o * tanh(c), c
