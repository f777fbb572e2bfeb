"""Bistable recurrent cell: a unit can hold a value by itself."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="a c h",
    source="Vecoven, Ernst, Drion 2021, A Bio-inspired Bistable Recurrent Cell Allows for Long-lasting Memory",
    year=2021,
    when="one thing to be remembered for hundreds of steps; no product in the loop",
    init={"u": 1.0},
)
def brc(x, h, W, u, b):
    """a, between 0 and 2, feeds a unit back to itself: above 1 it has two resting points. c keeps h.

    torch, Keras, ONNX: have no such cell. Used for long delays between cue and use.
    Beware: units meet only in the next layer: use two layers or more, or `nbrc`. The candidate has no bias.
    """
    a = 1 + tanh(W.a @ x + u.a * h + b.a)
    c = sigmoid(W.c @ x + u.c * h + b.c)
    return c * h + (1 - c) * tanh(W.h @ x + a * h)
