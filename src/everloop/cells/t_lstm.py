"""Strongly typed long short-term memory."""

from everloop.lang.cell import cell
from everloop.lang.functions import shift, sigmoid, tanh


@cell(
    states="c",
    gates="f z o",
    source="Balduzzi, Ghifary 2016, Strongly-Typed Recurrent Neural Networks",
    year=2016,
    when="a linear scan with an output gate whose gates look at two inputs",
    init={"b.f": 1.0},
)
def t_lstm(x, c, W, V, b):
    """c is a running average of features z with the share f; o reads it. All three see this input and the last.

    torch, Keras, ONNX: have no such cell. `qrnn` with width 2 differs in two activations: tanh of z, sigmoid of o.
    Beware: this is not the time-aware LSTM, which goes by the same letters: that is `time_aware_lstm`.
    """
    a = W @ x + V @ shift(x) + b
    f = sigmoid(a.f)
    c = f * c + (1 - f) * a.z
    return tanh(a.o) * c, c
