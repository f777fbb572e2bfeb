"""A simple recurrent network with a learnt shortcut through time."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="h",
    source="Kusupati et al. 2018, FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated "
    "Recurrent Neural Network",
    year=2018,
    when="microcontrollers: the size of elman, far easier to train",
    init={"b.h": 1.0, "alpha.h": -3.0, "beta.h": 3.0},
)
def fastrnn(x, h, W, U, b, alpha, beta, *, act=tanh):
    """h is kept by sigmoid(beta), and a simple recurrent unit is added to it by sigmoid(alpha).

    alpha and beta are numbers in the paper, one each for the layer; here each unit has its own.
    Option: act, the activation.
    torch, Keras, ONNX: have no such cell. Used for keyword spotting and gestures on small devices.
    Beware: the two rates are constants: nothing in the input can make it forget.
    """
    n = act(W.h @ x + U.h @ h + b.h)
    return sigmoid(alpha.h) * n + sigmoid(beta.h) * h
