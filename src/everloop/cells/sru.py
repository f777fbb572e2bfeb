"""Simple recurrent unit: all products before the loop."""

from everloop.lang.cell import cell
from everloop.lang.functions import identity, sigmoid

# Uniform with variance 1 / 2, as in the authors' code.
SPREAD = 1.5**0.5


@cell(
    states="c",
    gates="c f r s",
    source="Lei et al. 2018, Simple Recurrent Units for Highly Parallelizable Recurrence",
    year=2018,
    when="deep stacks that have to be fast: the speed of a convolution",
    init={"v": (-SPREAD, SPREAD)},
)
def sru(x, c, W, v, b, *, act=identity):
    """c is a mean of the mapped inputs, weighed by f; the output is act(c) as far as r lets it pass, else the input.

    The paper's shortcut is x itself times a constant, x being as wide as c; W.s maps it here, as in the authors'
    code where the two widths differ. Option: act, the activation of c in the output (none, or tanh).
    torch, Keras, ONNX: have no such cell. Used for translation, speech and text.
    Beware: both gates see the old c, through the vectors v; units meet only in the next layer: use four or more.
    """
    f = sigmoid(W.f @ x + v.f * c + b.f)
    r = sigmoid(W.r @ x + v.r * c + b.r)
    c = f * c + (1 - f) * (W.c @ x)
    return r * act(c) + (1 - r) * (W.s @ x), c
