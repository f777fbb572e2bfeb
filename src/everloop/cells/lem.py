"""Long expressive memory: two states, each with steps of its own lengths."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="y z",
    gates="dy dz y z",
    source="Rusch et al. 2021, Long Expressive Memory for Sequence Modeling",
    year=2021,
    when="long sequences whose parts change at different speeds; the size of lstm",
)
def lem(x, y, z, W, U, V, b, *, dt=1.0):
    """z follows tanh of x and y, y follows tanh of x and z; each with learnt steps, at most dt long.

    Option: dt, the longest step.
    torch, Keras, ONNX: have no such cell. Used for long series, dynamics and words.
    Beware: y sees the new z, and the two steps differ, as in the authors' code (catalogues exist that take the
    old z, or one step for both). Two products in every step, one after the other.
    """
    step_y = dt * sigmoid(W.dy @ x + U.dy @ y + b.dy)
    step_z = dt * sigmoid(W.dz @ x + U.dz @ y + b.dz)
    z = (1 - step_z) * z + step_z * tanh(W.z @ x + U.z @ y + b.z)
    y = (1 - step_y) * y + step_y * tanh(W.y @ x + V.y @ z + b.y)
    return y, z
