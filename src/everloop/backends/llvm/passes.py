"""One pass of a program: tiles of matrix products, and what is worked out elementwise while they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from everloop.backends.llvm.builder import Word
from everloop.backends.llvm.lower import Buffer, Group, Pass
from everloop.backends.llvm.tiles import MOST_ROWS, MOST_VECTORS, group_vectors, rows_of, units_of
from everloop.backends.llvm.vectors import Lane, unit_vector
from everloop.lang.expr import Expr

if TYPE_CHECKING:
    from everloop.backends.llvm.emit import Block


Pointers = dict[tuple[Expr, Buffer | None], str]
"""Where the row of a value begins: in the buffer it is read from (None), and in those it is written to."""


@dataclass(frozen=True)
class Rows:
    """The rows that a pass goes over: those of one step, or, outside the loop, all of a chunk.

    step: the time step. place: the first row of the step in the buffers of the chunk. outer: the first row of the
    step in the packed arrays of the caller. kept, later: the first row of the step among those kept, and of the next.
    """

    phase: str
    count: Word
    step: Word = 0
    place: Word = 0
    outer: Word = 0
    kept: Word = 0
    later: Word = 0


def row_pointer(block: Block, rows: Rows, node: Expr, buffer: Buffer, i: Word, *, write: bool = False) -> str:
    """Where the row of a value begins, to read or to write it."""
    f, width, scalar = block.f, buffer.width, block.numbers.scalar
    listed = rows.phase != "loop"
    if buffer.where == "outer":
        base, stride, step = block.outer[buffer.name]
        number = _entry(block, "table outer", i) if listed else f.add(rows.outer, block.sequence(i))
        t = _entry(block, "table step", i) if listed else block.turned(i, rows.step)
        return f.at(scalar, base, f.add(f.mul(number, stride), f.mul(t, step)), buffer.name)
    if buffer.where == "step":
        return f.at(scalar, block.areas[f"step:{block.layout.area(buffer)}"], f.mul(i, width), buffer.name)
    if buffer.where == "chunk":
        number = _entry(block, "table", i) if listed else f.add(rows.place, i)
        return f.at(scalar, block.areas[f"chunk:{block.layout.area(buffer)}"], f.mul(number, width), buffer.name)
    # The state before step t lies in slot t, the one after it in slot t + 1.
    is_old = not write and node.op == "state" and block.program.buffers[node][0] is buffer
    later = buffer.where != "keep" and is_old == block.backwards
    if buffer.where == "pair":
        return f.at(scalar, block.slot(buffer, f.add(rows.step, int(later))), f.mul(i, width), buffer.name)
    if listed:
        number = _entry(block, "table later" if later else "table kept", i)
    else:
        number = f.add(rows.later if later else rows.kept, i)
    return f.at(scalar, block.regions[buffer.name], f.mul(number, width), buffer.name)


def _entry(block: Block, table: str, i: Word) -> Word:
    f = block.f
    return f.load("i64", f.at("i64", block.areas[table], i), "row", 8)


def write_pass(block: Block, one: Pass, rows: Rows) -> None:
    _Writer(block, one, rows).write()


def write_share(block: Block, one: Pass, rows: Rows, parts: Word) -> None:
    """The groups of units that one of so many threads computes."""
    writer, f = _Writer(block, one, rows), block.f
    begin = f.let(f"udiv i64 {f.mul('%part', writer.groups)}, {parts}", "begin")
    end = f.let(f"udiv i64 {f.mul(f.add('%part', 1), writer.groups)}, {parts}", "end")
    writer.unit_groups(begin, end, 0, {})


# Weights from which it is worth having several threads compute the units of one step: some ten microseconds of work.
WORTH_SHARING = 131_072


class _Writer:
    def __init__(self, block: Block, one: Pass, rows: Rows) -> None:
        self.block, self.one, self.rows, self.f, self.numbers = block, one, rows, block.f, block.numbers
        self.program = block.program
        self.number = next(k for k, (_, other) in enumerate(self.program.passes()) if other is one)
        self.results = {result: (g, k) for g, group in enumerate(one.groups) for k, result in enumerate(group.results)}
        self.computed = {*one.nodes, *one.numbers}
        self.sums = [(name, node) for name, node in self.program.request.sums.items() if node in one.made]

    def write(self) -> None:
        f, one = self.f, self.one
        f.note(f"{self.rows.phase}: " + ", ".join(self.program.name(node) for node in one.made))
        for node in one.running:
            self._running_sum(node)
        if one.groups:
            self._tiles()
        elif not one.width:
            with f.loop(0, self.rows.count, 1, "row") as i:
                pointers = self._pointers(i)
                self._body(Lane(f, self.numbers, wide=False), 0, pointers, None)
        elif one.nodes or one.reductions or one.copies or self.sums:
            places = {node: f.alloca(self.numbers.vector, "sum") for node in one.reductions}
            with f.loop(0, self.rows.count, 1, "row") as i:
                pointers = self._pointers(i)
                self._start_sums(places)
                self._vectors(self._bodies(pointers, None, places))
                self._finish_sums(places, i)

    def _bodies(
        self, pointers: Pointers, tile: Callable[[Word, Expr], str] | None, sums: dict[Expr, str], first: Word = 0
    ) -> Callable[[Word, Lane], None]:
        """What is done for each vector of units: its number (counted from the first unit), the lanes in use."""

        def body(vector: Word, lane: Lane) -> None:
            f = self.f
            offset = f.add(first, f.mul(vector, self.numbers.lanes))
            self._body(lane, offset, pointers, partial(tile, vector) if tile else None, sums)

        return body

    def _vectors(self, body: Callable[[Word, Lane], None]) -> None:
        """The body for every whole vector of the axis, and for one that is not whole."""
        whole, tail = divmod(self.one.width, self.numbers.lanes)
        if whole:
            with self.f.loop(0, whole, 1, "unit") as vector:
                body(vector, Lane(self.f, self.numbers))
        if tail:
            body(whole, Lane(self.f, self.numbers, count=tail))

    # Tiles.

    def _tiles(self) -> None:
        f, one, lanes = self.f, self.one, self.numbers.lanes
        places = {node: f.mul(f.mul(self.rows.count, lanes), k) for k, node in enumerate(one.reductions)}
        self._each_row_sum(places, start=True)
        with f.loop(0, one.blocks, 1, "block") if one.blocks > 1 else _nothing() as head:
            self._point(head)
            if self._is_shared:
                self.block.share(self.number, self.rows)
            else:
                self.unit_groups(0, self.groups, head, places)
        self._each_row_sum(places, start=False)

    @property
    def units(self) -> int:
        """Vectors of units in a group."""
        return units_of(self.one, self.numbers)

    @property
    def groups(self) -> int:
        """Groups of units, of each block of block-diagonal matrices."""
        return -(-(self.one.width // self.one.blocks) // (self.units * self.numbers.lanes))

    @property
    def _is_shared(self) -> bool:
        one = self.one
        weights = sum(segment.length * len(group.results) for group, segment in self._segments()) * one.width
        return self.program.request.shared and one.blocks == 1 and not one.reductions and weights >= WORTH_SHARING

    def unit_groups(self, first: Word, last: Word, head: Word, places: dict[Expr, Word]) -> None:
        """The groups of units from the first to before the last: products, and what follows them."""
        f, one, units, lanes = self.f, self.one, self.units, self.numbers.lanes
        width = one.width // one.blocks
        whole, tail = divmod(width, lanes)
        height = min(self._height(group) for group in one.groups)
        tiles = f.larger(1, f.ceil_div(self.rows.count, height))
        even = f.larger(1, f.ceil_div(self.rows.count, tiles))
        with f.loop(first, last, 1, "units") as number:
            j = self._to_and_fro(number, first, last)
            panel = f.add(f.mul(head, self.groups), j)
            with f.loop(0, self.rows.count, even, "tile") as begin:
                count = f.smaller(even, f.sub(self.rows.count, begin), "height")
                self._prefetch(begin, count, f.add(f.mul(head, width), f.mul(j, units * lanes)), units)
                if self.program.request.direct:
                    self._direct_products(begin, count, head, f.mul(j, units * lanes))
                else:
                    self._products(begin, count, panel)
                self._tile_rows(begin, count, f.mul(j, units), f.mul(head, width), whole, tail, units, places)

    def _to_and_fro(self, number: Word, first: Word, last: Word) -> Word:
        """Every other step goes the other way: it begins with the weights that are still in the cache. So do calls of
        one step each, but where sums would come in another order: one step has one result.
        """
        f = self.f
        if self.rows.phase == "after":
            return number
        other = f.sub(f.sub(f.add(first, last), 1), number)
        step = self.rows.step if self.one.reductions else f.add(self.block.done, self.rows.step)
        if step == 0:
            return number
        odd = f.compare("eq", f.let(f"and i64 {step}, 1", "turn"), 1)
        return f.let(f"select i1 {odd}, i64 {other}, i64 {number}", "units")

    def _point(self, head: Word) -> None:
        """Pointers to the rows of every vector that meets a matrix."""
        f = self.f
        table = self.block.areas["rows"]
        with f.loop(0, self.rows.count, 1, "row") as i:
            for k, (group, segment) in enumerate(self._segments()):
                buffer = self._source(segment.vector)
                row = row_pointer(self.block, self.rows, segment.vector, buffer, i)
                if group.blocks > 1:
                    row = f.at(self.numbers.scalar, row, f.mul(head, segment.length))
                f.store("ptr", row, f.at("ptr", table, f.add(f.mul(self.rows.count, k), i)), 8)

    def _prefetch(self, begin: Word, count: Word, unit: Word, units: int) -> None:
        """Have the lines of long histories come while the products are computed."""
        f, rows = self.f, self.rows
        touched = [(node, self._source(node), False) for node in self._read()]
        touched += [(node, buffer, True) for node in self.one.made for buffer in self._written(node)]
        lasting = [(n, b, w) for n, b, w in touched if b.where not in ("pair", "step", "once") and n.size is not None]
        if not lasting:
            return
        with f.loop(0, count, 1, "r") as r:
            i = f.add(begin, r)
            for node, buffer, write in lasting:
                row = f.at(self.numbers.scalar, row_pointer(self.block, rows, node, buffer, i, write=write), unit)
                for u in range(units):
                    line = f.at(self.numbers.scalar, row, u * self.numbers.lanes)
                    f.do(f"call void @llvm.prefetch.p0(ptr {line}, i32 {int(write)}, i32 3, i32 1)")

    def _segments(self) -> list:
        return [(group, segment) for group in self.one.groups for segment in group.segments]

    def _products(self, begin: Word, count: Word, panel: Word) -> None:
        f, block = self.f, self.block
        segments = self._segments()
        for g, group in enumerate(self.one.groups):
            vectors = group_vectors(self.one, group, self.numbers)
            for k, segment in enumerate(group.segments):
                found = block.layout.panels[self.number, g, k]
                number = next(n for n, (_, other) in enumerate(segments) if other is segment)
                rows = f.at("ptr", block.areas["rows"], f.add(f.mul(self.rows.count, number), begin))
                size = segment.length * vectors * self.numbers.lanes
                weights = self._panel(found.place, f.mul(panel, size))
                f.do(
                    f"call void {block.tiles[f'product {vectors}']}(i64 {count}, ptr {rows}, ptr {weights}, "
                    f"i64 {segment.length}, ptr {self._tile(g)}, i1 {int(k > 0)})"
                )

    def _height(self, group: Group) -> int:
        """The rows of a tile."""
        if not self.program.request.direct:
            return rows_of(group_vectors(self.one, group, self.numbers), self.numbers)
        return rows_of(self.units, self.numbers) if group.transposed else MOST_ROWS

    def _direct_products(self, begin: Word, count: Word, head: Word, first: Word) -> None:
        """The same from matrices as they lie. first: of the units of the block, the first of the tile."""
        f, one, block, scalar = self.f, self.one, self.block, self.numbers.scalar
        width, span = one.width // one.blocks, self.units * self.numbers.lanes
        there = f.smaller(span, f.sub(width, first), "there")
        for number, (group, segment) in enumerate(self._segments()):
            g, length = one.groups.index(group), segment.length
            sequences = f.at("ptr", block.areas["rows"], f.add(f.mul(self.rows.count, number), begin))
            tile = block.tiles[block.layout.product(one, group)]
            apart = group_vectors(one, group, self.numbers) * self.numbers.lanes
            for gate, name in enumerate(segment.matrices):
                stack, row = block.layout.places[name]
                param = self.program.graph.params[name]
                columns = self.program.length(param.sizes[1]) // param.blocks
                own = group.blocks > 1
                if group.transposed:
                    place = f.add(f.mul(f.add(f.mul(head, length if own else 0), row), columns), first)
                    place = f.add(place, 0 if own else f.mul(head, width))
                    shape = f"i64 {columns}, i64 {length}"
                else:
                    place = f.mul(f.add(f.add(f.mul(head, width), first), row), columns)
                    shape = f"i64 {length}"
                matrix = f.at(scalar, block.stacks[stack], place, name)
                acc = f.at(scalar, self._tile(g), gate * span)
                f.do(
                    f"call void {tile}(i64 {count}, ptr {sequences}, ptr {matrix}, {shape}, i64 {there}, ptr {acc}, "
                    f"i64 {apart}, i1 {int(segment is not group.segments[0])})"
                )

    def _panel(self, place: int, offset: Word) -> str:
        f = self.f
        kinds = {"": self.numbers.scalar, "bfloat16": "i16", "int8": "i8"}
        start = f.at(self.numbers.scalar, self.block.packed, place)
        return f.at(kinds[self.block.weight], start, offset, "panel")

    def _tile(self, g: int) -> str:
        size = MOST_ROWS * MOST_VECTORS
        return self.f.at(self.numbers.vector, self.block.areas["tile"], g * size, "acc")

    def _tile_rows(
        self, begin: Word, count: Word, first: Word, unit: Word, whole: int, tail: int, units: int, places: dict
    ) -> None:
        f, one, block, lanes = self.f, self.one, self.block, self.numbers.lanes
        there = f.larger(0, f.smaller(units, f.sub(whole, first)), "whole")
        with f.loop(0, count, 1, "r") as r:
            i = f.add(begin, r)
            pointers = self._pointers(i)
            sums = {node: self._row_sum(place, i) for node, place in places.items()}

            def loaded(vector: Word, node: Expr) -> str:
                g, gate = self.results[node]
                vectors = group_vectors(one, one.groups[g], self.numbers)
                place = f.add(f.add(f.mul(r, vectors), gate * units), f.sub(vector, first))
                found = f.load(
                    self.numbers.vector,
                    f.at(self.numbers.vector, self._tile(g), place),
                    self.program.name(node),
                    self.numbers.bytes * lanes,
                )
                if block.weight != "int8":
                    return found
                start = block.layout.scales[self.number, g] + gate * block.layout.scale_stride(one)
                scales = f.at(self.numbers.scalar, block.packed, start)
                place = f.at(self.numbers.scalar, scales, f.add(unit, f.mul(vector, lanes)))
                scale = Lane(f, self.numbers).load(place, "scale")
                return f.let(f"fmul {self.numbers.vector} {found}, {scale}", self.program.name(node))

            body = self._bodies(pointers, loaded, sums, unit)
            if whole:
                with f.loop(first, f.add(first, there), 1, "unit") as vector:
                    body(vector, Lane(f, self.numbers))
            if tail:
                with f.when(f.compare("slt", there, units)):
                    body(whole, Lane(f, self.numbers, count=tail))

    # Sums over the units of a row.

    def _row_sum(self, place: Word, i: Word) -> str:
        f = self.f
        return f.at(self.numbers.scalar, self.block.areas["sums"], f.add(place, f.mul(i, self.numbers.lanes)), "sum")

    def _each_row_sum(self, places: dict[Expr, Word], *, start: bool) -> None:
        if not places:
            return
        with self.f.loop(0, self.rows.count, 1, "row") as i:
            found = {node: self._row_sum(place, i) for node, place in places.items()}
            if start:
                self._start_sums(found)
            else:
                self._finish_sums(found, i)

    def _start_sums(self, places: dict[Expr, str]) -> None:
        for node, place in places.items():
            first = self.numbers.splat(0.0 if node.op == "sum" else float("-inf"))
            self.f.store(self.numbers.vector, first, place, self.numbers.bytes)

    def _finish_sums(self, places: dict[Expr, str], i: Word) -> None:
        f, numbers = self.f, self.numbers
        for node, place in places.items():
            value = f.load(numbers.vector, place, "sum", numbers.bytes)
            if node.op == "sum":
                kind, suffix = numbers.scalar, numbers.suffix
                whole = f.let(
                    f"call reassoc {kind} @llvm.vector.reduce.fadd.{suffix}({kind} {numbers.number(0.0)}, "
                    f"{numbers.vector} {value})",
                    self.program.name(node),
                )
            else:
                lane = Lane(f, numbers, wide=False)
                parts = [f.let(f"extractelement {numbers.vector} {value}, i64 {k}") for k in range(numbers.lanes)]
                whole = parts[0]
                for part in parts[1:]:
                    whole = lane.compute("maximum", [part, whole], self.program.name(node))
            for buffer in self.program.targets.get(node, []):
                f.store(
                    numbers.scalar,
                    whole,
                    row_pointer(self.block, self.rows, node, buffer, i, write=True),
                    numbers.bytes,
                )

    def _running_sum(self, node: Expr) -> None:
        f, numbers, width = self.f, self.numbers, self.one.width
        arg = node.args[0]
        total = f.alloca(numbers.scalar, "total")
        with f.loop(0, self.rows.count, 1, "row") as i:
            source = row_pointer(self.block, self.rows, arg, self._source(arg), i)
            targets = [row_pointer(self.block, self.rows, node, b, i, write=True) for b in self.program.targets[node]]
            f.store(numbers.scalar, numbers.number(0.0), total, numbers.bytes)
            with f.loop(0, width, 1, "unit") as k:
                place = f.sub(width - 1, k) if node.attr else k
                value = f.load(numbers.scalar, f.at(numbers.scalar, source, place), "v", numbers.bytes)
                old = f.load(numbers.scalar, total, "total", numbers.bytes)
                new = f.let(f"fadd {numbers.scalar} {old}, {value}", self.program.name(node))
                f.store(numbers.scalar, new, total, numbers.bytes)
                for target in targets:
                    f.store(numbers.scalar, new, f.at(numbers.scalar, target, place), numbers.bytes)

    # Values.

    def _source(self, node: Expr) -> Buffer:
        found = self.program.find(node, self.rows.phase)
        assert found is not None, f"{self.program.name(node)} lies nowhere"
        return found

    def _pointers(self, i: Word) -> Pointers:
        """Where the row of everything begins that the pass reads and writes elementwise."""
        block, rows, found = self.block, self.rows, {}
        for node in self._read():
            found[node, None] = row_pointer(block, rows, node, self._source(node), i)
        for node in self.one.made:
            for buffer in self._written(node):
                found[node, buffer] = row_pointer(block, rows, node, buffer, i, write=True)
        return found

    def _written(self, node: Expr) -> list[Buffer]:
        if node in self.one.reductions or node in self.one.running:
            return []
        return self.program.targets.get(node, [])

    def _read(self) -> list[Expr]:
        one = self.one
        args = [arg for node in (*one.nodes, *one.reductions, *one.numbers) for arg in node.args]
        args += [node for node in one.running if node in args or any(n is node for _, n in self.sums)]
        args += one.copies
        made = {*self.computed, *self.results}
        return [n for n in dict.fromkeys(args) if n not in made and not self._at_hand(n)]

    def _at_hand(self, node: Expr) -> bool:
        """Numbers, vectors of parameters, and what is the same at every step."""
        return node.op in ("const", "count", "index", "vector") or self.program.phase.get(node) == "once"

    def _body(
        self,
        lane: Lane,
        offset: Word,
        pointers: Pointers,
        tile: Callable[[Expr], str] | None,
        sums: dict[Expr, str] | None = None,
    ) -> None:
        """The elementwise work on one vector of units (or on the numbers of a row), read, computed and written."""
        f, one, program = self.f, self.one, self.program
        values: dict[Expr, str] = {}

        def value(node: Expr) -> str:
            if node not in values:
                values[node] = self._leaf(node, lane, offset, pointers, tile)
            return values[node]

        for node in (*one.nodes, *one.numbers):
            if node.op == "spread":
                values[node] = value(node.args[0])
            else:
                values[node] = lane.compute(node.op, [value(arg) for arg in node.args], program.name(node))
        for node in one.reductions:
            assert sums is not None
            part = lane.keep(value(node.args[0]), 0.0 if node.op == "sum" else float("-inf"))
            full = Lane(f, self.numbers)
            old = full.load(sums[node], "sum")
            full.store(full.compute("add" if node.op == "sum" else "maximum", [part, old], "sum"), sums[node])
        for node in one.made:
            for buffer in self._written(node):
                lane.store(value(node), f.at(self.numbers.scalar, pointers[node, buffer], offset))
        for name, node in self.sums:
            whole = self.block.areas["vector sums"]
            place = f.at(self.numbers.scalar, whole, f.add(self.block.layout.sums[name], offset), f"d_{name}")
            lane.store(lane.compute("add", [lane.load(place, "sum"), value(node)], "sum"), place)

    def _leaf(
        self,
        node: Expr,
        lane: Lane,
        offset: Word,
        pointers: Pointers,
        tile: Callable[[Expr], str] | None,
    ) -> str:
        f, program, block, scalar = self.f, self.program, self.block, self.numbers.scalar
        name = program.name(node)
        if node in self.results:
            assert tile is not None
            return tile(node)
        match node.op:
            case "const":
                return lane.const(node.attr)
            case "count":
                return lane.const(float(program.length(node.attr)))
            case "index":
                return unit_vector(f, self.numbers, offset)
            case "vector":
                stack, row = block.layout.places[node.attr]
                return lane.load(f.at(scalar, block.stacks[stack], f.add(row, offset)), name)
        if program.phase.get(node) == "once":
            place = f.at(scalar, block.packed, block.layout.once[node])
        else:
            place = pointers[node, None]
        if node.size is None:
            return lane.spread(f.load(scalar, place, name, self.numbers.bytes), name)
        return lane.load(f.at(scalar, place, offset), name)


class _nothing:
    """No loop: the number 0."""

    def __enter__(self) -> int:
        return 0

    def __exit__(self, *_: object) -> None:
        return None
