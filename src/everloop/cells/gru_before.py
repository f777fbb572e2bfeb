"""Gated recurrent unit, reset before the matrix."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="r z n",
    source="Cho et al. 2014, Learning Phrase Representations (version 3)",
    year=2014,
    when="weights from ONNX, Keras or papers that reset before the product",
)
def gru_before(x, h, W, U, b):
    """As `gru`, with the reset applied to h before U.n: a second product in every step.

    torch: has no such cell. Keras: reset_after=False. ONNX: linear_before_reset=0, its default.
    Used in older Keras models, where it was the default, and where papers follow the first one.
    Beware: weights of `gru` do not fit, though their shapes do; a step takes two products, one after the other.
    """
    r = sigmoid(W.r @ x + U.r @ h + b.r)
    z = sigmoid(W.z @ x + U.z @ h + b.z)
    n = tanh(W.n @ x + U.n @ (r * h) + b.n)
    return (1 - z) * n + z * h
