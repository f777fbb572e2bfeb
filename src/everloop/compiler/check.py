"""The checker that runs after every pass: a graph that breaks a rule of the language is a bug in the pass."""

from __future__ import annotations

from everloop.lang.expr import ELEMENTWISE, Expr, Shape, Size, same_size, toposort
from everloop.lang.graph import Graph
from everloop.lang.param import Param

LEAVES = frozenset({"input", "state", "vector", "const", "count", "index"})


def check(graph: Graph) -> Graph:
    """The graph itself, if every node obeys the rules; otherwise TypeError naming the node."""
    leaves = {*graph.inputs.values(), *graph.states.values()}
    for node in graph.nodes:
        problem = _problem(graph, node, leaves)
        if problem:
            raise TypeError(f"{graph.name}: {graph.names.get(node, node)}: {problem}")
    for param in graph.params.values():
        problem = _made(graph, param)
        if problem:
            raise TypeError(f"{graph.name}: {param.name}: {problem}")
    if graph.new.keys() != graph.states.keys():
        raise TypeError(f"{graph.name}: states {list(graph.states)} but new values of {list(graph.new)}")
    for name, node in graph.new.items():
        if not same_size(node.size, graph.states[name].size):
            raise TypeError(f"{graph.name}: the new {name} has size {node.size}, the old one {graph.states[name].size}")
    return graph


def _problem(graph: Graph, node: Expr, leaves: set[Expr]) -> str:
    if node.op in ("input", "state"):
        return "" if node in leaves else f"the {node.op} {node.attr} is not declared"
    if node.op == "vector":
        known = node.attr in graph.params and same_size(graph.params[node.attr].sizes[0], node.size)
        return "" if known else f"no vector {node.attr} of size {node.size} is declared"
    if node.op in LEAVES:
        return "" if not node.args else "a leaf has no arguments"
    if node.op in ELEMENTWISE:
        return _elementwise(node)
    match node.op, node.args:
        case ("sum" | "max", (arg,)):
            return "" if node.size is None and arg.size is not None else f"{node.op} makes one number of a vector"
        case ("cumsum", (arg,)):
            return "" if node.size is not None and same_size(arg.size, node.size) else "cumsum keeps a vector's size"
        case ("spread", (arg,)):
            return "" if node.size is not None and arg.size is None else "spread makes a vector of one number"
        case ("matmul" | "matmul_t", args) if args and len(args) == len(node.attr):
            return _product(graph, node)
    return f"no operation {node.op} of {len(node.args)} arguments"


def _made(graph: Graph, param: Param) -> str:
    """What is wrong with the formula of a matrix that is made of others."""
    if param.made is None:
        return ""
    if not isinstance(param.made.size, Shape):
        return "its formula does not make a matrix"
    for node in toposort([param.made]):
        if node.op in ELEMENTWISE:
            problem = _elementwise(node)
            if problem:
                return problem
        elif node.op == "matrix":
            held = graph.params.get(node.attr)
            if held is None or held.made is not None or held.blocks > 1:
                return f"{node.attr} is not a matrix that can be worked on"
        elif node.op not in ("const", "count", "row", "column", "transpose", "compose", "expm"):
            return f"{node.op} is no operation on matrices"
    return ""


def _elementwise(node: Expr) -> str:
    if len(node.args) != ELEMENTWISE[node.op]:
        return f"{node.op} takes {ELEMENTWISE[node.op]} arguments, not {len(node.args)}"
    sizes: list[Size | None] = [arg.size for arg in node.args if arg.size is not None]
    if any(not same_size(size, node.size) for size in sizes) or (not sizes and node.size is not None):
        return f"sizes {sizes} make {node.size}"
    return ""


def _product(graph: Graph, node: Expr) -> str:
    for name, arg in zip(node.attr, node.args, strict=True):
        if name not in graph.params or not graph.params[name].is_matrix:
            return f"no matrix {name} is declared"
        rows, columns = graph.params[name].sizes
        made, used = (rows, columns) if node.op == "matmul" else (columns, rows)
        if not same_size(made, node.size) or not same_size(used, arg.size):
            return f"{name} is {rows} x {columns}; it cannot make {node.size} of {arg.size}"
    return ""
