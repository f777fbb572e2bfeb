"""LSTM with layer normalisation."""

from everloop.lang.cell import cell
from everloop.lang.functions import norm, sigmoid, tanh


@cell(
    states="h c",
    gates="i f g o",
    source="Ba, Kiros, Hinton 2016, Layer Normalization",
    year=2016,
    when="an lstm that trains badly: long sequences, large layers, small batches",
    init={"b.f": 1.0, "s": 1.0, "t": 1.0},
)
def layernorm_lstm(x, h, c, W, U, b, s, t):
    """As `lstm`; W x and U h are each normalised over all gates jointly, and c before it is read.

    s and t scale the two normalised sums; t.c and b.c scale and shift the cell state's.
    torch, Keras, ONNX: have no such cell. Used in language models and in reinforcement learning.
    Beware: others normalise gate by gate, which is another cell: write norm(...) of each gate.
    """
    a = s * norm(W @ x) + t * norm(U @ h) + b
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * c + i * g
    return o * tanh(t.c * norm(c) + b.c), c
