"""Higher-order recurrent network: the step sees several past states."""

from everloop.lang.cell import cell
from everloop.lang.functions import tanh, window


@cell(
    states="h",
    gates="h",
    source="Soltani, Jiang 2016, Higher Order Recurrent Neural Networks",
    year=2016,
    when="short-cuts through time without gates: gradients have several ways back",
)
def higher_order_rnn(x, h, W, U, b, *, order=3, act=tanh):
    """As `elman`, with one matrix for each of the last `order` states.

    Options: order, how many states; act, the activation (tanh). Lin et al. 1996 call networks of this kind NARX.
    torch, Keras, ONNX: have no such cell.
    Beware: parameters and work grow with the order, memory by one step for each.
    """
    a = W.h @ x + b.h
    for k, past in enumerate(window(h, order)):
        a = a + U[k].h @ past
    return act(a)
