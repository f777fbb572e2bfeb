"""Independently recurrent network: each unit remembers only itself."""

from everloop.lang.cell import cell
from everloop.lang.functions import relu


@cell(
    states="h",
    gates="h",
    source="Li et al. 2018, Independently Recurrent Neural Network",
    year=2018,
    when="deep stacks over long sequences; no product in the loop",
    init={"u.h": (0.0, 1.0)},
)
def indrnn(x, h, W, u, b, *, act=relu):
    """The recurrent weight is a vector u: no product in the loop.

    Option: act, the activation (relu). For T steps the paper keeps |u| below 2^(1/T); u starts in [0, 1].
    torch, Keras, ONNX: have no such cell. Used for long signals and skeletons, in deep stacks.
    Beware: units meet only in the next layer: use two layers or more.
    """
    return act(W.h @ x + u.h * h + b.h)
