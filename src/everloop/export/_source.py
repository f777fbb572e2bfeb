"""A step as lines of Python: what the programs in NumPy and in torch have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from everloop.compiler.saves import cost
from everloop.export._names import Names
from everloop.export._program import Program, is_zero
from everloop.export._text import WIDTH, wrapped
from everloop.lang.expr import Expr, Shape, Size, toposort
from everloop.lang.functions import composites
from everloop.lang.graph import Graph, reached

# How tightly a text binds: an argument that binds less than its place asks for goes into brackets.
LOOSE, COMPARISON, SUM, PRODUCT, SIGN, POWER, ATOM = range(7)

SIGNS = {"add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT)}
COMPARISONS = {"gt": ">", "ge": ">="}

# A value written out longer than this gets a line of its own (sums may go over several); one that is read more than
# once gets one if it is longer than SHORT.
LONG = {"add": 240, "sub": 240}
SHORT = 10


@dataclass(frozen=True)
class Spelling:
    """How a library of arrays writes the operations.

    ops:       templates on arrays. numbers: those on plain numbers, where they differ.
    functions: composite functions of the language that are shown as one, by name.
    choice:    where both values to choose from are plain numbers.
    ones:      ones along the features; index: 0, 1, 2 ... row, column: the places of all entries of a matrix.
    zeros:     [B, F]. full: [B, T, F] of one number. reshape: as [B, T, 1].
    """

    ops: Mapping[str, str]
    numbers: Mapping[str, str]
    functions: Mapping[str, str]
    choice: str
    ones: str
    index: str
    row: str
    column: str
    infinity: str
    zeros: str
    full: str
    reshape: str


@dataclass(frozen=True)
class Line:
    """`name = text`, the value of a node."""

    node: Expr
    name: str
    text: str


@dataclass
class Writer:
    """Writes the values of a graph as lines of Python, arguments first.

    leaves: what inputs and states are called. labels: values that have a line of their own, under that name.
    suggested: a name for a value that turns out to need a line.
    After `write`: the lines; which lengths, parameters and leaves they read.
    """

    spelling: Spelling
    program: Program
    names: Names
    graph: Graph
    leaves: Mapping[Expr, str]
    labels: dict[Expr, str]
    suggested: Callable[[Expr], str]
    lines: list[Line] = field(default_factory=list)
    sizes: dict[str, str] = field(default_factory=dict)
    params_read: set[str] = field(default_factory=set)
    read: set[Expr] = field(default_factory=set)

    def write(self, first: Iterable[Expr], roots: Iterable[Expr]) -> None:
        """Write all that the roots need. first: what to begin with, as far as the roots need it."""
        roots = [self._bare(root) for root in roots]
        self._forced = {*self.labels, *roots}
        self._numbers: set[Expr] = set()
        for node in toposort(roots):
            if node.op in ("const", "count") or (node.args and self._numbers.issuperset(node.args)):
                self._numbers.add(node)
        needed = set(self._order(roots))
        order = self._order([*(node for node in first if node in needed), *roots])
        self._thin: set[Expr] = set()
        self._uses = Counter(self._bare(arg) for node in order for arg in self._args(node))
        self._uses.update(roots)
        # Comparisons that only choices read may be true or false; the others are numbers.
        self._conditions = (
            {node for node in order if node.op in COMPARISONS}
            - set(roots)
            - {self._bare(arg) for node in order for k, arg in enumerate(node.args) if node.op != "where" or k > 0}
        )
        self._timed = reached(toposort(roots), [*self.graph.inputs.values(), *self.graph.states.values()])
        self._outlive = {self._bare(arg) for n in order if n in self._timed for arg in self._args(n)} - self._timed
        self._texts: dict[Expr, tuple[str, int]] = {}
        self.read = {node for node in order if node in self.leaves}
        for node in order:
            self._put(node)

    def text(self, node: Expr, tight: int = LOOSE) -> str:
        """A value that was written, as an argument: its name, or the whole of it."""
        text, level = self._texts[self._bare(node)]
        return f"({text})" if level < tight else text

    def whole(self, node: Expr, tight: int = LOOSE) -> str:
        """As `text`, with all features, also where one number would do for them."""
        if node.size is None or not self._is_thin(node):
            return self.text(node, tight)
        text = f"{self.text(node, PRODUCT)} * {self._ones(node.size)}"
        return f"({text})" if tight > PRODUCT else text

    def row(self, node: Expr) -> str:
        """A value as an array with a row for each sequence: [B, F]."""
        zeros = self.spelling.zeros.format("1" if node.size is None else self.note_size(node.size))
        if is_zero(node):
            return zeros
        thin = node.size is not None and self._is_thin(node)
        return self.text(node) if self.is_timed(node) and not thin else f"{self.text(node, SUM)} + {zeros}"

    def at_step(self, spelled: Mapping[str, str]) -> list[str]:
        """The inputs that are read, taken from those of all steps."""
        read = [name for name, leaf in self.graph.inputs.items() if name in spelled and leaf in self.read]
        return [f"{self.program.steps[name]} = {spelled[name]}[:, t]" for name in read]

    def step_lines(self, wanted: Callable[[Expr], bool] = lambda node: True) -> list[str]:
        timed = [line for line in self.lines if self.is_timed(line.node)]
        return [wrapped(line.name, line.text) for line in timed if wanted(line.node)]

    def fixed_lines(self) -> list[str]:
        lines = [wrapped(line.name, line.text) for line in self.lines if not self.is_timed(line.node)]
        return ["# The same at every step.", *lines] if lines else []

    def side_lines(self) -> list[str]:
        """Side inputs as [B, T, F], whether given or not."""
        lines = []
        for name in self.program.side:
            own, size = self.program.inputs[name], self.graph.inputs[name].size
            given = self.spelling.reshape.format(own) if size is None else own
            default = self.program.default(name)
            if default:
                full = self.spelling.full.format("1" if size is None else self.note_size(size), default)
                lines.append(f"{own} = {full} if {own} is None else {given}")
            elif given != own:
                lines.append(f"{own} = {given}")
        return lines

    def is_timed(self, node: Expr) -> bool:
        return self._bare(node) in self._timed

    def _is_thin(self, node: Expr) -> bool:
        return (node.op == "spread" and node not in self.labels) or node in self._thin

    def _bare(self, node: Expr) -> Expr:
        """What is repeated along the features, which broadcasting does by itself."""
        while node.op == "spread" and node not in self.labels:
            node = node.args[0]
        return node

    def _args(self, node: Expr) -> tuple[Expr, ...]:
        return (composites[node].arg,) if self._is_function(node) else node.args

    def _is_function(self, node: Expr) -> bool:
        """Whether it is shown as one function: if nothing inside it is wanted elsewhere."""
        made = composites.get(node)
        if made is None or not node.args or made.function not in self.spelling.functions or made.gates:
            return False
        if node in self._numbers:
            return False
        waiting, inside = list(node.args), set()
        while waiting:
            part = waiting.pop()
            if part is not made.arg and part not in inside and part.args:
                inside.add(part)
                waiting += part.args
        return not inside & self._forced

    def _order(self, roots: list[Expr]) -> list[Expr]:
        """All that is shown below the roots, arguments first."""
        order: list[Expr] = []
        seen: set[Expr] = set()
        stack = [(root, False) for root in reversed(roots)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(self._bare(arg), False) for arg in reversed(self._args(node))]
        return order

    def _put(self, node: Expr) -> None:
        leaf = not node.args
        if not leaf and node.size is not None and node.op not in ("spread", "cumsum", "matmul", "matmul_t"):
            sized = [arg for arg in node.args if arg.size is not None]
            if all(self._is_thin(arg) for arg in sized):
                self._thin.add(node)
        text, level = self._compose(node)
        limit = LONG.get(node.op, WIDTH)
        if len(text) > limit:
            for arg in sorted(map(self._bare, self._args(node)), key=lambda arg: -len(self._texts[arg][0])):
                if len(text) > limit and len(self._texts[arg][0]) > limit // 4 and arg.args and arg not in self.labels:
                    self._give_line(arg, self._texts[arg][0])
                    text, level = self._compose(node)
        self._texts[node] = text, level
        if self._needs_line(node, text):
            self._give_line(node, text)

    def _needs_line(self, node: Expr, text: str) -> bool:
        if node in self.labels:
            return True
        if not node.args:
            return node.op in ("row", "column", "index") and self._uses[node] > 1
        if node in self._numbers:
            return False
        plain = cost(node.op) <= 1 and all(self._texts[self._bare(arg)][1] >= SIGN for arg in self._args(node))
        trivial = plain and len(text) <= SHORT
        return not trivial and (self._uses[node] > 1 or (node in self._outlive and not isinstance(node.size, Shape)))

    def _give_line(self, node: Expr, text: str) -> None:
        if node.size is not None and not isinstance(node.size, Shape) and self._is_thin(node):
            # A line holds all features, so that whatever reads it need not know.
            text = self.whole(node)
            self._thin.discard(node)
        name = self.labels.get(node) or self.names.fresh(self.suggested(node) or self._suggestion(node))
        self.labels[node] = name
        self.lines.append(Line(node, name, text))
        self._texts[node] = name, ATOM

    def _suggestion(self, node: Expr) -> str:
        """A name by the operation, where that is one of a named value."""
        args = [self.text(arg) for arg in self._args(node)]
        return f"{node.op}_{args[0]}" if len(args) == 1 and args[0].isidentifier() and len(args[0]) < 20 else "v"

    def _compose(self, node: Expr) -> tuple[str, int]:
        write, spelling = self._compose_arg, self.spelling
        if node in self.leaves:
            return self.leaves[node], ATOM
        if self._is_function(node):
            return spelling.functions[composites[node].function].format(self.text(composites[node].arg)), ATOM
        table = {**spelling.ops, **spelling.numbers} if node in self._numbers else spelling.ops
        match node.op:
            case "const":
                return self._number(node.attr)
            case "count":
                return self.note_size(node.attr), ATOM
            case "vector" | "matrix":
                return self._param(node.attr), ATOM
            case "index":
                return spelling.index.format(self.note_size(node.size)), ATOM
            case "row" | "column":
                assert isinstance(node.size, Shape)
                template = spelling.row if node.op == "row" else spelling.column
                return template.format(self.note_size(node.size.rows), self.note_size(node.size.columns)), ATOM
            case "matmul" | "matmul_t":
                pairs = zip(node.attr, node.args, strict=True)
                terms = [self._product(node.op, name, arg) for name, arg in pairs]
                return " + ".join(text for text, _ in terms), SUM if len(terms) > 1 else terms[0][1]
            case "spread":
                return self.text(node.args[0]), self._texts[self._bare(node.args[0])][1]
            case "neg":
                text, level = self._texts[self._bare(node.args[0])]
                return (f"-({text})", SIGN) if level < PRODUCT else (f"-{text}", min(SIGN, level))
            case "mul" if node.args[0] is node.args[1] and self._texts[self._bare(node.args[0])][1] == ATOM:
                return f"{self.text(node.args[0])}**2", POWER
            case "add" | "sub" | "mul" | "div":
                sign, level = SIGNS[node.op]
                left = write(node, 0, level + (level == PRODUCT and self._is_product(node.args[0])))
                right, right_level = self._texts[self._bare(node.args[1])]
                if level == SUM and right_level > SUM and right.startswith("-"):
                    return f"{left} {'-' if node.op == 'add' else '+'} {right[1:]}", SUM
                bare = right_level > level and not right.startswith("-")
                return f"{left} {sign} {right if bare else f'({right})'}", level
            case "gt" | "ge":
                if node in self._conditions:
                    return self._compared(node), COMPARISON
                return table["comparison"].format(self._compared(node), self._like(node)), ATOM
            case "where":
                return self._choice(node)
            case "cumsum":
                return spelling.ops["cumsum_back" if node.attr else "cumsum"].format(self.whole(node.args[0])), ATOM
            case "sum" | "max":
                return spelling.ops[node.op].format(self.whole(node.args[0])), ATOM
            case "transpose":
                return f"{write(node, 0, ATOM)}.T", ATOM
            case "compose":
                return f"{write(node, 0, PRODUCT)} @ {write(node, 1, SIGN)}", PRODUCT
        template = table[node.op]
        if template == "{}":
            return self._texts[self._bare(node.args[0])]
        tight = ATOM if template.startswith("{}.") else LOOSE
        return template.format(*(write(node, k, tight) for k in range(len(node.args)))), ATOM

    def _compose_arg(self, node: Expr, k: int, tight: int) -> str:
        return self.text(node.args[k], tight)

    def _is_product(self, node: Expr) -> bool:
        node = self._bare(node)
        return node.op in ("matmul", "matmul_t", "compose") and self._texts[node][1] < ATOM

    def _product(self, op: str, matrix: str, arg: Expr) -> tuple[str, int]:
        blocks, name = self.graph.params[matrix].blocks, self._param(matrix)
        if blocks > 1:
            return self.spelling.ops[f"blocks_{op}"].format(self.whole(arg), name, blocks), ATOM
        turned = ".T" if op == "matmul" else ""
        # The sign of a vector binds tighter than the product.
        return f"{self.whole(arg, SIGN)} @ {name}{turned}", PRODUCT

    def _choice(self, node: Expr) -> tuple[str, int]:
        condition, a, b = node.args
        if self._bare(condition) in self._numbers:
            return f"({self.text(a)} if {self._condition(condition)} else {self.text(b)})", ATOM
        both = self._bare(a) in self._numbers and self._bare(b) in self._numbers
        template = self.spelling.choice if both else self.spelling.ops["where"]
        return template.format(self._condition(condition), self.text(a), self.text(b)), ATOM

    def _condition(self, node: Expr) -> str:
        """As what a choice asks for: true or false."""
        node = self._bare(node)
        if node in self._conditions:
            return self.text(node)
        if node.op in COMPARISONS and node not in self.labels:
            return self._compared(node)
        return f"{self.text(node, SUM)} != 0"

    def _compared(self, node: Expr) -> str:
        a, b = (self.text(arg, SUM) for arg in node.args)
        return f"{a} {COMPARISONS[node.op]} {b}"

    def _like(self, node: Expr) -> str:
        """An argument that is an array, if there is one."""
        arrays = [arg for arg in node.args if self._bare(arg) not in self._numbers]
        return self.text(arrays[0], ATOM) if arrays else ""

    def _number(self, value: float) -> tuple[str, int]:
        if math.isinf(value):
            text = (
                self.spelling.infinity
                if math.isinf(value)
                else f"({self.spelling.infinity} - {self.spelling.infinity})"
            )
            return (f"-{text}", SIGN) if value < 0 else (text, ATOM)
        text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        return text, SIGN if text.startswith("-") else ATOM

    def note_size(self, size: Size | None) -> str:
        """What a length is called; the lines need it henceforth."""
        assert size is not None
        assert size.name is not None
        return self.sizes.setdefault(size.name, self.program.size(size.name))

    def _ones(self, size: Size) -> str:
        return self.spelling.ones.format(self.note_size(size))

    def _param(self, name: str) -> str:
        self.params_read.add(name)
        return self.program.params[name]
