"""Recurrent network of leaky units."""

from everloop.lang.cell import cell
from everloop.lang.functions import tanh


@cell(
    states="h",
    gates="h",
    source="Jaeger et al. 2007, Optimization and applications of echo state networks with leaky-integrator neurons",
    year=2007,
    when="smooth signals: the simplest cell with a time scale, set by one number",
)
def leaky_rnn(x, h, W, U, b, *, leak=0.1, act=tanh):
    """As `elman`, with only the share `leak` of the state replaced at each step.

    Options: leak, the step over the time constant; act, the activation (tanh).
    torch, Keras: have no such cell. ONNX: has none; RNN replaces the whole state.
    Beware: one leak for all units; `ctrnn` learns one for each.
    """
    return (1 - leak) * h + leak * act(W.h @ x + U.h @ h + b.h)
