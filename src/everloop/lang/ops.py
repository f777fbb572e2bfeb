"""One gradient rule per operation, in the same algebra.

`GRADIENT[op](g, y, *args)` gives the gradient of each argument from `g`, the gradient of the result `y`.
None stands for no gradient. At a tie, `maximum` and `minimum` give the whole gradient to their second
argument; so relu'(0) = 0 as in torch (where torch.maximum itself would halve it). The largest of the features
(`max`) shares it equally among those that tie, as torch.amax does.
"""

from __future__ import annotations

from collections.abc import Callable

from everloop.lang.expr import Expr, apply, cumulative, spread, total

Gradients = tuple[Expr | None, ...]


def _choose(condition: Expr, g: Expr) -> Gradients:
    return apply("where", condition, g, 0.0), apply("where", condition, 0.0, g)


def _sum(g: Expr, y: Expr, a: Expr) -> Gradients:
    return (g if a.size is None else spread(g, a.size),)


def _max(g: Expr, y: Expr, a: Expr) -> Gradients:
    if a.size is None:
        return (g,)
    ties = apply("ge", a, y)
    return (g / total(ties) * ties,)


GRADIENT: dict[str, Callable[..., Gradients]] = {
    "add": lambda g, y, a, b: (g, g),
    "sub": lambda g, y, a, b: (g, -g),
    "mul": lambda g, y, a, b: (g * b, g * a),
    "div": lambda g, y, a, b: (g / b, -(g * y / b)),
    "neg": lambda g, y, a: (-g,),
    "exp": lambda g, y, a: (g * y,),
    "expm1": lambda g, y, a: (g * (1 + y),),
    "log": lambda g, y, a: (g / a,),
    "log1p": lambda g, y, a: (g / (1 + a),),
    "sqrt": lambda g, y, a: (g / (2 * y),),
    "tanh": lambda g, y, a: (g * (1 - y * y),),
    "sigmoid": lambda g, y, a: (g * (y * (1 - y)),),
    "sin": lambda g, y, a: (g * apply("cos", a),),
    "cos": lambda g, y, a: (-(g * apply("sin", a)),),
    "floor": lambda g, y, a: (None,),
    "stop": lambda g, y, a: (None,),
    "maximum": lambda g, y, a, b: _choose(a > b, g),
    "minimum": lambda g, y, a, b: _choose(b > a, g),
    "gt": lambda g, y, a, b: (None, None),
    "ge": lambda g, y, a, b: (None, None),
    "where": lambda g, y, c, a, b: (None, *_choose(c, g)),
    "sum": _sum,
    "max": _max,
    "cumsum": lambda g, y, a: (cumulative(g, y.attr is not True),),
    "spread": lambda g, y, a: (total(g),),
}
