"""Continuous-time GRU: the gated unit as a differential equation."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="r z n",
    source="De Brouwer et al. 2019, GRU-ODE-Bayes (the full form of GRU-ODE)",
    year=2019,
    when="sporadic measurements: the state goes on moving in the time between them",
    inputs="dt",
    start={"dt": 1.0},
)
def gru_ode(x, h, dt, W, U, b, *, steps=2):
    """dh/dt = (1 - z) (n - h), with the gates of `gru_before`, in `steps` Euler steps.

    Side input: dt, the time since the step before (1 unless given). With dt = 1 and one step it is `gru_before`.
    torch, Keras, ONNX: have no such cell. The paper adds a jump at each measurement and solves adaptively.
    Beware: Euler steps longer than 1 overshoot; raise `steps` with the longest gap.
    """
    a = W @ x + b
    for _ in range(int(steps)):
        r, z = sigmoid(a.r + U.r @ h), sigmoid(a.z + U.z @ h)
        n = tanh(a.n + U.n @ (r * h))
        h = h + dt / steps * (1 - z) * (n - h)
    return h
