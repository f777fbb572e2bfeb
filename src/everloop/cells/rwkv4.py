"""Time mixing of RWKV-4: an exponentially fading weighted mean of values."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import exp, maximum, shift, sigmoid, sized


@cell(
    states="a b m",
    gates="r k v y",
    source="Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era (version 4)",
    year=2023,
    when="language in deep stacks, in place of attention, with keys that say how much each input counts",
    start={"m": -1e30},
    init={
        "p": lambda u, k, n: -5 + 8 * (k / max(n - 1, 1)) ** 0.7,
        "q": lambda u, k, n: math.log(0.3) + 0.5 * ((k + 1) % 3 - 1),
        "t": lambda u, k, n: k / n,
        "t.r": lambda u, k, n: math.sqrt(k / n),
    },
)
def rwkv4(x, a, b, m, W, P, t, p, q):
    """The mean of all values v so far, weighted by exp(k) and fading by exp(-exp(p)) a step; r lets it through.

    The newest value counts exp(q) more. a and b are the sums above and below the line, both over exp(m).
    t mixes each input with the one before it; p, q and t start as in the authors' first layer.
    torch, Keras, ONNX: have no such cell. Versions 5 and later have a matrix for a state: other cells.
    Beware: the mean is divided out, so how many inputs came is not remembered.
    """
    last = shift(x)
    r = sigmoid(W.r @ (t.r * x + (1 - t.r) * last))
    k = W.k @ (t.k * x + (1 - t.k) * last)
    v = W.v @ (t.v * x + (1 - t.v) * last)
    top = maximum(m, q.k + k)
    old, new = exp(m - top), exp(q.k + k - top)
    y = sized(P.y @ (r * (old * a + new * v) / (old * b + new)), "hidden")
    faded = m - exp(p.k)
    m = maximum(faded, k)
    old, new = exp(faded - m), exp(k - m)
    return y, old * a + new * v, old * b + new, m
