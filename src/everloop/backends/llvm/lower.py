"""From a graph to a program of passes: what is computed together, in which order, and where each value lies.

A program runs over chunks of time steps. For each chunk:

    before   what no state reaches and what wants all steps at once: matrix products, and what they are made of
    loop     the rest that a state reaches, step by step
    after    products (and reductions) of what the loop has made
    sums     gradients of matrices: sums of outer products over the rows and steps of the chunk

A pass goes once over the units of one axis: matrix products give tiles of them, and everything elementwise on that
axis follows while the tile is in registers. What runs over all units (a product, a sum) ends a pass for those that
wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from everloop.compiler.plan import label
from everloop.lang.expr import Expr, Size, toposort
from everloop.lang.graph import Graph

Where = Literal["outer", "keep", "slots", "pair", "chunk", "step", "once"]
PRODUCTS = ("matmul", "matmul_t")
FREE = ("const", "count", "index", "vector")
REDUCTIONS = ("sum", "max")
MOST_GATES = 8


class Unsupported(NotImplementedError):
    """A graph that these kernels do not run, and why."""


@dataclass(frozen=True, eq=False)
class Buffer:
    """Where a value lies, one row for each sequence and step.

    outer: an array of the caller, packed rows. keep: kept for the backward step, one row a step. slots: kept, with the
    rows before the first step too. pair: the old and the new state in turns. chunk: the steps of one chunk. step: one
    step. once: one row for all.
    """

    name: str
    where: Where
    width: int


@dataclass(frozen=True, eq=False)
class Segment:
    """One vector and the matrices that meet it, one for each result."""

    vector: Expr
    matrices: tuple[str, ...]
    length: int


@dataclass(frozen=True, eq=False)
class Group:
    """Matrix products with one tile: results[g] = sum over segments of matrices[g] @ vector (or transposed)."""

    results: tuple[Expr, ...]
    segments: tuple[Segment, ...]
    transposed: bool
    blocks: int


@dataclass(eq=False)
class Pass:
    """Once over an axis. width 0: only numbers, one per row."""

    width: int
    groups: list[Group] = field(default_factory=list)
    running: list[Expr] = field(default_factory=list)
    nodes: list[Expr] = field(default_factory=list)
    reductions: list[Expr] = field(default_factory=list)
    numbers: list[Expr] = field(default_factory=list)
    copies: list[Expr] = field(default_factory=list)

    @property
    def blocks(self) -> int:
        return max((group.blocks for group in self.groups), default=1)

    @property
    def made(self) -> list[Expr]:
        """Every value of the pass, in order."""
        results = [result for group in self.groups for result in group.results]
        return [*results, *self.running, *self.nodes, *self.reductions, *self.numbers, *self.copies]


@dataclass(frozen=True, eq=False)
class Outer:
    """matrix += sum over rows and steps of the outer products of two histories."""

    matrix: str
    rows: Expr
    columns: Expr


@dataclass(frozen=True, eq=False)
class Request:
    """What a program is to compute of a graph, and where it gets and puts it.

    backwards: from the last step to the first. inputs: those not given in arrays of the caller, but kept by the
    forward program. outer, keep: values to put into arrays of the caller, and to keep. sums: values to be added up
    over rows and steps, by the vector they are the gradient of. outers: gradients of matrices. places: where in one
    array the gradient of each parameter begins; gradients: how long that array is. shared: the units of a step are
    computed by several threads. single: steps come one by one, so that nothing is gained by products of the inputs
    worked out before. direct: there are so few rows that matrices are read as they lie; every block of sequences has a
    first step, and they all fall into one chunk.
    """

    graph: Graph
    sizes: Mapping[str, int]
    backwards: bool = False
    inputs: Mapping[str, Buffer] = field(default_factory=dict)
    outer: Mapping[str, Expr] = field(default_factory=dict)
    keep: Mapping[str, Expr] = field(default_factory=dict)
    sums: Mapping[str, Expr] = field(default_factory=dict)
    outers: tuple[Outer, ...] = ()
    places: Mapping[str, int] = field(default_factory=dict)
    gradients: int = 0
    shared: bool = False
    single: bool = False
    direct: bool = False

    @property
    def fresh(self) -> bool:
        """Whether gradients are written, and not added to what earlier chunks gave."""
        return self.direct and {*self.sums, *(outer.matrix for outer in self.outers)} == {*self.places}

    @property
    def roots(self) -> list[Expr]:
        pairs = [node for outer in self.outers for node in (outer.rows, outer.columns)]
        return [*self.outer.values(), *self.keep.values(), *self.sums.values(), *pairs, *self.graph.new.values()]


class Program:
    """The passes of each phase, and the buffers of every value."""

    def __init__(self, request: Request) -> None:
        request = _handed_on_in_the_loop(request)
        self.request, self.graph, self.sizes = request, request.graph, request.sizes
        self.nodes = toposort(request.roots)
        self.labels = label(request.graph)
        self.buffers: dict[Expr, list[Buffer]] = {}
        self.phase: dict[Expr, str] = {}
        self._phases()
        self.once = [node for node in self.nodes if self.phase.get(node) == "once"]
        self.before = self._passes("before")
        self.loop = self._passes("loop")
        self.after = self._passes("after")
        self.new: dict[str, Buffer] = {}
        self._place()

    def name(self, node: Expr) -> str:
        return self.labels.get(node, node.op)

    def width(self, node: Expr) -> int:
        return 1 if node.size is None else self.length(node.size)

    def length(self, size: Size) -> int:
        assert size.name is not None
        return self.sizes[size.name]

    @cached_property
    def inputs(self) -> dict[str, Buffer]:
        """The arrays of the caller that are read."""
        return {node.attr: self.buffers[node][0] for node in self.nodes if node.op == "input" and self._outer(node)}

    def _outer(self, node: Expr) -> bool:
        return self.buffers[node][0].where == "outer"

    def passes(self) -> Iterable[tuple[str, Pass]]:
        for phase, found in (("before", self.before), ("loop", self.loop), ("after", self.after)):
            yield from ((phase, one) for one in found)

    # Which phase each value belongs to.

    def _phases(self) -> None:
        leaves = {node for node in self.nodes if node.op in ("input", "state")}
        states = {node for node in self.nodes if node.op == "state"}
        timed, bound = _reached(self.nodes, leaves), _reached(self.nodes, states)
        needed = set(toposort(self.graph.new.values()))
        inner = [node for node in self.nodes if node.args]
        early = _above([n for n in inner if n in timed and n not in bound and _wants_all_steps(n)])
        late = _reached(inner, {n for n in inner if n in bound and n not in needed and _wants_all_steps(n)})
        for node in inner:
            if node not in timed:
                self.phase[node] = "once"
                if node.op in (*PRODUCTS, *REDUCTIONS, "cumsum"):
                    raise Unsupported(f"{self.name(node)}: {node.op} of parameters alone")
            elif node in early and not self.request.single:
                self.phase[node] = "before"
            elif node in late and node not in needed:
                self.phase[node] = "after"
            else:
                self.phase[node] = "loop"
        # What only the last phase needs, and no state reaches, waits for it.
        users = _users(self.nodes)
        roots = set(self.request.roots)
        for node in reversed(inner):
            if self.phase[node] == "loop" and node not in bound and node not in roots:
                found = users.get(node, [])
                if found and all(self.phase[user] == "after" for user in found):
                    self.phase[node] = "after"

    # The passes of a phase.

    def _passes(self, phase: str) -> list[Pass]:
        nodes = [node for node in self.nodes if self.phase.get(node) == phase]
        levels = self._levels(nodes)
        found: dict[tuple[int, Size | None], Pass] = {}

        def at(level: int, size: Size | None) -> Pass:
            key = (level, None if size is None else size.root())
            if key not in found:
                found[key] = Pass(0 if size is None else self.length(size))
            return found[key]

        for node in nodes:
            level = levels[node]
            if node.op in PRODUCTS:
                at(level, node.size)
            elif node.op in REDUCTIONS:
                at(level, node.args[0].size).reductions.append(node)
            elif node.size is None:
                at(level, None).numbers.append(node)
            elif node.op == "cumsum":
                at(level, node.size).running.append(node)
            else:
                at(level, node.size).nodes.append(node)
        for (level, size), one in found.items():
            if size is not None:
                same = [n for n in nodes if n.op in PRODUCTS and levels[n] == level and _root(n) is size]
                one.groups = self._groups(same)
                if len({group.blocks for group in one.groups if group.blocks > 1}) > 1:
                    raise Unsupported("matrices in different numbers of blocks meet in one step")
        # Numbers, one per row, come last of their level: they may be made of its sums.
        order = sorted(found, key=lambda key: (key[0], key[1] is None))
        return [found[key] for key in order]

    def _levels(self, nodes: list[Expr]) -> dict[Expr, int]:
        """The round in which a value is ready: one later than the whole of what it needs the whole of."""
        inside = set(nodes)
        levels: dict[Expr, int] = {}
        for node in nodes:
            args = [arg for arg in node.args if arg in inside]
            if node.op in (*PRODUCTS, "cumsum"):
                levels[node] = max((levels[arg] + 1 for arg in args), default=0)
            elif node.size is None and node.op not in REDUCTIONS:
                levels[node] = max((levels[arg] for arg in args), default=-1)
            else:
                levels[node] = max((levels[arg] + (arg.size is None) for arg in args), default=0)
        self._postpone(nodes, levels)
        return levels

    def _postpone(self, nodes: list[Expr], levels: dict[Expr, int]) -> None:
        """What no state reaches is worked out where it is first used."""
        bound = _reached(self.nodes, {node for node in self.nodes if node.op == "state"})
        users = _users(self.nodes)
        inside, roots = set(nodes), set(self.request.roots)
        for node in reversed(nodes):
            if node in bound or node in roots or node.op in (*PRODUCTS, *REDUCTIONS, "cumsum"):
                continue
            found = [user for user in users.get(node, []) if user in inside]
            if not found or len(found) < len(users.get(node, [])):
                continue
            levels[node] = max(levels[node], min(levels[user] - self._waits(user, node) for user in found))

    @staticmethod
    def _waits(user: Expr, node: Expr) -> int:
        if user.op in (*PRODUCTS, "cumsum"):
            return 1
        return int(node.size is None and not (user.size is None and user.op not in REDUCTIONS))

    def _groups(self, nodes: list[Expr]) -> list[Group]:
        """Products of the same vectors share a tile."""
        groups: dict[tuple, list[Expr]] = {}
        for node in nodes:
            groups.setdefault((node.op, node.args, self._blocks(node)), []).append(node)
        found = []
        for (op, args, blocks), members in groups.items():
            for start in range(0, len(members), MOST_GATES):
                part = tuple(members[start : start + MOST_GATES])
                segments = tuple(
                    Segment(arg, tuple(node.attr[k] for node in part), self.width(arg) // blocks)
                    for k, arg in enumerate(args)
                )
                found.append(Group(part, segments, op == "matmul_t", blocks))
        return found

    def _blocks(self, node: Expr) -> int:
        found = {self.graph.params[name].blocks for name in node.attr}
        if len(found) > 1:
            raise Unsupported("matrices in different numbers of blocks are summed")
        return found.pop()

    # Where each value lies.

    def _place(self) -> None:
        request = self.request
        for node in self.nodes:
            if node.op == "input":
                given = request.inputs.get(node.attr)
                self.buffers[node] = [given or Buffer(node.attr, "outer", self.width(node))]
        kept_states = {node for node in request.keep.values() if node.op == "state"}
        for name, leaf in self.graph.states.items():
            where: Where = "slots" if leaf in kept_states else "pair"
            keep_name = next((k for k, node in request.keep.items() if node is leaf), name)
            self.new[name] = Buffer(keep_name, where, self.width(leaf))
            self.buffers[leaf] = [self.new[name]]
        self.outers = {name: Buffer(name, "outer", self.width(node)) for name, node in request.outer.items()}
        self.kept = {
            name: Buffer(name, "keep", self.width(node)) for name, node in request.keep.items() if node.op != "state"
        }
        self.kept |= {buffer.name: buffer for buffer in self.new.values() if buffer.where == "slots"}
        self.targets: dict[Expr, list[Buffer]] = {}
        for name, node in request.keep.items():
            if node.op != "state":
                self._target(node, self.kept[name])
        for name, node in request.outer.items():
            self._target(node, self.outers[name])
        for name, node in self.graph.new.items():
            self._target(node, self.new[name])
        for node in request.sums.values():
            if not node.args or self.phase[node] == "once":
                self._copy(node)
        for node in self.once:
            self.buffers[node] = [Buffer(self.name(node), "once", self.width(node))]
        self._carry()

    def _target(self, node: Expr, buffer: Buffer) -> None:
        self.targets.setdefault(node, []).append(buffer)
        if not node.args or self.phase[node] == "once":
            self._copy(node)

    def _copy(self, node: Expr) -> None:
        """A value that no pass makes is put where it is wanted by the first pass over its axis."""
        one = self._first_pass(node.size)
        if node not in one.copies:
            one.copies.append(node)

    def _first_pass(self, size: Size | None) -> Pass:
        width = 0 if size is None else self.length(size)
        for one in self.loop:
            if one.width == width:
                return one
        self.loop.insert(0, Pass(width))
        return self.loop[0]

    def _carry(self) -> None:
        """Give a buffer to whatever is read outside the pass that makes it."""
        for phase, one in self.passes():
            inside = set(one.made)
            for group in one.groups:
                for segment in group.segments:
                    self._readable(segment.vector, phase, whole=True)
            for node in one.running:
                self._readable(node.args[0], phase, whole=True)
                self._readable(node, phase)
            for node in (*one.nodes, *one.reductions, *one.numbers):
                for arg in node.args:
                    if arg not in inside:
                        self._readable(arg, phase)
            for node in one.reductions:
                self._readable(node, phase)
        for outer in self.request.outers:
            self._readable(outer.rows, "sums", whole=True)
            self._readable(outer.columns, "sums", whole=True)

    def _readable(self, node: Expr, phase: str, *, whole: bool = False) -> None:
        """Make sure that a value can be read in a phase; whole: as rows in memory."""
        if node.op in FREE or self.phase.get(node) == "once":
            if not whole:
                return
            if phase in ("before", "loop"):
                raise Unsupported(f"{self.name(node)}: a product of what is the same at every step")
            if not any(buffer.where == "chunk" for buffer in self.targets.get(node, [])):
                self._target(node, Buffer(self.name(node), "chunk", self.width(node)))
            return
        if self.find(node, phase) is not None:
            return
        crossing = phase != self.phase.get(node, "loop") or phase in ("before", "after")
        self._target(node, Buffer(self.name(node), "chunk" if crossing else "step", self.width(node)))

    def find(self, node: Expr, phase: str) -> Buffer | None:
        """A buffer from which a value can be read in a phase."""
        lasting = phase != "loop"
        for buffer in (*self.buffers.get(node, []), *self.targets.get(node, [])):
            if not (lasting and buffer.where in ("pair", "step")):
                return buffer
        return None


def _handed_on_in_the_loop(request: Request) -> Request:
    """The same with new states that no state reaches passed on step by step, wherever they are worked out."""
    graph = request.graph
    new = {
        name: Expr("stop", (node,), None, node.size) if node.args and node not in graph.depends else node
        for name, node in graph.new.items()
    }
    return replace(request, graph=replace(graph, new=new))


def _root(node: Expr) -> Size | None:
    return None if node.size is None else node.size.root()


def _wants_all_steps(node: Expr) -> bool:
    """Products and reductions of what is known: better for many rows at once."""
    return node.op in (*PRODUCTS, *REDUCTIONS, "cumsum")


def _above(nodes: Iterable[Expr]) -> set[Expr]:
    return {node for node in toposort(nodes) if node.args}


def _reached(nodes: Iterable[Expr], leaves: set[Expr]) -> set[Expr]:
    found = set(leaves)
    for node in nodes:
        if any(arg in found for arg in node.args):
            found.add(node)
    return found


def _users(nodes: Iterable[Expr]) -> dict[Expr, list[Expr]]:
    users: dict[Expr, list[Expr]] = {}
    for node in nodes:
        for arg in node.args:
            users.setdefault(arg, []).append(node)
    return users
