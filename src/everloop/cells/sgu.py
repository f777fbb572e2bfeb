"""Simple gated unit: the input multiplies the past."""

from everloop.lang.cell import cell
from everloop.lang.functions import maximum, minimum, softplus, tanh


@cell(
    states="h",
    gates="g z",
    source="Gao, Glowacka 2016, Deep Gate Recurrent Neural Network",
    year=2016,
    when="classifying long sequences, where its authors found it to learn faster than gru",
)
def sgu(x, h, W, U, b):
    """One multiplicative gate g, in which the input scales h, makes the candidate; z lets it in.

    z is a straight line from 0 at -2.5 to 1 at 2.5: the hard sigmoid of Theano and Keras 2, which the authors used.
    torch, Keras, ONNX: have no such cell. Used for sentiment and for images read pixel by pixel.
    Beware: the candidate is softplus(g h), never below 0 and without bound; `dsgu` is its stable form.
    """
    g = tanh(U.g @ ((W.g @ x + b.g) * h))
    z = minimum(maximum(0.2 * (W.z @ x + U.z @ h + b.z) + 0.5, 0.0), 1.0)
    return (1 - z) * h + z * softplus(g * h)
