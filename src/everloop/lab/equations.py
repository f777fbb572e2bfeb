"""The equations of a cell with the numbers of one unit at one step put in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from everloop.backends._values import make_matrix
from everloop.export.formula import LATEX, PRECEDENCE, Writer, distinct
from everloop.insight.alone import along
from everloop.insight.probe import values_of
from everloop.insight.recording import LayerRecord
from everloop.lab.arrays import number
from everloop.lang.expr import ELEMENTWISE, Expr, Shape, spread
from everloop.lang.functions import composites
from everloop.lang.graph import Graph

# Terms of a product that are written out; the others are one number.
TERMS = 5

PLACES = 3

# Side by side, a product of numbers has a point; the circle is for vectors.
OPS = LATEX.ops | {"mul": r"{} \cdot {}"}


@dataclass(frozen=True)
class Equation:
    """name: as the recording calls it; "" where nobody has named it. latex: in symbols, what is left and right of the
    equals sign. node: the value that it makes.
    """

    name: str
    left: str
    right: str
    node: Expr

    @property
    def latex(self) -> str:
        return f"{self.left} = {self.right}"


class Equations:
    """The equations of a layer that was recorded. step and unit count from 0."""

    def __init__(self, layer: LayerRecord) -> None:
        self.layer = layer
        self.graph = distinct(layer.cell.graph)
        self._writer = Writer(self.graph, LATEX)
        self._last: tuple[int, dict[int, np.ndarray]] = (-1, {})

    @cached_property
    def lines(self) -> list[Equation]:
        """In the order of `everloop show --as latex`."""
        graph, written = self.graph, self._writer
        found = [self._equation(node, written.labels[node], top=True) for node in written.shown]
        for name, node in graph.new.items():
            if written.labels.get(node) != LATEX.name(name):
                found.append(self._equation(node, LATEX.name(name), top=False))
        output = graph.outputs["y"]
        if written.labels.get(output) != "y" and output not in graph.new.values():
            found.append(self._equation(output, "y", top=False))
        return found

    def _equation(self, node: Expr, left: str, top: bool) -> Equation:
        return Equation(self._called(node), left, self._writer.write(node, top=top), node)

    def _called(self, node: Expr) -> str:
        """What the recording calls a value: of several of one name, it has one."""
        return next((name for name, known in values_of(self.layer.cell.graph).items() if known is node), "")

    def with_numbers(self, step: int, unit: int) -> list[dict[str, Any]]:
        """Each equation with its numbers; what makes a matrix, or a vector too short for the unit, in symbols only."""
        return [self._with_numbers(one, step, unit) for one in self.lines]

    def _with_numbers(self, one: Equation, step: int, unit: int) -> dict[str, Any]:
        shown: dict[str, Any] = {"name": one.name, "latex": one.latex}
        size = one.node.size
        if size is None or not (isinstance(size, Shape) or unit >= len(self.vector(one.node, step))):
            put = _Put(self, step, unit)
            return {**shown, "numbers_latex": put.text(one.node, top=True), "value": number(put.value(one.node))}
        return {**shown, "numbers_latex": None, "value": None}

    # Numbers

    def vector(self, node: Expr, step: int) -> np.ndarray:
        """The value of a node at a step: [F]; one number per row is [1]."""
        layer = self.layer
        match node.op:
            case "const":
                return np.array([node.attr], dtype=np.float64)
            case "count":
                return np.array([layer.sizes[node.attr.name]], dtype=np.float64)
            case "index":
                return np.arange(layer.sizes[str(node.size)], dtype=np.float64)
            case "vector":
                return layer.weights[node.attr]
            case "input":
                return layer.x[0, step] if node.attr == "x" else self._side(node)
            case "state":
                return self._old[node.attr][step]
        return self._made(step)[self.graph.nodes.index(node)]

    def _side(self, node: Expr) -> np.ndarray:
        """Side inputs have the cell's own value, and what is drawn its mean."""
        graph = self.graph
        value = graph.draws[node.attr].mean if node.attr in graph.draws else graph.start[node.attr]
        return np.full(1 if node.size is None else self.layer.sizes[str(node.size)], value)

    @cached_property
    def _old(self) -> dict[str, np.ndarray]:
        """The states before each step, [T, F]."""
        layer, found = self.layer, {}
        for name in self.graph.states:
            after, start = layer.values[name][0], layer.start[name]
            pair = (start, after[:-1]) if layer.direction == "forward" else (after[1:], start)
            found[name] = np.concatenate(pair)
        return found

    def _made(self, step: int) -> dict[int, np.ndarray]:
        """What a step works out, by its place in the graph, from the states that were recorded before it. The last
        one is kept: other units of it may be asked for.
        """
        if self._last[0] != step:
            nodes = self.graph.nodes
            rows = {int(k): rows[0, 0] for k, rows in along(self._alone_at(step), _all_values).items()}
            self._last = step, {k: row if nodes[k].size is not None else row[:1] for k, row in rows.items()}
        return self._last[1]

    def _alone_at(self, step: int) -> LayerRecord:
        start = {name: rows[step : step + 1] for name, rows in self._old.items()}
        return replace(self.layer, x=self.layer.x[:, step : step + 1], start=start, direction="forward")

    def row(self, matrix: str, unit: int) -> np.ndarray:
        """The weights [F] that make one unit of a product."""
        param = self.graph.params[matrix]
        if param.made is None:
            held = self.layer.weights[matrix]
        else:
            held = make_matrix(
                param.made, lambda name: torch.as_tensor(self.layer.weights[name]), self.layer.sizes
            ).numpy()
        if param.blocks == 1:
            return held[unit]
        # Only the blocks on the diagonal are held: [R, C / blocks].
        rows, columns = held.shape[0] // param.blocks, held.shape[1]
        whole = np.zeros(columns * param.blocks, held.dtype)
        begin = unit // rows * columns
        whole[begin : begin + columns] = held[unit]
        return whole


def _all_values(graph: Graph) -> dict[str, Expr]:
    """All that a step works out, by place; what is one number per row, as wide as a state."""
    size = next(iter(graph.states.values())).size
    assert size is not None
    made = {k: node for k, node in enumerate(graph.nodes) if node.args}
    return {str(k): node if node.size is not None else spread(node, size) for k, node in made.items()}


class _Put:
    """Writes values of one step and unit: what has a name is a number, products are sums of their largest terms."""

    def __init__(self, of: Equations, step: int, unit: int) -> None:
        self._of, self._step, self._unit = of, step, unit
        self._labels = of._writer.labels

    def value(self, node: Expr) -> float:
        vector = self._of.vector(node, self._step)
        return float(vector[self._unit] if node.size is not None else vector[0])

    def text(self, node: Expr, top: bool = False) -> str:
        if not node.args or (node in self._labels and not top):
            return shown(self.value(node))
        if node in composites:
            made = composites[node]
            return LATEX.call.format(made.function.replace("_", r"\_"), shown(self.value(made.arg)))
        if node.op == "matmul":
            return self._terms(node)
        if node.op not in ELEMENTWISE:
            # Of several units: what they have come to.
            return shown(self.value(node))
        written = [self._argument(node, k) for k in range(len(node.args))]
        return joined(written) if node.op == "add" else OPS[node.op].format(*written)

    def _terms(self, node: Expr) -> str:
        weights, vector = self._of.row(node.attr[0], self._unit), self._of.vector(node.args[0], self._step)
        products = weights * vector
        largest = [k for k in np.argsort(-np.abs(products), kind="stable")[:TERMS] if products[k]]
        terms = [f"{shown(weights[k])} \\cdot {bracketed(vector[k])}" for k in largest]
        rest = [k for k in range(len(products)) if products[k] and k not in largest]
        if rest:
            terms.append(rf"\underbrace{{{bracketed(products[rest].sum())}}}_{{{len(rest)}}}")
        return joined(terms) if terms else "0"

    def _argument(self, node: Expr, k: int) -> str:
        arg = node.args[k]
        text = self.text(arg)
        if node.op not in PRECEDENCE or node.op == "div":
            return text
        negative = text.startswith("-") and node.op != "add" and (k == 1 or node.op == "neg")
        if not arg.args or arg in self._labels or arg in composites or arg.op not in (*ELEMENTWISE, "matmul"):
            return f"({text})" if negative else text
        inner = 1 if arg.op == "matmul" else PRECEDENCE.get(arg.op, 9)
        tight = PRECEDENCE[node.op] + (k == 1 and node.op in ("sub", "div"))
        return rf"\left({text}\right)" if inner < tight or negative else text


def shown(value: Any) -> str:
    """A number with PLACES places; one that they cannot show, as a power of ten."""
    value = float(value)
    if not np.isfinite(value):
        return r"\mathrm{nan}" if np.isnan(value) else r"\infty" if value > 0 else r"-\infty"
    if value == int(value) and abs(value) < 1e4:
        return f"{value:.0f}"
    if 10**-PLACES <= abs(value) < 1e4:
        return f"{value:.{PLACES}f}"
    mantissa, power = f"{value:.{PLACES}e}".split("e")
    return rf"{mantissa} \times 10^{{{int(power)}}}"


def bracketed(value: Any) -> str:
    text = shown(value)
    return f"({text})" if text.startswith("-") else text


def joined(terms: list[str]) -> str:
    """A sum; a term that begins with a minus is taken away."""
    first, *others = terms
    return first + "".join(f" - {term[1:]}" if term.startswith("-") else f" + {term}" for term in others)
