"""Strongly typed gated recurrent unit."""

from everloop.lang.cell import cell
from everloop.lang.functions import shift, sigmoid, tanh


@cell(
    states="h",
    gates="f z o",
    source="Balduzzi, Ghifary 2016, Strongly-Typed Recurrent Neural Networks",
    year=2016,
    when="a linear scan whose gates look at two inputs, with something written that is a product of two features",
    init={"b.f": 1.0},
)
def t_gru(x, h, W, V, b):
    """Gates and features come from this input (W) and the one before it (V); z * o is added to what f keeps.

    torch, Keras, ONNX: have no such cell. Before the first step the earlier input is 0.
    Beware: what is written is not scaled by 1 - f, so h grows to z * o / (1 - f) while f is near 1.
    """
    a = W @ x + V @ shift(x) + b
    return sigmoid(a.f) * h + a.z * tanh(a.o)
