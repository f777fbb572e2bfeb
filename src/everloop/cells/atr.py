"""Twin gates from one sum and one difference."""

from everloop.lang.cell import cell
from everloop.lang.functions import identity, sigmoid


@cell(
    states="h",
    gates="h",
    source="Zhang et al. 2018, Simplifying Neural Machine Translation with Addition-Subtraction Twin-Gated "
    "Recurrent Networks",
    year=2018,
    when="translation and other work with words: the parameters of elman, the gates of gru",
)
def atr(x, h, W, U, b, *, act=identity):
    """The input gate is the sigmoid of p + q, the forget gate that of p - q; p comes from x, q from h.

    Option: act, the activation of the new state: none in the paper, tanh in the authors' later code.
    torch, Keras, ONNX: have no such cell. Used for machine translation.
    Beware: without an activation h is bounded only by what the two gates leave: both may be near 1.
    """
    p, q = W.h @ x + b.h, U.h @ h
    return act(sigmoid(p + q) * p + sigmoid(p - q) * h)
