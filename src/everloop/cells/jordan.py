"""Jordan's network: what comes out is fed back, not what is inside."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, sized


@cell(
    states="s",
    gates="h y",
    source="Jordan 1986, Attractor Dynamics and Parallelism in a Connectionist Sequential Machine",
    year=1986,
    when="as the oldest baseline, or where the outputs themselves are what has to be remembered",
)
def jordan(x, s, W, U, V, b, *, decay=0.0, act=sigmoid):
    """A hidden layer h sees the input and s; the output y sees h; s is what was put out, older outputs fading.

    Options: decay, how much of s stays when y is added to it (0: the last output only, as most texts have it);
    act, the activation of both layers (the logistic function).
    torch, Keras, ONNX: have no such cell. Used for the production of fixed sequences, such as movements.
    Beware: the layer h is not remembered, and its size is that of the output, hidden_size, here; two products
    in every step, one after the other.
    """
    h = sized(act(W.h @ x + U.h @ s + b.h), "hidden")
    y = act(V.y @ h + b.y)
    return y, decay * s + y
