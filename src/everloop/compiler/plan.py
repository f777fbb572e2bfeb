"""Scheduling facts, found from the dataflow: what runs before, in and after the loop, and the loop's kind.

    before   no state reaches it: computed for all time steps at once
    loop     a state reaches it and a new state needs it: computed step by step, in stages
    after    a state reaches it and no new state needs it: computed for all time steps at once, at the end

A stage is one round of matrix products and the elementwise work that follows them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from everloop.compiler.check import check
from everloop.compiler.simplify import simplify
from everloop.lang.expr import Expr, toposort
from everloop.lang.graph import Graph, reached

# Leaves that need no telling: every part of a plan knows its parameters and numbers.
NUMBERED = frozenset({"vector", "const", "count", "index"})

Kind = Literal["recurrent", "diagonal", "scan"]


@dataclass(frozen=True, eq=False)
class Product:
    """Matrices stacked over each other, times one vector (matmul) or one vector each, summed (matmul_t).

    results: the values that its blocks of rows are: the products themselves, or, where every one of them is
    only ever added to a value that is already there (`plus`), the sums.
    """

    op: Literal["matmul", "matmul_t"]
    matrices: tuple[str, ...]
    args: tuple[Expr, ...]
    results: tuple[Expr, ...]
    plus: tuple[Expr, ...] = ()


@dataclass(frozen=True, eq=False)
class Stage:
    """Matrix products that are ready at the same time, then elementwise work in order."""

    products: tuple[Product, ...]
    nodes: tuple[Expr, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """How a graph runs over time. `graph` is the simplified graph that the expressions belong to.

    early: the inputs of the graph that are states which need no past (compiler.ahead).
    """

    graph: Graph
    kind: Kind
    before: tuple[Stage, ...]
    stages: tuple[Stage, ...]
    after: tuple[Stage, ...]
    early: tuple[str, ...] = ()

    @cached_property
    def looped(self) -> frozenset[Expr]:
        """The values computed step by step, old states included."""
        inside = {node for stage in self.stages for node in _made(stage)}
        return frozenset(inside | set(self.graph.states.values()))

    @cached_property
    def _outside(self) -> list[Expr]:
        """What the loop reads and does not compute itself, parameters aside."""
        wanted = [arg for stage in self.stages for arg in _read(stage)] + list(self.graph.new.values())
        return [n for n in dict.fromkeys(wanted) if n not in self.looped and n.op not in NUMBERED]

    @cached_property
    def feeds(self) -> tuple[tuple[Expr, ...], ...]:
        """What the loop reads anew at every step, in packs that lie side by side in memory.

        A pack that a product is added to may hold vectors too, repeated, so that it is one array. No value is in
        two packs, or twice in one: it would be handed its gradient twice.
        """
        vectors = [node for node in self.graph.nodes if node.op == "vector"]
        per_row = self.graph.timed | {n for n in reached(self.graph.nodes, vectors) if n.size is None}
        outside = {node for node in self._outside if node in per_row}
        packs: list[tuple[Expr, ...]] = []
        packed: set[Expr] = set()
        for pack in (product.plus for stage in self.stages for product in stage.products):
            new = len({*pack} - packed) == len(pack)
            if new and any(n in outside for n in pack) and all(n in outside or n.op == "vector" for n in pack):
                packs.append(pack)
                packed.update(pack)
        single = [n for n in self._outside if n not in packed and n in outside]
        return (*packs, *((node,) for node in single))

    @cached_property
    def fixed(self) -> tuple[Expr, ...]:
        """What the loop reads that is the same at every step: vectors worked out from parameters, and numbers."""
        fed = {node for pack in self.feeds for node in pack}
        return tuple(node for node in self._outside if node not in fed)

    @cached_property
    def history(self) -> tuple[Expr, ...]:
        """The values of the loop that are needed for every step when it is over."""
        wanted = [arg for stage in self.after for arg in _read(stage)] + list(self.graph.outputs.values())
        return tuple(dict.fromkeys(node for node in wanted if node in self.looped))


def plan(graph: Graph) -> Plan:
    """Find the schedule of a graph."""
    graph = simplify(check(graph))
    needed = set(toposort(graph.new.values()))
    loop = [n for n in graph.nodes if n.args and n in graph.depends and n in needed]
    before = [n for n in graph.nodes if n.args and n not in graph.depends]
    after = [n for n in graph.nodes if n.args and n in graph.depends and n not in needed]
    uses = Counter(arg for node in graph.nodes for arg in node.args)
    uses.update(graph.roots)
    scheduled = [_schedule(nodes, graph, uses) for nodes in (before, loop, after)]
    return _checked(Plan(graph, _kind(graph, loop), scheduled[0], scheduled[1], scheduled[2]))


def _checked(schedule: Plan) -> Plan:
    """The plan itself, if nothing is read before it is made and all that is wanted is made; otherwise TypeError."""
    graph = schedule.graph
    made = {node for node in graph.nodes if not node.args}
    for stage in (*schedule.before, *schedule.stages, *schedule.after):
        for product in stage.products:
            _check_read((*product.args, *product.plus), made, graph)
            made.update(product.results)
        for node in stage.nodes:
            _check_read(node.args, made, graph)
            made.add(node)
    _check_read(graph.roots, made, graph)
    return schedule


def _check_read(nodes: Iterable[Expr], made: set[Expr], graph: Graph) -> None:
    for node in nodes:
        if node not in made:
            raise TypeError(f"{graph.name}: {graph.names.get(node, node)} is read before it is made")


def label(graph: Graph) -> dict[Expr, str]:
    """A readable name of its own for every value: the author's where there is one."""
    labels: dict[Expr, str] = {}
    taken = {*graph.inputs, *graph.states, *(param.family for param in graph.params.values())}
    for node in graph.nodes:
        if node.op in ("input", "state", "vector"):
            labels[node] = str(node.attr)
            continue
        wanted = graph.names.get(node, "t")
        name, k = (f"{wanted}'" if wanted in graph.states else wanted), 0
        while name in taken or name == "t":
            k += 1
            name = f"{wanted}{k}"
        taken.add(name)
        labels[node] = name
    return labels


def _made(stage: Stage) -> Iterable[Expr]:
    for product in stage.products:
        yield from product.results
    yield from stage.nodes


def _read(stage: Stage) -> Iterable[Expr]:
    for product in stage.products:
        yield from product.args
        yield from product.plus
    for node in stage.nodes:
        yield from node.args


def _schedule(nodes: list[Expr], graph: Graph, uses: Counter[Expr]) -> tuple[Stage, ...]:
    """Stages in order: a product waits for its vectors, elementwise work for the products before it."""
    inside = set(nodes)
    level: dict[Expr, int] = {}
    for node in nodes:
        deepest = max((level[arg] for arg in node.args if arg in inside), default=0)
        level[node] = deepest + 1 if node.op in ("matmul", "matmul_t") else deepest
    users: dict[Expr, list[Expr]] = {}
    for node in graph.nodes:
        for arg in node.args:
            users.setdefault(arg, []).append(node)
    stages: list[Stage] = []
    for depth in range(max(level.values(), default=-1) + 1):
        here = [node for node in nodes if level[node] == depth]
        products = _products([n for n in here if n.op in ("matmul", "matmul_t")], inside, level, users, uses, graph)
        made = {node for product in products for node in product.results}
        rest = tuple(n for n in here if n.op not in ("matmul", "matmul_t") and n not in made)
        if products or rest:
            stages.append(Stage(tuple(products), rest))
    return tuple(stages)


def _products(
    nodes: list[Expr],
    inside: set[Expr],
    level: dict[Expr, int],
    users: dict[Expr, list[Expr]],
    uses: Counter[Expr],
    graph: Graph,
) -> list[Product]:
    """Products of the same vector as one stacked product, each taking along the addition that follows it."""
    groups: dict[tuple, list[Expr]] = {}
    for node in nodes:
        key = (node.args, *_family_width(graph, node)) if node.op == "matmul" else (node,)
        groups.setdefault(key, []).append(node)
    products: list[Product] = []
    position = {name: k for k, name in enumerate(graph.params)}
    for group in groups.values():
        group.sort(key=lambda node: position[node.attr[0]])
        op = group[0].op
        matrices = tuple(name for node in group for name in node.attr)
        sums = [_addition(node, inside, level, users, uses) for node in group]
        if all(found is not None for found in sums):
            results, plus = zip(*(found for found in sums if found is not None), strict=True)
            products.append(Product(op, matrices, group[0].args, results, plus))  # type: ignore[arg-type]
        else:
            products.append(Product(op, matrices, group[0].args, tuple(group)))  # type: ignore[arg-type]
    return products


def _family_width(graph: Graph, node: Expr) -> tuple:
    param = graph.params[node.attr[0]]
    rows = param.sizes[0].root() if param.blocks > 1 else None
    return (param.family, param.sizes[1].root(), param.blocks, rows)


def _addition(
    node: Expr, inside: set[Expr], level: dict[Expr, int], users: dict[Expr, list[Expr]], uses: Counter[Expr]
) -> tuple[Expr, Expr] | None:
    """(the sum, what the product is added to) if the product is used only there and the rest is there already."""
    if uses[node] != 1 or len(users.get(node, ())) != 1:
        return None
    (user,) = users[node]
    if user.op != "add" or user not in inside or user.args[0] is user.args[1]:
        return None
    other = user.args[1] if user.args[0] is node else user.args[0]
    ready = other not in inside or level[other] < level[node]
    if other.size is None or not ready:
        return None
    return user, other


def _kind(graph: Graph, loop: list[Expr]) -> Kind:
    """recurrent: units meet inside the loop. scan: affine in the states, coefficients free of them. Else diagonal."""
    if any(node.op in ("matmul", "matmul_t", "sum", "max", "cumsum") for node in loop):
        return "recurrent"
    return "scan" if all(_is_affine(node, graph.depends) for node in loop) else "diagonal"


def _is_affine(node: Expr, depends: frozenset[Expr]) -> bool:
    """Whether a value is affine in the states, given that its arguments are."""
    bound = [arg in depends for arg in node.args]
    match node.op:
        case "add" | "sub" | "neg":
            return True
        case "mul":
            return not all(bound)
        case "div":
            return not bound[1]
    return False
