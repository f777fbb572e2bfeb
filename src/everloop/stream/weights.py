"""Parameters in NumPy: stacks cut into members and put together again, and matrices worked out of others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from everloop.lang.expr import Expr, Shape, Size, toposort
from everloop.lang.graph import Graph
from everloop.stream.spelling import SPELLING


def members(graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters that a graph holds by name (`W.i`), as views of the stacks that they lie in (`W`)."""
    _check_names(graph, weights)
    found: dict[str, np.ndarray] = {}
    for stack, params in graph.stacks.items():
        shapes = [param.shape(sizes) for param in params]
        expected = (sum(rows for rows, *_ in shapes), *shapes[0][1:])
        array = np.asarray(weights[stack])
        if array.shape != expected:
            raise ValueError(f"weights: {stack} of shape {array.shape} came; expected {expected} for {dict(sizes)}")
        ends = accumulate(rows for rows, *_ in shapes)
        found |= {
            param.name: array[end - rows : end] for param, (rows, *_), end in zip(params, shapes, ends, strict=True)
        }
    return found


def stacked(graph: Graph, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The stacks of a graph, from the parameters by name."""
    return {stack: np.concatenate([found[param.name] for param in params]) for stack, params in graph.stacks.items()}


def all_members(graph: Graph, sizes: Mapping[str, int], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters that a graph holds by name, and those made of them, worked out in float64."""
    held = members(graph, sizes, weights)
    made = {name: param.made for name, param in graph.params.items() if param.made is not None}
    return held | {name: make_matrix(formula, held, sizes) for name, formula in made.items()}


def make_matrix(formula: Expr, held: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> np.ndarray:
    """A matrix made of others [rows, columns], in float64."""
    assert isinstance(formula.size, Shape)
    values: dict[Expr, np.ndarray] = {}
    for node in toposort([formula]):
        match node.op:
            case "matrix":
                values[node] = held[node.attr].astype(np.float64)
            case "const":
                values[node] = np.float64(node.attr)  # type: ignore[assignment]
            case "count":
                values[node] = np.float64(length(node.attr, sizes))  # type: ignore[assignment]
            case "row" | "column":
                assert isinstance(node.size, Shape)
                shape = length(node.size.rows, sizes), length(node.size.columns, sizes)
                down, across = (np.arange(count, dtype=np.float64) for count in shape)
                values[node] = np.broadcast_to(down[:, None] if node.op == "row" else across, shape)
            case "compose":
                values[node] = _product(*(values[arg] for arg in node.args))
            case _:
                values[node] = SPELLING[node.op](*(values[arg] for arg in node.args))
    return values[formula]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b. Where b only picks columns, as for one of several vectors side by side, they are copied."""
    if np.count_nonzero(b) == b.shape[1]:
        columns, rows = b.T.nonzero()
        if (columns == np.arange(b.shape[1])).all() and (b[rows, columns] == 1).all():
            return a[:, rows]
    return SPELLING["compose"](a, b)


def length(size: Size | None, sizes: Mapping[str, int]) -> int:
    """The length of a feature axis; one number per row is one feature."""
    return 1 if size is None else sizes[str(size)]


def _check_names(graph: Graph, weights: Mapping[str, np.ndarray]) -> None:
    missing = [stack for stack in graph.stacks if stack not in weights]
    unknown = [stack for stack in weights if stack not in graph.stacks]
    if missing or unknown:
        wrong = f"{missing[0]} is missing" if missing else f"{unknown[0]!r} came"
        raise ValueError(f"weights: {wrong}; {graph.name} has {', '.join(graph.stacks) or 'none'}")
