"""Minimal GRU with a positive candidate, as its log-space form has it."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, where


@cell(
    states="h",
    gates="z n",
    source="Feng et al. 2024, Were RNNs All We Needed? (appendix B: the log-space form)",
    year=2024,
    when="to load or compare with a minGRU trained in log space; otherwise `mingru`",
)
def mingru_log(x, h, W, b):
    """As `mingru`, with g(n) in place of n: n + 0.5 from 0 upwards, sigmoid(n) below; so h stays positive.

    The paper needs the positive sign to scan in logarithms; nothing here does, and the values are the same.
    torch, Keras, ONNX: have no such cell. Used by most public language models made of minGRU.
    Beware: a start state that is not positive has no counterpart in the log-space form.
    """
    a = W @ x + b
    z, n = sigmoid(a.z), where(a.n >= 0, a.n + 0.5, sigmoid(a.n))
    return (1 - z) * h + z * n
