"""LSTM with the forget gate alone."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="f h",
    source="van der Westhuizen, Lasenby 2018, The Unreasonable Effectiveness of the Forget Gate",
    year=2018,
    when="long sequences with a known longest dependence; half the parameters of lstm",
    init={"b.f": 1.0},
)
def janet(x, h, W, U, b, *, beta=1.0):
    """The forget gate keeps; what is written has a gate of its own from the same sum, shifted by beta.

    Option: beta. With 0 it is a simple update gate; with 1, the paper's, more can be written than is forgotten.
    torch, Keras, ONNX: have no such cell. Used on images read pixel by pixel.
    Beware: the paper starts b.f at the logarithms of numbers drawn from 1 to the longest dependence; here it is 1,
    as in its code when that length is not given.
    """
    a = W @ x + U @ h + b
    return sigmoid(a.f) * h + (1 - sigmoid(a.f - beta)) * tanh(a.h)
