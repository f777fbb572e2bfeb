"""Minimal gated unit with a constant gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="f h",
    source="Heck, Salem 2017, Simplified Minimal Gated Unit Variations for Recurrent Neural Networks",
    year=2017,
    when="as a baseline: how much do gates matter that react to nothing",
)
def mgu3(x, h, W, U, b):
    """As `mgu`, its gate from a bias alone: each unit has one rate, learnt, at which it forgets.

    torch, Keras, ONNX: have no such cell. Tested by its authors on images and news.
    Beware: nothing can be kept longer on one occasion than on another; one product in every step, unlike `mgu`.
    """
    f = sigmoid(b.f)
    n = tanh(W.h @ x + U.h @ (f * h) + b.h)
    return (1 - f) * h + f * n
