"""LSTM with a smaller output."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h:proj c",
    gates="i f g o",
    source="Sak, Senior, Beaufays 2014, Long Short-Term Memory Based Recurrent Neural Network Architectures",
    year=2014,
    when="large memories with small outputs, as in speech recognition",
    init={"b.f": 1.0},
)
def projection_lstm(x, h, c, W, U, b, P):
    """As `lstm`; what is read out and fed back is projected to `proj` features by P.

    torch: nn.LSTM with proj_size (weight_hr is P). Keras, ONNX: have no such cell.
    Used in speech recognition, with a thousand cells projected to some hundreds.
    Beware: `proj` has to be chosen; the output and the input of the next layer are that wide, not `hidden`.
    """
    a = W @ x + U @ h + b
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    c = f * c + i * g
    return P.h @ (o * tanh(c)), c
