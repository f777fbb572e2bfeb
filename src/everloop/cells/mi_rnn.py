"""Multiplicative integration: input and past multiply as well as add."""

from everloop.lang.cell import cell
from everloop.lang.functions import tanh


@cell(
    states="h",
    gates="h",
    source="Wu et al. 2016, On Multiplicative Integration with Recurrent Neural Networks",
    year=2016,
    when="where elman is nearly good enough: hardly any parameters more",
    init={"alpha.h": 1.0, "beta.h": 1.0, "gamma.h": 1.0},
)
def mi_rnn(x, h, W, U, b, alpha, beta, gamma, *, act=tanh):
    """alpha weighs (W x) * (U h), beta weighs U h, gamma weighs W x (beta and gamma are the paper's two betas).

    Option: act, the activation.
    torch, Keras, ONNX: have no such cell. Used for characters and for speech.
    Beware: all three start at 1 here; with alpha = 0 it would be elman, with beta = gamma = 0 it would forget
    everything at an input of 0.
    """
    p, q = W.h @ x, U.h @ h
    return act(alpha.h * p * q + beta.h * q + gamma.h * p + b.h)
