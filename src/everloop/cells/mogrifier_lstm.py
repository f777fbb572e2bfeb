"""LSTM whose input and state first gate each other in turns."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i f g o",
    source="Melis, Kocisky, Blunsom 2020, Mogrifier LSTM",
    year=2020,
    when="language modelling, where an input should mean different things in different contexts",
    init={"b.f": 1.0},
)
def mogrifier_lstm(x, h, c, W, U, b, Q, R, *, rounds=5):
    """As `lstm`; before it, x is scaled by 2 sigmoid(Q h), then h by 2 sigmoid(R x), and so on for `rounds` turns.

    Option: rounds (5; 0 is an LSTM). Q0, Q1 ... and R0, R1 ... are full; the paper also has low-rank ones.
    torch, Keras, ONNX: have no such cell.
    Beware: every turn is a product that waits for the one before, and so does W x.
    """
    for turn in range(int(rounds)):
        if turn % 2 == 0:
            x = 2 * sigmoid(Q[turn // 2].h @ h) * x
        else:
            h = 2 * sigmoid(R[turn // 2].h @ x) * h
    a = W @ x + U @ h + b
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * c + i * g
    return o * tanh(c), c
