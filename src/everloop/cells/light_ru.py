"""Light recurrent unit: one gate, a candidate from the input alone."""

from everloop.lang.cell import cell
from everloop.lang.functions import sigmoid, tanh


@cell(
    states="h",
    gates="f h",
    source="Ye et al. 2024, Light Recurrent Unit: Towards an Interpretable Recurrent Neural Network "
    "for Modeling Long-Range Dependency",
    year=2024,
    when="long sequences on small devices: one recurrent matrix, and gates that can be read",
)
def light_ru(x, h, W, U, b):
    """f moves h towards tanh(W.h x). Its authors call it LRU; that name is the linear recurrent unit's here.

    torch, Keras, ONNX: have no such cell. Tested by its authors on the adding problem.
    Beware: f = 1 replaces h, as in `mgu`; the candidate has no bias. The paper's changed activation for stacks
    of layers is not part of the cell.
    """
    f = sigmoid(W.f @ x + U.f @ h + b.f)
    return (1 - f) * h + f * tanh(W.h @ x)
