"""Recurrent highway network: several gated layers within one step."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="s",
    gates="h t",
    source="Zilly et al. 2016, Recurrent Highway Networks",
    year=2016,
    when="language modelling with few units and a deep step from one state to the next",
    init={"b.t": -2.0},
)
def rhn(x, s, W, R, b, *, depth=3):
    """`depth` layers pass the state on; each replaces the share t of it. Only the first sees the input.

    Option: depth, the layers of a step. Each gate's bias starts at -2 (the paper: -2 to -4), so that layers begin by
    carrying the state.
    torch, Keras, ONNX: have no such cell. Depth 1 is `ugrnn` with the gate turned round.
    Beware: a step takes as many products one after another as it has layers.
    """
    for layer in range(depth):
        a = R[layer] @ s + b[layer]
        if layer == 0:
            a = a + W @ x
        t = sigmoid(a.t)
        s = t * tanh(a.h) + (1 - t) * s
    return s
