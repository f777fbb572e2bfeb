"""Gated recurrent unit, reset after the matrix."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="r z n",
    source="Cho et al. 2014, in the form of cuDNN (reset after the product)",
    year=2014,
    when="the first choice beside lstm: fewer parameters, and fast everywhere",
)
def gru(x, h, W, U, b, d):
    """r decides how much of the past the candidate n sees, z how much of h is kept.

    Two biases, because that of U.n @ h lies inside the reset: b.n + r * (U.n @ h + d.n).
    torch: nn.GRU, gate order r z n, b_ih = b, b_hh = d. Keras: reset_after=True, order z r h.
    ONNX: linear_before_reset=1, order z r h. The form of the paper is `gru_before`.
    Used in speech, translation and recommendation, wherever an lstm would do.
    Beware: z is the share of h that is kept, as in torch, Keras and ONNX; Chung et al. 2014 write it for the rest.
    """
    p, q = W @ x + b, U @ h + d
    r, z = sigmoid(p.r + q.r), sigmoid(p.z + q.z)
    n = tanh(p.n + r * q.n)
    return (1 - z) * n + z * h
