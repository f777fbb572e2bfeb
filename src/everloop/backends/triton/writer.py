"""What a kernel is written of: the arrays of a loop, its axes, its values, and its products, as lines of Triton.

Arrays are packed rows [N, F]: `offsets[t] + b` is the row of sequence b at step t, and `lengths[b]` how many steps it
has, longest first. A value is a tile [sequences, units], or [steps, units] in a scan; numbers per row are [.., 1].
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import Literal

from everloop.backends._values import length, width
from everloop.backends.triton.choose import CHUNK, Choice, Loop, padded
from everloop.backends.triton.spelling import NEEDED, SPELLED, function, number
from everloop.compiler.plan import Product, label
from everloop.lang.expr import Expr, Size

Kind = Literal["feed", "fixed", "vector", "matrix", "first", "last", "history", "exchange"]

REDUCED = {"sum": ("plus", "0"), "max": ("larger", '-float("inf")')}
TRIES = 50_000_000
"""Of a program that waits for others, some seconds, before it gives up."""


@dataclass(frozen=True)
class Argument:
    """An array of the kernel. of: what it is, by kind: the nodes that lie in it side by side, or a name.

    strided: the distance of its rows is an argument too, named with `_row` behind it.
    """

    name: str
    kind: Kind
    of: tuple[Expr, ...] | str
    strided: bool


@dataclass(frozen=True)
class Axis:
    """units: the tile of the places of a program, and inside: which of them are there. span: how many a program has;
    tile: how many its tile has."""

    units: str
    inside: str
    size: int
    span: int
    tile: int


class Writer:
    """The arrays, the axes and the values of a kernel, line by line; a template puts them in order.

    arguments: the arrays, in order. history: what is written down for every step, as it lies side by side. lines: what
    has been written. known, in what follows: the names of the values that are there. row, on: the names of their rows
    in the packed arrays, and of which of these are to be read and written.
    """

    def __init__(
        self, loop: Loop, choice: Choice, history: Sequence[Expr], real: str, held: str, backwards: bool
    ) -> None:
        self.loop, self.choice, self.real, self.held, self.backwards = loop, choice, real, held, backwards
        self.plan, self.graph = loop.plan, loop.plan.graph
        self.history = _side_by_side(loop, history)
        self.arguments: list[Argument] = []
        self._labels = _identifiers(label(self.graph))
        self._lines: list[str] = []
        self.needed: dict[str, None] = {}
        self.indent = 1
        self._axes: dict[str, Axis] = {}
        self._places: dict[Expr, tuple[Argument, int]] = {}
        self._matrices: dict[tuple[str, str], str] = {}
        self.exchanged: dict[Expr, Argument] = {}
        self.stale: set[Expr] = set()
        self._constants: dict[Expr, str] = {}
        self.prefix = ""
        self._declare()

    def _declare(self) -> None:
        plan, graph = self.plan, self.graph
        for k, pack in enumerate(plan.feeds):
            self._array(f"feed{k}", "feed", pack)
        for k, node in enumerate(plan.fixed):
            self._array(f"fixed{k}", "fixed", (node,), strided=False)
        vectors = [n for n in graph.nodes if n.op == "vector" and n not in self._places and self._is_read(n)]
        for k, node in enumerate(vectors):
            self._array(f"vector{k}", "vector", (node,), strided=False)
        for name in dict.fromkeys(name for product in self.loop.products for name in product.matrices):
            self._add(Argument(f"matrix_{_word(name)}", "matrix", name, True))
        for k, name in enumerate(graph.states):
            self._add(Argument(f"first{k}", "first", name, False))
            self._add(Argument(f"last{k}", "last", name, False))
        for k, nodes in enumerate(self.history):
            self._array(f"history{k}", "history", nodes, remember=False)
        if self.choice.template == "split":
            for k, node in enumerate(self._whole_rows()):
                self.exchanged[node] = self._add(Argument(f"exchange{k}", "exchange", (node,), False))
        self.stores = {
            node: (f"history{k}", offset)
            for k, nodes in enumerate(self.history)
            for node, offset in zip(nodes, self._offsets(nodes), strict=True)
        }

    def _is_read(self, node: Expr) -> bool:
        return (
            any(node in (*product.args, *product.plus) for product in self.loop.products)
            or any(node in inner.args for stage in self.plan.stages for inner in stage.nodes)
            or node in set(self.graph.new.values())
        )

    def _array(
        self, name: str, kind: Kind, nodes: tuple[Expr, ...], *, strided: bool = True, remember: bool = True
    ) -> None:
        argument = self._add(Argument(name, kind, nodes, strided))
        if remember:
            for node, offset in zip(nodes, self._offsets(nodes), strict=True):
                if node.op != "vector" or not strided:
                    self._places[node] = argument, offset

    def _add(self, argument: Argument) -> Argument:
        self.arguments.append(argument)
        return argument

    def _offsets(self, nodes: Sequence[Expr]) -> list[int]:
        return [0, *accumulate(self.width(node.size) for node in nodes)][:-1]

    def width(self, size: Size | None) -> int:
        return width(size, self.loop.sizes)

    def _whole_rows(self) -> list[Expr]:
        """What is read over all of its units."""
        args = [arg for product in self.loop.products for arg in product.args]
        if self.choice.parts > 1:
            args += [n.args[0] for stage in self.plan.stages for n in stage.nodes if n.op in (*REDUCED, "cumsum")]
        return [node for node in dict.fromkeys(args) if node in self.plan.looped]

    def axis(self, size: Size | None) -> Axis:
        """The axis of a size; where it is first met, its tile of places is written, before the loop."""
        key = "" if size is None else str(size.name)
        if size is None:
            self._axes[key] = Axis("0", "True", 1, 1, 1)
        elif key not in self._axes:
            all_of_it, parts, k = self.width(size), self.choice.parts, len(self._axes)
            even = all_of_it // parts if self.choice.template == "heads" else padded(ceil(all_of_it / parts))
            span = all_of_it if parts == 1 else even
            self._axes[key] = Axis(f"unit{k}", f"inside{k}", all_of_it, span, padded(span))
        return self._axes[key]

    def _axis_lines(self) -> list[str]:
        lines: list[str] = []
        for name, axis in self._axes.items():
            if not name:
                continue
            place = f"tl.arange(0, {axis.tile})[None, :]"
            lines.append(
                f"{axis.units} = {place}" if axis.span == axis.size else f"{axis.units} = part * {axis.span} + {place}"
            )
            limit = f"{axis.units} < {axis.size}"
            if axis.span not in (axis.size, axis.tile):
                limit = f"({place} < {axis.span}) & ({limit})"
            lines.append(f"{axis.inside} = {limit}")
        return lines

    def line(self, text: str) -> None:
        self._lines.append("    " * self.indent + text)

    def _need(self, op: str) -> None:
        self.needed.update(dict.fromkeys(NEEDED.get(op, ())))

    def module(self) -> str:
        names = [
            word for one in self.arguments for word in ([one.name, f"{one.name}_row"] if one.strided else [one.name])
        ]
        signature = ", ".join([*names, "lengths", "offsets", "arrived", "failed", "sequences", "begin"])
        functions = "\n".join(function(name, self.real) for name in self.needed)
        head = ["@triton.jit", f"def loop({signature}, TF32: tl.constexpr):", f"    {self._about()!r}"]
        body = [f"    {line}" for line in ["part = tl.program_id(1)", *self._axis_lines()]]
        return "\n".join(
            ["import triton", "import triton.language as tl", functions, "", *head, *body, *self._lines, ""]
        )

    def _about(self) -> str:
        way = "from the last step to the first" if self.backwards else "from the first step to the last"
        return f"{self.graph.name}, {way}. {self.choice.template}: {self.choice.reason}."

    def tile(self, node: Expr, known: dict[Expr, str], row: str, on: str) -> str:
        """What stands for a value: its name, or what is read for it, once."""
        if node in known:
            return known[node]
        if node.op == "const":
            return number(float(node.attr), self.real)
        if node.op == "count":
            return number(float(length(node.attr, self.loop.sizes)), self.real)
        axis, name = self.axis(node.size), self.name_of(node, known)
        if node.op == "index":
            self.line(f"{name} = {axis.units}.to({self.real})")
        else:
            self.line(f"{name} = {self._read(node, axis.units, axis.inside, row, on)}.to({self.real})")
        known[node] = name
        return name

    def name_of(self, node: Expr, known: dict[Expr, str]) -> str:
        return _free(self.prefix + self._labels.get(node, "t"), {*known.values(), *self._constants.values()})

    def _read(self, node: Expr, units: str, inside: str, row: str, on: str) -> str:
        """The part of an array of the caller that a value lies in."""
        argument, offset = self._places[node]
        if argument.strided:
            at = f"{argument.name} + {row} * {argument.name}_row + {past(offset, units)}"
            return f"tl.load({at}, mask={both(on, inside)}, other=0)"
        if inside == "True":
            return f"tl.load({argument.name} + tl.full([1, 1], 0, tl.int32))"
        return f"tl.load({argument.name} + {units}, mask={inside}, other=0)"

    def read_constants(self) -> dict[Expr, str]:
        """Before the loop: what is the same at every step."""
        for node, (argument, _) in self._places.items():
            if not argument.strided:
                self.tile(node, self._constants, "", "")
        for stage in self.plan.stages:
            for node in stage.nodes:
                for arg in node.args:
                    if arg.op == "index":
                        self.tile(arg, self._constants, "", "")
        return dict(self._constants)

    def work_out(self, node: Expr, known: dict[Expr, str], row: str, on: str) -> None:
        """A value of the language, from those before it."""
        self._need(node.op)
        args = [self.tile(arg, known, row, on) for arg in node.args]
        name = self.name_of(node, known)
        if node.op in REDUCED:
            self.line(f"{name} = {self._reduced(node, args[0])}")
        elif node.op == "cumsum":
            self.line(f"{name} = {self._running(node, args[0])}")
        else:
            given = [arg if arg.isidentifier() else f"({arg})" for arg in args]
            self.line(f"{name} = {SPELLED[node.op].format(*given, real=self.real)}")
        known[node] = name

    def _reduced(self, node: Expr, arg: str) -> str:
        combine, neutral = REDUCED[node.op]
        return f"tl.reduce({self._whole(node.args[0], arg, neutral)}, 1, {combine})[:, None]"

    def _running(self, node: Expr, arg: str) -> str:
        """The running sum over the units of a program, and, where they are divided, the sum of those before them."""
        axis = self.axis(node.size)
        own = f"tl.broadcast_to(tl.where({axis.inside}, {arg}, 0), [{self.choice.sequences}, {axis.tile}])"
        found = f"tl.associative_scan({own}, 1, plus, reverse={bool(node.attr)})"
        if self.choice.parts == 1:
            return found
        every = f"tl.arange(0, {padded(axis.size)})[None, :]"
        earlier = f"{every} >= (part + 1) * {axis.span}" if node.attr else f"{every} < part * {axis.span}"
        others = f"tl.where({earlier}, {self._whole(node.args[0], arg, '0')}, 0)"
        return f"{found} + tl.reduce({others}, 1, plus)[:, None]"

    def _whole(self, node: Expr, arg: str, neutral: str) -> str:
        """A value over all of its units, what is not there being neutral."""
        axis = self.axis(node.size)
        if self.choice.parts > 1:
            every = f"tl.arange(0, {padded(axis.size)})[None, :]"
            return self._fetched(node, every, f"{every} < {axis.size}", neutral)
        shape = f"[{self.choice.sequences}, {axis.tile}]"
        return f"tl.broadcast_to(tl.where({axis.inside}, {arg}, {neutral}), {shape})"

    def _fetched(self, node: Expr, units: str, inside: str, other: str = "0") -> str:
        """Any units of a value: of a value of the loop, as all programs of the group have written it."""
        if node not in self.exchanged:
            return self._read(node, units, inside, "row", "on")
        self.wait_for(node)
        name, width = self.exchanged[node].name, self.width(node.size)
        at = f"{name} + (slot * sequences + b) * {width} + {units}"
        return f'tl.load({at}, mask=present & ({inside}), other={other}, cache_modifier=".cg")'

    def multiply(self, product: Product, known: dict[Expr, str], row: str, on: str) -> None:
        if product.op == "matmul":
            pairs = [
                ([name], product.args, result) for name, result in zip(product.matrices, product.results, strict=True)
            ]
        else:
            pairs = [(list(product.matrices), product.args, product.results[0])]
        plus = dict(zip(product.results, product.plus, strict=True)) if product.plus else {}
        for names, args, result in pairs:
            name = self.name_of(result, known)
            begun = self.tile(plus[result], known, row, on) if result in plus else "0"
            axis = self.axis(result.size)
            self.line(f"{name} = tl.full([{self.choice.sequences}, {axis.tile}], 0, {self.real}) + {begun}")
            for matrix, arg in zip(names, args, strict=True):
                self._add_product(name, product.op, matrix, arg, result, known, row, on)
            known[result] = name

    def _add_product(
        self, name: str, op: str, matrix: str, arg: Expr, result: Expr, known: dict[Expr, str], row: str, on: str
    ) -> None:
        """name += the matrix, or its transpose, times a vector."""
        axis = self.axis(arg.size)
        if self.choice.template != "split":
            vector = self.tile(arg, known, row, on)
            vector = f"tl.broadcast_to(tl.where({axis.inside}, {vector}, 0), [{self.choice.sequences}, {axis.tile}])"
            self.line(f"{name} = {self._dot(name, vector, self._matrices[matrix, op])}")
        elif self.choice.resident:
            every = f"tl.arange(0, {padded(axis.size)})[None, :]"
            vector = self._fetched(arg, every, f"{every} < {axis.size}")
            self.line(f"{name} = {self._dot(name, vector, self._matrices[matrix, op])}")
        else:
            self.wait_for(arg)
            self.line(f"for column in range(0, {axis.size}, {CHUNK}):")
            self.indent += 1
            every = f"(column + tl.arange(0, {CHUNK})[None, :])"
            vector = self._fetched(arg, every, f"{every} < {axis.size}")
            weights = self._matrix(matrix, op, arg.size, result.size, f"(column + tl.arange(0, {CHUNK})[:, None])")
            self.line(f"{name} = {self._dot(name, vector, weights)}")
            self.indent -= 1

    def _dot(self, name: str, vector: str, weights: str) -> str:
        wide = "" if self.real == "tl.float32" else ", out_dtype=tl.float64"
        return f"tl.dot(({vector}).to({self.held}), {weights}, {name}, input_precision=TF32{wide})"

    def _matrix(self, name: str, op: str, from_size: Size | None, to_size: Size | None, columns: str) -> str:
        """The tile [columns of the vector, units of the result] of a matrix or of its transpose, as it is read."""
        param, to = self.graph.params[name], self.axis(to_size)
        width, array = self.width(from_size), f"matrix_{_word(name)}"
        inside = f"({columns} < {width}) & {to.inside}"
        row, column = (to.units, columns) if op == "matmul" else (columns, to.units)
        if param.blocks > 1:
            rows, across = (length(size, self.loop.sizes) // param.blocks for size in param.sizes)
            head = f"({row}) // {rows}"
            inside += f" & (({column}) // {across} == {head})"
            column = f"(({column}) % {across})"
        return f"tl.load({array} + ({row}) * {array}_row + {column}, mask={inside}, other=0)"

    def keep_matrices(self) -> None:
        """Before the loop: the weights that stay on chip."""
        if not self.choice.resident:
            return
        for product in self.loop.products:
            for k, name in enumerate(product.matrices):
                if (name, product.op) in self._matrices:
                    continue
                arg = product.args[0] if product.op == "matmul" else product.args[k]
                result = product.results[k] if product.op == "matmul" else product.results[0]
                axis = self.axis(arg.size)
                columns = f"tl.arange(0, {padded(axis.size)})[:, None]"
                if self.choice.template == "heads":
                    # Those that belong to the next head are masked, as are all that lie outside of a block.
                    columns = f"(part * {axis.span} + tl.arange(0, {axis.tile})[:, None])"
                kept = f"kept_{_word(name)}" + ("" if product.op == "matmul" else "_t")
                tile = self._matrix(name, product.op, arg.size, result.size, columns)
                self.line(f"{kept} = {tile}")
                self._matrices[name, product.op] = kept

    def hand_out(self, node: Expr, value: str) -> None:
        """Write a value where the other programs of the group read it."""
        if node not in self.exchanged:
            return
        axis = self.axis(node.size)
        name = self.exchanged[node].name
        at = f"{name} + (slot * sequences + b) * {self.width(node.size)} + {axis.units}"
        self.line(f'tl.store({at}, {value}, mask={both("present", axis.inside)}, cache_modifier=".cg")')
        self.stale.add(node)

    def wait_for(self, node: Expr) -> None:
        """Before the first reading of what others have written since they last met."""
        if node not in self.stale:
            return
        if self.choice.parts > 1:
            self.needed["meet"] = None
            self.line(f"all_here += {self.choice.parts}")
            self.line(f"meet(arrived + tl.program_id(0), all_here, failed, {TRIES})")
        else:
            self.line("tl.debug_barrier()")
        self.stale.clear()


def past(offset: int, units: str) -> str:
    return f"({offset} + {units})" if offset else units


def both(on: str, inside: str) -> str:
    return on if inside == "True" else f"{on} & {inside}"


def _side_by_side(loop: Loop, history: Sequence[Expr]) -> list[tuple[Expr, ...]]:
    """What is written down, in arrays: values that a product takes side by side lie so."""
    wanted = dict.fromkeys(history)
    joint: list[tuple[Expr, ...]] = []
    for product in loop.products:
        if len(product.args) > 1 and len({*product.args}) == len(product.args) and wanted.keys() >= {*product.args}:
            joint.append(product.args)
            for node in product.args:
                del wanted[node]
    return [*joint, *((node,) for node in wanted)]


TEMPLATES = (
    "tl triton loop plus larger then meet tanh expm1 log1p sigmoid lengths offsets arrived failed sequences begin b t "
    "k on row part place first length longest slot all_here broken column is_last step its_row present sequence"
)
"""Names that templates use themselves."""


def _identifiers(labels: dict[Expr, str]) -> dict[Expr, str]:
    found: dict[Expr, str] = {}
    for node, text in labels.items():
        found[node] = _free(_word(text), found.values())
    return found


def _word(text: str) -> str:
    """A name of Python's that reads like the text."""
    word = re.sub(r"\W", "_", text.replace("'", "_new").replace(":", "_"))
    return f"v{word}" if not word[:1].isalpha() or keyword.iskeyword(word) else word


def _free(word: str, taken: Iterable[str]) -> str:
    used, k, name = {*taken, *TEMPLATES.split()}, 0, word
    while name in used or re.fullmatch(
        r"(new|old|unit|inside|feed|fixed|vector|first|last|history|exchange|a|b)\d+", name
    ):
        k += 1
        name = f"{word}_{k}"
    return name
