"""Families of parameters, and bundles: what one argument of a cell gives, one value per gate.

`W` (upper case) is a family of matrices, `b` (lower case) a family of vectors, each with one member per
gate or state: `W.i`, `b.f`. A whole family acts on all gates at once and gives a bundle: `W @ x + b`.
A member exists, and costs memory, from the moment the step mentions it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from everloop.lang.expr import Arithmetic, Expr, Size


@dataclass(frozen=True)
class Param:
    """One member of a family: a matrix (rows, columns) or a vector (rows,)."""

    family: str
    slot: str
    sizes: tuple[Size, ...]

    @property
    def name(self) -> str:
        return f"{self.family}.{self.slot}"

    @property
    def is_matrix(self) -> bool:
        return len(self.sizes) == 2


class Bundle(Arithmetic):
    """One value per gate, acting together; `a.i` is the value of gate i."""

    __slots__ = ("_parts",)

    def __init__(self, parts: dict[str, Expr]) -> None:
        self._parts = parts

    def __getattr__(self, gate: str) -> Expr:
        if gate in self._parts:
            return self._parts[gate]
        raise AttributeError(f"a bundle has no gate {gate!r}; it has {' '.join(self._parts)}")

    def __iter__(self) -> Iterator[Expr]:
        return iter(self._parts.values())

    def __repr__(self) -> str:
        return f"Bundle({' '.join(self._parts)})"

    def _over_gates(self, function: Callable[..., Expr], args: tuple[Any, ...]) -> Bundle:
        return over_gates(function, args)


def over_gates(function: Callable[..., Expr], args: tuple[Any, ...]) -> Bundle:
    """Call `function` once per gate, with each bundle or family replaced by its value for that gate."""
    bundles = [arg._bundle() if isinstance(arg, Family) else arg for arg in args]
    gates = next(tuple(arg._parts) for arg in bundles if isinstance(arg, Bundle))
    for arg in bundles:
        if isinstance(arg, Bundle) and tuple(arg._parts) != gates:
            raise TypeError(f"a bundle of {' '.join(gates)} cannot meet a bundle of {' '.join(arg._parts)}")
    return Bundle({g: function(*(a._parts[g] if isinstance(a, Bundle) else a for a in bundles)) for g in gates})


class Family(Arithmetic):
    """One argument of a cell: matrices if its name is upper case, vectors if it is lower case."""

    __slots__ = ("_gates", "_name", "_params", "_slots")

    def __init__(self, name: str, gates: tuple[str, ...], slots: tuple[str, ...], params: dict[str, Param]) -> None:
        self._name, self._gates, self._slots, self._params = name, gates, slots, params

    def __getattr__(self, slot: str) -> Any:
        if slot.startswith("_"):
            raise AttributeError(slot)
        if slot not in self._slots:
            near = difflib.get_close_matches(slot, self._slots, 1)
            hint = f" (did you mean {self._name}.{near[0]}?)" if near else ""
            raise AttributeError(
                f"{self._name}.{slot}: no gate or state of that name; there are {' '.join(self._slots)}{hint}"
            )
        return Matrix(self, slot) if self._name.isupper() else self._vector(slot)

    def __matmul__(self, vector: Any) -> Bundle:
        if not self._name.isupper():
            raise TypeError(f"{self._name} @ ...: {self._name} is a family of vectors; matrices have upper-case names")
        if isinstance(vector, Bundle | Family):
            return over_gates(lambda matrix, v: matrix @ v, (Bundle({g: Matrix(self, g) for g in self._gates}), vector))  # type: ignore[dict-item]
        return Bundle({gate: Matrix(self, gate) @ vector for gate in self._gates})

    def _bundle(self) -> Bundle:
        if self._name.isupper():
            raise TypeError(f"{self._name} is a family of matrices: it acts on a value with @, as in {self._name} @ x")
        return Bundle({gate: self._vector(gate) for gate in self._gates})

    def _vector(self, slot: str) -> Expr:
        param = self._params.setdefault(f"{self._name}.{slot}", Param(self._name, slot, (Size(),)))
        return Expr("vector", (), param.name, param.sizes[0])

    def _over_gates(self, function: Callable[..., Expr], args: tuple[Any, ...]) -> Bundle:
        return over_gates(function, args)


class Matrix:
    """One member of a family of matrices; it acts with @."""

    __slots__ = ("_family", "_slot")

    def __init__(self, family: Family, slot: str) -> None:
        self._family, self._slot = family, slot

    def __repr__(self) -> str:
        return f"{self._family._name}.{self._slot}"

    def __matmul__(self, vector: Any) -> Expr:
        name = repr(self)
        if not isinstance(vector, Expr) or vector.size is None:
            raise TypeError(f"{name} @ ...: a matrix acts on a vector of features, not on {vector!r}")
        param = self._family._params.setdefault(name, Param(self._family._name, self._slot, (Size(), Size())))
        try:
            param.sizes[1].unify(vector.size)
        except TypeError as error:
            raise TypeError(f"{name} is used with vectors of different sizes: {error}") from None
        return Expr("matmul", (vector,), (name,), param.sizes[0])
