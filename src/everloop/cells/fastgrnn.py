"""A gated cell with the matrices of a simple recurrent network."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="z h",
    source="Kusupati et al. 2018, FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated "
    "Recurrent Neural Network",
    year=2018,
    when="microcontrollers: gates for the price of elman",
    init={"b": 1.0, "zeta.h": 1.0, "nu.h": -4.0},
)
def fastgrnn(x, h, W, U, b, zeta, nu):
    """Gate and candidate share W and U and differ only in their biases.

    zeta and nu are numbers in the paper, one each for the layer; here each unit has its own.
    torch, Keras, ONNX: have no such cell. Used for keyword spotting and gestures on small devices.
    Beware: the paper also factors W and U and makes them sparse and whole-numbered; that is not part of the cell.
    """
    p = W.h @ x + U.h @ h
    z, n = sigmoid(p + b.z), tanh(p + b.h)
    return (sigmoid(zeta.h) * (1 - z) + sigmoid(nu.h)) * n + z * h
