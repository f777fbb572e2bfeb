"""Minimal LSTM whose gates do not see the past."""

from everloop.lang.cell import cell
from everloop.lang.functions import logsigmoid, sigmoid


@cell(
    states="h",
    gates="f i n",
    source="Feng et al. 2024, Were RNNs All We Needed?",
    year=2024,
    when="long sequences on parallel hardware, where a forget and an input gate help: a linear scan",
    init={"b.f": 1.0},
)
def minlstm(x, h, W, b):
    """Forget and input gate come from the input alone and are divided by their sum: f / (f + i), i / (f + i).

    The share of the past is worked out as sigmoid(log f - log i), which is the same and never 0 / 0. This is the
    paper's plain form; its log-space form puts n through a positive function first (see `mingru_log`).
    torch, Keras, ONNX: have no such cell. Used in stacks in place of attention.
    Beware: a single layer cannot react to its state; stack them.
    """
    a = W @ x + b
    kept = sigmoid(logsigmoid(a.f) - logsigmoid(a.i))
    return kept * h + (1 - kept) * a.n
