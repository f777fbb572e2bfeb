"""Update gate recurrent network: a simple one with one gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="g h",
    source="Collins, Sohl-Dickstein, Sussillo 2016, Capacity and Trainability in Recurrent Neural Networks",
    year=2016,
    when="a small, well-behaved baseline between elman and gru",
    init={"b.g": 1.0},
)
def ugrnn(x, h, W, U, b, *, act=tanh):
    """g decides how much of h stays; the rest is a simple recurrent unit.

    Option: act, the activation of the candidate.
    torch, Keras, ONNX: have no such cell (TensorFlow 1 had UGRNNCell). Used in studies of neural dynamics.
    Beware: b.g starts at 1, as in the authors' code.
    """
    a = W @ x + U @ h + b
    g, n = sigmoid(a.g), act(a.h)
    return g * h + (1 - g) * n
