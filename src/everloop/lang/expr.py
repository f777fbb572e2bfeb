"""Expressions: the values that a traced cell computes.

The whole algebra is one immutable node type, `Expr(op, args, attr, size)`:

    leaf      input | state | vector | const | count
              index                 0, 1, 2 ... along the features
    product   matmul(v)             attr: the matrix            W.i @ v
              matmul_t(v, ...)      attr: the matrices          sum of the transposed W.i times v
    row       sum(v), max(v)        over the features, one number per row
              spread(v)             the opposite: one number per row, repeated over the features
              cumsum(v)             running sum along the features; attr: True from the last to the first
    element   add sub mul div neg exp expm1 log log1p sqrt tanh sigmoid sin cos floor maximum minimum
              gt ge where           (comparisons are 1.0 or 0.0)
              stop                  the value itself, through which no gradient flows

An expression stands for one time step and any number of rows; its `size` is the length of its feature
axis, or None for one number per row. Equal expressions are one object (hash-consing), so common
subexpressions are shared by construction.

What is done to a weight before it is used is the same algebra on matrices, whose `size` is a `Shape`:

    leaf      matrix                attr: the parameter
              row | column          the place of each entry: 0, 1, 2 ...
    matrix    transpose(m)  compose(m, n): the product of two  expm(m): the matrix exponential
    element   as above, entry by entry
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

ELEMENTWISE: dict[str, int] = {
    "add": 2,
    "sub": 2,
    "mul": 2,
    "div": 2,
    "neg": 1,
    "exp": 1,
    "expm1": 1,
    "log": 1,
    "log1p": 1,
    "sqrt": 1,
    "tanh": 1,
    "sigmoid": 1,
    "sin": 1,
    "cos": 1,
    "floor": 1,
    "stop": 1,
    "maximum": 2,
    "minimum": 2,
    "gt": 2,
    "ge": 2,
    "where": 3,
}


class Size:
    """The length of a feature axis: known by name, or still to be unified with another (union-find)."""

    __slots__ = ("_name", "_up")

    def __init__(self, name: str | None = None) -> None:
        self._name, self._up = name, None

    def root(self) -> Size:
        size = self
        while size._up is not None:
            size = size._up
        return size

    @property
    def name(self) -> str | None:
        return self.root()._name

    def unify(self, other: Size) -> None:
        if isinstance(other, Shape):
            raise TypeError("a matrix cannot meet a vector entry by entry: a matrix acts on a vector with @")
        a, b = self.root(), other.root()
        if a is b:
            return
        if a._name is not None and b._name is not None:
            raise TypeError(f"sizes differ: {a._name} and {b._name}")
        if a._name is not None:
            a, b = b, a
        a._up = b

    def become(self, other: Size) -> None:
        """Be the other size, whatever the name was."""
        if self.root() is not other.root():
            self.root()._up = other.root()

    def __repr__(self) -> str:
        return self.name or "?"


class Shape(Size):
    """The lengths of the two axes of a matrix."""

    __slots__ = ("columns", "rows")

    def __init__(self, rows: Size, columns: Size) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    @property
    def name(self) -> str | None:
        return None if self.rows.name is None or self.columns.name is None else repr(self)

    def unify(self, other: Size) -> None:
        if not isinstance(other, Shape):
            other.unify(self)
        else:
            self.rows.unify(other.rows)
            self.columns.unify(other.columns)

    def __repr__(self) -> str:
        return f"{self.rows} x {self.columns}"


def same_size(a: Size | None, b: Size | None) -> bool:
    if isinstance(a, Shape) and isinstance(b, Shape):
        return same_size(a.rows, b.rows) and same_size(a.columns, b.columns)
    return a is b or (a is not None and b is not None and a.root() is b.root())


class Arithmetic:
    """Python's operators for whatever can stand in an equation."""

    __slots__ = ()

    def __add__(self, other: Any) -> Any:
        return apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return apply("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return apply("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return apply("div", other, self)

    def __neg__(self) -> Any:
        return apply("neg", self)

    def __pos__(self) -> Any:
        return self

    def __matmul__(self, other: Any) -> Any:
        raise TypeError(f"{self!r} @ ...: only a matrix acts with @, and matrices have upper-case names")

    def __pow__(self, other: Any) -> Any:
        raise TypeError("** is not in the language: write v * v, square(v) or power(v, p)")

    def __gt__(self, other: Any) -> Any:
        return apply("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return apply("ge", self, other)

    def __lt__(self, other: Any) -> Any:
        return apply("gt", other, self)

    def __le__(self, other: Any) -> Any:
        return apply("ge", other, self)

    def __bool__(self) -> bool:
        raise TypeError("a value of a cell has no truth value while it is traced: use where(condition, a, b)")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a value of a cell cannot be looped over: it is a whole vector of features")


# Operations that an expression shows of itself, in messages.
WRITTEN = 100

_interned: weakref.WeakValueDictionary[tuple, Expr] = weakref.WeakValueDictionary()


class Expr(Arithmetic):
    """One value of one step. Immutable; equal expressions are the same object."""

    __slots__ = ("__weakref__", "args", "attr", "op", "size")

    op: str
    args: tuple[Expr, ...]
    attr: Any
    size: Size | None

    def __new__(cls, op: str, args: tuple[Expr, ...] = (), attr: Any = None, size: Size | None = None) -> Expr:
        key = (op, args, attr, None if args and op != "spread" else size)
        self = _interned.get(key)
        if self is None:
            self = super().__new__(cls)
            for name, value in (("op", op), ("args", args), ("attr", attr), ("size", size)):
                object.__setattr__(self, name, value)
            _interned[key] = self
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an expression cannot be changed: {name}")

    def __repr__(self) -> str:
        """Written out, a value that shares its parts may be endless: after WRITTEN operations come dots."""
        left = WRITTEN

        def write(node: Expr) -> str:
            nonlocal left
            left -= 1
            if left < 0:
                return "..."
            inside = [*map(write, node.args)] + ([str(node.attr)] if node.attr is not None else [])
            return f"{node.op}({', '.join(inside)})"

        return write(self)


def const(value: float) -> Expr:
    return Expr("const", (), float(value))


def count(size: Size) -> Expr:
    """The number of features of an axis, as a number."""
    return Expr("count", (), size)


def total(value: Expr) -> Expr:
    """The sum over the features: one number per row."""
    return Expr("sum", (value,), None, None)


def cumulative(value: Expr, backwards: bool) -> Expr:
    """The running sum along the features, from the first or from the last."""
    return Expr("cumsum", (value,), backwards, value.size)


def spread(value: Expr, size: Size) -> Expr:
    """One number per row, repeated along an axis."""
    return Expr("spread", (value,), None, size)


def lift(value: Any) -> Expr:
    """A number or an expression, as an expression."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return const(value)
    raise TypeError(f"a cell computes with its own values and plain numbers; {value!r} is a {type(value).__name__}")


def apply(op: str, *args: Any) -> Any:
    """An elementwise operation on expressions, numbers, matrices, or bundles of them (gate by gate)."""
    for hook in ("_over_gates", "_on_matrices"):
        for arg in args:
            spread_over = getattr(arg, hook, None)
            if spread_over is not None:
                return spread_over(lambda *parts: apply(op, *parts), args)
    lifted = tuple(lift(arg) for arg in args)
    folded = _fold(op, lifted)
    return folded if folded is not None else Expr(op, lifted, None, _joint_size(lifted))


def _joint_size(args: Iterable[Expr]) -> Size | None:
    size = None
    for arg in args:
        if arg.size is not None:
            if size is None:
                size = arg.size
            else:
                size.unify(arg.size)
    return size


_NUMERIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
}


def _fold(op: str, args: tuple[Expr, ...]) -> Expr | None:
    """The simpler expression, where there is one: numbers worked out, zeros and ones left away."""
    if op in _NUMERIC and all(arg.op == "const" for arg in args):
        return const(_NUMERIC[op](*(arg.attr for arg in args)))
    zero, one = const(0), const(1)
    match op, args:
        case ("add", (a, b)) if a is zero:
            return b
        case ("add", (a, b)) | ("sub", (a, b)) if b is zero:
            return a
        case ("sub", (a, b)) if a is zero:
            return apply("neg", b)
        case ("sub", (a, b)) if b.op == "neg":
            return apply("add", a, b.args[0])
        case ("add", (a, b)) if b.op == "neg":
            return apply("sub", a, b.args[0])
        case ("add", (a, b)) if a.op == "neg":
            return apply("sub", b, a.args[0])
        case ("neg", (a,)) if a.op == "neg":
            return a.args[0]
        case ("stop", (a,)) if a.op in ("const", "count", "index", "stop"):
            return a
        case ("mul" | "div", (a, _)) if a is zero:
            return zero
        case ("mul", (_, b)) if b is zero:
            return zero
        case ("mul", (a, b)) if a is one:
            return b
        case ("mul" | "div", (a, b)) if b is one:
            return a
        case ("mul", (a, b)) if b.op == "neg":
            return apply("neg", apply("mul", a, b.args[0]))
        case ("mul" | "div", (a, b)) if a.op == "neg":
            return apply("neg", apply(op, a.args[0], b))
    return None


def toposort(roots: Iterable[Expr]) -> list[Expr]:
    """Every expression below the roots, each after its arguments, in a deterministic order."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    for root in roots:
        stack = [(root, iter(root.args))]
        while stack:
            node, rest = stack[-1]
            if node in seen:
                stack.pop()
                continue
            for arg in rest:
                if arg not in seen:
                    stack.append((arg, iter(arg.args)))
                    break
            else:
                seen.add(node)
                order.append(node)
                stack.pop()
    return order


def rebuild(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """The same operation on other arguments, folded again."""
    if args == node.args:
        return node
    if node.op in ELEMENTWISE:
        return apply(node.op, *args)
    return Expr(node.op, args, node.attr, node.size)


def substitute(roots: Iterable[Expr], replace: dict[Expr, Expr]) -> dict[Expr, Expr]:
    """Rebuild everything below the roots with some nodes replaced: old node -> new node."""
    done: dict[Expr, Expr] = {}
    for node in toposort(roots):
        done[node] = replace[node] if node in replace else rebuild(node, tuple(done[arg] for arg in node.args))
    return done
