"""LSTM with coupled input and forget gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i g o",
    source="Greff et al. 2015, LSTM: A Search Space Odyssey",
    year=2015,
    when="where lstm works and a quarter fewer parameters are wanted",
    init={"b.i": -1.0},
)
def cifg_lstm(x, h, c, W, U, b):
    """As `lstm` with f = 1 - i: what is written takes the place of what is forgotten.

    torch, Keras: have no such cell. ONNX: LSTM with input_forget=1. Used in keyboards on phones.
    Beware: b.i starts at -1, which is the forget bias of 1 seen from the other gate.
    """
    a = W @ x + U @ h + b
    i, g, o = sigmoid(a.i), tanh(a.g), sigmoid(a.o)
    c = (1 - i) * c + i * g
    return o * tanh(c), c
