"""Minimal GRU whose gates do not see the past."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid


@cell(
    states="h",
    gates="z n",
    source="Feng et al. 2024, Were RNNs All We Needed?",
    year=2024,
    when="very long sequences on parallel machines: every step at once",
)
def mingru(x, h, W, b):
    """h moves towards the candidate n by z; both come from the input alone, so it is a linear scan.

    The paper's plain form; its log-space form puts n through g(n) = n + 0.5 for n >= 0, sigmoid(n) below.
    torch, Keras, ONNX: have no such cell. Used for long sequences, in stacks.
    Beware: a single layer cannot react to its state: stack them.
    """
    a = W @ x + b
    z, n = sigmoid(a.z), a.n
    return (1 - z) * h + z * n
