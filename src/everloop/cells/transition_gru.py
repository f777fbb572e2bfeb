"""Deep transition GRU: several gated units one after another within a step."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="r z n",
    source="Miceli Barone et al. 2017, Deep Architectures for Neural Machine Translation",
    year=2017,
    when="translation and tagging where a deeper step helps more than another layer",
)
def transition_gru(x, h, W, U, b, d, *, depth=2):
    """`depth` cells of the kind `gru` pass the state on; only the first sees the input.

    Option: depth, the cells of a step (1 is `gru`). Each has matrices U0, U1 ... and biases of its own.
    torch, Keras, ONNX: have no such cell. Used in Edinburgh's systems for WMT 2017, with layer normalisation.
    Beware: a step takes as many products one after another as it has cells.
    """
    for layer in range(int(depth)):
        p = W @ x + b[layer] if layer == 0 else b[layer]
        q = U[layer] @ h + d[layer]
        r, z = sigmoid(p.r + q.r), sigmoid(p.z + q.z)
        h = (1 - z) * tanh(p.n + r * q.n) + z * h
    return h
