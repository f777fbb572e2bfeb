"""Families of parameters, and bundles: what one argument of a cell gives, one value per gate.

`W` (upper case) is a family of matrices, `b` (lower case) a family of vectors, each with one member per
gate or state: `W.i`, `b.f`. A whole family acts on all gates at once and gives a bundle: `W @ x + b`.
A member exists, and costs memory, from the moment the step mentions it. `U[0]`, `U[1]` are families of
their own, for the rounds of an inner loop.

Before it acts, a matrix may be worked on: `U.h - U.h.T`, `A.h @ B.h`, functions of its entries.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from everloop.lang.expr import Arithmetic, Expr, Shape, Size
from everloop.lang.param import Param, write_matrix
from everloop.lang.trace import Trace, current

__all__ = ["Bundle", "Family", "Matrix", "Param", "over_gates"]


class Bundle(Arithmetic):
    """One value per gate, acting together; `a.i` is the value of gate i."""

    __slots__ = ("_parts",)

    def __init__(self, parts: dict[str, Any]) -> None:
        self._parts = parts

    def __getattr__(self, gate: str) -> Any:
        if gate in self._parts:
            return self._parts[gate]
        if gate == "T":
            return Bundle({gate: part.T for gate, part in self._parts.items()})
        raise AttributeError(f"a bundle has no gate {gate!r}; it has {' '.join(self._parts)}")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parts.values())

    def __repr__(self) -> str:
        return f"Bundle({' '.join(self._parts)})"

    def __matmul__(self, other: Any) -> Bundle:
        return over_gates(lambda matrix, value: matrix @ value, (self, other))

    def _over_gates(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Bundle:
        return over_gates(function, args)


def over_gates(function: Callable[..., Any], args: tuple[Any, ...]) -> Bundle:
    """Call `function` once per gate, with each bundle or family replaced by its value for that gate."""
    bundles = [arg._bundle() if isinstance(arg, Family) else arg for arg in args]
    gates = next(tuple(arg._parts) for arg in bundles if isinstance(arg, Bundle))
    for arg in bundles:
        if isinstance(arg, Bundle) and tuple(arg._parts) != gates:
            raise TypeError(f"a bundle of {' '.join(gates)} cannot meet a bundle of {' '.join(arg._parts)}")
    return Bundle({g: function(*(a._parts[g] if isinstance(a, Bundle) else a for a in bundles)) for g in gates})


class Family(Arithmetic):
    """One argument of a cell: matrices if its name is upper case, vectors if it is lower case."""

    __slots__ = ("_blocks", "_name", "_trace")

    def __init__(self, name: str, trace: Trace, blocks: int = 1) -> None:
        self._name, self._trace, self._blocks = name, trace, blocks

    def __getattr__(self, slot: str) -> Any:
        if slot.startswith("_"):
            raise AttributeError(slot)
        slots = self._trace.slots
        if slot == "T" and slot not in slots:
            return self._bundle().T
        if slot not in slots:
            near = difflib.get_close_matches(slot, slots, 1)
            hint = f" (did you mean {self._name}.{near[0]}?)" if near else ""
            raise AttributeError(
                f"{self._name}.{slot}: no gate or state of that name; there are {' '.join(slots)}{hint}"
            )
        return self._member(slot)

    def __getitem__(self, number: int) -> Family:
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise TypeError(f"{self._name}[{number!r}]: the families of a row are numbered 0, 1, 2 ...")
        name = f"{self._name}{number}"
        if name in self._trace.arguments:
            raise TypeError(f"{self._name}[{number}] is the family {name}, which is an argument already: rename it")
        return Family(name, self._trace, self._blocks)

    def __matmul__(self, vector: Any) -> Bundle:
        if not self._name.isupper():
            raise TypeError(f"{self._name} @ ...: {self._name} is a family of vectors; matrices have upper-case names")
        return self._bundle() @ vector

    def __repr__(self) -> str:
        return self._name

    def _member(self, slot: str) -> Any:
        if not self._name.isupper():
            return self._trace.vector(self._name, slot)
        return Matrix(self._trace.matrix(self._name, slot, self._blocks))

    def _bundle(self) -> Bundle:
        return Bundle({gate: self._member(gate) for gate in self._trace.gates})

    def _over_gates(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Bundle:
        return over_gates(function, args)


class Matrix(Arithmetic):
    """A matrix: one member of a family, or what was made of some. It acts on a vector with @."""

    __slots__ = ("_value",)

    def __init__(self, value: Expr) -> None:
        self._value = value

    @property
    def T(self) -> Matrix:
        """The transposed matrix."""
        if self._value.op == "transpose":
            return Matrix(self._value.args[0])
        self._must_be_whole("the transposed of")
        return Matrix(Expr("transpose", (self._value,), None, Shape(self._shape.columns, self._shape.rows)))

    @property
    def _shape(self) -> Shape:
        assert isinstance(self._value.size, Shape)
        return self._value.size

    def __repr__(self) -> str:
        return write_matrix(self._value)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Matrix):
            self._must_be_whole("the product with")
            other._must_be_whole("the product with")
            self._shape.columns.unify(other._shape.rows)
            shape = Shape(self._shape.rows, other._shape.columns)
            return Matrix(Expr("compose", (self._value, other._value), None, shape))
        if isinstance(other, Bundle | Family):
            return over_gates(lambda value: self @ value, (other,))
        if not isinstance(other, Expr) or other.size is None:
            raise TypeError(f"{self!r} @ ...: a matrix acts on a vector of features, not on {other!r}")
        return current("@").product(self._value, other)

    def _on_matrices(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Matrix:
        """An elementwise function, entry by entry."""
        for arg in args:
            if isinstance(arg, Matrix):
                arg._must_be_whole("a function of")
            elif isinstance(arg, Expr) and arg.op not in ("const", "count"):
                value = arg if arg.args else arg.attr
                raise TypeError(
                    f"{self!r} cannot meet the value {value} entry by entry: a matrix acts on a vector with @, "
                    "and only numbers and other matrices may change it"
                )
        made = function(*(arg._value if isinstance(arg, Matrix) else arg for arg in args))
        if not isinstance(made.size, Shape):
            raise TypeError(f"{self!r} is multiplied by 0: a matrix of zeros does nothing; leave it out")
        return Matrix(made)

    def _must_be_whole(self, what: str) -> None:
        if self._value.op == "matrix" and current("@").params[self._value.attr].blocks > 1:
            raise TypeError(f"{what} {self!r} is not possible: it is block-diagonal, and kept as its blocks")


def blocks(family: Any, count: float) -> Family:
    """The family with block-diagonal matrices: `count` heads that do not see each other, `blocks(U, 4) @ h`.

    The features on both sides are divided into `count` equal parts; each part of the result sees its own part only.
    """
    if not isinstance(family, Family) or not family._name.isupper():
        raise TypeError(f"blocks: a family of matrices is expected, as in blocks(U, 4) @ h, not {family!r}")
    if int(count) != count or count < 1:
        raise TypeError(f"blocks: {count!r} came; expected a whole number of 1 or more")
    return Family(family._name, family._trace, int(count))


def fixed(entry: Callable[[Any, Any], Any]) -> Matrix:
    """A matrix of numbers that are not trained: `entry(i, j)`, of the row and the column, each from 0.

    It takes its size from its use: `fixed(lambda i, j: where(i > j, 1, 0)) @ h`.
    """
    shape = Shape(Size(), Size())
    made = entry(Matrix(Expr("row", (), None, shape)), Matrix(Expr("column", (), None, shape)))
    if not isinstance(made, Matrix):
        raise TypeError(f"fixed: the entry must depend on its row or column; {made!r} came")
    return made


def expm(matrix: Any) -> Any:
    """The matrix exponential I + M + M M / 2 + ... of a square matrix; orthogonal for `U.h - U.h.T`."""
    if isinstance(matrix, Bundle | Family):
        return over_gates(expm, (matrix,))
    if not isinstance(matrix, Matrix):
        raise TypeError(f"expm: a matrix is expected, as in expm(U.h - U.h.T), not {matrix!r}")
    matrix._must_be_whole("the exponential of")
    matrix._shape.rows.unify(matrix._shape.columns)
    return Matrix(Expr("expm", (matrix._value,), None, matrix._shape))
