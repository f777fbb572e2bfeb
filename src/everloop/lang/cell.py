"""`@cell`: a Python function that is one step becomes a cell, and `Cell.graph` its trace."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from everloop.lang.expr import Expr, Size, toposort
from everloop.lang.family import Bundle, Family, Param
from everloop.lang.graph import Graph

Start = float | tuple[float, float]
"""A start value of a parameter: a number, or (low, high) to draw from uniformly."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a recurrence, written once. Made by `@cell`; everything else is derived from it.

    Called with keyword arguments, it gives the same cell with those options: `elman(act=relu)`.
    """

    step: Callable[..., Any]
    states: dict[str, str]
    gates: tuple[str, ...]
    source: str = ""
    start: dict[str, float] = field(default_factory=dict)
    init: dict[str, Start] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.step.__name__

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.step) or ""

    def __call__(self, **options: Any) -> Cell:
        known = [p.name for p in self._arguments if p.kind is p.KEYWORD_ONLY]
        for option, value in options.items():
            if option not in known:
                raise TypeError(f"{self.name} has no option {option!r}; it has {', '.join(known) or 'none'}")
            if not callable(value) and not isinstance(value, int | float):
                raise TypeError(f"{self.name}: option {option} must be a function or a number, not {value!r}")
        return replace(self, options=self.options | options)

    def __reduce__(self) -> tuple[Any, ...]:
        """As functions are: by the module and the name under which it can be found; and copied as itself."""
        return _find, (self.step.__module__, self.step.__qualname__, self.options)

    def __deepcopy__(self, _: Any) -> Cell:
        return self

    def __repr__(self) -> str:
        return f"<cell {self.name}: states {' '.join(self.states)}, gates {' '.join(self.gates)}>"

    @property
    def _arguments(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.step).parameters.values())

    @cached_property
    def graph(self) -> Graph:
        """The trace: the step run once on symbols, sizes inferred and checked."""
        sizes = {name: Size(name) for name in ("input", *self.states.values())}
        x = Expr("input", (), "x", sizes["input"])
        states = {s: Expr("state", (), s, sizes[size]) for s, size in self.states.items()}
        params: dict[str, Param] = {}
        slots = (*self.gates, *(s for s in self.states if s not in self.gates))
        values: dict[str, Any] = {"x": x, **states}
        for argument in self._arguments:
            if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                raise TypeError(f"{self.name}: *{argument.name} is not possible; name each family of parameters")
            if argument.kind is not argument.KEYWORD_ONLY and argument.name not in values:
                if not (argument.name.isupper() or argument.name.islower()):
                    raise TypeError(
                        f"{self.name}: argument {argument.name} must be upper case (a family of matrices) "
                        "or lower case (a family of vectors)"
                    )
                values[argument.name] = Family(argument.name, self.gates, slots, params)
        missing = [s for s in ("x", *states) if s not in {a.name for a in self._arguments}]
        if missing:
            raise TypeError(f"{self.name} must take x and its states as arguments; {', '.join(missing)} is missing")
        arguments = {a.name: values[a.name] for a in self._arguments if a.name in values}
        result, names = _run_watched(self.step, arguments, self.options)
        graph = self._graph(x, states, params, result, names)
        _check_sizes(graph)
        return graph

    def _graph(
        self, x: Expr, states: dict[str, Expr], params: dict[str, Param], result: Any, names: dict[Expr, str]
    ) -> Graph:
        values = result if isinstance(result, tuple) else (result,)
        for value in values:
            if not isinstance(value, Expr):
                raise TypeError(f"{self.name} must return values of the step, not {value!r}")
        if len(values) == len(states):
            output, new = values[0], values
        elif len(values) == len(states) + 1:
            output, new = values[0], values[1:]
        else:
            raise TypeError(
                f"{self.name} returns {len(values)} values; expected its new states ({', '.join(states)}), "
                "or the output and then the states"
            )
        for (name, state), value in zip(states.items(), new, strict=True):
            if value.size is None or state.size is None:
                raise TypeError(f"{self.name}: the new {name} is one number per row; a state is a vector")
            try:
                state.size.unify(value.size)
            except TypeError as error:
                raise TypeError(f"{self.name}: the new {name} does not have the size of {name}: {error}") from None
        for value, name in zip(new, states, strict=True):
            names.setdefault(value, name)
        if output not in new:
            names[output] = "y"
        for name in self.init:
            if name not in params and name not in {param.family for param in params.values()}:
                raise TypeError(f"{self.name}: init names {name!r}; the step uses {', '.join(params)}")
        start = {name: self.start.get(name, 0.0) for name in states}
        return Graph(
            self.name,
            {"x": x},
            states,
            params,
            dict(zip(states, new, strict=True)),
            {"y": output},
            start,
            names,
        )


def _find(module: str, name: str, options: dict[str, Any]) -> Cell:
    found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    return found(**options) if options else found  # type: ignore[operator, return-value]


def cell(
    *,
    states: str,
    gates: str,
    source: str = "",
    start: dict[str, float] | None = None,
    init: dict[str, Start] | None = None,
) -> Callable[[Callable[..., Any]], Cell]:
    """Make a cell of a function that computes one step.

    states: names, the first being the output; `h:proj` gives a state a size of its own (else `hidden`).
    gates:  names of the members of every parameter family.
    source: the paper. start: first value of a state (0 unless given). init: start value of a parameter or
    of a whole family, by name: `{"b.f": 1.0}`.
    """
    sizes: dict[str, str] = {}
    for item in states.split():
        name, _, size = item.partition(":")
        sizes[name] = size or "hidden"
    if not sizes:
        raise TypeError('states: none came; a cell has one or more, by name, as in states="h c"')
    if "x" in sizes:
        raise TypeError("states: x is the input; choose another name")
    for name in (*sizes, *gates.split()):
        if not name.isidentifier() or name.startswith("_"):
            raise TypeError(f"{name!r} cannot name a state or gate: use letters and digits")
    for name in start or {}:
        if name not in sizes:
            raise TypeError(f"start: there is no state {name!r}; there are {' '.join(sizes)}")

    def wrap(step: Callable[..., Any]) -> Cell:
        made = Cell(step, sizes, tuple(gates.split()), source, start or {}, init or {})
        made.__dict__["__doc__"] = step.__doc__
        return made

    return wrap


def _run_watched(
    step: Callable[..., Any], arguments: dict[str, Any], options: dict[str, Any]
) -> tuple[Any, dict[Expr, str]]:
    """Call the step; also say which local variable held each value last.

    In a thread of its own, because a thread has a profile hook of its own: one that is in use (a profiler, a
    coverage tool) is left alone.
    """
    variables: dict[str, Any] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is step.__code__:
            variables.update(frame.f_locals)

    def run() -> Any:
        sys.setprofile(watch)
        try:
            return step(**arguments, **options)
        finally:
            sys.setprofile(None)

    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(run).result()
    names = {value: name for name, value in variables.items() if isinstance(value, Expr) and value.args}
    for name, value in variables.items():
        if isinstance(value, Bundle):
            for gate, part in value._parts.items():
                names.setdefault(part, f"{name}_{gate}")
    return result, names


def _check_sizes(graph: Graph) -> None:
    for param in graph.params.values():
        for size in param.sizes:
            if size.name is None:
                raise TypeError(
                    f"{graph.name}: the size of {param.name} cannot be told from the step; "
                    'add it to a value of known size, or give a state that size: states="h s:name"'
                )
    for node in toposort(graph.roots):
        if node.size is not None and node.size.name is None:
            raise TypeError(f"{graph.name}: the size of {graph.names.get(node, node)} cannot be told from the step")
