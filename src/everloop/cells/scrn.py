"""Structurally constrained network: a slow state beside the simple one."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, sized


@cell(
    states="h s:context",
    gates="y",
    source="Mikolov et al. 2014, Learning Longer Memory in Recurrent Neural Networks",
    year=2014,
    when="language models without gates: what is talked about stays in the slow state",
    sizes={"context": 40},
)
def scrn(x, h, s, W, U, V, b, *, keep=0.95):
    """s is a slow mean of the mapped inputs; h, a simple recurrent unit, sees it; the output sees both.

    Options: keep, the share of s that stays (fixed in the paper). The size `context` is that of s, 40 unless given.
    torch, Keras, ONNX: have no such cell. Used for words.
    Beware: h sees the new s, as in the paper; the authors' code feeds it the old one. The paper's softmax over
    U.y h + V.y s is left to what follows; h is logistic and has no bias in the paper: b.h starts at 0.
    """
    s = (1 - keep) * (W.s @ x) + keep * s
    h = sigmoid(W.h @ x + U.h @ h + V.h @ s + b.h)
    return sized(U.y @ h + V.y @ s, "hidden"), h, s
