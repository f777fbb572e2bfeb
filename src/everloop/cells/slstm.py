"""Scalar LSTM of xLSTM: exponential gates, a normaliser, a stabiliser."""

from everloop.lang.cell import cell
from everloop.lang.functions import blocks, exp, logsigmoid, maximum, sigmoid, tanh


@cell(
    states="h c n m",
    gates="i f z o",
    source="Beck et al. 2024, xLSTM: Extended Long Short-Term Memory",
    year=2024,
    when="long sequences in which late inputs must overrule early ones",
    start={"m": -1e30},
    init={"b.f": 1.0},
)
def slstm(x, h, c, n, m, W, U, b, *, heads=1):
    """Gates i and f are exponential; n sums the weights of what c holds; m keeps the exponents small.

    m starts at -1e30 (minus infinity without its arithmetic), so that the first step takes m = a.i.
    The forget gate is the sigmoid form. Option: heads, into how many parts that do not see each other U divides
    the units (the paper: 4). torch, Keras, ONNX: have no such cell. The paper normalises the output head by head.
    Beware: c and n grow with the sequence; only their quotient is bounded.
    """
    a = W @ x + blocks(U, heads) @ h + b
    kept = logsigmoid(a.f) + m
    m = maximum(kept, a.i)
    i, f = exp(a.i - m), exp(kept - m)
    z, o = tanh(a.z), sigmoid(a.o)
    c = f * c + i * z
    n = f * n + i
    return o * c / n, c, n, m
