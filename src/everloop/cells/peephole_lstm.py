"""LSTM whose gates see the cell state."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i f g o",
    source="Gers, Schmidhuber 2000, Recurrent Nets that Time and Count",
    year=2000,
    when="exact timing: counting steps, spotting intervals",
    init={"b.f": 1.0},
)
def peephole_lstm(x, h, c, W, U, b, p):
    """As `lstm`; i and f also see the old cell state, o sees the new one, each through a vector p.

    torch, Keras: have no such cell. ONNX: LSTM with its input P, order i o f.
    Used for rhythm, timing and handwriting.
    Beware: o sees the new c, i and f the old one; an o that sees the old c is another cell.
    """
    a = W @ x + U @ h + b
    i, f = sigmoid(a.i + p.i * c), sigmoid(a.f + p.f * c)
    c = f * c + i * tanh(a.g)
    o = sigmoid(a.o + p.o * c)
    return o * tanh(c), c
