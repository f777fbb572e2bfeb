"""A stack of layers as one step: graphs put one on top of the other, each taking the output of the one below as x, or
those of several below, side by side.

What is put together need not be a cell. The scaling of an input and the layer that reads an output off the units are
graphs as well, without states, so that a whole trained model is one graph, and one call per time step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from everloop.compiler.check import check
from everloop.lang.expr import (
    ELEMENTWISE,
    Expr,
    Shape,
    Size,
    apply,
    const,
    count,
    rebuild,
    same_size,
    spread,
    toposort,
)
from everloop.lang.functions import carry_composites
from everloop.lang.graph import Graph
from everloop.lang.param import Param


def compose(graphs: Sequence[Graph], names: Sequence[str] | None = None, takes: Sequence[int] | None = None) -> Graph:
    """One graph of several, the lowest first.

    names: what each is called (0, 1, 2 ... unless given). States, parameters and sizes carry it in front: `0.h`,
    `1.W.i`, `1.hidden`; so do named values. The size of the lowest input stays `input`. Side inputs are shared by name,
    unless they differ in size, as one that is as wide as the input of each layer: then a layer has its own, `1.mask`.
    takes: how many of the outputs below each takes as its x (1 unless given), the nearest ones, side by side with the
    lowest first; the lowest of all is x itself. The size of what several make together is `1.input`.
    Inputs that a layer draws at random in training are their means: the result is for running, not for training.
    """
    called = [str(k) for k in range(len(graphs))] if names is None else list(names)
    if not graphs:
        raise TypeError("compose: no graph came; expected one or more, the lowest first")
    if len(called) != len(graphs) or len(set(called)) != len(called):
        raise TypeError(f"compose: the names {', '.join(called)} came for {len(graphs)} graphs; expected one for each")
    taken = [1] * len(graphs) if takes is None else list(takes)
    if len(taken) != len(graphs) or not all(1 <= take <= place + 1 for place, take in enumerate(taken)):
        raise TypeError(f"compose: takes {taken} came; expected for each graph 1 or more, up to all that is below it")
    stack = _Stack(Expr("input", (), "x", Size("input")))
    for name, graph, take in zip(called, graphs, taken, strict=True):
        _Layer(name, graph, stack, stack.outputs[-take:]).put()
    return check(
        Graph(
            " + ".join(graph.name for graph in graphs),
            {"x": stack.bottom, **stack.side},
            stack.states,
            stack.params,
            stack.new,
            {"y": stack.outputs[-1]},
            stack.start | stack.side_start(),
            stack.names,
            {},
            stack.init,
            stack.sizes,
        )
    )


def joint_sizes(graph: Graph, sizes: Sequence[Mapping[str, int]], names: Sequence[str] | None = None) -> dict[str, int]:
    """The lengths of the sizes of a composed graph, from those of the layers that it is made of."""
    called = [str(k) for k in range(len(sizes))] if names is None else names
    found = {"input": sizes[0]["input"]}
    for name, lengths in zip(called, sizes, strict=True):
        found |= {f"{name}.{size}": length for size, length in lengths.items()}
    return {name: found[name] for name in dict.fromkeys(["input", *graph.size_names])}


def readout() -> Graph:
    """V @ x + c: what reads an output off the units, as a graph without states. Its size is called output."""
    x = Expr("input", (), "x", Size("input"))
    rows = Size("output")
    params = {"V": Param("V", "", (rows, x.size)), "c": Param("c", "", (rows,))}  # type: ignore[arg-type]
    y = apply("add", Expr("matmul", (x,), ("V",), rows), Expr("vector", (), "c", rows))
    return check(Graph("readout", {"x": x}, {}, params, {}, {"y": y}, names={y: "y"}))


def scaling() -> Graph:
    """(x - mean) / scale, feature by feature, as a graph without states."""
    x = Expr("input", (), "x", Size("input"))
    assert x.size is not None
    params = {name: Param(name, "", (x.size,)) for name in ("mean", "scale")}
    mean, scale = (Expr("vector", (), name, x.size) for name in params)
    y = apply("div", apply("sub", x, mean), scale)
    return check(Graph("scaling", {"x": x}, {}, params, {}, {"y": y}, names={y: "y"}))


@dataclass
class _Stack:
    """What has been put together so far. `outputs`: x, and what each layer makes, the lowest first."""

    bottom: Expr
    side: dict[str, Expr] = field(default_factory=dict)
    states: dict[str, Expr] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    new: dict[str, Expr] = field(default_factory=dict)
    start: dict[str, float] = field(default_factory=dict)
    names: dict[Expr, str] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    given: dict[str, set[float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outputs = [self.bottom]

    def side_start(self) -> dict[str, float]:
        """What side inputs are if they are not given: where the layers disagree, they must be."""
        agreed = {name: next(iter(values)) for name, values in self.given.items() if len(values) == 1}
        return {name: value for name, value in agreed.items() if value is not None}


class _Layer:
    """One graph on its way into a stack: every size, parameter and state made anew under a name of its own.

    below: the vectors that are its x, side by side.
    """

    def __init__(self, name: str, graph: Graph, stack: _Stack, below: Sequence[Expr]) -> None:
        self.name, self.graph, self.stack = name, graph, stack
        x = graph.inputs["x"].size
        sizes = [value.size for value in below if value.size is not None]
        if x is None or len(sizes) < len(below):
            raise TypeError(f"compose: {graph.name} ({name}) takes a vector of features; one number per row came")
        self.fresh: dict[Size, Size] = {x.root(): sizes[0]} if len(below) == 1 else {}
        self.params = {param.name: param for param in map(self.param, graph.params.values())}
        self.beside = SideBySide(name, below, self.size(x), self.params.values()) if len(below) > 1 else None
        self.x = self.beside.value if self.beside else below[0]

    def put(self) -> None:
        graph, stack = self.graph, self.stack
        stack.params |= self.params
        done: dict[Expr, Expr] = {graph.inputs["x"]: self.x}
        done |= {leaf: self.side(name, leaf) for name, leaf in graph.inputs.items() if name != "x"}
        for node in graph.nodes:
            if node not in done:
                done[node] = self.made(node, done)
        carry_composites(done)
        for name, leaf in graph.states.items():
            stack.states[f"{self.name}.{name}"] = self.leaf(leaf)
            stack.new[f"{self.name}.{name}"] = self.sized(graph.new[name], done[graph.new[name]])
            stack.start[f"{self.name}.{name}"] = graph.start.get(name, 0.0)
        for node, name in graph.names.items():
            if node in done and done[node].args:
                stack.names.setdefault(done[node], f"{self.name}.{name}")
        stack.init |= {f"{self.name}.{name}": value for name, value in graph.init.items()}
        stack.sizes |= {f"{self.name}.{name}": value for name, value in graph.sizes.items()}
        output = graph.outputs["y"]
        stack.outputs.append(self.sized(output, done[output]))
        if self.beside:
            stack.params |= self.beside.read_by([stack.outputs[-1], *stack.new.values()])

    def size(self, size: Size) -> Size:
        """The size that stands for one of the layer's own."""
        if isinstance(size, Shape):
            return Shape(self.size(size.rows), self.size(size.columns))
        if size.root() not in self.fresh:
            self.fresh[size.root()] = Size(f"{self.name}.{size}")
        return self.fresh[size.root()]

    def leaf(self, node: Expr) -> Expr:
        size = None if node.size is None else self.size(node.size)
        return Expr(node.op, (), f"{self.name}.{node.attr}", size)

    def param(self, param: Param) -> Param:
        sizes = tuple(self.size(size) for size in param.sizes)
        made = None if param.made is None else self.formula(param.made)
        return replace(param, family=f"{self.name}.{param.family}", sizes=sizes, made=made)

    def formula(self, made: Expr) -> Expr:
        """A matrix made of others, of those of this layer."""
        done: dict[Expr, Expr] = {}
        for node in toposort([made]):
            done[node] = (
                self.leaf(node) if node.op == "matrix" else self.rebuilt(node, [done[arg] for arg in node.args])
            )
        return done[made]

    def side(self, name: str, leaf: Expr) -> Expr:
        """A side input, the same for all layers that have one of that name and size; a drawn one is its mean."""
        if name in self.graph.draws:
            return const(self.graph.draws[name].mean)
        size = None if leaf.size is None else self.size(leaf.size)
        if name in self.stack.side and not same_size(self.stack.side[name].size, size):
            name = f"{self.name}.{name}"
        self.stack.given.setdefault(name, set()).add(self.graph.start.get(leaf.attr))
        return self.stack.side.setdefault(name, Expr("input", (), name, size))

    def made(self, node: Expr, done: Mapping[Expr, Expr]) -> Expr:
        if node.op in ("state", "vector"):
            return self.leaf(node)
        args = [done[arg] for arg in node.args]
        if self.beside and node.op == "matmul" and args[0] is self.x:
            matrix = f"{self.name}.{node.attr[0]}"
            if matrix in self.beside.products:
                return self.beside.products[matrix]
        if node.op not in ELEMENTWISE:
            args = [self.sized(old, new) for old, new in zip(node.args, args, strict=True)]
        return self.rebuilt(node, args)

    def rebuilt(self, node: Expr, args: Sequence[Expr]) -> Expr:
        """The same operation on the layer's new values."""
        if node.op in ELEMENTWISE:
            return rebuild(node, tuple(args))
        attr = node.attr
        if node.op in ("matmul", "matmul_t"):
            attr = tuple(f"{self.name}.{name}" for name in node.attr)
        elif node.op == "count":
            attr = self.size(node.attr)
        return Expr(node.op, tuple(args), attr, None if node.size is None else self.size(node.size))

    def sized(self, old: Expr, new: Expr) -> Expr:
        """A mean that took the place of a vector is one number: repeated where a vector is needed."""
        return spread(new, self.size(old.size)) if old.size is not None and new.size is None else new


class SideBySide:
    """Several vectors as one. The language has no such operation, but matrices that put each in its place.

    A product with what they make is one of each with the columns of the matrix that belong to it: `products`, by the
    names of the matrices. Those that are block-diagonal have no such columns.
    """

    def __init__(self, name: str, vectors: Sequence[Expr], size: Size, params: Iterable[Param]) -> None:
        self._vectors, self._params = vectors, dict[str, Param]()
        places = _places([vector.size for vector in vectors if vector.size is not None], size)
        self.value = self._sum(f"{name}.place", "", size, places)
        self.products = {
            param.name: self._sum(param.family, param.slot, param.sizes[0], [_times(param, place) for place in places])
            for param in params
            if param.is_matrix and param.blocks == 1 and same_size(param.sizes[1], size)
        }

    def read_by(self, roots: Sequence[Expr]) -> dict[str, Param]:
        """The parameters made here that some values need."""
        read = {name for node in toposort(roots) if node.op == "matmul" for name in node.attr}
        return {name: param for name, param in self._params.items() if name in read}

    def _sum(self, family: str, slot: str, rows: Size, matrices: Sequence[Expr]) -> Expr:
        """Each matrix times its vector, added up."""
        products = []
        for k, (made, vector) in enumerate(zip(matrices, self._vectors, strict=True)):
            param = Param(f"{family}[{k}]", slot, (rows, _shape(made).columns), made=made)
            self._params[param.name] = param
            products.append(Expr("matmul", (vector,), (param.name,), rows))
        return reduce(lambda total, product: apply("add", total, product), products)


def _places(sizes: Sequence[Size], whole: Size) -> list[Expr]:
    """The matrices that put vectors of these sizes behind each other: a 1 in each column."""
    places, begin = [], const(0)
    for size in sizes:
        shape = Shape(whole, size)
        row, down = Expr("row", (), None, shape), apply("add", Expr("column", (), None, shape), begin)
        places.append(apply("mul", apply("ge", row, down), apply("ge", down, row)))
        begin = apply("add", begin, count(size))
    return places


def _times(matrix: Param, place: Expr) -> Expr:
    """The columns of a matrix that belong to a place."""
    rows, columns = matrix.sizes
    held = Expr("matrix", (), matrix.name, Shape(rows, columns))
    whole = held if matrix.made is None else matrix.made
    return Expr("compose", (whole, place), None, Shape(rows, _shape(place).columns))


def _shape(matrix: Expr) -> Shape:
    assert isinstance(matrix.size, Shape)
    return matrix.size
