"""Fast-slow LSTM: small fast cells in a row, and a slow one that sees the first and feeds the second."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c s m",
    gates="i f g o",
    source="Mujika, Meier, Steger 2017, Fast-Slow Recurrent Neural Networks",
    year=2017,
    when="characters and bytes: the fast cells do several updates a step, the slow one remembers for long",
)
def fast_slow_lstm(x, h, c, s, m, W, U, V, P, Q, b, d, *, fast=2):
    """`fast` LSTM cells hand the state h, c on within a step; after the first, the slow LSTM s, m takes its turn.

    The first fast cell sees the input (W), the second the slow one (V), later ones only the one before; the slow
    cell sees the first fast one (P) and itself (Q). Option: fast, how many fast cells there are (2 or more).
    torch, Keras, ONNX: have no such cell. The authors add layer normalisation and zoneout to each LSTM, and 1 to
    each forget gate, as here.
    Beware: fast + 1 products one after another in every step.
    """
    for layer in range(max(int(fast), 2)):
        a = U[layer] @ h + b[layer]
        if layer == 0:
            a = a + W @ x
        if layer == 1:
            a = a + V @ s
        h, c = _lstm(a, c)
        if layer == 0:
            s, m = _lstm(P @ h + Q @ s + d, m)
    return h, c, s, m


def _lstm(a, c):
    c = sigmoid(a.f + 1) * c + sigmoid(a.i) * tanh(a.g)
    return sigmoid(a.o) * tanh(c), c
