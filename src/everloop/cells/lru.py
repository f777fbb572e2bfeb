"""Linear recurrent unit: a complex diagonal scan on a ring near the unit circle."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import cos, exp, silu, sin, sized


def _square(k: int, n: int) -> float:
    """The squared size of the k-th eigenvalue: even steps through the area of the ring from 0.9 to 0.999."""
    return 0.9**2 + (k + 0.5) / n * (0.999**2 - 0.9**2)


@cell(
    states="s r",
    gates="s r y",
    source="Orvieto et al. 2023, Resurrecting Recurrent Neural Networks for Long Sequences",
    year=2023,
    when="very long sequences in stacks of layers, where one fixed set of decays and frequencies suffices",
    init={
        "nu": lambda u, k, n: math.log(-0.5 * math.log(_square(k, n))),
        "theta": lambda u, k, n: math.log(2 * math.pi * max(u, 1e-6)),
        "gamma": lambda u, k, n: 0.5 * math.log(1 - _square(k, n)),
    },
)
def lru(x, s, r, W, C, nu, theta, gamma, *, act=silu):
    """The state s + i r is multiplied by exp(-exp(nu) + i exp(theta)) at every step: always stable.

    W is B (to both parts, scaled by exp(gamma)) and, for y, D. The paper draws the sizes of the eigenvalues at
    random; here they are spread evenly over the same ring, so that gamma can start where it fits them.
    Option: act, what follows the recurrence (silu; GELU in the paper's blocks; identity: the bare recurrence).
    torch, Keras, ONNX: have no such cell.
    Beware: the state does not depend on the input's content but linearly: a single layer selects nothing.
    """
    size, turn, scale = exp(-exp(nu.s)), exp(theta.s), exp(gamma.s)
    re, im = size * cos(turn), size * sin(turn)
    s, r = re * s - im * r + scale * (W.s @ x), re * r + im * s + scale * (W.r @ x)
    y = act(sized(C.s @ s - C.r @ r + W.y @ x, "hidden"))
    return y, s, r
