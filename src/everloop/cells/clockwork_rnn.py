"""Clockwork recurrent network: groups of units that move every 1, 2, 4, 8 ... steps."""

from everloop.lang.cell import cell
from everloop.lang.functions import features, fixed, floor, mod, position, tanh, where


@cell(
    states="h t",
    gates="h",
    source="Koutnik et al. 2014, A Clockwork RNN",
    year=2014,
    when="signals with slow and fast parts, and no gates wanted: audio, motion",
)
def clockwork_rnn(x, h, t, W, U, b, *, modules=7):
    """The units are divided into modules; module k moves at every 2^k-th step only, and sees the slower ones.

    t counts the steps; at the first all modules move. U acts through a fixed mask: a unit sees its own module
    and those with longer periods. Option: modules, how many there are (7: periods 1 to 64).
    torch, Keras, ONNX: have no such cell. Every product is worked out in full at every step, as the mask is fixed.
    Beware: the longest period should be about as long as what must be remembered.
    """
    n, k = features(h), position(h) * modules
    period = 1
    for module in range(1, modules):
        period = period + where(k >= module * n, 2.0 ** (module - 1), 0)
    mask = fixed(lambda i, j: where(floor(j * modules / n) >= floor(i * modules / n), 1, 0))
    new = tanh(W.h @ x + (U.h * mask) @ h + b.h)
    # t is a whole number but for rounding; it starts over with the longest period.
    moves = mod(floor(t + 0.5), period) < 0.5
    return where(moves, new, h), mod(t + 1, 2.0 ** (modules - 1))
