"""What the programs in NumPy and in torch know of a step: what everything in it is called."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from functools import cached_property

from everloop.export._names import Names
from everloop.lang.cell import Cell, Start
from everloop.lang.expr import Expr, Size, const, toposort
from everloop.lang.functions import composites
from everloop.lang.graph import Graph
from everloop.lang.param import Param


class Program:
    """A step, and what everything in it is called.

    params, states, inputs: what a name of the cell is called. steps: what an input is called within a step.
    labels: the values of the step that have a name.
    """

    def __init__(self, step: Cell | Graph, own: Iterable[str]) -> None:
        self._source = step.source if isinstance(step, Cell) else ""
        self.graph = graph = step.graph if isinstance(step, Cell) else step
        self.names = names = Names(own)
        self.states = {name: names.fresh(name) for name in graph.states}
        self.params = {name: names.fresh(_param_name(param)) for name, param in graph.params.items()}
        self.inputs = {name: "x" if name == "x" else names.fresh(name) for name in graph.inputs}
        self.steps = {name: "x_t" if name == "x" else names.fresh(f"{name}_t") for name in graph.inputs}
        self.y = names.fresh("y") if "y" not in names.taken else names.fresh("out")
        self._sizes: dict[str, str] = {}
        self.users: dict[Expr, list[Expr]] = {}
        for node in graph.nodes:
            for arg in node.args:
                self.users.setdefault(arg, []).append(node)
        self.labels = self.made_labels() | self._named()

    @property
    def cited(self) -> str:
        """The paper that the step is from, as lines of a docstring."""
        source = self._source.replace(chr(92), "/").replace('"' * 3, '"')
        return "".join(f"{line}\n" for line in textwrap.wrap(f"{source}.", 100)) if source else ""

    @property
    def made(self) -> dict[str, Param]:
        """The matrices that are made of others."""
        return {name: param for name, param in self.graph.params.items() if param.made is not None}

    def made_labels(self) -> dict[Expr, str]:
        return {param.made: self.params[name] for name, param in self.made.items() if param.made is not None}

    def made_for(self, graph: Graph) -> list[Expr]:
        """The formulas of the made matrices that a graph uses."""
        used = {name for node in graph.nodes if node.op in ("matmul", "matmul_t") for name in node.attr}
        return [param.made for name, param in self.made.items() if name in used and param.made is not None]

    def is_term(self, node: Expr) -> bool:
        """Whether all that becomes of a value is that it is added to others."""
        users = self.users.get(node, [])
        return len(users) == 1 and users[0].op in ("add", "sub", "neg")

    @property
    def held_sizes(self) -> list[str]:
        """The lengths that the parameters need."""
        used = {str(size) for param in self.graph.held.values() for size in param.sizes}
        return [name for name in self.graph.size_names if name in used]

    @property
    def state_sizes(self) -> list[str]:
        return list(dict.fromkeys(str(leaf.size) for leaf in self.graph.states.values()))

    def signature(self, names: Iterable[str]) -> list[str]:
        """Lengths as arguments, those with a value of their own last."""
        ordered = sorted(names, key=lambda name: name in self.graph.sizes)
        return [self.size(n) + (f"={self.graph.sizes[n]}" if n in self.graph.sizes else "") for n in ordered]

    def first(self, param: Param) -> Start | None:
        """How the cell says that a parameter starts."""
        return self.graph.init_of(param)

    def start_of(self, param: Param) -> str:
        """How a matrix starts unless its cell says otherwise: orthogonal if it meets a state."""
        acting = {param.name}
        for other in self.made.values():
            if other.made is not None and any(node.attr == param.name for node in toposort([other.made])):
                acting.add(other.name)
        nodes = [node for node in self.graph.nodes if node.op == "matmul" and node.attr[0] in acting]
        return "orthogonal" if any(node in self.graph.depends for node in nodes) else "glorot"

    @property
    def side_arguments(self) -> str:
        """The side inputs as further arguments, by name."""
        named = "".join(f", {self.inputs[name]}{'=None' * bool(self.default(name))}" for name in self.side)
        return f", *{named}" if named else ""

    @property
    def side_line(self) -> str:
        """What the side inputs are, each on a line."""
        lines = []
        for name in self.side:
            size = self.graph.inputs[name].size
            shape = "[B, T]" if size is None else f"[B, T, {self.size(str(size))}]"
            default = f", {self.default(name)} unless given" if self.default(name) else ""
            drawn = " (drawn at random in training; this is its mean)" if name in self.graph.draws else ""
            lines.append(f"\n{self.inputs[name]}: {shape}{default}{drawn}.")
        return "".join(lines)

    @property
    def side(self) -> list[str]:
        return [name for name in self.graph.inputs if name != "x"]

    @property
    def order(self) -> list[Expr]:
        """The values that have a name, in the order in which to write them: those made of inputs alone come first,
        then those made of these, and so on; side by side what stands side by side."""
        level: dict[Expr, int] = {}
        for node in toposort([*self.made_labels(), *self.graph.roots]):
            level[node] = max((level[arg] + (arg in self.labels) for arg in node.args), default=0)
        return sorted((node for node in self.labels if node in level), key=level.__getitem__)

    @cached_property
    def written(self) -> list[Expr]:
        """All values of the step in the order in which they are written."""
        return toposort([*self.order, *self.graph.roots])

    def size(self, name: str) -> str:
        """What the length of an axis is called."""
        if name not in self._sizes:
            self._sizes[name] = self.names.fresh(f"{name}_size")
        return self._sizes[name]

    def width(self, size: Size | None) -> str:
        return "1" if size is None else self.size(str(size))

    def shape(self, param: Param) -> list[str]:
        """The shape of the array that holds a parameter."""
        lengths = [self.size(str(size)) for size in param.sizes]
        return [
            *lengths[:1],
            *(f"{length} // {param.blocks}" if param.blocks > 1 else length for length in lengths[1:]),
        ]

    def default(self, name: str) -> str:
        """What a side input is at every step if it is not given; empty if it must be given."""
        if name in self.graph.draws:
            return f"{self.graph.draws[name].mean!r}"
        return f"{self.graph.start[name]!r}" if name in self.graph.start else ""

    def small(self) -> dict[str, int]:
        """Small lengths, each another, that block-diagonal matrices can be divided into."""
        found: dict[str, int] = {}
        for k, name in enumerate(self.graph.size_names):
            parts = [p.blocks for p in self.graph.params.values() if name in [str(size) for size in p.sizes]]
            part = math.lcm(*parts)
            found[name] = -(-(3 + k) // part) * part
        return found

    def hint(self, node: Expr) -> str:
        """A name for a value that has none: by what it is made of, or by what is made of it."""
        users = self.users.get(node, [])
        names = [self._short(arg) for arg in node.args]
        if node in composites and (name := self._short(composites[node].arg)):
            return f"{composites[node].function}_{name}"
        match node.op:
            case "matmul":
                return f"{self.params[node.attr[0]]}_{names[0]}" if names[0] else "product"
            case "mul" if all(names) and sum(map(len, names)) < 12:
                return "_".join(names)
            case "div" if node.size is None and node.args[1].op in ("count", "mul"):
                return "mean"
            case "sub" if node.size is not None and node.args[1].size is None and node.args[1].args:
                return "shifted"
            case "add" | "sub":
                made = [users[0]] if len(users) == 1 and len(users[0].args) == 1 else []
                made += [user for user in self.labels if user in composites and composites[user].arg is node]
                known = [
                    self.labels[user].removesuffix("_new").removesuffix("_t") for user in made if user in self.labels
                ]
                return f"a_{known[0]}" if known else "a"
        if len(node.args) == 1 and len(names[0]) < 20:
            return f"{node.op}_{names[0] or 'a'}"
        return node.op if not node.args else "v"

    def _short(self, node: Expr) -> str:
        if node in self.labels:
            return self.labels[node]
        if node.op in ("input", "state"):
            return str(node.attr)
        return self.params[node.attr] if node.op == "vector" else ""

    def _named(self) -> dict[Expr, str]:
        state_of = {node: name for name, node in reversed(self.graph.new.items())}
        reachable = set(self.graph.nodes)
        labels: dict[Expr, str] = {}
        for node, name in self.graph.names.items():
            if node in reachable and node.args:
                if node in state_of:
                    name = f"{self.states[state_of[node]]}_new"
                elif node is self.graph.outputs.get("y") and name == "y":
                    name = f"{self.y}_t"
                labels[node] = self.names.fresh(name)
        return labels


def bare(node: Expr) -> Expr:
    """What is repeated along the features."""
    while node.op == "spread":
        node = node.args[0]
    return node


def is_zero(node: Expr) -> bool:
    return bare(node) is const(0)


def _param_name(param: Param) -> str:
    if param.made is None or param.family.isidentifier():
        return param.name
    return f"M_{param.slot}" if param.slot else "M"
