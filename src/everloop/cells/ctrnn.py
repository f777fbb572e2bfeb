"""Continuous-time recurrent network: potentials, firing rates, and a time constant for each unit."""

import math

from everloop.lang.cell import cell
from everloop.lang.functions import exp, tanh


@cell(
    states="v",
    gates="v",
    source="Beer 1995, On the Dynamics of Small Continuous-Time Recurrent Neural Networks",
    year=1995,
    when="models of neural circuits and small controllers, and data sampled at uneven times",
    inputs="dt",
    start={"dt": 1.0},
    init={"tau": lambda u, k, n: u * math.log(100.0), "U": "identity"},
)
def ctrnn(x, v, dt, W, U, b, tau, *, act=tanh):
    """An Euler step of tau dv/dt = -v + U act(v) + W x + b; act(v), the rates, come out. tau is kept as its log.

    Side input: dt, the time since the step before (1 unless given). Option: act (tanh; Beer: sigmoid).
    torch, Keras, ONNX: have no such cell. Time constants start between 1 and 100, evenly in their logs, and U as
    the identity, which all but holds small values.
    Beware: where dt is more than twice a time constant, the step overshoots and v explodes.
    """
    v = v + dt / exp(tau.v) * (U.v @ act(v) + W.v @ x + b.v - v)
    return act(v), v
