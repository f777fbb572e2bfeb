"""Minimal gated unit whose gate does not see the input."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="f h",
    source="Heck, Salem 2017, Simplified Minimal Gated Unit Variations for Recurrent Neural Networks",
    year=2017,
    when="where mgu works and still fewer parameters are wanted",
)
def mgu1(x, h, W, U, b):
    """As `mgu`, its gate from h and a bias alone.

    torch, Keras, ONNX: have no such cell. Tested by its authors on images and news.
    Beware: what to forget is decided before the input is seen.
    """
    f = sigmoid(U.f @ h + b.f)
    n = tanh(W.h @ x + U.h @ (f * h) + b.h)
    return (1 - f) * h + f * n
