"""A gate between the past and an encoded input, and nothing else."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="z u",
    source="Chen 2017, MinimalRNN: Toward More Interpretable and Trainable Recurrent Neural Networks",
    year=2017,
    when="where it should be seen what the state holds: a weighted mean of encoded inputs",
)
def minimal_rnn(x, h, W, U, V, b, *, act=tanh):
    """z encodes the input by itself; u decides how much of h stays, the rest being z.

    Option: act, the activation of the encoder, one dense layer here (the paper allows any network).
    torch, Keras, ONNX: have no such cell. Used for recommendation.
    Beware: candidates do not see the past, so a single layer computes little; stack them.
    """
    z = act(W.z @ x + b.z)
    u = sigmoid(U.u @ h + V.u @ z + b.u)
    return u * h + (1 - u) * z
