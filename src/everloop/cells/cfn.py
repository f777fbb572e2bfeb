"""Chaos-free network: without input it comes to rest."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="f i h",
    source="Laurent, von Brecht 2016, A Recurrent Neural Network Without Chaos",
    year=2016,
    when="where a predictable memory matters more than the last bit of accuracy",
)
def cfn(x, h, W, U, b):
    """f keeps tanh(h), i lets in tanh(W.h x): units meet in the gates only.

    torch, Keras, ONNX: have no such cell. Used for language models and for recommendation.
    Beware: without input h decays to 0, and no unit can hold a value by itself; the candidate has no bias.
    """
    f = sigmoid(W.f @ x + U.f @ h + b.f)
    i = sigmoid(W.i @ x + U.i @ h + b.i)
    return f * tanh(h) + i * tanh(W.h @ x)
