"""Quasi-recurrent network with a forget and an output gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh, window


@cell(
    states="c",
    gates="z f o",
    source="Bradbury et al. 2016, Quasi-Recurrent Neural Networks (fo-pooling)",
    year=2016,
    when="text and audio where speed matters: a convolution over the last inputs, then a linear scan",
    init={"b.f": 1.0},
)
def qrnn(x, c, W, b, *, width=2):
    """Candidate and gates come from the last `width` inputs; f keeps, 1 - f takes, o reads.

    Option: width, how many inputs a step sees. The forget gate's bias starts at 1, so that steps begin by keeping.
    torch, Keras, ONNX: have no such cell. Used in text classifiers and language models in place of an LSTM.
    Beware: the authors' library turns the gate round: its f is the share of what is new.
    """
    a = b
    for k, past in enumerate(window(x, width)):
        a = a + W[k] @ past
    f = sigmoid(a.f)
    c = f * c + (1 - f) * tanh(a.z)
    return sigmoid(a.o) * c, c
