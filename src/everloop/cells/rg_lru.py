"""Real-gated linear recurrent unit of Griffin and Hawk."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import blocks, exp, expm1, maximum, sigmoid, softplus, sqrt


@cell(
    states="h",
    gates="v r i",
    source="De et al. 2024, Griffin: Mixing Gated Linear Recurrences with Local Attention",
    year=2024,
    when="long memory at the speed of a scan: decays start near 1 and each input decides how much of them to use",
    init={"p": lambda u, k, n: math.log(1 / math.sqrt(0.9**2 + u * (0.999**2 - 0.9**2)) - 1), "A": "normal"},
)
def rg_lru(x, h, W, A, b, p, *, heads=1):
    """The input, projected to v, is gated by i and kept for a time that r shortens: a = exp(-8 r softplus(p)).

    Both gates see v through A, block-diagonal in `heads` blocks (the authors: one per head). sqrt(1 - a a) keeps
    the size of h the same for every decay. p starts so that exp(-softplus(p)) is between 0.9 and 0.999.
    torch, Keras, ONNX: have no such cell. Used in RecurrentGemma, after a short convolution.
    Beware: the authors' code does not scale the first input of a sequence; here every input is scaled.
    """
    v = W.v @ x + b.v
    r, i = sigmoid(blocks(A, heads).r @ v + b.r), sigmoid(blocks(A, heads).i @ v + b.i)
    log_a = -8 * r * softplus(p.h)
    # Where nothing is forgotten the root is 0, and its slope infinite.
    scale = sqrt(maximum(-expm1(2 * log_a), 1e-12))
    return exp(log_a) * h + scale * (i * v)
