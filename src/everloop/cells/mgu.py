"""Minimal gated unit: a GRU with one gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="f h",
    source="Zhou et al. 2016, Minimal Gated Unit for Recurrent Neural Networks",
    year=2016,
    when="where gru works and a third fewer parameters are wanted",
)
def mgu(x, h, W, U, b):
    """f resets h for the candidate n, and decides how much of n takes the place of h.

    torch, Keras, ONNX: have no such cell. Flax has it with f the other way round in the last line: f h + (1 - f) n.
    Tested by its authors on sentiment, images and words.
    Beware: an open f both keeps the past for n and replaces h; two products in every step, one after the other.
    """
    f = sigmoid(W.f @ x + U.f @ h + b.f)
    n = tanh(W.h @ x + U.h @ (f * h) + b.h)
    return (1 - f) * h + f * n
