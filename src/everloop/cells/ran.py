"""Recurrent additive network: sums of gated inputs."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h c",
    gates="i f c",
    source="Lee, Levy, Zettlemoyer 2017, Recurrent Additive Networks",
    year=2017,
    when="language, where it should be seen which words a state is made of",
)
def ran(x, h, c, W, U, b, *, act=tanh):
    """c is a weighted sum of linear maps of the inputs; the gates see h = act(c).

    Option: act, the activation of the output (tanh or identity in the paper).
    torch, Keras, ONNX: have no such cell. Used for language models.
    Beware: what is written does not depend on the past, and has no bias.
    """
    i = sigmoid(W.i @ x + U.i @ h + b.i)
    f = sigmoid(W.f @ x + U.f @ h + b.f)
    c = i * (W.c @ x) + f * c
    return act(c), c
