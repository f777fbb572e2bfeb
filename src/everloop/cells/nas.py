"""The cell that a neural architecture search found."""

from everloop.lang.cell import cell
from everloop.lang.functions import relu, sigmoid, tanh


@cell(
    states="h c",
    gates="g0 g1 g2 g3 g4 g5 g6 g7",
    source="Zoph, Le 2016, Neural Architecture Search with Reinforcement Learning",
    year=2016,
    when="language models of one or two layers, if lstm's accuracy does not suffice",
)
def nas(x, h, c, W, U, b):
    """Eight sums of input and past, joined two by two in three rounds; c comes in after the second.

    One of the eight, g3, is a product of its two parts, not their sum. The bias belongs to the part of h.
    torch, Keras, ONNX: have no such cell (TensorFlow 1 had NASCell, without bias unless asked). Used for words.
    Beware: other catalogues add in g3 too, which is another cell; eight gates are twice those of `lstm`.
    """
    p, q = W @ x, U @ h + b
    left = tanh(sigmoid(p.g0 + q.g0) * relu(p.g1 + q.g1))
    right = tanh(sigmoid(p.g2 + q.g2) + relu(p.g3 * q.g3))
    c = tanh(left + c) * right
    upper = tanh(tanh(p.g4 + q.g4) * sigmoid(p.g5 + q.g5))
    lower = sigmoid(tanh(p.g6 + q.g6) + sigmoid(p.g7 + q.g7))
    return tanh(c * tanh(upper + lower)), c
