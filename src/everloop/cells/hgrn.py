"""Hierarchically gated recurrent unit: a complex linear scan with a lower bound on forgetting."""

from everloop.lang.cell import cell
from everloop.lang.functions import cos, mean, sigmoid, silu, sin, sized, sqrt, square


@cell(
    states="s r",
    gates="k p q y",
    source="Qin, Yang, Zhong 2023, Hierarchically Gated Recurrent Neural Network for Sequence Modeling",
    year=2023,
    when="stacks of linear scans: raise `lower` from layer to layer, so that upper layers remember longer",
    init={"theta": lambda u, k, n: 10000.0 ** (-2 * k / n), "t": 1.0},
)
def hgrn(x, s, r, W, b, P, theta, t, d, *, lower=0.0):
    """The state s + i r turns by theta and keeps the share k of itself; k is never below `lower`.

    What is read is normalised over both parts jointly (t, d), gated by the input (p, q) and mixed by P.
    Option: lower, the least share that is kept (0; the paper learns one per layer, growing with the depth).
    torch, Keras, ONNX: have no such cell. The matrix-valued HGRN2 is another cell.
    Beware: most public code of this name is the real-valued form, which has no theta.
    """
    k = lower + (1 - lower) * sigmoid(W.k @ x + b.k)
    new_s, new_r = silu(W.s @ x + b.s), silu(W.r @ x + b.r)
    re, im = k * cos(theta.s), k * sin(theta.s)
    s, r = re * s - im * r + (1 - k) * new_s, re * r + im * s + (1 - k) * new_r
    centre = (mean(s) + mean(r)) / 2
    width = sqrt((mean(square(s - centre)) + mean(square(r - centre))) / 2 + 1e-5)
    read_s, read_r = t.s * (s - centre) / width + d.s, t.r * (r - centre) / width + d.r
    y = P.s @ (read_s * silu(W.p @ x + b.p)) + P.r @ (read_r * silu(W.q @ x + b.q)) + b.y
    return sized(y, "hidden"), s, r
