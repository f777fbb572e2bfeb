"""Coupled oscillators: a second-order equation, step by step."""

from everloop.lang.cell import cell
from everloop.lang.functions import tanh


@cell(
    states="y z",
    gates="z",
    source="Rusch, Mishra 2020, Coupled Oscillatory Recurrent Neural Network (coRNN)",
    year=2020,
    when="very long sequences of signals; gradients neither vanish nor explode if dt is small",
)
def cornn(x, y, z, W, U, V, b, *, dt=0.042, gamma=2.7, epsilon=4.7):
    """z is the velocity of y: driven by tanh, pulled back by gamma, damped by epsilon.

    Options: dt, the length of a step; gamma and epsilon. All three are the authors' for images read pixel by
    pixel, and have to be tuned for other work.
    torch, Keras, ONNX: have no such cell. Used for long series and recorded movements.
    Beware: y moves with the new z, as in the authors' text and code (catalogues exist that use the old one); the
    damping acts on the old z, as in their code. Large dt is unstable.
    """
    z = z + dt * (tanh(W.z @ x + U.z @ y + V.z @ z + b.z) - gamma * y - epsilon * z)
    return y + dt * z, z
