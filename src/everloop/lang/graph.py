"""A traced step: which values go in, which come out, and which parameters it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from everloop.lang.draw import Draw
from everloop.lang.expr import Expr, substitute, toposort
from everloop.lang.functions import carry_composites
from everloop.lang.param import Param

Start = float | tuple[float, float] | str | Callable[[float, int, int], float]
"""A start value of a parameter: a number; (low, high) to draw from uniformly; a way to fill it by name (STARTS); or,
for a vector, a function of a draw between 0 and 1, the position and the number of features."""

STARTS = ("identity", "orthogonal", "glorot", "normal")
"""identity: ones on the diagonal. orthogonal: Saxe et al. 2014. glorot: uniform, Glorot and Bengio 2010. normal:
mean 0, variance 1 / columns."""


@dataclass(frozen=True, eq=False)
class Graph:
    """One step of a recurrence. A cell is one; so is its backward step, and the loop part of either.

    inputs: `x`, then the side inputs. params: those that a layer holds, and those made of them (Param.made).
    start:  the first value of each state, and the value of a side input that is not given.
    draws:  the inputs that the layer draws itself.
    init:   start values of parameters, by member or by family. sizes: lengths of named sizes, unless others are chosen.
    """

    name: str
    inputs: dict[str, Expr]
    states: dict[str, Expr]
    params: dict[str, Param]
    new: dict[str, Expr]
    outputs: dict[str, Expr]
    start: dict[str, float] = field(default_factory=dict)
    names: dict[Expr, str] = field(default_factory=dict)
    draws: dict[str, Draw] = field(default_factory=dict)
    init: dict[str, Start] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def roots(self) -> list[Expr]:
        return [*self.outputs.values(), *self.new.values()]

    @cached_property
    def nodes(self) -> list[Expr]:
        """Every value of the step, arguments first."""
        return toposort(self.roots)

    @cached_property
    def depends(self) -> frozenset[Expr]:
        """The values that need the past: those a state reaches."""
        return frozenset(reached(self.nodes, self.states.values()))

    @cached_property
    def timed(self) -> frozenset[Expr]:
        """The values that differ from step to step: those an input or a state reaches."""
        return frozenset(reached(self.nodes, [*self.inputs.values(), *self.states.values()]))

    def init_of(self, param: Param) -> Start | None:
        """The start value that the cell gives a parameter: by its name, or its family's; `U` is all of U0, U1, ..."""
        return next((self.init[name] for name in param.called if name in self.init), None)

    @cached_property
    def held(self) -> dict[str, Param]:
        """The parameters that a layer holds; the others are made of them."""
        return {name: param for name, param in self.params.items() if param.made is None}

    @cached_property
    def stacks(self) -> dict[str, tuple[Param, ...]]:
        """Which parameters lie in one array, their rows stacked: a family, if its members are equally wide."""
        families: dict[str, list[Param]] = {}
        for param in self.held.values():
            families.setdefault(param.family, []).append(param)
        stacks: dict[str, tuple[Param, ...]] = {}
        for family, members in families.items():
            if len({(param.blocks, *(size.root() for size in param.sizes[1:])) for param in members}) == 1:
                stacks[family] = tuple(members)
            else:
                stacks.update({f"{family}_{param.slot}": (param,) for param in members})
        return stacks

    @property
    def size_names(self) -> list[str]:
        """The sizes that somebody has to choose, in the order of their first use: input, hidden, ..."""
        found: dict[str, None] = {}
        leaves = [*self.inputs.values(), *self.states.values()]
        for size in [*(leaf.size for leaf in leaves), *(s for p in self.params.values() for s in p.sizes)]:
            if size is not None and size.name is not None:
                found[size.name] = None
        return list(found)

    def replace(self, nodes: dict[Expr, Expr]) -> Graph:
        """The same graph with some values replaced by others."""
        done = substitute(self.roots, nodes)
        carry_composites(done)
        return replace(
            self,
            new={name: done[node] for name, node in self.new.items()},
            outputs={name: done[node] for name, node in self.outputs.items()},
            names={done.get(node, node): name for node, name in self.names.items()},
        )


def reached(nodes: Iterable[Expr], leaves: Iterable[Expr]) -> set[Expr]:
    """Those of the nodes (arguments first) that some leaf reaches."""
    found = set(leaves)
    for node in nodes:
        if any(arg in found for arg in node.args):
            found.add(node)
    return found
