"""Undamped independent controlled oscillators."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="y z",
    gates="z",
    source="Rusch, Mishra 2021, UnICORNN: A Recurrent Model for Learning Very Long Time Dependencies",
    year=2021,
    when="sequences of ten thousand steps and more; no product in the loop",
    init={"u.z": (0.0, 1.0), "c.z": (-0.1, 0.1)},
)
def unicornn(x, y, z, W, u, b, c, *, dt=0.19, alpha=30.65):
    """Each unit is an oscillator of its own, with its own step dt sigmoid(c); z is the velocity of y.

    Options: dt, twice the step at the start; alpha, the pull back to 0. Both are the authors' for images read
    pixel by pixel, and have to be tuned for other work.
    torch, Keras, ONNX: have no such cell. Used for series from medicine.
    Beware: y moves with the new z. Nothing is damped, and units meet only in the next layer: use two or more.
    """
    step = dt * sigmoid(c.z)
    z = z - step * (tanh(u.z * y + W.z @ x + b.z) + alpha * y)
    return y + step * z, z
