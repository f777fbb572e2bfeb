"""MUT1, the first of three cells found by a search."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="z r h",
    source="Jozefowicz, Zaremba, Sutskever 2015, An Empirical Exploration of Recurrent Network Architectures",
    year=2015,
    when="where gru_before works, with one recurrent matrix fewer",
)
def mut1(x, h, W, U, b):
    """As a GRU, with an update gate z that sees only the input, and an input squashed before it is added.

    The paper adds tanh(x), x being as wide as h; W.h maps it here (the paper's is W.h = 1).
    torch, ONNX: have no such cell. Keras: had it until 2015 as JZS1, with a W.h that is drawn and not trained.
    Used as a drop-in for gru. Beware: z grows towards n, so 1 - z is the z of `gru`.
    """
    z = sigmoid(W.z @ x + b.z)
    r = sigmoid(W.r @ x + U.r @ h + b.r)
    n = tanh(U.h @ (r * h) + tanh(W.h @ x) + b.h)
    return z * n + (1 - z) * h
