"""Statistical recurrent unit: running averages of features on several time scales."""

from everloop.lang.cell import cell
from everloop.lang.functions import relu, sized


@cell(
    states="a b c d",
    gates="r p y",
    source="Oliva, Poczos, Schneider 2017, The Statistical Recurrent Unit",
    year=2017,
    when="long series whose averages matter more than their order: no gates, and nothing to saturate",
    sizes={"recap": 16},
)
def statistical_rnn(x, a, b, c, d, W, U, V, P, v, *, act=relu):
    """Features p of the input and of a recap r of all averages are averaged with the weights 0.25, 0.5, 0.9, 0.99.

    The features as they are count as a fifth average, of weight 0. U reads the averages for the recap (the
    features of the step before it does not see), P for the output. The size `recap` is that of r.
    torch, Keras, ONNX: have no such cell. Not to be taken for the simple recurrent unit `sru`.
    Beware: what an average of weight 0.99 has taken in fades to a third in a hundred steps.
    """
    r = act(sized(U.a @ a + U.b @ b + U.c @ c + U.d @ d + v.r, "recap"))
    p = act(W.p @ x + V.p @ r + v.p)
    a, b, c, d = (w * old + (1 - w) * p for w, old in ((0.25, a), (0.5, b), (0.9, c), (0.99, d)))
    y = act(sized(P.a @ a + P.b @ b + P.c @ c + P.d @ d + P.p @ p + v.y, "hidden"))
    return y, a, b, c, d
