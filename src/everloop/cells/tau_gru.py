"""Gated unit with delayed feedback."""

from everloop.lang.cell import cell
from everloop.lang.functions import shift, sigmoid, tanh


@cell(
    states="h",
    gates="u z g a",
    source="Erichson, Lim, Mahoney 2022, Gated Recurrent Neural Networks with Weighted Time-Delay Feedback",
    year=2022,
    when="known lags: seasons, echoes, beats. Put the lag in `delay`",
)
def tau_gru(x, h, W, U, b, *, delay=4):
    """The candidate is tanh of the state plus, weighted by a, tanh of the state `delay` steps before; g lets it in.

    Option: delay, in steps (1 or more), beyond the state that every cell sees.
    torch, Keras, ONNX: have no such cell. With a = 0 it is `ugrnn`.
    Beware: the states on the way are kept, so memory grows with the delay.
    """
    a = W @ x + b
    u = tanh(a.u + U.u @ h)
    z = tanh(a.z + U.z @ shift(h, delay))
    g, weight = sigmoid(a.g + U.g @ h), sigmoid(a.a + U.a @ h)
    return (1 - g) * h + g * (u + weight * z)
