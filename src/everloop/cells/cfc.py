"""Closed-form continuous-time network: how far the state gets depends on the time that has passed."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, sized, tanh


@cell(
    states="h",
    gates="q f g a b",
    source="Hasani et al. 2022, Closed-form Continuous-time Neural Networks",
    year=2022,
    when="irregularly sampled sequences and control, at the cost of a plain cell: no differential equation solver",
    inputs="dt",
    start={"dt": 1.0},
    sizes={"backbone": 64},
)
def cfc(x, h, dt, W, U, V, b):
    """A backbone q of x and h feeds two candidates f, g and a gate that moves from the one to the other with time.

    Side input: dt, the time since the step before (1 unless given). The size `backbone` is that of q, one layer
    with 1.7159 tanh(0.666 v).
    torch, Keras, ONNX: have no such cell (the package ncps has it for torch and Keras; its backbone has 128).
    Beware: the paper writes the gate with -dt; the authors' code, and this, with +dt.
    """
    q = 1.7159 * tanh(0.666 * sized(W.q @ x + U.q @ h + b.q, "backbone"))
    a = V.f @ q + b.f, V.g @ q + b.g
    t = sigmoid((V.a @ q + b.a) * dt + V.b @ q + b.b)
    return tanh(a[0]) * (1 - t) + tanh(a[1]) * t
