"""Minimal gated unit whose gate sees the past alone."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="f h",
    source="Heck, Salem 2017, Simplified Minimal Gated Unit Variations for Recurrent Neural Networks",
    year=2017,
    when="the variation of mgu that its authors found best",
)
def mgu2(x, h, W, U, b):
    """As `mgu`, its gate from h alone: no input, no bias.

    torch, Keras, ONNX: have no such cell. Tested by its authors on images and news.
    Beware: from h = 0 every gate is one half, whatever the input.
    """
    f = sigmoid(U.f @ h)
    n = tanh(W.h @ x + U.h @ (f * h) + b.h)
    return (1 - f) * h + f * n
