"""A cell's equations as text or LaTeX, forward and backward, in the cell's own names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from everloop.compiler.differentiate import Adjoint, differentiate
from everloop.lang.expr import Expr, toposort
from everloop.lang.functions import composites
from everloop.lang.graph import Graph

PRECEDENCE = {"add": 1, "sub": 1, "neg": 2, "mul": 3, "div": 4, "gt": 0, "ge": 0}

# A value of more operations than this that is read more than once gets a line of its own (t_1, t_2, ...). Written out
# at each place, the text would double with every such value: layer normalisation backward would fill pages.
LONG = 8


@dataclass(frozen=True)
class Style:
    """How operations and names are written."""

    ops: dict[str, str]
    call: str
    name: Callable[[str], str]
    old: str
    gradient: str
    given: str
    later: str
    transposed: str
    line: str
    outer: str


def _text_name(name: str) -> str:
    return name.replace(".", "_")


GREEK = {
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "sigma",
    "tau",
}


def _latex_name(name: str) -> str:
    head, _, tail = name.replace(".", "_").partition("_")
    head = f"\\{head}" if head in GREEK else head if len(head) == 1 else f"\\mathrm{{{head}}}"
    return f"{head}_{{{tail}}}" if tail else head


TEXT = Style(
    ops={
        "add": "{} + {}", "sub": "{} - {}", "mul": "{} ⊙ {}", "div": "{} / {}", "neg": "-{}", "exp": "exp({})",
        "log": "log({})", "log1p": "log(1 + {})", "sqrt": "sqrt({})", "tanh": "tanh({})", "sigmoid": "σ({})",
        "maximum": "max({}, {})", "minimum": "min({}, {})", "gt": "[{} > {}]", "ge": "[{} ≥ {}]",
        "where": "({1} if {0} else {2})", "sum": "Σ({})", "spread": "{}",
    },
    call="{}({})", name=_text_name, old="{}₋", gradient="δ{}", given="∂{}", later="δ{}₊", transposed="{}ᵀ",
    line="{} = {}", outer="Σₜ {} {}ᵀ",
)  # fmt: skip

LATEX = Style(
    ops={
        "add": "{} + {}", "sub": "{} - {}", "mul": r"{} \odot {}", "div": r"\frac{{{}}}{{{}}}", "neg": "-{}",
        "exp": r"\exp({})", "log": r"\log({})", "log1p": r"\log(1 + {})", "sqrt": r"\sqrt{{{}}}",
        "tanh": r"\tanh({})", "sigmoid": r"\sigma({})", "maximum": r"\max({}, {})", "minimum": r"\min({}, {})",
        "gt": "[{} > {}]", "ge": r"[{} \ge {}]", "where": r"\left({1} \text{{ if }} {0} \text{{ else }} {2}\right)",
        "sum": r"\textstyle\sum({})", "spread": "{}",
    },
    call=r"\operatorname{{{}}}({})", name=_latex_name, old="{}^{{-}}", gradient=r"\delta {}", given=r"\partial {}",
    later=r"\delta {}^{{+}}", transposed=r"{}^{{\top}}", line="{} &= {}",
    outer=r"\textstyle\sum_t {} \, {{{}}}^{{\top}}",
)  # fmt: skip


def forward(graph: Graph, style: Style = TEXT) -> list[str]:
    """The step, one equation a line. h₋ (LaTeX: h^-) is the state after the step before."""
    written = _Writer(graph, style)
    shown = [node for node in toposort(graph.roots) if node in written.labels and node.args]
    lines = [style.line.format(written.labels[node], written.write(node, top=True)) for node in shown]
    lines += [
        style.line.format(style.name(name), written.write(node))
        for name, node in graph.new.items()
        if written.labels.get(node) != style.name(name)
    ]
    output = graph.outputs["y"]
    if written.labels.get(output) != "y" and output not in graph.new.values():
        lines.append(style.line.format("y", written.write(output)))
    return lines


def backward(graph: Graph, style: Style = TEXT) -> list[str]:
    """The gradient of one step, from the last step to the first: back-propagation through time.

    ∂y is the gradient that the output receives at this step, δh₊ what the step after hands back, δh₋ what
    this step hands to the one before. Weight gradients are sums over steps.
    """
    adjoint = differentiate(graph)
    written = _Writer(adjoint.graph, style, adjoint=True)
    shown = [node for node in adjoint.graph.nodes if node.args and node in written.gradients | written.shared]
    lines = [style.line.format(written.labels[node], written.write(node, top=True)) for node in shown]
    for name in graph.states:
        label = style.gradient.format(style.old.format(style.name(name)))
        lines.append(style.line.format(label, written.write(adjoint.graph.new[f"d:{name}"])))
    for name, key in adjoint.inputs.items():
        lines.append(
            style.line.format(style.gradient.format(style.name(name)), written.write(adjoint.graph.outputs[key]))
        )
    return lines + _weights(adjoint, written, style)


def aligned(lines: list[str]) -> list[str]:
    """LaTeX equations as an aligned environment."""
    return ["\\begin{aligned}", *(f"  {line} \\\\" for line in lines), "\\end{aligned}"]


def _weights(adjoint: Adjoint, written: _Writer, style: Style) -> list[str]:
    lines = []
    for name, param in adjoint.graph.params.items():
        label = style.gradient.format(style.name(name))
        if param.is_matrix:
            pairs = [[adjoint.graph.outputs[key] for key in pair] for pair in adjoint.matrices.get(name, ())]
            terms = [style.outer.format(written.factor(rows), written.factor(columns)) for rows, columns in pairs]
            lines.append(style.line.format(label, " + ".join(terms) or "0"))
        else:
            total = style.outer.split(" ")[0].strip("{}")
            lines.append(
                style.line.format(label, f"{total} {written.factor(adjoint.graph.outputs[adjoint.vectors[name]])}")
            )
    return lines


def _shown_args(node: Expr) -> tuple[Expr, ...]:
    return (composites[node].arg,) if node in composites else node.args


class _Writer:
    """Writes expressions of a graph; a value that has a name is written as its name."""

    def __init__(self, graph: Graph, style: Style, *, adjoint: bool = False) -> None:
        self.style, self.adjoint = style, adjoint
        self.states = {name for name in graph.inputs if adjoint and name != "x" and not name.startswith("d:")}
        self.gradients: set[Expr] = set()
        self.labels: dict[Expr, str] = {}
        for node, name in graph.names.items():
            if adjoint and name.startswith("d") and node.args and self._is_gradient(node):
                self.labels[node] = style.gradient.format(style.name(name[1:]))
                self.gradients.add(node)
            elif node.args:
                self.labels[node] = style.name(name)
        self.shared = self._label_shared(graph)

    def _label_shared(self, graph: Graph) -> set[Expr]:
        """Name the long values that would be written more than once."""
        known = {node for node in self.labels if self.adjoint and node not in self.gradients}
        uses = Counter([*graph.roots, *self.labels])
        for node in reversed(graph.nodes):
            if node in uses and node not in known:
                uses.update(_shown_args(node))
        names = (name for k in count(1) if (name := self.style.name(f"t_{k}")) not in self.labels.values())
        lengths: dict[Expr, int] = {}
        shared: set[Expr] = set()
        for node in graph.nodes:
            lengths[node] = 1 + sum(lengths.get(arg, 1) for arg in _shown_args(node))
            if uses[node] > 1 and lengths[node] > LONG and node not in self.labels:
                self.labels[node] = next(names)
                shared.add(node)
            if node in self.labels:
                lengths[node] = 1
        return shared

    @staticmethod
    def _is_gradient(node: Expr) -> bool:
        return any(str(leaf.attr).startswith("d:") for leaf in toposort([node]) if leaf.op in ("state", "input"))

    def write(self, node: Expr, *, top: bool = False) -> str:
        style = self.style
        if node in self.labels and not top:
            return self.labels[node]
        if node in composites:
            made = composites[node]
            name = f"{made.function}_{''.join(made.gates)}" if made.gates else made.function
            return style.call.format(name.replace("_", "\\_") if style is LATEX else name, self.write(made.arg))
        match node.op:
            case "state":
                name = style.name(str(node.attr).removeprefix("d:"))
                return (style.later if self.adjoint else style.old).format(name)
            case "input":
                name = str(node.attr)
                if name.startswith("d:"):
                    return style.given.format(style.name(name[2:]))
                return style.old.format(style.name(name)) if name in self.states else style.name(name)
            case "vector":
                return style.name(node.attr)
            case "const":
                return f"{node.attr:g}"
            case "count":
                return "n"
            case "matmul":
                return f"{style.name(node.attr[0])} {self.factor(node.args[0])}"
            case "matmul_t":
                pairs = zip(node.attr, node.args, strict=True)
                return " + ".join(f"{style.transposed.format(style.name(m))} {self.factor(v)}" for m, v in pairs)
        return style.ops[node.op].format(*(self._argument(node, k) for k in range(len(node.args))))

    def factor(self, node: Expr) -> str:
        """As a factor of a product: in brackets if it is a sum or a product itself."""
        text = self.write(node)
        return (
            f"({text})"
            if node not in self.labels and node not in composites and node.op in (*PRECEDENCE, "matmul", "matmul_t")
            else text
        )

    def _argument(self, node: Expr, k: int) -> str:
        arg = node.args[k]
        text = self.write(arg)
        if (
            node.op not in PRECEDENCE
            or arg in self.labels
            or arg in composites
            or (node.op == "div" and self.style is LATEX)
        ):
            return text
        inner = PRECEDENCE.get(arg.op, 1 if arg.op == "matmul_t" and len(arg.args) > 1 else 9)
        tight = PRECEDENCE[node.op] + (k == 1 and node.op in ("sub", "div"))
        return f"({text})" if inner < tight or (arg.op == "neg" and k == 1) else text
