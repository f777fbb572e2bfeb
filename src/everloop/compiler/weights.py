"""The gradient of weights through what is done to them before they are used: `U - U.T`, `expm(A)`, `A @ B`.

A matrix that is made of others enters the step like any other; back-propagation through time gives its gradient.
These formulas carry that gradient on to the matrices which a layer holds.
"""

from __future__ import annotations

from everloop.lang.expr import ELEMENTWISE, Expr, Shape, apply, toposort
from everloop.lang.graph import Graph
from everloop.lang.ops import GRADIENT


def through_made(graph: Graph) -> dict[str, Expr]:
    """Held matrix -> the formula of what the made ones add to its gradient, where any is made of it.

    In the formula, the matrix `d:M` is the gradient of the made matrix M, and `frechet(A, G)` the derivative of the
    matrix exponential at A in the direction G (Al-Mohy, Higham 2009).
    """
    found: dict[str, Expr] = {}
    for name, param in graph.params.items():
        if param.made is None:
            continue
        for held, gradient in _reverse(param.made, Expr("matrix", (), f"d:{name}", param.made.size)).items():
            found[held] = apply("add", found[held], gradient) if held in found else gradient
    return found


def _reverse(formula: Expr, gradient: Expr) -> dict[str, Expr]:
    """Reverse mode over one formula: the gradient of each matrix that it is made of."""
    grads = {formula: gradient}
    for node in reversed(toposort([formula])):
        if node not in grads or not node.args:
            continue
        for arg, part in zip(node.args, _rule(node, grads[node]), strict=True):
            if part is not None and isinstance(arg.size, Shape):
                grads[arg] = apply("add", grads[arg], part) if arg in grads else part
    return {node.attr: grad for node, grad in grads.items() if node.op == "matrix"}


def _rule(node: Expr, g: Expr) -> tuple[Expr | None, ...]:
    if node.op in ELEMENTWISE:
        return GRADIENT[node.op](g, node, *node.args)
    match node.op, node.args:
        case "transpose", (_,):
            return (transposed(g),)
        case "compose", (a, b):
            return _compose(g, transposed(b)), _compose(transposed(a), g)
        case "expm", (a,):
            return (Expr("frechet", (transposed(a), g), None, a.size),)
    raise TypeError(f"{node.op} has no gradient rule for matrices")


def transposed(matrix: Expr) -> Expr:
    if matrix.op == "transpose":
        return matrix.args[0]
    if matrix.op == "neg":
        return apply("neg", transposed(matrix.args[0]))
    shape = matrix.size
    assert isinstance(shape, Shape)
    return Expr("transpose", (matrix,), None, Shape(shape.columns, shape.rows))


def _compose(a: Expr, b: Expr) -> Expr:
    assert isinstance(a.size, Shape)
    assert isinstance(b.size, Shape)
    return Expr("compose", (a, b), None, Shape(a.size.rows, b.size.columns))
