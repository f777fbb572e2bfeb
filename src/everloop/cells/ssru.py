"""Simpler simple recurrent unit."""

from everloop.lang.cell import cell
from everloop.lang.functions import relu, sigmoid


@cell(
    states="c",
    gates="f z",
    source="Kim et al. 2019, From Research to Production and Back: Ludicrously Fast Neural Machine Translation",
    year=2019,
    when="decoders that must be cheap on a CPU: one gate, one elementwise state, a relu",
    init={"b.f": 1.0},
)
def ssru(x, c, W, b):
    """c keeps the share f of itself and takes 1 - f of W.z @ x; the output is its positive part.

    `sru` without its reset gate, its highway and its look at the state. torch, Keras, ONNX: have no such cell.
    Used in place of self-attention in the decoders of translators that run in web browsers.
    Beware: relu on the output passes no gradient to units that are negative.
    """
    f = sigmoid(W.f @ x + b.f)
    c = f * c + (1 - f) * (W.z @ x)
    return relu(c), c
