"""Orthogonal recurrent network by the matrix exponential."""

from everloop.lang.cell import cell
from everloop.lang.functions import absolute, expm, relu, where


@cell(
    states="h",
    gates="h",
    source="Lezcano-Casado, Martinez-Rubio 2019, Cheap Orthogonal Constraints in Neural Networks",
    year=2019,
    when="copying and counting over hundreds of steps: gradients through the recurrent matrix keep their length",
    init={"U": "normal", "b": (-0.01, 0.01)},
)
def exp_rnn(x, h, W, U, b):
    """The recurrent matrix is expm(U - U^T): orthogonal whatever U is. modReLU moves values towards 0 by -b.

    torch, Keras, ONNX: have no such cell. The authors train the upper triangle of U alone, which is as much.
    Beware: the exponential is worked out anew for every batch, at some ten products of two matrices.
    """
    a = expm(U.h - U.h.T) @ h + W.h @ x
    size = relu(absolute(a) + b.h)
    return where(a > 0, size, -size)
