"""Quasi-recurrent network with input, forget and output gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh, window


@cell(
    states="c",
    gates="z i f o",
    source="Bradbury et al. 2016, Quasi-Recurrent Neural Networks (ifo-pooling)",
    year=2016,
    when="as `qrnn`, where things must be added up rather than averaged: counts, sums",
    init={"b.f": 1.0},
)
def qrnn_ifo(x, c, W, b, *, width=2):
    """As `qrnn` with an input gate of its own in place of 1 - f, so that c can add up.

    Option: width, how many inputs a step sees. The forget gate's bias starts at 1, so that steps begin by keeping.
    torch, Keras, ONNX: have no such cell. An LSTM whose gates do not see its output.
    Beware: c is not bounded, as it is in `qrnn`, and the output has no tanh.
    """
    a = b
    for k, past in enumerate(window(x, width)):
        a = a + W[k] @ past
    c = sigmoid(a.f) * c + sigmoid(a.i) * tanh(a.z)
    return sigmoid(a.o) * c, c
