"""Bistable recurrent cell whose units modulate each other."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="a c h",
    source="Vecoven, Ernst, Drion 2021, A Bio-inspired Bistable Recurrent Cell Allows for Long-lasting Memory",
    year=2021,
    when="one thing to be remembered for hundreds of steps, in a single layer",
)
def nbrc(x, h, W, U, b):
    """As `brc`, its two gates seeing all units: a feeds a unit back to itself, c keeps h.

    torch, Keras, ONNX: have no such cell. Used for long delays between cue and use.
    Beware: the candidate sees the past of its own unit only, and has no bias.
    """
    a = 1 + tanh(W.a @ x + U.a @ h + b.a)
    c = sigmoid(W.c @ x + U.c @ h + b.c)
    return c * h + (1 - c) * tanh(W.h @ x + a * h)
