"""Gradients of matrices: for all rows of a chunk, the sum of the outer products of two histories.

Both are packed first, so that the inner loop reads straight on: the rows in groups of OUTER_ROWS units, the columns in
as many vectors as a tile is wide.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from everloop.backends.llvm.builder import Word
from everloop.backends.llvm.lower import Outer
from everloop.backends.llvm.passes import Rows, row_pointer
from everloop.backends.llvm.tiles import OUTER_ROWS, outer_vectors
from everloop.backends.llvm.vectors import Lane
from everloop.lang.expr import Expr

if TYPE_CHECKING:
    from everloop.backends.llvm.emit import Block


def write_outers(block: Block, rows: Rows) -> None:
    """Add what the chunk gives to the gradients of all matrices."""
    writer = _Writer(block, rows)
    for k, (node, blocks) in enumerate(block.layout.outer_rows):
        writer.pack_rows(node, blocks, block.areas[f"packed rows {k}"])
    by_columns: dict[tuple[Expr, int], list[Outer]] = {}
    for outer in block.program.request.outers:
        by_columns.setdefault((outer.columns, block.layout.blocks_of(outer.matrix)), []).append(outer)
    for (columns, blocks), outers in by_columns.items():
        writer.write(columns, blocks, outers)


class _Writer:
    def __init__(self, block: Block, rows: Rows) -> None:
        self.block, self.rows, self.f, self.numbers = block, rows, block.f, block.numbers
        self.program, self.layout = block.program, block.layout
        self.vectors = outer_vectors(self.numbers)
        self.span = self.vectors * self.numbers.lanes
        self.fresh = {outer.matrix for outer in self.program.request.outers} if self.program.request.fresh else set()

    def pack_rows(self, node: Expr, blocks: int, target: str) -> None:
        """[groups of units][rows of the chunk][OUTER_ROWS], zero beyond the last unit."""
        f, scalar = self.f, self.numbers.scalar
        width = self.program.width(node) // blocks
        groups = -(-width // OUTER_ROWS)
        f.note(f"rows of gradients: {self.program.name(node)}")
        kind, size = f"<{OUTER_ROWS} x {scalar}>", self.numbers.bytes
        with f.loop(0, self.rows.count, 1, "row") as i:
            source = self._row(node, i)
            for head in range(blocks):
                whole, rest = divmod(width, OUTER_ROWS)
                if whole:
                    with f.loop(0, whole, 1, "units") as j:
                        value = f.load(kind, f.at(scalar, source, f.add(f.mul(j, OUTER_ROWS), head * width)), "v", size)
                        f.store(kind, value, self._packed(target, f.add(j, head * groups), i), size)
                for k in range(OUTER_ROWS if rest else 0):
                    place = head * width + whole * OUTER_ROWS + k
                    value = (
                        f.load(scalar, f.at(scalar, source, place), "v", size) if k < rest else self.numbers.number(0.0)
                    )
                    f.store(scalar, value, f.at(scalar, self._packed(target, head * groups + whole, i), k), size)

    def _packed(self, target: str, group: Word, i: Word) -> str:
        f = self.f
        place = f.mul(f.add(f.mul(group, self.rows.count), i), OUTER_ROWS)
        return f.at(self.numbers.scalar, target, place)

    def _row(self, node: Expr, i: Word) -> str:
        buffer = self.program.find(node, "sums")
        assert buffer is not None, f"{self.program.name(node)} lies nowhere"
        return row_pointer(self.block, self.rows, node, buffer, i)

    def write(self, columns: Expr, blocks: int, outers: list[Outer]) -> None:
        f = self.f
        width = self.program.width(columns) // blocks
        f.note(f"gradients of {' '.join(outer.matrix for outer in outers)}")
        groups = -(-width // self.span)
        with f.loop(0, blocks, 1, "block") as head:
            if self.program.request.direct:
                with f.loop(0, groups, 1, "columns") as c:
                    self._pack_columns(columns, head, c, width, self._column_pack(c))
                for outer in outers:
                    with self._units(outer, blocks) as j, f.loop(0, groups, 1, "columns") as c:
                        self._tile(outer, blocks, head, j, c, width, self._column_pack(c))
                    self.fresh.discard(outer.matrix)
                return
            with f.loop(0, groups, 1, "columns") as c:
                self._pack_columns(columns, head, c, width, self._column_pack(0))
                for outer in outers:
                    with self._units(outer, blocks) as j:
                        self._tile(outer, blocks, head, j, c, width, self._column_pack(0))

    def _units(self, outer: Outer, blocks: int) -> AbstractContextManager[str]:
        """A loop over the groups of units of a block."""
        return self.f.loop(0, -(-(self.program.width(outer.rows) // blocks) // OUTER_ROWS), 1, "units")

    def _column_pack(self, c: Word) -> str:
        """Where a group of columns is packed. Few rows leave room for all of them: the gradients are then written row
        after row.
        """
        place = self.f.mul(self.f.mul(c, self.rows.count), self.span)
        return self.f.at(self.numbers.scalar, self.block.areas["packed columns"], place)

    def _pack_columns(self, node: Expr, head: Word, c: Word, width: int, target: str) -> None:
        """[rows of the chunk][vectors][lanes], zero beyond the last column."""
        f, first = self.f, self.f.mul(c, self.span)
        place = f.add(f.mul(head, width), first)
        with f.loop(0, self.rows.count, 1, "row") as i:
            source = f.at(self.numbers.scalar, self._row(node, i), place)
            row = f.at(self.numbers.scalar, target, f.mul(i, self.span))

            def copy(v: Word, lane: Lane, source: str = source, row: str = row) -> None:
                offset = f.mul(v, self.numbers.lanes)
                value = lane.load(f.at(self.numbers.scalar, source, offset), "v")
                Lane(f, self.numbers).store(value, f.at(self.numbers.scalar, row, offset))

            self._each(first, width, copy)

    def _each(self, first: Word, width: int, do: Callable[[Word, Lane], None]) -> None:
        """For every vector of a tile's columns that is there: `do(number, lanes in use)`."""
        f, lanes = self.f, self.numbers.lanes
        left = f.sub(width, first)
        there = left // lanes if isinstance(left, int) else f.let(f"sdiv i64 {left}, {lanes}", "whole")
        whole = f.smaller(self.vectors, there)
        with f.loop(0, whole, 1, "v") as v:
            do(v, Lane(f, self.numbers))
        if width % lanes:
            with f.when(f.compare("slt", whole, self.vectors)):
                do(whole, Lane(f, self.numbers, count=width % lanes))

    def _tile(self, outer: Outer, blocks: int, head: Word, j: Word, c: Word, width: int, columns: str) -> None:
        f, numbers = self.f, self.numbers
        first, unit = f.mul(c, self.span), f.mul(j, OUTER_ROWS)
        packed = self.block.areas[f"packed rows {self.layout.outer_rows.index((outer.rows, blocks))}"]
        height = self.program.width(outer.rows) // blocks
        rows = self._packed(packed, f.add(f.mul(head, -(-height // OUTER_ROWS)), j), 0)
        acc, tile = self.block.areas["tile"], self.block.tiles["outer"]
        target = f.at(numbers.scalar, self.block.grads, self.program.request.places[outer.matrix], "d")
        f.do(f"call void {tile}(ptr {rows}, ptr {columns}, i64 {self.rows.count}, ptr {acc})")
        with f.loop(0, f.smaller(OUTER_ROWS, f.sub(height, unit)), 1, "r") as r:
            row = f.add(f.add(f.mul(head, height), unit), r)
            line = f.at(numbers.scalar, target, f.add(f.mul(row, width), first))
            source = f.at(numbers.scalar, acc, f.mul(r, self.span))

            def add(v: Word, lane: Lane) -> None:
                offset = f.mul(v, numbers.lanes)
                part = lane.load(f.at(numbers.scalar, source, offset), "part")
                place = f.at(numbers.scalar, line, offset)
                if outer.matrix not in self.fresh:
                    part = lane.compute("add", [lane.load(place, "sum"), part], "sum")
                lane.store(part, place)

            self._each(first, width, add)
