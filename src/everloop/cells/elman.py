"""The simple recurrent network."""

from everloop.lang.cell import cell
from everloop.lang.functions import tanh


@cell(
    states="h",
    gates="h",
    source="Elman 1990, Finding Structure in Time",
    year=1990,
    when="short sequences, tiny models, a baseline",
)
def elman(x, h, W, U, b, *, act=tanh):
    """One layer of units that see the input and their own last values.

    Option: act, the activation (tanh; relu as in Le et al. 2015).
    torch: nn.RNN, whose two biases b_ih and b_hh are one here (their sum). Keras: SimpleRNN. ONNX: RNN.
    Beware: gradients vanish or explode after some ten steps; prefer a gated cell for longer memory.
    """
    return act(W.h @ x + U.h @ h + b.h)
