"""Delta recurrent network: input and state meet as a product and as a sum, and a gate mixes in the past."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="z r",
    source="Ororbia, Mikolov, Reitter 2017, Learning Simpler Language Models with the Differential State Framework",
    year=2017,
    when="language models with the parameters of elman: the gate costs one more bias",
    init={"alpha": 2.0, "p": 1.0, "q": 1.0},
)
def delta_rnn(x, h, W, V, b, alpha, p, q, *, act=tanh):
    """A candidate of V h and W x, multiplied (alpha) and added (p, q); the gate r keeps the past and sees W x alone.

    Option: act, the activation of the new state (tanh; the gate's mixture is put through it again at every step).
    torch, Keras, ONNX: have no such cell. alpha starts at 2, as in the authors' code.
    Beware: W serves the candidate and the gate at once, so that neither can be turned off by itself.
    """
    past, now = V.z @ h, W.z @ x
    z = tanh(alpha.z * past * now + p.z * past + q.z * now + b.z)
    r = sigmoid(now + b.r)
    return act((1 - r) * z + r * h)
