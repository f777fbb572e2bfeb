"""Stackable recurrent cell: made for deep stacks."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="k z",
    source="Turkoglu et al. 2019, Gating Revisited: Deep Multi-layer RNNs That Can Be Trained",
    year=2019,
    when="stacks of many layers, where gradients of lstm and gru vanish from layer to layer",
    init={"b.k": -1.0},
)
def star(x, h, W, U, b):
    """k decides how much of the encoded input z takes the place of h; the sum is squashed once more.

    torch, Keras, ONNX: have no such cell. Used for crops in series of satellite images.
    Beware: the authors' code names 1 - k the gate, starts its bias at 1 (so b.k is -1 here), and writes with
    1 - sigmoid(f - 1) instead of k = 1 - sigmoid(f); the tanh at the end makes even an untouched state fade.
    """
    z = tanh(W.z @ x + b.z)
    k = sigmoid(W.k @ x + U.k @ h + b.k)
    return tanh((1 - k) * h + k * z)
