"""Scalar LSTM of xLSTM: exponential gates, a normaliser, a stabiliser."""

from everloop.lang.cell import cell
from everloop.lang.functions import exp, logsigmoid, maximum, sigmoid, tanh


@cell(
    states="h c n m",
    gates="i f z o",
    source="Beck et al. 2024, xLSTM: Extended Long Short-Term Memory",
    start={"m": -1e30},
    init={"b.f": 1.0},
)
def slstm(x, h, c, n, m, W, U, b):
    """Gates i and f are exponential; n sums the weights of what c holds; m keeps the exponents small.

    m starts at -1e30 (minus infinity without its arithmetic), so that the first step takes m = a.i.
    The forget gate is the sigmoid form. U is full here: one head. torch, Keras, ONNX: have no such cell.
    """
    a = W @ x + U @ h + b
    kept = logsigmoid(a.f) + m
    m = maximum(kept, a.i)
    i, f = exp(a.i - m), exp(kept - m)
    z, o = tanh(a.z), sigmoid(a.o)
    c = f * c + i * z
    n = f * n + i
    return o * c / n, c, n, m
