"""`@cell`: a Python function that is one step becomes a cell, and `Cell.graph` its trace."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from everloop.lang.expr import Expr, toposort
from everloop.lang.family import Family
from everloop.lang.graph import STARTS, Graph, Start
from everloop.lang.step import place_of, run_step
from everloop.lang.trace import Trace

Rewrite = Callable[[Graph], Graph]


@dataclass(frozen=True, eq=False)
class Cell:
    """One step of a recurrence, written once. Made by `@cell`; everything else is derived from it.

    Called with keyword arguments, it gives the same cell with those options: `elman(act=relu)`.
    """

    step: Callable[..., Any]
    states: dict[str, str]
    gates: tuple[str, ...]
    source: str = ""
    year: int = 0
    when: str = ""
    start: dict[str, float] = field(default_factory=dict)
    init: dict[str, Start] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    rewrites: tuple[Rewrite, ...] = ()

    @property
    def name(self) -> str:
        name = self.step.__name__
        for rewrite in self.rewrites:
            name = f"{getattr(rewrite, 'name', 'rewritten')}({name})"
        return name

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

    def rewritten(self, rewrite: Rewrite) -> Cell:
        """The cell whose graph is that of this one, rewritten: what the transforms of cells are made of."""
        return replace(self, rewrites=(*self.rewrites, rewrite))

    def __reduce__(self) -> tuple[Any, ...]:
        """As functions are: by the module and the name under which it can be found; and copied as itself."""
        found = getattr(self.step, "reduce", (_named, (self.step.__module__, self.step.__qualname__)))
        return _restore, (*found, self.options, self.rewrites)

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
        graph = functools.reduce(lambda graph, rewrite: rewrite(graph), self.rewrites, self._traced())
        _check_sizes(graph, self.step)
        return replace(graph, name=self.name)

    def _traced(self) -> Graph:
        slots = (*self.gates, *(s for s in self.states if s not in self.gates))
        trace = Trace(self.gates, slots, tuple(argument.name for argument in self._arguments))
        inputs = {"x": Expr("input", (), "x", trace.size("input"))}
        inputs |= {
            name: Expr("input", (), name, trace.size(size) if size else None) for name, size in self.inputs.items()
        }
        states = {name: Expr("state", (), name, trace.size(size)) for name, size in self.states.items()}
        arguments = self._symbols(inputs | states, trace)
        result, names = run_step(self.step, arguments, self.options, trace)
        output, new = self._sorted(result, states)
        for value, name in zip(new.values(), states, strict=True):
            names.setdefault(value, name)
        if output not in new.values():
            names[output] = "y"
        past = _delayed([output, *new.values()], trace)
        states |= {name: leaf for name, (leaf, _) in past.items()}
        new |= {name: value for name, (_, value) in past.items()}
        start = {name: self.start.get(name, self._start_of_past(leaf, trace)) for name, leaf in states.items()}
        start |= {name: self.start[name] for name in self.inputs if name in self.start}
        params = trace.params
        for name, value in self.init.items():
            meant = [param for param in params.values() if name in param.called]
            if not meant:
                raise TypeError(f"{self.name}: init names {name!r}; the step uses {', '.join(params)}")
            if isinstance(value, str) and not all(param.is_matrix for param in meant):
                raise TypeError(f"{self.name}: init of {name} is {value!r}, which fills a matrix; {name} is a vector")
            if callable(value) and any(param.is_matrix for param in meant):
                raise TypeError(f"{self.name}: init of {name} is a function, which fills a vector; {name} is a matrix")
        return Graph(
            self.step.__name__,
            inputs,
            states,
            params,
            new,
            {"y": output},
            start,
            names,
            {},
            dict(self.init),
            dict(self.sizes),
        )

    def _symbols(self, values: dict[str, Expr], trace: Trace) -> dict[str, Any]:
        """What each argument of the step is called with."""
        found: dict[str, Any] = {}
        for argument in self._arguments:
            if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                raise TypeError(f"{self.name}: *{argument.name} is not possible; name each family of parameters")
            if argument.kind is argument.KEYWORD_ONLY:
                continue
            if argument.name not in values and not (argument.name.isupper() or argument.name.islower()):
                raise TypeError(
                    f"{self.name}: argument {argument.name} must be upper case (a family of matrices) "
                    "or lower case (a family of vectors)"
                )
            known = argument.name in values
            found[argument.name] = values[argument.name] if known else Family(argument.name, trace)
        missing = [name for name in values if name not in found]
        if missing:
            raise TypeError(
                f"{self.name} must take x, its states and its side inputs as arguments; {', '.join(missing)} is missing"
            )
        return found

    def _sorted(self, result: Any, states: dict[str, Expr]) -> tuple[Expr, dict[str, Expr]]:
        """What the step returned, as its output and its new states."""
        values = result if isinstance(result, tuple) else (result,)
        for value in values:
            if not isinstance(value, Expr):
                raise self._returns(f" must return values of the step, not {value!r}")
        if len(values) not in (len(states), len(states) + 1):
            raise self._returns(
                f" returns {len(values)} values; expected its new states ({', '.join(states)}), "
                "or the output and then the states"
            )
        new = dict(zip(states, values[len(values) - len(states) :], strict=True))
        for name, value in new.items():
            size = states[name].size
            if value.size is None or size is None:
                raise self._returns(f": the new {name} is one number per row; a state is a vector")
            try:
                size.unify(value.size)
            except TypeError as error:
                raise self._returns(f": the new {name} does not have the size of {name}: {error}") from None
        return values[0], new

    def _returns(self, what: str) -> TypeError:
        return TypeError(f"{self.name}{what}{place_of(self.step, 'return')}")

    def _start_of_past(self, leaf: Expr, trace: Trace) -> float:
        return self.start.get(trace.past[leaf][0], 0.0) if leaf in trace.past else 0.0


def _delayed(roots: list[Expr], trace: Trace) -> dict[str, tuple[Expr, Expr]]:
    """The states that `shift` asks for and something uses: name -> (the state, the value that it holds next)."""
    value_of = {leaf: value for value, leaf in trace.delayed.items()}
    wanted = list(roots)
    found: dict[str, tuple[Expr, Expr]] = {}
    while wanted:
        new = [node for node in toposort(wanted) if node in value_of and node.attr not in found]
        for leaf in new:
            if leaf.attr in trace.arguments:
                raise TypeError(f"shift keeps a value under the name {leaf.attr}, which is an argument: rename it")
            found[leaf.attr] = leaf, value_of[leaf]
        wanted = [value_of[leaf] for leaf in new]
    return {leaf.attr: found[leaf.attr] for leaf in trace.past if leaf.attr in found}


def _named(module: str, name: str) -> Cell:
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))  # type: ignore[return-value]


def _restore(
    find: Callable[..., Cell], where: tuple[Any, ...], options: dict[str, Any], rewrites: tuple[Rewrite, ...]
) -> Cell:
    found = find(*where)
    return replace(found, options=options, rewrites=rewrites) if options or rewrites else found


def cell(
    *,
    states: str,
    gates: str,
    source: str = "",
    year: int = 0,
    when: str = "",
    start: dict[str, float] | None = None,
    init: dict[str, Start] | None = None,
    inputs: str = "",
    sizes: dict[str, int] | None = None,
) -> Callable[[Callable[..., Any]], Cell]:
    """Make a cell of a function that computes one step.

    states: names, the first being the output; `h:proj` gives a state a size of its own (else `hidden`).
    gates:  names of the members of every parameter family.
    source: the paper; year: its year; when: in one line, when to use the cell.
    start:  first value of a state (0 unless given); value of a side input that a caller does not give.
    init:   start value of a parameter or of a whole family, by name: `{"b.f": 1.0}`. See `Start`.
    inputs: side inputs, known at every step beside x: `mask:input` has the features of the input, `dt` is one
            number per step.
    sizes:  the lengths of named sizes, unless a layer is given others: `{"rank": 8}`.
    """
    state_sizes = {name: size or "hidden" for name, size in _declared("states", states).items()}
    side = _declared("inputs", inputs)
    if not state_sizes:
        raise TypeError('states: none came; a cell has one or more, by name, as in states="h c"')
    for what, names in (("states", state_sizes), ("inputs", side)):
        if "x" in names:
            raise TypeError(f"{what}: x is the input; choose another name")
    for name in side:
        if name in state_sizes:
            raise TypeError(f"inputs: {name} is a state already")
    for name in gates.split():
        _check_name(name)
    for name in start or {}:
        if name not in state_sizes and name not in side:
            raise TypeError(f"start: there is no state {name!r}; there are {' '.join([*state_sizes, *side])}")
    for name, value in (init or {}).items():
        if isinstance(value, str) and value not in STARTS:
            raise TypeError(f"init: {name!r} is {value!r}; by name there are {', '.join(STARTS)}")
    for name, value in (sizes or {}).items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or name in ("input", "hidden"):
            raise TypeError(f"sizes: {name!r} is {value!r}; expected a name of its own and a whole number of 1 or more")

    def wrap(step: Callable[..., Any]) -> Cell:
        made = Cell(
            step, state_sizes, tuple(gates.split()), source, year, when, start or {}, init or {}, side, sizes or {}
        )
        made.__dict__["__doc__"] = step.__doc__
        return made

    return wrap


def _declared(what: str, text: str) -> dict[str, str]:
    """`h:proj c` as {"h": "proj", "c": ""}."""
    found: dict[str, str] = {}
    for item in text.split():
        name, _, size = item.partition(":")
        _check_name(name)
        if name in found:
            raise TypeError(f"{what}: {name} came twice")
        if size:
            _check_name(size)
        found[name] = size
    return found


def _check_name(name: str) -> None:
    if not name.isidentifier() or name.startswith("_"):
        raise TypeError(f"{name!r} cannot name a state, gate or size: use letters and digits")


def _check_sizes(graph: Graph, step: Callable[..., Any]) -> None:
    for param in graph.params.values():
        for size in param.sizes:
            if size.name is None:
                raise TypeError(
                    f"{graph.name}: the size of {param.name} cannot be told from the step; "
                    'add it to a value of known size, give it a name with sized(v, "name"), '
                    f'or give a state that size: states="h s:name"{place_of(step, *param.called)}'
                )
    for node in toposort(graph.roots):
        if node.size is not None and node.size.name is None:
            name = graph.names.get(node, node)
            raise TypeError(
                f"{graph.name}: the size of {name} cannot be told from the step{place_of(step, str(name), 'return')}"
            )
