"""The functions of the language. Each works on a value, or on a bundle gate by gate.

The composite ones are written in the primitive ones, so that every backend, gradient and formula has them
for nothing. Adding an activation is adding one function here.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from everloop.lang.expr import Arithmetic, Expr, apply, const, count, cumulative
from everloop.lang.expr import total as expr_total
from everloop.lang.family import Bundle, Family, Matrix, blocks, expm, fixed, over_gates
from everloop.lang.trace import current

__all__ = [
    "absolute", "blocks", "cos", "cumsum", "elu", "exp", "expm", "expm1", "features", "fixed", "floor", "gelu",
    "hard_sigmoid", "hard_tanh", "identity", "largest", "leaky_relu", "log", "log1p", "logsigmoid", "maximum", "mean",
    "minimum", "mod", "norm", "position", "power", "relu", "shift", "sigmoid", "silu", "sin", "sized", "softmax",
    "softplus", "softsign", "sqrt", "square", "stop_gradient", "tanh", "total", "where", "window",
]  # fmt: skip

Value = Any
"""An expression, a bundle of them, or a number."""


Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Composite:
    """How a value was written: a function of the language on an argument (of a bundle: which gates, jointly)."""

    function: str
    arg: Expr
    gates: tuple[str, ...] = ()


composites: weakref.WeakKeyDictionary[Expr, Composite] = weakref.WeakKeyDictionary()
"""Values that formulas may show as `softplus(v)` rather than in primitive operations."""


def carry_composites(rebuilt: dict[Expr, Expr]) -> None:
    """What was written as a function of a value is so still when both are rebuilt: old node -> new node."""
    for old, new in rebuilt.items():
        made = composites.get(old)
        if made is not None and new is not old and made.arg in rebuilt:
            composites.setdefault(new, replace(made, arg=rebuilt[made.arg]))


def composite(function: Function) -> Function:
    """A function written in others, under whose own name formulas show its values."""

    @functools.wraps(function)
    def wrapped(v: Value, *args: Any, **options: Any) -> Value:
        result = function(v, *args, **options)
        if isinstance(result, Matrix):
            return result
        if isinstance(result, Expr) and isinstance(v, Expr):
            composites.setdefault(result, Composite(function.__name__, v))
        elif isinstance(result, Bundle):
            v = v._bundle() if isinstance(v, Family) else v
            gates = tuple(v._parts) if function.__name__ in JOINT else ()
            for part, arg in zip(result, v, strict=True):
                composites.setdefault(part, Composite(function.__name__, arg, gates))
        return result

    return wrapped  # type: ignore[return-value]


JOINT = frozenset({"norm"})


def _elementwise(op: str, *values: Value) -> Value:
    if not any(isinstance(value, Arithmetic) for value in values):
        raise TypeError(
            f"{op} works on the values of a cell while it is traced, not on {', '.join(map(repr, values))}; "
            "for plain numbers and tensors use math, numpy or torch"
        )
    return apply(op, *values)


def exp(v: Value) -> Value:
    return _elementwise("exp", v)


def log(v: Value) -> Value:
    return _elementwise("log", v)


def log1p(v: Value) -> Value:
    """log(1 + v), accurate for small v."""
    return _elementwise("log1p", v)


def sqrt(v: Value) -> Value:
    return _elementwise("sqrt", v)


def expm1(v: Value) -> Value:
    """exp(v) - 1, accurate for small v."""
    return _elementwise("expm1", v)


def sin(v: Value) -> Value:
    return _elementwise("sin", v)


def cos(v: Value) -> Value:
    return _elementwise("cos", v)


def floor(v: Value) -> Value:
    """The largest whole number that is not above v. Its gradient is 0."""
    return _elementwise("floor", v)


def stop_gradient(v: Value) -> Value:
    """The value itself, as a constant: no gradient flows through it. Of a matrix: weights that are not trained."""
    return _elementwise("stop", v)


def tanh(v: Value) -> Value:
    return _elementwise("tanh", v)


def sigmoid(v: Value) -> Value:
    return _elementwise("sigmoid", v)


def maximum(a: Value, b: Value) -> Value:
    """The larger of two values. At a tie the gradient goes to `b`."""
    return _elementwise("maximum", a, b)


def minimum(a: Value, b: Value) -> Value:
    """The smaller of two values. At a tie the gradient goes to `b`."""
    return _elementwise("minimum", a, b)


def where(condition: Value, a: Value, b: Value) -> Value:
    """`a` where the condition (a comparison such as `v > 0`) holds, `b` elsewhere."""
    return _elementwise("where", condition, a, b)


@composite
def absolute(v: Value) -> Value:
    return maximum(v, -v)


def identity(v: Value) -> Value:
    """The value itself: the activation of a linear cell."""
    return v


@composite
def relu(v: Value) -> Value:
    """max(v, 0); the gradient at 0 is 0, as in torch."""
    return maximum(v, 0.0)


@composite
def softplus(v: Value) -> Value:
    """log(1 + exp(v)), accurate for large and small v."""
    return maximum(v, 0.0) + log1p(exp(-absolute(v)))


@composite
def logsigmoid(v: Value) -> Value:
    """log(sigmoid(v)), accurate for large and small v."""
    return -softplus(-v)


@composite
def silu(v: Value) -> Value:
    """v sigmoid(v), also called swish. Elfwing, Uchibe, Doya 2017."""
    return v * sigmoid(v)


@composite
def gelu(v: Value) -> Value:
    """v times the normal distribution function of v, by its usual approximation through tanh.

    Hendrycks, Gimpel 2016. torch: gelu(v, approximate="tanh").
    """
    return 0.5 * v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)))


@composite
def elu(v: Value) -> Value:
    """v above 0, exp(v) - 1 below. Clevert, Unterthiner, Hochreiter 2015, with alpha = 1."""
    return where(v > 0, v, expm1(minimum(v, 0.0)))


@composite
def softsign(v: Value) -> Value:
    """v / (1 + |v|)"""
    return v / (1 + absolute(v))


@composite
def hard_sigmoid(v: Value) -> Value:
    """A straight line from 0 at -3 to 1 at 3, as in torch and Keras 3 (Keras 2 and ONNX: slope 0.2)."""
    return minimum(maximum(v / 6 + 0.5, 0.0), 1.0)


@composite
def hard_tanh(v: Value) -> Value:
    """v, but no less than -1 and no more than 1."""
    return minimum(maximum(v, -1.0), 1.0)


def leaky_relu(v: Value, slope: float = 0.01) -> Value:
    """v above 0, slope v below."""
    return where(v > 0, v, slope * v)


@composite
def square(v: Value) -> Value:
    return v * v


def power(v: Value, p: Value) -> Value:
    """v to the power p, for v > 0."""
    return exp(p * log(v))


def mod(a: Value, b: Value) -> Value:
    """What is left of `a` when whole multiples of `b` are taken away: from 0 to b, as Python's %."""
    return a - b * floor(a / b)


def mean(v: Value) -> Expr:
    """The mean over the features, one number per row; a bundle counts as one long vector, its gates of one size."""
    parts = _vectors("mean", v)
    for part in parts[1:]:
        part.size.unify(parts[0].size)
    return total(v) / (const(len(parts)) * count(parts[0].size))


def total(v: Value) -> Expr:
    """The sum over the features, one number per row; a bundle counts as one long vector."""
    sums = [expr_total(part) for part in _vectors("total", v)]
    return sum(sums[1:], start=sums[0])


def largest(v: Value) -> Value:
    """The largest of the features, one number per row. Those that tie share the gradient equally."""
    if isinstance(v, Bundle | Family):
        return over_gates(largest, (v,))
    return Expr("max", (_vectors("largest", v)[0],), None, None)


@composite
def softmax(v: Value) -> Value:
    """exp(v) over its sum over the features, gate by gate; without overflow."""
    if isinstance(v, Bundle | Family):
        return over_gates(softmax, (v,))
    e = exp(v - stop_gradient(largest(v)))
    return e / total(e)


def cumsum(v: Value, reverse: bool = False) -> Value:
    """The running sum along the features, from the first to the last (`reverse`: from the last to the first)."""
    if isinstance(v, Bundle | Family):
        return over_gates(lambda part: cumsum(part, reverse), (v,))
    return cumulative(_vectors("cumsum", v)[0], bool(reverse))


def features(v: Value) -> Expr:
    """The number of features of v, as a number."""
    return count(_vectors("features", v)[0].size)


def position(v: Value) -> Expr:
    """0, 1, 2 ... along the features of v, as a vector of its size."""
    return Expr("index", (), None, _vectors("position", v)[0].size)


def sized(v: Value, name: str) -> Value:
    """The value itself, whose number of features is henceforth called `name`, and chosen by that name in a layer.

    For values whose size the step does not tell: `P.h @ sized(Q.h @ x, "rank")`.
    """
    if isinstance(v, Bundle | Family):
        return over_gates(lambda part: sized(part, name), (v,))
    if not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"sized: {name!r} came; expected the name of a size, as in sized(v, 'rank')")
    part = _vectors("sized", v)[0]
    part.size.unify(current("sized").size(name))
    return part


def shift(v: Value, steps: int = 1) -> Value:
    """The value some steps ago, 0 before the first step (of a state: its start value)."""
    if isinstance(v, Bundle | Family):
        return over_gates(lambda part: shift(part, steps), (v,))
    if int(steps) != steps or steps < 0:
        raise TypeError(f"shift: {steps!r} steps came; expected a whole number of 0 or more")
    part = _vectors("shift", v)[0]
    for _ in range(int(steps)):
        part = current("shift").delay(part)
    return part


def window(v: Value, steps: int) -> tuple[Value, ...]:
    """The value now, one step ago, and so on: the last `steps` values, the newest first."""
    if int(steps) != steps or steps < 1:
        raise TypeError(f"window: {steps!r} steps came; expected a whole number of 1 or more")
    return tuple(shift(v, k) for k in range(int(steps)))


@composite
def norm(v: Value, eps: float = 1e-5) -> Value:
    """Zero mean and unit variance over the features (layer normalisation without scale and shift).

    A bundle is normalised jointly, as one long vector; use `norm(a.i)` for one gate by itself.
    Ba, Kiros, Hinton 2016. As torch.nn.LayerNorm: biased variance, `eps` inside the root.
    """
    centred = v - mean(v)
    return centred / sqrt(mean(centred * centred) + eps)


def _vectors(function: str, v: Value) -> list[Any]:
    """The vector, or those of the bundle."""
    if isinstance(v, Family):
        v = v._bundle()
    parts = list(v) if isinstance(v, Bundle) else [v]
    for part in parts:
        if not isinstance(part, Expr) or part.size is None:
            raise TypeError(f"{function} needs a vector of features, not {part!r}")
    return parts
