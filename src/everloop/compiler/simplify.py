"""Put sums and products in the order in which the loop has least to do.

What needs no state is added up first (and so leaves the loop); then come the matrix products, those with
transposed members of one family as one; then the rest. Factors likewise: state-free ones are multiplied
together first. This moves additions and multiplications about, which changes results by rounding only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import reduce

from everloop.compiler.check import check
from everloop.lang.expr import Expr, const, rebuild, same_size
from everloop.lang.graph import Graph
from everloop.lang.param import Param


def simplify(graph: Graph) -> Graph:
    """The same graph, sums and products regrouped."""
    uses = Counter(arg for node in graph.nodes for arg in node.args)
    uses.update(graph.roots)
    done: dict[Expr, Expr] = {}
    free = set(graph.nodes) - graph.depends

    def is_free(node: Expr) -> bool:
        return node in free

    inner = _inside_sums(graph, uses)
    for node in graph.nodes:
        if node.op in ("add", "sub") and not is_free(node) and node not in inner:
            terms = _terms(node, uses, is_free)
            done[node] = _sum([(sign, done[term], is_free(term)) for sign, term in terms], graph.params)
        elif node.op == "mul" and not is_free(node):
            factors = _factors(node, uses, is_free)
            done[node] = _product([(done[factor], is_free(factor)) for factor in factors])
        else:
            done[node] = rebuild(node, tuple(done[arg] for arg in node.args))
    return check(graph.replace({node: new for node, new in done.items() if node is not new}))


def _inside_sums(graph: Graph, uses: Counter[Expr]) -> set[Expr]:
    """Sums that only another sum uses: their terms are regrouped there."""
    return {
        arg
        for node in graph.nodes
        if node.op in ("add", "sub") and node in graph.depends
        for arg in node.args
        if arg.op in ("add", "sub") and uses[arg] == 1 and same_size(arg.size, node.size)
    }


def _terms(node: Expr, uses: Counter[Expr], is_free: Callable[[Expr], bool]) -> list[tuple[int, Expr]]:
    """The terms of a sum with their signs, looking through inner sums that nothing else uses."""
    terms: list[tuple[int, Expr]] = []
    waiting = [(node, 1)]
    while waiting:
        part, sign = waiting.pop()
        inner = part.op in ("add", "sub", "neg") and (part is node or uses[part] == 1) and not is_free(part)
        if not inner or not same_size(part.size, node.size):
            terms.append((sign, part))
        elif part.op == "neg":
            waiting.append((part.args[0], -sign))
        else:
            waiting += [(part.args[1], sign if part.op == "add" else -sign), (part.args[0], sign)]
    return terms


def _factors(node: Expr, uses: Counter[Expr], is_free: Callable[[Expr], bool]) -> list[Expr]:
    factors: list[Expr] = []
    waiting = [node]
    while waiting:
        part = waiting.pop()
        inner = part.op == "mul" and (part is node or uses[part] == 1) and not is_free(part)
        if not inner or not same_size(part.size, node.size):
            factors.append(part)
        else:
            waiting += [part.args[1], part.args[0]]
    return factors


def _sum(terms: list[tuple[int, Expr, bool]], params: dict[str, Param]) -> Expr:
    free = [(sign, term) for sign, term, is_free in terms if is_free]
    bound = [(sign, term) for sign, term, is_free in terms if not is_free]
    products = [(sign, term) for sign, term in bound if term.op in ("matmul", "matmul_t")]
    rest = [(sign, term) for sign, term in bound if term.op not in ("matmul", "matmul_t")]
    return _add_up([*free, *_merge_transposed(products, params), *rest])


def _add_up(terms: list[tuple[int, Expr]]) -> Expr:
    """Left to right, starting from a positive term if there is one."""
    first = next((k for k, (sign, _) in enumerate(terms) if sign > 0), 0)
    ordered = [terms[first], *terms[:first], *terms[first + 1 :]]
    start = ordered[0][1] if ordered[0][0] > 0 else -ordered[0][1]
    return reduce(lambda total, term: total + term[1] if term[0] > 0 else total - term[1], ordered[1:], start)


def _merge_transposed(products: list[tuple[int, Expr]], params: dict[str, Param]) -> list[tuple[int, Expr]]:
    """The transposed members of one family, each times its own vector, as one product."""
    position = {name: k for k, name in enumerate(params)}
    groups: dict[tuple, list[Expr]] = {}
    for sign, node in products:
        param = params[node.attr[0]]
        groups.setdefault(
            (sign, node.op, param.family, param.blocks, param.sizes[0].root() if param.blocks > 1 else None), []
        ).append(node)
    merged: list[tuple[int, Expr]] = []
    for (sign, op, *_), nodes in groups.items():
        if op == "matmul_t" and len(nodes) > 1:
            parts = [part for node in nodes for part in zip(node.attr, node.args, strict=True)]
            names, args = zip(*sorted(parts, key=lambda part: position[part[0]]), strict=True)
            merged.append((sign, Expr(op, args, names, nodes[0].size)))
        else:
            merged.extend((sign, node) for node in nodes)
    return merged


def _product(factors: list[tuple[Expr, bool]]) -> Expr:
    ordered = [factor for factor, is_free in factors if is_free] + [
        factor for factor, is_free in factors if not is_free
    ]
    return reduce(lambda total, factor: total * factor, ordered, const(1))
