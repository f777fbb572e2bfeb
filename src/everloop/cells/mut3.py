"""MUT3, the third of three cells found by a search."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="z r h",
    source="Jozefowicz, Zaremba, Sutskever 2015, An Empirical Exploration of Recurrent Network Architectures",
    year=2015,
    when="where gru_before works, as one more try",
)
def mut3(x, h, W, U, b):
    """As a GRU whose update gate z sees tanh(h) instead of h.

    torch, ONNX: have no such cell. Keras: had it until 2015 as JZS3. Used as a drop-in for gru.
    Beware: z grows towards n, so 1 - z is the z of `gru`.
    """
    z = sigmoid(W.z @ x + U.z @ tanh(h) + b.z)
    r = sigmoid(W.r @ x + U.r @ h + b.r)
    n = tanh(U.h @ (r * h) + W.h @ x + b.h)
    return z * n + (1 - z) * h
