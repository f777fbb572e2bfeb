"""Light GRU: one gate, rectified."""

from everloop.lang.cell import cell
from everloop.lang.functions import relu, sigmoid


@cell(
    states="h",
    gates="z h",
    source="Ravanelli et al. 2018, Light Gated Recurrent Units for Speech Recognition",
    year=2018,
    when="speech and other long, smooth signals; faster than gru",
)
def ligru(x, h, W, U, b, *, act=relu):
    """As `gru` without the reset gate, with relu for tanh.

    Option: act, the activation of the candidate. The paper normalises W x over the batch; that is left away here,
    and b stands in its place.
    torch, Keras, ONNX: have no such cell. Used for speech recognition.
    Beware: without that normalisation nothing bounds h; clip the gradients, or take act=tanh.
    """
    a = W @ x + U @ h + b
    z, n = sigmoid(a.z), act(a.h)
    return z * h + (1 - z) * n
