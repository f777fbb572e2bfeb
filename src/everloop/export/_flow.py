"""One step as blocks and wires between them: what a diagram of it shows.

Fewer blocks than operations: a sum of products with parameters is one block, with the activation that follows it;
so is a function of the language, and a chain of additions or multiplications. What changes not over time is written
into the block that reads it. Knows nothing of places and pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from everloop.compiler.ahead import ahead
from everloop.export._words import HOLE, Line, Run, Writer, filled, head, plain, say, symbol, words, wrapped
from everloop.export.formula import TEXT
from everloop.lang.expr import Expr, toposort
from everloop.lang.functions import composites
from everloop.lang.graph import Graph, reached

Part = Literal["before", "loop", "after", "end"]
Shape = Literal["box", "dot", "pill", "rows", "old", "new", "input", "output", "cell", "swatch"]


@dataclass(eq=False)
class Block:
    """A node of the diagram. `lines`: the first is large if `headed`. `name` stands at the wire that leaves it."""

    shape: Shape
    part: Part
    lines: tuple[Line, ...]
    wires: list[Wire] = field(default_factory=list)
    name: Line = ()
    headed: bool = False

    @property
    def text(self) -> str:
        return " ".join(plain(line) for line in self.lines)


@dataclass(eq=False)
class Wire:
    """A value on its way into a block. `below`: it enters from below; `mark`: its sign, in a sum."""

    source: Block
    mark: str = ""
    below: bool = False


@dataclass(frozen=True)
class Flow:
    """The blocks of one step, each after those that it reads: old states and inputs first, new states last.

    given: named values of parameters that no block makes, as formulas.
    """

    blocks: list[Block]
    given: tuple[Line, ...]


def read(graph: Graph) -> Flow:
    """What a diagram of one step shows."""
    reader = _Reader(graph)
    blocks = reader.blocks()
    return Flow(blocks, reader.given())


# Longer formulas of parameters are not written into the block that reads them, longer values not into a product.
SHORT, MENTIONED = 14, 18


class _Source(NamedTuple):
    """Where a wire comes from, before the block of a value is known; the rest as in Wire."""

    value: Expr | Block
    mark: str = ""
    below: bool = False


class _Recipe(NamedTuple):
    """A block before its sources are known: they are values, or blocks already."""

    shape: Shape
    lines: tuple[Line, ...]
    sources: list[_Source]
    headed: bool = False


class _Term(NamedTuple):
    """A term of a sum. kind: strong (a product with a parameter), weak (parameters or a number), or a mere value."""

    sign: int
    value: Expr
    kind: Literal["strong", "weak", "value"]
    text: Line = ()
    reads: tuple[Expr, ...] = ()


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        early = ahead(graph).values
        self.depends = reached(graph.nodes, [leaf for name, leaf in graph.states.items() if name not in early])
        self.needed = set(toposort(node for name, node in graph.new.items() if name not in early))
        self.leader: dict[Expr, Expr] = {}
        self.groups: dict[Expr, list[Expr]] = {}
        self._find_joint()
        self.inner = {node: args for node in graph.nodes if (args := self._inner_args(node)) is not None}
        self.uses = self._count_uses()
        self.words = Writer(graph, self.real)
        self.made: dict[Expr, Block] = {}
        self.sources: dict[Block, list[_Source]] = {}

    def blocks(self) -> list[Block]:
        graph = self.graph
        ends: list[Block] = []
        for name, leaf in graph.states.items():
            self.made[leaf] = Block("old", "end", (symbol(name, "t−1"),))
        for name, leaf in graph.inputs.items():
            self.made[leaf] = Block("input", "end", (symbol(name, "t"),))
        for name, node in graph.new.items():
            ends.append(self._wired(Block("new", "end", (symbol(name, "t"),)), [_Source(node)]))
        for node in dict.fromkeys(graph.outputs.values()):
            names = [name for name, value in [*graph.outputs.items(), *graph.new.items()] if value is node]
            text = symbol(names[0], "t")
            for name in dict.fromkeys(name for name in names if name != names[0]):
                text += (*say(" = "), *symbol(name, "t"))
            ends.append(self._wired(Block("output", "end", (text,)), [_Source(node)]))
        wanted = {self.real(node) for node in graph.roots}
        for node in reversed(graph.nodes):
            if node in wanted and node not in self.made:
                recipe = self._recipe(node)
                block = Block(recipe.shape, self._part(node), recipe.lines, name=self._name(node), headed=recipe.headed)
                self.made[node] = self._wired(block, recipe.sources)
                wanted.update(self._values(recipe.sources))
        for block, sources in self.sources.items():
            block.wires = [
                Wire(value if isinstance(value, Block) else self.made[self.real(value)], mark, below)
                for value, mark, below in sources
            ]
        return _in_order([*self.made.values(), *self.sources], ends)

    def given(self) -> tuple[Line, ...]:
        """The formulas of values that are only mentioned by their names, and of those mentioned there."""
        lines: dict[Expr, Line] = {}
        waiting = list(self.words.mentioned)
        while waiting:
            node = waiting.pop(0)
            if node not in lines and node not in self.made:
                lines[node] = self.words.constant(node)
                waiting += self.words.mentioned
        return tuple(lines.values())

    def _wired(self, block: Block, sources: list[_Source]) -> Block:
        self.sources[block] = sources
        return block

    def _values(self, sources: Iterable[_Source]) -> Iterable[Expr]:
        waiting = list(sources)
        while waiting:
            value = waiting.pop().value
            if isinstance(value, Block):
                waiting += self.sources[value]
            else:
                yield self.real(value)

    def _part(self, node: Expr) -> Part:
        if node not in self.depends:
            return "before"
        return "loop" if node in self.needed else "after"

    def _name(self, node: Expr) -> Line:
        """At the wire; nothing where the wire goes to an end that says the same."""
        name = self.graph.names.get(node)
        if name is None or node in self.groups:
            return ()
        ends = sum(root is node for root in self.graph.roots)
        if ends and self.uses[node] == ends:
            return ()
        return symbol(name, "t") if self.graph.new.get(name) is node else symbol(name)

    def real(self, node: Expr) -> Expr:
        """The value that is drawn for a value: repeated along the features it is the same, normalised jointly one."""
        while node.op == "spread":
            node = node.args[0]
        return self.leader.get(node, node)

    def _find_joint(self) -> None:
        """Values made jointly of a bundle are one block; the first of them stands for all."""
        joint = [node for node in self.graph.nodes if node in composites and composites[node].gates]
        below = {node: set(toposort([node])) for node in joint}
        for node in joint:
            made = composites[node]
            for first, members in self.groups.items():
                other = composites[first]
                if (other.function, other.gates) == (made.function, made.gates) and (
                    made.arg in below[first] and other.arg in below[node]
                ):
                    members.append(node)
                    self.leader[node] = first
                    break
            else:
                self.groups[node] = [node]

    def _inner_args(self, node: Expr) -> tuple[Expr, ...] | None:
        """What a function of several operations reads, if the value is made by one."""
        if node in self.graph.timed and _is_mean(node):
            return (self.real(node.args[0].args[0]),)
        return self._composite_args(node)

    def _composite_args(self, node: Expr) -> tuple[Expr, ...] | None:
        """What a function of the language reads: the value that it was called on, and whatever else gets in."""
        if node not in composites or node not in self.graph.timed:
            return None
        members = self.groups.get(node, [node])
        called = list(dict.fromkeys(composites[member].arg for member in members))
        below = toposort(members)
        if any(arg in members or arg not in self.graph.timed for arg in called) or not set(called) <= set(below):
            return None
        inside = reached(below, called)
        joint = node in self.groups
        # softplus(-v) reads v as well: the two signs of -v are folded away.
        called += [arg.args[0] for arg in called if arg.op == "neg"]
        others = [
            arg
            for value in below
            if value in inside and value not in called
            for whole in value.args
            for arg in (_vectors(whole) if joint else [whole])
            if arg not in inside and arg not in called and arg in self.graph.timed
        ]
        called = [composites[member].arg for member in members]
        return tuple(dict.fromkeys(self.real(arg) for arg in [*called, *others]))

    def _count_uses(self) -> Counter[Expr]:
        """How often a value is read by what is drawn."""
        uses = Counter(self.real(root) for root in self.graph.roots)
        for node in reversed(self.graph.nodes):
            if uses[node]:
                uses.update(self.inner.get(node, tuple(self.real(arg) for arg in node.args)))
        return uses

    def _single(self, node: Expr) -> bool:
        return self.uses[node] == 1

    def _inline(self, node: Expr) -> bool:
        """Whether a value is written into the block that reads it: what is the same at every step, and short."""
        if node in self.graph.timed:
            return False
        return not node.args or (
            self.words.lengths[node] <= SHORT and (self._single(node) or node not in self.graph.names)
        )

    def _recipe(self, node: Expr) -> _Recipe:
        if node not in self.graph.timed:
            return _Recipe("box", wrapped(words(self.words.constant(node))), [])
        if node in self.inner:
            return self._composite(node)
        match node.op:
            case "add" | "sub" | "neg":
                return self._sum(node)
            case "matmul" | "matmul_t":
                return self._affine([self._product_term(1, node)])
            case "mul":
                return self._product(node)
            case "where":
                return self._choice(node)
        if len(node.args) == 1:
            backwards = " ←" if node.op == "cumsum" and node.attr else ""
            return self._activation(head(node.op) + backwards, self.real(node.args[0]))
        return self._binary(node) if len(node.args) == 2 else self._other(node)

    def _composite(self, node: Expr) -> _Recipe:
        function, args = composites[node].function if node in composites else "mean", self.inner[node]
        if len(args) == 1 and args[0].op == "neg" and self._single(args[0]):
            return self._activation(f"{function}(−{HOLE})", self.real(args[0].args[0]))
        if len(args) == 1:
            return self._activation(function, args[0])
        fused = self._family_product(node)
        if fused is not None:
            text, reads = fused
            return _Recipe("box", (say(function), text), [_Source(reads)], headed=True)
        return _Recipe("box", (say(function),), [_Source(arg) for arg in args], headed=True)

    def _family_product(self, node: Expr) -> tuple[Line, Expr] | None:
        """W times v, if a value is made jointly of all of W.i v, W.f v, ..."""
        args = self.inner.get(node, ())
        if node not in self.groups or any(arg.op != "matmul" or not self._single(arg) for arg in args):
            return None
        names = [arg.attr[0].rpartition(".") for arg in args]
        if len({family for family, _, _ in names}) > 1 or len({arg.args for arg in args}) > 1:
            return None
        gates = composites[node].gates
        slots = sorted((slot for _, _, slot in names), key=lambda slot: (slot not in gates, [*gates, slot].index(slot)))
        text = (*symbol(f"{names[0][0]}.{','.join(slots)}"), *say(" "), *self._mention(args[0].args[0]))
        return text, args[0].args[0]

    def _activation(self, head: str, arg: Expr) -> _Recipe:
        """A function of one value, with the sum of products that it alone reads."""
        terms = self._terms(arg) if self._single(arg) else []
        if terms and _is_affine(terms):
            fused = self._affine(terms)
            return fused._replace(lines=(say(head), *fused.lines), headed=True)
        return _Recipe("box", (say(head),), [_Source(arg)], headed=True)

    def _affine(self, terms: list[_Term]) -> _Recipe:
        mixed = any(term.value in self.depends for term in terms)
        words: list[Line] = []
        for k, term in enumerate(terms):
            sign = ("−" if k == 0 else "− ") if term.sign < 0 else "+ " if k else ""
            free = mixed and term.value not in self.depends
            words.append(tuple(Run(run.text, run.style, free) for run in (*say(sign), *term.text)))
        reads = dict.fromkeys(self.real(value) for term in terms for value in term.reads)
        return _Recipe("box", wrapped(words), [_Source(value) for value in reads])

    def _sum(self, node: Expr) -> _Recipe:
        terms = self._terms(node)
        if _is_affine(terms):
            return self._affine(terms)
        fused = any(term.kind == "strong" for term in terms)
        affine = [
            term for term in terms if term.kind == "strong" or (term.kind == "weak" and (fused or not term.reads))
        ]
        values = [term for term in terms if term not in affine]
        marked = [_Source(term.value, "−" if term.sign < 0 else "") for term in values]
        if fused:
            inner = self._affine(affine)
            bound = any(term.value in self.depends for term in affine)
            part = self._part(node) if bound else "before"
            marked.insert(0, _Source(self._wired(Block("box", part, inner.lines), inner.sources)))
            return _Recipe("dot", (say("+"),), marked)
        if not affine:
            return _Recipe("dot", (say("−" if len(marked) == 1 else "+"),), _unmarked(marked))
        text = _joined(affine)
        if len(values) == 1 and values[0].sign < 0:
            return _Recipe("pill", ((*text, *say(" −")),), _unmarked(marked))
        if len(values) > 1:
            marked = [_Source(self._wired(Block("dot", self._part(node), (say("+"),)), marked))]
        sign = "" if affine[0].sign < 0 else "+ "
        return _Recipe("pill", ((*say(sign), *text),), marked)

    def _product(self, node: Expr) -> _Recipe:
        factors = self._factors(node)
        constant = [factor for factor in factors if self._inline(factor)]
        values = [self.real(factor) for factor in factors if not self._inline(factor)]
        if not constant and len(values) == 2 and values[0] is values[1]:
            return _Recipe("pill", (say(f"{HOLE}²"),), [_Source(values[0])])
        sources = [_Source(value) for value in values]
        if not constant:
            return _Recipe("dot", (say("×"),), sources)
        if len(values) > 1:
            sources = [_Source(self._wired(Block("dot", self._part(node), (say("×"),)), sources))]
        text = say("× ")
        for k, factor in enumerate(constant):
            text += (*(say(" ⊙ ") if k else ()), *self.words.write(factor, 3))
        return _Recipe("pill", (text,), sources)

    def _binary(self, node: Expr) -> _Recipe:
        """Of two values: the second enters from below. Of one and a number or parameter: that is written."""
        template = TEXT.ops.get(node.op, f"{node.op}({{}}, {{}})")
        template = template.replace("/", "÷").strip("[]")
        a, b = node.args
        ordered = node.op not in ("maximum", "minimum")
        if self._inline(a) or self._inline(b):
            hole = {k: self.words.write(arg, 4) if self._inline(arg) else say(HOLE) for k, arg in enumerate((a, b))}
            value = b if self._inline(a) else a
            return _Recipe("pill", (filled(template, hole[0], hole[1]),), [_Source(value)])
        word = re.sub(r"[(),\s]|\{\d*\}", "", template)
        return _Recipe("dot", (say(word),), [_Source(a), _Source(b, below=ordered)])

    def _choice(self, node: Expr) -> _Recipe:
        lines: list[Line] = []
        sources: list[_Source] = []
        for word, arg in zip(("if", "then", "else"), node.args, strict=True):
            written = self.words.write(arg) if self._inline(arg) else ()
            lines.append((*say(f"{word} "), *written) if written else say(word))
            sources += [] if written else [_Source(arg, word)]
        return _Recipe("rows", tuple(lines), sources)

    def _other(self, node: Expr) -> _Recipe:
        """An operation that this file has no picture for: its name, and its values in order."""
        drawn = [arg for arg in node.args if not self._inline(arg)]
        written = [self.words.write(arg) for arg in node.args if self._inline(arg)]
        lines = (say(head(node.op)), *written)
        return _Recipe("box", lines, [_Source(arg) for arg in drawn], headed=True)

    def _terms(self, node: Expr) -> list[_Term]:
        """The terms of a sum, looking through inner sums that nothing else reads."""
        found: list[_Term] = []
        waiting = [(1, node, True)]
        while waiting:
            sign, part, top = waiting.pop()
            part = self.real(part)
            inner = part.op in ("add", "sub", "neg") and part not in self.inner and not self._inline(part)
            if inner and (top or self._may_open(part)):
                signs = (sign, -sign if part.op == "sub" else sign) if len(part.args) == 2 else (-sign,)
                waiting += [(s, arg, False) for s, arg in zip(signs, part.args, strict=True)][::-1]
            else:
                found.append(self._term(sign, part))
        return found

    def _may_open(self, part: Expr) -> bool:
        """A sum with a name of its own is opened only if nothing but products with parameters is in it."""
        if not self._single(part):
            return False
        return part not in self.graph.names or _is_affine(self._terms(part))

    def _term(self, sign: int, part: Expr) -> _Term:
        if self._inline(part):
            return _Term(sign, part, "weak", self.words.write(part, 2))
        if part in self.inner or not self._single(part) or part not in self.graph.timed:
            return _Term(sign, part, "value")
        if part.op in ("matmul", "matmul_t"):
            return self._product_term(sign, part)
        if part.op == "mul" and part not in self.graph.names:
            factors = self._factors(part)
            constant = [factor for factor in factors if self._inline(factor)]
            values = [factor for factor in factors if not self._inline(factor)]
            if len(values) == 1 and constant:
                strong = any(leaf.op == "vector" for leaf in toposort(constant))
                text: Line = ()
                for factor in constant:
                    text += (*self.words.write(factor, 3), *say(" ⊙ " if factor.size is not None else " "))
                text += self._mention(values[0])
                return _Term(sign, part, "strong" if strong else "weak", text, (values[0],))
        return _Term(sign, part, "value")

    def _product_term(self, sign: int, part: Expr) -> _Term:
        return _Term(sign, part, "strong", self.words.product(part, self._mention), part.args)

    def _factors(self, node: Expr) -> list[Expr]:
        found: list[Expr] = []
        waiting = [(node, True)]
        while waiting:
            part, top = waiting.pop()
            part = self.real(part)
            inner = part.op == "mul" and part not in self.inner and not self._inline(part)
            if inner and (top or (self._single(part) and part not in self.graph.names)):
                waiting += [(arg, False) for arg in reversed(part.args)]
            else:
                found.append(part)
        return found

    def _mention(self, node: Expr) -> Line:
        """A value inside a formula whose wire comes in beside it."""
        node = self.real(node)
        if node in self.groups:
            fused = self._family_product(node)
            short = (fused[0][0], *fused[0][2:]) if fused else say(HOLE)
            return (*say(composites[node].function + "("), *short, *say(")"))
        known = not node.args or node in self.graph.names
        short = known or (self.words.lengths[node] <= MENTIONED and self._is_seen(node))
        return self.words.write(node, 4) if short else say(HOLE)

    def _is_seen(self, node: Expr) -> bool:
        """Whether the names in a value's text stand in the diagram: a sum may be inside the block that reads it."""
        for arg in (composites[node].arg,) if node in composites else node.args:
            if arg in self.graph.names and arg in self.graph.timed:
                if self._single(arg) and _is_affine(self._terms(arg)):
                    return False
            elif not self._is_seen(arg):
                return False
        return True


def _vectors(node: Expr) -> list[Expr]:
    """What numbers per row are made of: of a bundle that is normalised, the gates that nothing reads."""
    if node.size is not None or not node.args:
        return [node]
    return [vector for arg in node.args for vector in _vectors(arg)]


def _is_mean(node: Expr) -> bool:
    return node.op == "div" and node.args[0].op == "sum" and node.args[1].op == "count"


def _is_affine(terms: list[_Term]) -> bool:
    return all(term.kind != "value" for term in terms) and any(term.kind == "strong" for term in terms)


def _unmarked(marked: list[_Source]) -> list[_Source]:
    return [_Source(marked[0].value)] if len(marked) == 1 else marked


def _joined(terms: list[_Term]) -> Line:
    text: Line = ()
    for k, term in enumerate(terms):
        sign = "− " if term.sign < 0 else "+ " if k else ""
        text += (*say((" " if k else "") + sign), *term.text)
    return text


def _in_order(blocks: list[Block], ends: list[Block]) -> list[Block]:
    order: list[Block] = []
    seen: set[int] = set()
    for root in [*(b for b in blocks if b.shape in ("old", "input")), *ends]:
        stack = [(root, iter(root.wires))]
        while stack:
            block, rest = stack[-1]
            new = next((wire.source for wire in rest if id(wire.source) not in seen), None)
            if new is not None:
                stack.append((new, iter(new.wires)))
                continue
            stack.pop()
            if id(block) not in seen:
                seen.add(id(block))
                order.append(block)
    return order
