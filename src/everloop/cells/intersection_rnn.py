"""+RNN: one gate through time, one through depth."""

from everloop.lang.cell import cell
from everloop.lang.functions import relu, sigmoid, tanh


@cell(
    states="h",
    gates="p q n y",
    source="Collins, Sohl-Dickstein, Sussillo 2016, Capacity and Trainability in Recurrent Neural Networks",
    year=2016,
    when="deep stacks: the cell its authors found easiest to train there",
    init={"b.p": 1.0, "b.q": 1.0},
)
def intersection_rnn(x, h, W, U, b, *, act=relu):
    """The state h is kept by p; the output is the input itself, as far as q lets it pass, else y.

    The output is as wide as the input. The paper's are all of one width; its first layer maps x to it.
    Option: act, the activation of y.
    torch, Keras, ONNX: have no such cell (TensorFlow 1 had IntersectionRNNCell). Used in stacks of many layers.
    Beware: one layer alone hands out mostly its input: b.q starts at 1.
    """
    p = sigmoid(W.p @ x + U.p @ h + b.p)
    n = tanh(W.n @ x + U.n @ h + b.n)
    q = sigmoid(W.q @ x + U.q @ h + b.q)
    y = act(W.y @ x + U.y @ h + b.y)
    return q * x + (1 - q) * y, p * h + (1 - p) * n
