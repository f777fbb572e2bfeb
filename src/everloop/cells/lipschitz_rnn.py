"""Lipschitz recurrent network: a linear and a nonlinear part, both nearly antisymmetric."""

from everloop.lang.cell import cell
from everloop.lang.functions import tanh


@cell(
    states="h",
    gates="a h",
    source="Erichson et al. 2020, Lipschitz Recurrent Neural Networks",
    year=2020,
    when="long sequences of images or sensors, where noise in input or weights must not be amplified",
    init={"U": (-0.02, 0.02)},
)
def lipschitz_rnn(x, h, W, U, b, *, step=0.1, skew=0.8, damping=0.01):
    """An Euler step of dh/dt = A h + tanh(M h + W x + b); A and M are skew parts and symmetric parts, mixed.

    U.a makes A and U.h makes M: skew * (U - U^T) + (1 - skew) * (U + U^T) - damping * I.
    Options: step, the length of the Euler step; skew, from 0.5 (mixed) to 1 (a pure rotation); damping.
    torch, Keras, ONNX: have no such cell. With A = 0 and skew = 1 it is `antisymmetric`.
    Beware: symmetric parts let h grow where damping is smaller than they are, so U starts small.
    """
    A = skew * (U.a - U.a.T) + (1 - skew) * (U.a + U.a.T)
    M = skew * (U.h - U.h.T) + (1 - skew) * (U.h + U.h.T)
    return h + step * (A @ h - damping * h + tanh(M @ h - damping * h + W.h @ x + b.h))
