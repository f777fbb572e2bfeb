"""Recurrent network of rectified units that starts as the identity."""

from everloop.lang.cell import cell
from everloop.lang.functions import relu


@cell(
    states="h",
    gates="h",
    source="Le, Jaitly, Hinton 2015, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
    year=2015,
    when="long sums with the simplest cell there is",
    init={"U": "identity"},
)
def irnn(x, h, W, U, b):
    """`elman` with relu, whose recurrent matrix starts as the identity: at first it adds up its inputs.

    torch: nn.RNN with nonlinearity relu, and weight_hh set to the identity. Keras: SimpleRNN with relu and
    recurrent_initializer identity. ONNX: RNN with Relu; the start is no part of it.
    Beware: it explodes easily: a small learning rate and clipped gradients are needed.
    """
    return relu(W.h @ x + U.h @ h + b.h)
