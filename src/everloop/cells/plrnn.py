"""Piecewise linear recurrent network."""

from everloop.lang.cell import cell
from everloop.lang.functions import fixed, relu, where


@cell(
    states="z",
    gates="z",
    source="Durstewitz 2017, A state space approach for piecewise-linear recurrent neural networks",
    year=2017,
    when="to find the equations behind measured dynamics: between its kinks the cell is linear and can be analysed",
    init={"a": (0.95, 1.0), "U": (-0.01, 0.01)},
)
def plrnn(x, z, W, U, a, b):
    """Each unit keeps the share a of itself; units act on each other through their positive parts only.

    The diagonal of U is masked: what a unit does to itself is a.
    torch, Keras, ONNX: have no such cell. Used for neural and physiological recordings.
    Beware: nothing bounds z; keep a at 1 or below, and U small.
    """
    others = U.z * fixed(lambda i, j: where(i > j, 1, where(j > i, 1, 0)))
    return a.z * z + others @ relu(z) + W.z @ x + b.z
