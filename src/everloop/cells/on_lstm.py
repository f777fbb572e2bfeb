"""Ordered neurons LSTM: units are ranked, and lower ranks are rewritten more often."""

from everloop.lang.cell import cell
from everloop.lang.functions import cumsum, sigmoid, softmax, tanh


@cell(
    states="h c",
    gates="i f g o p q",
    source="Shen et al. 2019, Ordered Neurons: Integrating Tree Structures into Recurrent Neural Networks",
    year=2019,
    when="language with nested structure: parse trees can be read off the master gates",
    init={"b.f": 1.0},
)
def on_lstm(x, h, c, W, U, b):
    """As `lstm`, under two master gates that rise and fall along the units: cumsum(softmax(...)).

    The master forget gate (p) keeps the units above a split, the master input gate (q) writes those below one;
    where they overlap, the ordinary gates decide.
    torch, Keras, ONNX: have no such cell. The authors share each master value among a chunk of units; chunks are 1.
    Beware: the order of the units means something, so they must not be shuffled or pruned one by one.
    """
    a = W @ x + U @ h + b
    i, f, g, o = sigmoid(a.i), sigmoid(a.f), tanh(a.g), sigmoid(a.o)
    keep, write = cumsum(softmax(a.p)), 1 - cumsum(softmax(a.q))
    both = keep * write
    c = (f * both + keep - both) * c + (i * both + write - both) * g
    return o * tanh(c), c
