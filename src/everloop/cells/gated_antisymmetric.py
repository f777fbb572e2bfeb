"""Antisymmetric recurrent network with an input gate."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="z h",
    source="Chang et al. 2019, AntisymmetricRNN: A Dynamical System View on Recurrent Neural Networks",
    year=2019,
    when="as `antisymmetric`, where not every input matters: the gate decides which steps are taken",
    init={"U": "normal"},
)
def gated_antisymmetric(x, h, W, U, b, *, step=0.1, damping=0.01):
    """As `antisymmetric`, each step scaled by a gate z, which sees h through the same matrix.

    Options: step, the length of an Euler step; damping, what is taken off the diagonal.
    torch, Keras, ONNX: have no such cell.
    Beware: z scales the step only; nothing is ever forgotten on purpose.
    """
    turned = (U.h - U.h.T) @ h - damping * h
    z = sigmoid(turned + W.z @ x + b.z)
    return h + step * z * tanh(turned + W.h @ x + b.h)
