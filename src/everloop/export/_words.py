"""Text in a diagram: names with what stands below the line, and short formulas."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable
from typing import Literal, NamedTuple

from everloop.export.formula import GREEK, PRECEDENCE, TEXT
from everloop.lang.expr import Expr, toposort
from everloop.lang.functions import composites
from everloop.lang.graph import Graph

LONG, WRAP = 60, 26
HOLE = "·"
"""Where a value goes that is not written."""


class Run(NamedTuple):
    """A piece of a line of text. `free`: it needs no state, though the block that it stands in does."""

    text: str
    style: Literal["plain", "name", "sub"] = "plain"
    free: bool = False


Line = tuple[Run, ...]


def plain(line: Line) -> str:
    return "".join(run.text for run in line)


def say(text: str) -> Line:
    return (Run(text),) if text else ()


def symbol(name: str, *below: str) -> Line:
    """A name as it is printed: what follows its last dot or first underscore below the line, with `below` behind it."""
    head, dot, tail = name.rpartition(".")
    if not dot:
        head, _, tail = name.partition("_")
    head, tail = (head, tail) if head and tail else (name, "")
    lower = ",".join([*([tail] if tail else []), *below])
    head = Run(greek(head.replace(".T", "ᵀ").replace(" - ", " − ")), "name")
    return (head, Run(lower, "sub")) if lower else (head,)


def greek(name: str) -> str:
    """alpha as α."""
    return unicodedata.lookup(f"GREEK SMALL LETTER {name.replace('lambda', 'lamda')}") if name in GREEK else name


class Writer:
    """Writes values of a graph. `real` gives the value that is drawn for a value."""

    def __init__(self, graph: Graph, real: Callable[[Expr], Expr]) -> None:
        self.graph, self.real = graph, real
        self.mentioned: dict[Expr, None] = {}
        self.lengths: dict[Expr, int] = {}
        for node in graph.nodes:
            self.lengths[node] = self._length(node)

    def _length(self, node: Expr) -> int:
        """About how long a value is when written out, with the names and functions that it is written with."""
        if node in composites and composites[node].arg in self.lengths:
            args, own = (composites[node].arg,), len(composites[node].function)
        elif node.op in ("matmul", "matmul_t"):
            args, own = node.args, sum(map(len, node.attr))
        else:
            args, own = node.args, 0 if node.args else len(str(node.attr))
        names = self.graph.names
        return min(1000, own + 2 + sum(len(names[arg]) if arg in names else self.lengths[arg] for arg in args))

    def constant(self, node: Expr) -> Line:
        """A value that is the same at every step, written out, or as a function of its parameters if that is long."""
        name = self.graph.names.get(node)
        equal = (*symbol(name), *say(" = ")) if name else ()
        if self.lengths[node] <= LONG:
            return (*equal, *self.write(node, top=True))
        leaves = dict.fromkeys(leaf for leaf in toposort([node]) if leaf.op in ("vector", "index", "count"))
        text: Line = ()
        for k, leaf in enumerate(leaves):
            text += (*say(", " if k else ""), *self.write(leaf))
        return (*equal, *say("f("), *text, *say(")"))

    def write(self, node: Expr, tight: int = 0, *, top: bool = False) -> Line:
        """A short value as text, in brackets if it binds less than `tight`."""
        node = self.real(node)
        graph = self.graph
        if node.op in ("input", "state"):
            return symbol(str(node.attr), "t" if node.op == "input" else "t−1")
        name = graph.names.get(node)
        if name is not None and not top:
            if node not in graph.timed:
                self.mentioned[node] = None
            return symbol(name, "t") if graph.new.get(name) is node else symbol(name)
        if node in composites:
            return (*say(composites[node].function + "("), *self.write(composites[node].arg), *say(")"))
        match node.op:
            case "vector":
                return symbol(node.attr)
            case "const":
                return say(f"{node.attr:g}".replace("-", "−"))
            case "count":
                return say("n")
            case "index":
                return say("k")
            case "matmul" | "matmul_t":
                text = self.product(node, lambda value: self.write(value, 4))
                return (*say("("), *text, *say(")")) if tight > 3 else text
        if not node.args:
            return say(node.op)
        binds = PRECEDENCE.get(node.op, 9)
        template = TEXT.ops.get(node.op, f"{node.op}({', '.join(['{}'] * len(node.args))})").replace("-", "−")
        inner = [
            self.write(arg, binds + (k == 1 and node.op in ("sub", "div")) if binds < 9 else 0)
            for k, arg in enumerate(node.args)
        ]
        text = filled(template, *inner)
        return (*say("("), *text, *say(")")) if binds < tight else text

    def product(self, node: Expr, mention: Callable[[Expr], Line]) -> Line:
        """Matrices times values."""
        mark = "ᵀ" if node.op == "matmul_t" else ""
        text: Line = ()
        for k, (matrix, value) in enumerate(zip(node.attr, node.args, strict=True)):
            text += (*say(" + " if k else ""), *symbol(matrix), *say(f"{mark} "), *mention(value))
        return text


def head(op: str) -> str:
    """σ for sigmoid; log(1 + ·) for what is not a name and an argument."""
    template = TEXT.ops.get(op, op)
    return template.removesuffix("({})").replace("{}", HOLE)


def filled(template: str, *args: Line) -> Line:
    """The template with each {} or {1} replaced by a line."""
    text: Line = ()
    turn = 0
    for piece in re.split(r"(\{\d*\})", template):
        if re.fullmatch(r"\{\d*\}", piece):
            text += args[int(piece[1:-1])] if len(piece) > 2 else args[turn]
            turn += 1
        else:
            text += say(piece)
    return text


def words(line: Line) -> list[Line]:
    """A formula in pieces that may stand on lines of their own: it is broken before + and −."""
    words: list[Line] = [()]
    for run in line:
        for k, piece in enumerate(re.split(r" (?=[+−⊙] )", run.text) if run.style == "plain" else [run.text]):
            if k:
                words.append(())
            words[-1] += (run._replace(text=piece),) if piece else ()
    return words


def wrapped(words: list[Line]) -> tuple[Line, ...]:
    lines: list[Line] = []
    for word in words:
        if lines and len(plain(lines[-1])) + len(plain(word)) < WRAP:
            lines[-1] = (*lines[-1], Run(" "), *word)
        else:
            lines.append(word)
    return tuple(lines)


def broken(text: str, width: int = 80) -> list[Line]:
    """Plain text in lines of about that many characters, broken at spaces."""
    return [say(line) for line in textwrap.wrap(text, width, break_long_words=False)]
