"""Steps that are affine in their states, written as such: what a backend needs to run them in parallel over time.

    new_i = sum over j of A_ij * state_j + b_i        elementwise, no state in any A or b

The expressions of A and b are made of the step's own state-free values; most are not among its nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

from everloop.compiler.check import check
from everloop.lang.expr import Expr, apply, const, same_size, toposort
from everloop.lang.graph import Graph, reached


@dataclass(frozen=True, eq=False)
class Affine:
    """coefficients: (new state, old state) -> A; offsets: new state -> b. What is absent is zero."""

    graph: Graph
    coefficients: dict[tuple[str, str], Expr]
    offsets: dict[str, Expr]


@dataclass(frozen=True)
class _Form:
    """A value as a sum of state-free factors times states, and a state-free rest. What is absent is zero."""

    factors: dict[str, Expr]
    rest: Expr | None

    @staticmethod
    def of(factors: Mapping[str, Expr | None], rest: Expr | None) -> _Form:
        zero = const(0)
        kept = {name: factor for name, factor in factors.items() if factor is not None and factor is not zero}
        return _Form(kept, None if rest is zero else rest)

    def combine(self, op: str, other: _Form) -> _Form:
        """The sum or difference of two."""
        names = dict.fromkeys([*self.factors, *other.factors])
        factors = {name: _combined(op, self.factors.get(name), other.factors.get(name)) for name in names}
        return _Form.of(factors, _combined(op, self.rest, other.rest))

    def each(self, op: str, *others: Expr) -> _Form:
        """A linear operation, done to every part."""
        factors = {name: apply(op, factor, *others) for name, factor in self.factors.items()}
        return _Form.of(factors, None if self.rest is None else apply(op, self.rest, *others))


def affine(graph: Graph) -> Affine | None:
    """The coefficients and offsets of a step; None if it is not affine in its states, elementwise."""
    forms = {state: _Form.of({name: const(1)}, None) for name, state in graph.states.items()}
    for node in toposort(graph.new.values()):
        if node not in graph.depends:
            forms[node] = _Form.of({}, node)
        elif node not in forms:
            form = _form(node, graph, forms)
            if form is None:
                return None
            forms[node] = form
    new = {name: forms[node] for name, node in graph.new.items()}
    coefficients = {(name, old): factor for name, form in new.items() for old, factor in form.factors.items()}
    offsets = {name: form.rest for name, form in new.items() if form.rest is not None}
    return check_affine(Affine(graph, coefficients, offsets))


def written_out(found: Affine) -> Graph:
    """The same step with its new states in the form of the equation above."""
    graph = found.graph
    new: dict[str, Expr] = {}
    for name, node in graph.new.items():
        products = [a * graph.states[old] for (made, old), a in found.coefficients.items() if made == name]
        terms = [*products, *([found.offsets[name]] if name in found.offsets else [])]
        new[name] = reduce(lambda total, term: total + term, terms) if terms else node
    return replace(graph, new=new)


def check_affine(found: Affine) -> Affine:
    """The same, if it obeys the rules; otherwise TypeError naming the coefficient."""
    graph, values = found.graph, [*found.coefficients.values(), *found.offsets.values()]
    bound = reached(toposort(values), graph.states.values())
    named = {f"{new} <- {old}": (new, node) for (new, old), node in found.coefficients.items()}
    named |= {f"{new} <- 1": (new, node) for new, node in found.offsets.items()}
    for what, (new, node) in named.items():
        if node in bound:
            raise TypeError(f"{graph.name}: {what}: {node} depends on a state")
        if node.size is not None and not same_size(node.size, graph.states[new].size):
            raise TypeError(f"{graph.name}: {what}: size {node.size} makes a state of size {graph.states[new].size}")
        if node is const(0):
            raise TypeError(f"{graph.name}: {what}: a zero is left away")
    for new, old in found.coefficients:
        if not same_size(graph.states[old].size, graph.states[new].size):
            raise TypeError(f"{graph.name}: {new} <- {old}: states of different sizes")
    check(written_out(found))
    return found


def _form(node: Expr, graph: Graph, forms: dict[Expr, _Form]) -> _Form | None:
    """The form of a value that a state reaches; None if it is not affine or not elementwise."""
    match node.op, node.args:
        case ("add" | "sub", (a, b)):
            return forms[a].combine(node.op, forms[b])
        case ("neg", (a,)):
            return forms[a].each("neg")
        case ("mul", (a, b)) if a not in graph.depends:
            return forms[b].each("mul", a)
        case ("mul" | "div", (a, b)) if b not in graph.depends:
            return forms[a].each(node.op, b)
    return None


def _combined(op: str, a: Expr | None, b: Expr | None) -> Expr | None:
    if b is None:
        return a
    if a is None:
        return b if op == "add" else -b
    return apply(op, a, b)
