"""Antisymmetric recurrent network: a stable differential equation, in small steps."""

from everloop.lang.cell import cell
from everloop.lang.functions import tanh


@cell(
    states="h",
    gates="h",
    source="Chang et al. 2019, AntisymmetricRNN: A Dynamical System View on Recurrent Neural Networks",
    year=2019,
    when="long memory with one matrix and no gates, where the input is present at every step",
    init={"U": "normal"},
)
def antisymmetric(x, h, W, U, b, *, step=0.1, damping=0.01):
    """h moves a small step in a direction that turns it rather than lets it grow: (U - U^T) h, less damping * h.

    Options: step, the length of an Euler step; damping, what is taken off the diagonal to keep Euler stable.
    torch, Keras, ONNX: have no such cell. U has twice the entries that count: only U - U^T does.
    Beware: too large a step lets h grow; too small a one lets the input hardly in. The paper tries 0.01 to 1.
    """
    turned = (U.h - U.h.T) @ h - damping * h
    return h + step * tanh(turned + W.h @ x + b.h)
