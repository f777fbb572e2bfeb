"""GRU with decay, for values that are missing."""

from everloop.lang.cell import cell
from everloop.lang.functions import exp, relu, sigmoid, tanh, where


@cell(
    states="h v:input w:input",
    gates="r z n",
    source="Che et al. 2018, Recurrent Neural Networks for Multivariate Time Series with Missing Values",
    year=2018,
    when="measurements of which some are missing at every step, where what is missing says something itself",
    inputs="dt mask:input",
    start={"dt": 1.0, "mask": 1.0},
    init={"D": (0.0, 0.02), "p": (0.0, 0.1)},
)
def gru_d(x, h, v, w, dt, mask, W, U, V, D, b, d, p, q):
    """A missing value is the last one seen, fading to 0; h fades too, with the time that each feature is missing.

    v holds the last values seen and w how long ago they were before this step. The gates also see the mask (V).
    Side inputs: mask, 1 where a feature was measured; dt, the time since the step before. Both are 1 unless given.
    x must be standardised, because missing values fade to the mean, 0.
    torch, Keras, ONNX: have no such cell. The authors' later code keeps the share z of h as it was before fading.
    Beware: decays that are 0 or less at first do not learn; they start a little above.
    """
    seen, gap = mask > 0.5, w + dt
    v = where(seen, x, v)
    x = where(seen, x, exp(-relu(p.v * gap + q.v)) * v)
    h = exp(-relu(D.h @ gap + d.h)) * h
    a = W @ x + V @ mask + b
    r, z = sigmoid(a.r + U.r @ h), sigmoid(a.z + U.z @ h)
    n = tanh(a.n + U.n @ (r * h))
    return (1 - z) * h + z * n, v, where(seen, 0, gap)
