"""Deep simple gated unit: SGU with one layer more."""

from everloop.lang.cell import cell
from everloop.lang.functions import maximum, minimum, sigmoid, tanh


@cell(
    states="h",
    gates="g z",
    source="Gao, Glowacka 2016, Deep Gate Recurrent Neural Network",
    year=2016,
    when="classifying long sequences, where sgu is not stable",
)
def dsgu(x, h, W, U, V, b):
    """As `sgu`, with a matrix V and a sigmoid for the softplus.

    torch, Keras, ONNX: have no such cell. Used for sentiment and for images read pixel by pixel.
    Beware: h lies between 0 and 1; two products in every step, one after the other.
    """
    g = tanh(U.g @ ((W.g @ x + b.g) * h))
    z = minimum(maximum(0.2 * (W.z @ x + U.z @ h + b.z) + 0.5, 0.0), 1.0)
    return (1 - z) * h + z * sigmoid(V.g @ (g * h))
