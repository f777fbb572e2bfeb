"""MUT2, the second of three cells found by a search."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="z r h",
    source="Jozefowicz, Zaremba, Sutskever 2015, An Empirical Exploration of Recurrent Network Architectures",
    year=2015,
    when="to repeat the paper; else gru_before, which is nearly the same",
)
def mut2(x, h, W, U, b):
    """As a GRU whose reset gate r is given the input itself.

    The paper adds x, being as wide as h; W.r maps it here (the paper's is W.r = 1).
    torch, ONNX: have no such cell. Keras: had it until 2015 as JZS2, with a W.r that is drawn and not trained.
    Used as a drop-in for gru. Beware: with W.r trained it is `gru_before`, whose z is 1 - z here.
    """
    z = sigmoid(W.z @ x + U.z @ h + b.z)
    r = sigmoid(W.r @ x + U.r @ h + b.r)
    n = tanh(U.h @ (r * h) + W.h @ x + b.h)
    return z * n + (1 - z) * h
