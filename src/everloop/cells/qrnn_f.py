"""Quasi-recurrent network with a forget gate alone."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh, window


@cell(
    states="h",
    gates="z f",
    source="Bradbury et al. 2016, Quasi-Recurrent Neural Networks (f-pooling)",
    year=2016,
    when="as `qrnn`, with a third fewer parameters and no output gate",
    init={"b.f": 1.0},
)
def qrnn_f(x, h, W, b, *, width=2):
    """As `qrnn` without an output gate: what is remembered is what comes out.

    Option: width, how many inputs a step sees. The forget gate's bias starts at 1, so that steps begin by keeping.
    torch, Keras, ONNX: have no such cell. With width 1 it is the gated impulse linear recurrence of Martin and
    Cundy 2018.
    Beware: nothing can be remembered without being shown.
    """
    a = b
    for k, past in enumerate(window(x, width)):
        a = a + W[k] @ past
    f = sigmoid(a.f)
    return f * h + (1 - f) * tanh(a.z)
