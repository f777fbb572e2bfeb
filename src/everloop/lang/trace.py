"""What a step leaves behind while it runs on symbols: parameters, named sizes, delayed values."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from everloop.lang.expr import Expr, Shape, Size, toposort
from everloop.lang.param import Param, write_matrix


@dataclass
class Trace:
    """One run of a step.

    gates:   the members that a whole family has. slots: the names that a member may have: gates and states.
    arguments: the names of the arguments of the step.
    leaves:  the matrices that were mentioned, by name, as values.
    delayed: value -> the state that holds it one step later; `past` says which name and delay that state has.
    """

    gates: tuple[str, ...]
    slots: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    sizes: dict[str, Size] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    leaves: dict[str, Expr] = field(default_factory=dict)
    delayed: dict[Expr, Expr] = field(default_factory=dict)
    past: dict[Expr, tuple[str, int]] = field(default_factory=dict)

    def size(self, name: str) -> Size:
        return self.sizes.setdefault(name, Size(name))

    def vector(self, family: str, slot: str) -> Expr:
        name = f"{family}.{slot}"
        param = self.params.setdefault(name, Param(family, slot, (Size(),)))
        return Expr("vector", (), name, param.sizes[0])

    def matrix(self, family: str, slot: str, blocks: int) -> Expr:
        name = f"{family}.{slot}"
        if name not in self.leaves:
            shape = Shape(Size(), Size())
            self.params[name] = Param(family, slot, (shape.rows, shape.columns), blocks)
            self.leaves[name] = Expr("matrix", (), name, shape)
        if self.params[name].blocks != blocks:
            raise TypeError(f"{name} came in {blocks} blocks; it is used in {self.params[name].blocks} elsewhere")
        return self.leaves[name]

    def product(self, matrix: Expr, vector: Expr) -> Expr:
        """The matrix, as it is or made of others, times a vector of features."""
        param = self.params[matrix.attr] if matrix.op == "matrix" else self._made(matrix)
        assert vector.size is not None
        try:
            param.sizes[1].unify(vector.size)
        except TypeError as error:
            raise TypeError(f"{param.name} is used with vectors of different sizes: {error}") from None
        return Expr("matmul", (vector,), (param.name,), param.sizes[0])

    def _made(self, matrix: Expr) -> Param:
        for param in self.params.values():
            if param.made is matrix:
                return param
        assert isinstance(matrix.size, Shape)
        family, slot = _name(matrix, self)
        param = Param(family, slot, (matrix.size.rows, matrix.size.columns), made=matrix)
        self.params[param.name] = param
        return param

    def delay(self, value: Expr) -> Expr:
        """The value one step ago: a state that the value is handed to."""
        if value not in self.delayed:
            if value.size is None:
                raise TypeError("shift: one number per row cannot be kept for the next step; a state is a vector")
            if value in self.past:
                base, steps = self.past[value]
            elif value.op in ("input", "state"):
                base, steps = str(value.attr), 0
            else:
                base, steps = f"v{sum(steps == 1 for _, steps in self.past.values())}", 0
            state = Expr("state", (), f"{base}_{steps + 1}", value.size)
            self.delayed[value] = state
            self.past[state] = (base, steps + 1)
        return self.delayed[value]


_running = threading.local()


@contextmanager
def running(trace: Trace) -> Iterator[None]:
    """While this lasts, the functions of the language in this thread work for the given trace."""
    _running.trace = trace
    try:
        yield
    finally:
        del _running.trace


def current(function: str) -> Trace:
    trace = getattr(_running, "trace", None)
    if trace is None:
        raise TypeError(f"{function} works on the values of a cell while it is traced")
    return trace


# A name longer than this would be the formula of a whole matrix: a number says as much.
LONG = 40


def _name(matrix: Expr, trace: Trace) -> tuple[str, str]:
    """A made matrix is called by its formula, over the members it is made of: (U - U.T).h."""
    mentioned = [trace.params[name] for name in _mentioned(matrix)]
    slots = {param.slot for param in mentioned}
    slot = slots.pop() if len(slots) == 1 else ""
    text = write_matrix(matrix, lambda name: trace.params[name].family if slot else name)
    if mentioned and len(text) <= LONG:
        return text, slot
    kind = "made" if mentioned else "fixed"
    taken = sum(param.made is not None and param.family.startswith(kind) for param in trace.params.values())
    return f"{kind}{taken + 1}", slot


def _mentioned(matrix: Expr) -> list[str]:
    found: dict[str, None] = {}
    for node in toposort([matrix]):
        if node.op == "matrix":
            found[node.attr] = None
    return list(found)
