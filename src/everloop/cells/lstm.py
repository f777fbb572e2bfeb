"""Long short-term memory."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i f g o",
    source="Hochreiter, Schmidhuber 1997; forget gate: Gers, Schmidhuber, Cummins 2000",
    year=2000,
    when="the first choice when nothing is known of the data",
    init={"b.f": 1.0},
)
def lstm(x, h, c, W, U, b):
    """The cell state c is kept by f, written by i, read by o; g is what is written.

    torch: nn.LSTM, gate order i f g o, two biases (their sum is b here; torch starts b at random, here
    b.f = 1 and the others 0). Keras: i f c o, one bias. ONNX: i o f c.
    Used for nearly everything that comes in sequences: text, speech, handwriting, series.
    Beware: c is not bounded: over a long sequence it may grow where tanh(c) no longer moves.
    """
    a = W @ x + U @ h + b
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * c + i * g
    return o * tanh(c), c
