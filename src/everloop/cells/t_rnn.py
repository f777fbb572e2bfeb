"""Strongly typed recurrent network."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid


@cell(
    states="h",
    gates="f z",
    source="Balduzzi, Ghifary 2016, Strongly-Typed Recurrent Neural Networks",
    year=2016,
    when="a fast baseline that is easy to read: h is a running average of learned features of the input",
    init={"b.f": 1.0},
)
def t_rnn(x, h, W, b):
    """h keeps the share f of itself and takes the share 1 - f of the features z; z has no bias and no activation.

    torch, Keras, ONNX: have no such cell. `mingru` is the same with a bias for z and the gate turned round.
    Beware: f sees the input only, so nothing in the layer can react to what it remembers; stack them.
    """
    f = sigmoid(W.f @ x + b.f)
    return f * h + (1 - f) * (W.z @ x)
