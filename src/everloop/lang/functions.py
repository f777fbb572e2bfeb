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

from everloop.lang.expr import Arithmetic, Expr, apply, const, count, total
from everloop.lang.family import Bundle, Family

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


def mean(v: Value) -> Expr:
    """The mean over the features, one number per row; a bundle counts as one long vector, its gates of one size."""
    parts = _parts(v)
    sizes = [part.size for part in parts if isinstance(part, Expr) and part.size is not None]
    if len(sizes) != len(parts):
        raise TypeError("mean needs a vector of features")
    for size in sizes[1:]:
        size.unify(sizes[0])
    sums = [total(part) for part in parts]
    return sum(sums[1:], start=sums[0]) / (const(len(parts)) * count(sizes[0]))


@composite
def norm(v: Value, eps: float = 1e-5) -> Value:
    """Zero mean and unit variance over the features (layer normalisation without scale and shift).

    A bundle is normalised jointly, as one long vector; use `norm(a.i)` for one gate by itself.
    Ba, Kiros, Hinton 2016. As torch.nn.LayerNorm: biased variance, `eps` inside the root.
    """
    centred = v - mean(v)
    return centred / sqrt(mean(centred * centred) + eps)


def _parts(v: Value) -> list[Expr]:
    if isinstance(v, Family):
        v = v._bundle()
    return list(v) if isinstance(v, Bundle) else [v]
