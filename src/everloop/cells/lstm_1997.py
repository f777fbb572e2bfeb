"""The first long short-term memory: it cannot forget."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i g o",
    source="Hochreiter, Schmidhuber 1997, Long Short-Term Memory",
    year=1997,
    when="short sequences in which nothing may be lost; for anything else lstm",
)
def lstm_1997(x, h, c, W, U, b, *, write=tanh, read=tanh):
    """As `lstm` without the forget gate: c only ever adds up.

    Options: write and read, what squashes the candidate and the cell state. The paper has 4 sigmoid(v) - 2 and
    2 sigmoid(v) - 1, which are 2 tanh(v / 2) and tanh(v / 2).
    torch, Keras, ONNX: have no such cell; it is their LSTM with a forget gate of 1. Used for tests of memory.
    Beware: c grows without end on long sequences, until read(c) saturates. The paper starts the biases of the
    output gates below 0, so that cells come into play one after the other.
    """
    a = W @ x + U @ h + b
    i, g, o = sigmoid(a.i), write(a.g), sigmoid(a.o)
    c = c + i * g
    return o * read(c), c
