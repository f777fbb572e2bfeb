"""A cell's equations as text or LaTeX, forward and backward, in the cell's own names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from everloop.compiler.differentiate import Adjoint, differentiate
from everloop.compiler.weights import through_made
from everloop.lang.expr import Expr
from everloop.lang.functions import composites
from everloop.lang.graph import Graph, reached

PRECEDENCE = {"add": 1, "sub": 1, "neg": 2, "mul": 3, "div": 4, "gt": 0, "ge": 0, "compose": 5}

# A value of more operations than this that is read more than once gets a line of its own (t_1, t_2, ...). Written out
# at each place, the text would double with every such value: layer normalisation backward would fill pages.
LONG = 8

# A text longer than this is cut: its longest part gets a line of its own.
WIDE = 220


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
    return name.replace(".", "_").replace("'", "′")


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
    plain = name.rstrip("'")
    head, _, tail = plain.replace(".", "_").partition("_")
    head = f"\\{head}" if head in GREEK else head if len(head) == 1 else f"\\mathrm{{{head}}}"
    tail = tail.replace("_", r"\_")
    return (f"{head}_{{{tail}}}" if tail else head) + name[len(plain) :]


TEXT = Style(
    ops={
        "add": "{} + {}", "sub": "{} - {}", "mul": "{} ⊙ {}", "div": "{} / {}", "neg": "-{}", "exp": "exp({})",
        "log": "log({})", "log1p": "log(1 + {})", "sqrt": "sqrt({})", "tanh": "tanh({})", "sigmoid": "σ({})",
        "maximum": "max({}, {})", "minimum": "min({}, {})", "gt": "[{} > {}]", "ge": "[{} ≥ {}]",
        "where": "({1} if {0} else {2})", "sum": "Σ({})", "spread": "{}", "max": "max({})", "cumsum": "cumsum({})",
        "cumsum_back": "cumsum_back({})", "expm1": "(exp({}) - 1)", "sin": "sin({})", "cos": "cos({})",
        "floor": "⌊{}⌋", "stop": "stop({})", "index": "position", "row": "i", "column": "j", "count": "n",
        "compose": "{} {}", "expm": "expm({})", "frechet": "Dexpm({}, {})",
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
        "sum": r"\textstyle\sum({})", "spread": "{}", "max": r"\max({})", "cumsum": r"\operatorname{{cumsum}}({})",
        "cumsum_back": r"\operatorname{{cumsum\_back}}({})", "expm1": r"(\exp({}) - 1)", "sin": r"\sin({})",
        "cos": r"\cos({})", "floor": r"\lfloor {} \rfloor", "stop": r"\operatorname{{stop}}({})",
        "index": r"\mathrm{{position}}", "row": "i", "column": "j", "count": "n", "compose": r"{} \, {}",
        "expm": r"\operatorname{{expm}}({})", "frechet": r"\mathrm{{D}}\operatorname{{expm}}({}, {})",
    },
    call=r"\operatorname{{{}}}({})", name=_latex_name, old="{}^{{-}}", gradient=r"\delta {}", given=r"\partial {}",
    later=r"\delta {}^{{+}}", transposed=r"{}^{{\top}}", line="{} &= {}",
    outer=r"\textstyle\sum_t {} \, {{{}}}^{{\top}}",
)  # fmt: skip


def forward(graph: Graph, style: Style = TEXT) -> list[str]:
    """The step, one equation a line. h₋ (LaTeX: h^-) is the state after the step before.

    A matrix that is made of others has a line of its own; in one that is made of numbers, i and j are the row and the
    column of an entry, counted from 0.
    """
    graph = distinct(graph)
    written = Writer(graph, style)
    lines = [style.line.format(written.labels[node], written.write(node, top=True)) for node in written.shown]
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
    graph = distinct(graph)
    adjoint = differentiate(graph)
    formulas = through_made(graph)
    written = Writer(adjoint.graph, style, states=tuple(graph.states), formulas=tuple(formulas.values()))
    lines = [style.line.format(written.labels[node], written.write(node, top=True)) for node in written.shown]
    for name in graph.states:
        label = style.gradient.format(style.old.format(style.name(name)))
        lines.append(style.line.format(label, written.write(adjoint.graph.new[f"d:{name}"])))
    for name, key in adjoint.inputs.items():
        lines.append(
            style.line.format(style.gradient.format(style.name(name)), written.write(adjoint.graph.outputs[key]))
        )
    return lines + _weights(adjoint, written, formulas)


def aligned(lines: list[str]) -> list[str]:
    """LaTeX equations as an aligned environment."""
    return ["\\begin{aligned}", *(f"  {line} \\\\" for line in lines), "\\end{aligned}"]


def _weights(adjoint: Adjoint, written: Writer, formulas: dict[str, Expr]) -> list[str]:
    """The gradients of the parameters; those of made matrices first, because those they are made of need them."""
    style, lines = written.style, []
    total = style.outer.split(" ")[0].strip("{}")
    params = adjoint.graph.params
    for name in sorted(params, key=lambda name: params[name].made is None):
        label = style.gradient.format(written.param(name))
        if params[name].is_matrix:
            pairs = [[adjoint.graph.outputs[key] for key in pair] for pair in adjoint.matrices.get(name, ())]
            terms = [style.outer.format(written.factor(rows), written.factor(columns)) for rows, columns in pairs]
            terms += [written.write(formulas[name])] if name in formulas else []
            lines.append(style.line.format(label, " + ".join(terms) or "0"))
        else:
            gradient = written.factor(adjoint.graph.outputs[adjoint.vectors[name]])
            lines.append(style.line.format(label, f"{total} {gradient}"))
    return lines


def _shown_args(node: Expr) -> tuple[Expr, ...]:
    return (composites[node].arg,) if _is_function(node) else node.args


def _is_function(node: Expr) -> bool:
    return node in composites and bool(node.args)


class Writer:
    """Writes expressions of a graph; a value that has a name is written as its name.

    states: of a backward step, the states of the forward one. formulas: more to be written, on matrices.
    shown: what has a line of its own, arguments first.
    """

    def __init__(
        self, graph: Graph, style: Style, *, states: tuple[str, ...] = (), formulas: tuple[Expr, ...] = ()
    ) -> None:
        self.style, self.states, self.adjoint = style, states, bool(states)
        self.made = _made_names(graph)
        leaves = [leaf for leaf in (*graph.inputs.values(), *graph.states.values()) if _is_gradient(leaf)]
        flowing = reached(graph.nodes, leaves)
        self.labels: dict[Expr, str] = {}
        own = set() if self.adjoint else set(graph.nodes)
        for node, name in graph.names.items():
            if self.adjoint and name.startswith("d") and node.args and node in flowing:
                self.labels[node] = style.gradient.format(style.name(name[1:]))
                own.add(node)
            elif node.args:
                self.labels[node] = style.name(name)
        makings = {param.made: self.param(name) for name, param in graph.params.items() if param.made is not None}
        self.labels |= makings
        known = {node for node in self.labels if self.adjoint and node not in own}
        taken = {*self.labels.values(), *map(style.name, (*graph.inputs, *graph.states))}
        self._fresh = (name for k in count(1) if (name := style.name(f"t_{k}")) not in taken)
        own |= self._label_shared(graph, known) | (set() if self.adjoint else set(makings))
        self._texts: dict[Expr, str] = {}
        roots = [*([] if self.adjoint else makings), *graph.roots, *formulas]
        place = {node: k for k, node in enumerate(graph.nodes)}
        written = [node for node in self._compose(roots, known, own) if node in own and node in self.labels]
        self.shown = sorted(written, key=lambda node: place.get(node, -1))

    def _label_shared(self, graph: Graph, known: set[Expr]) -> set[Expr]:
        """Name the long values that would be written more than once."""
        uses = Counter([*graph.roots, *self.labels])
        for node in reversed(graph.nodes):
            if node in uses and node not in known:
                uses.update(_shown_args(node))
        lengths: dict[Expr, int] = {}
        shared: set[Expr] = set()
        for node in graph.nodes:
            lengths[node] = 1 + sum(lengths.get(arg, 1) for arg in _shown_args(node))
            if uses[node] > 1 and lengths[node] > LONG and node not in self.labels:
                self.labels[node] = next(self._fresh)
                shared.add(node)
            if node in self.labels:
                lengths[node] = 1
        return shared

    def _compose(self, roots: list[Expr], known: set[Expr], own: set[Expr]) -> list[Expr]:
        """Write all that the roots show, arguments first; what becomes too wide is cut, and its parts are added to
        `own`. Not by recursion: a step may be a sum of a thousand terms.
        """
        order: list[Expr] = []
        seen: set[Expr] = set()
        stack = [(root, False) for root in reversed(roots)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order.append(node)
                if node in known:
                    continue
                self._texts[node] = self._text(node)
                parts = sorted(_shown_args(node), key=lambda arg: -len(self.write(arg)))
                for arg in parts:
                    if len(self._texts[node]) > WIDE and len(self.write(arg)) > WIDE // 4 and arg.args:
                        self.labels[arg] = next(self._fresh)
                        own.add(arg)
                        self._texts[node] = self._text(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                if node not in known:
                    stack += [(arg, False) for arg in reversed(_shown_args(node))]
        return order

    def write(self, node: Expr, *, top: bool = False) -> str:
        """A value as an argument: its name, if it has one; or (`top`) as what its name stands for."""
        return self.labels[node] if node in self.labels and not top else self._texts[node]

    def param(self, name: str) -> str:
        return self.style.name(self.made.get(name, name))

    def factor(self, node: Expr) -> str:
        """As a factor of a product: in brackets if it is a sum or a product itself."""
        text = self.write(node)
        return (
            f"({text})"
            if node not in self.labels and not _is_function(node) and node.op in (*PRECEDENCE, "matmul", "matmul_t")
            else text
        )

    def _text(self, node: Expr) -> str:
        style = self.style
        if _is_function(node):
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
            case "matrix":
                return style.gradient.format(self.param(node.attr[2:])) if _is_gradient(node) else self.param(node.attr)
            case "const":
                return f"{node.attr:g}"
            case "matmul":
                return f"{self.param(node.attr[0])} {self.factor(node.args[0])}"
            case "matmul_t":
                pairs = zip(node.attr, node.args, strict=True)
                return " + ".join(f"{style.transposed.format(self.param(m))} {self.factor(v)}" for m, v in pairs)
            case "transpose":
                return style.transposed.format(self.factor(node.args[0]))
        op = "cumsum_back" if node.op == "cumsum" and node.attr else node.op
        return style.ops[op].format(*(self._argument(node, k) for k in range(len(node.args))))

    def _argument(self, node: Expr, k: int) -> str:
        arg = node.args[k]
        text = self.write(arg)
        if (
            node.op not in PRECEDENCE
            or arg in self.labels
            or _is_function(arg)
            or (node.op == "div" and self.style is LATEX)
        ):
            return text
        inner = PRECEDENCE.get(arg.op, 1 if arg.op == "matmul_t" and len(arg.args) > 1 else 9)
        tight = PRECEDENCE[node.op] + (k == 1 and node.op in ("sub", "div"))
        return f"({text})" if inner < tight or (arg.op == "neg" and k == 1) else text


def _is_gradient(leaf: Expr) -> bool:
    return str(leaf.attr).startswith("d:")


def distinct(graph: Graph) -> Graph:
    """No two values of one name: a variable that was given several values, or has the name of an input or of a state
    without being its new value, is primed.
    """
    new = {node: name for name, node in graph.new.items()}
    output = graph.outputs["y"]
    if output not in new:
        new[output] = "y"
    taken = {*graph.inputs, *new.values(), *(name.replace(".", "_") for name in graph.params)}
    names: dict[Expr, str] = {}
    for node, name in graph.names.items():
        own = new.get(node) == name
        while name in taken and not own:
            name += "'"
        taken.add(name)
        names[node] = name
    return replace(graph, names=names)


def _made_names(graph: Graph) -> dict[str, str]:
    """Short names for matrices that are made of others, by the member they are made of: M.h, M2.h ..."""
    found: dict[str, str] = {}
    for name, param in graph.params.items():
        if param.made is not None and not param.family.isidentifier():
            tails = [f".{param.slot}" if param.slot else ""]
            names = (f"M{k or ''}{tail}" for k in (0, *range(2, len(graph.params) + 3)) for tail in tails)
            found[name] = next(own for own in names if own not in {*found.values(), *graph.params})
    return found
