"""GRU with layer normalisation."""

from everloop.lang.cell import cell
from everloop.lang.functions import mean, norm, sigmoid, sqrt, tanh


@cell(
    states="h",
    gates="r z n",
    source="Ba, Kiros, Hinton 2016, Layer Normalization",
    year=2016,
    when="a gru that trains badly: long sequences, large layers, small batches",
    init={"s": 1.0, "t": 1.0},
)
def layernorm_gru(x, h, W, U, b, d, s, t, *, eps=1e-5):
    """As `gru`; W x and U h are each normalised, those of r and z together, those of n by themselves.

    s and t scale the normalised sums. Option: eps, added to the variance, inside the root.
    torch, Keras, ONNX: have no such cell; others normalise gate by gate. Used for vectors of sentences.
    Beware: a mean over the units in every step; slower than `gru`, and one unit alone is always 0.
    """
    p, q = W @ x, U @ h
    (pr, pz), (qr, qz) = _together(p.r, p.z, eps), _together(q.r, q.z, eps)
    r = sigmoid(s.r * pr + t.r * qr + b.r)
    z = sigmoid(s.z * pz + t.z * qz + b.z)
    n = tanh(s.n * norm(p.n, eps) + b.n + r * (t.n * norm(q.n, eps) + d.n))
    return (1 - z) * n + z * h


def _together(u, v, eps):
    """Two vectors, normalised as one long one."""
    middle = (mean(u) + mean(v)) / 2
    u, v = u - middle, v - middle
    scale = sqrt((mean(u * u) + mean(v * v)) / 2 + eps)
    return u / scale, v / scale
