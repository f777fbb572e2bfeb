"""Where everything is that a program's functions read and write: one array of words, and areas in scratch memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everloop.backends._narrow import BYTES
from everloop.backends.llvm.builder import Function, Word
from everloop.backends.llvm.lower import Buffer, Group, Pass, Program
from everloop.backends.llvm.tiles import MOST_ROWS, MOST_VECTORS, OUTER_ROWS, group_vectors, outer_vectors, units_of
from everloop.backends.llvm.vectors import Numbers
from everloop.lang.expr import Expr

BLOCK_WORDS = 8
SCRATCH, GRADS, DONE = 3, 4, 5
"""The words of a block: its first sequence, how many, their steps, its scratch memory, where its share of the gradients
is, how many steps it has done in earlier calls; and two unused, for a whole cache line."""

APART = 5 * 16
"""Numbers between areas: rows of the same number in areas of a round size would all want the same few places of the
cache."""

ALIGNED = 16
"""Areas begin at multiples of so many numbers."""


@dataclass(frozen=True)
class Area:
    """A piece of scratch memory: numbers for every row of a step, for every row of a chunk, and besides."""

    per_row: int = 0
    per_chunk_row: int = 0
    fixed: int = 0

    def size(self, rows: int, span: int) -> int:
        return rounded(self.per_row * rows + self.per_chunk_row * rows * span + self.fixed) + APART


@dataclass(frozen=True)
class Panel:
    """Weights as a tile reads them: [unit groups][K][vectors][lanes], from a place in the packed array. Where they are
    narrower than its numbers, several of them take the place of one.
    """

    place: int
    length: int
    vectors: int


def rounded(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED


class Layout:
    """The words that `run` takes, by name, and the areas of scratch memory of each block.

    weight: bfloat16 or int8, if panels hold that. scales: where those of int8 begin, by pass and group. weight_count:
    the weights of all panels, whatever they are stored in.
    """

    def __init__(self, program: Program, numbers: Numbers, weight: str = "") -> None:
        self.program, self.numbers, self.weight = program, numbers, weight
        self._area_names: dict[Buffer, str] = {}
        self.outer = {**program.inputs, **program.outers}
        self.kept = {name: buffer.width for name, buffer in program.kept.items()} or {
            name: buffer.width for name, buffer in program.request.inputs.items()
        }
        self.stacks = tuple(program.graph.stacks)
        self.places = _stack_places(program)
        self.sums, self.sums_size = self._sums()
        self.tiles = self._tiles()
        self.areas = self._areas()
        self.scales: dict[tuple[int, int], int] = {}
        self.weight_count = 0
        self.panels, self.once, self.packed_size = self._packed()
        names = ["blocks", "batch_sizes", "offsets", "packed", "ready", "count", "threads", "pool", "span", "index"]
        names += ["order", "time", "ends", "turn", "keep", "kept rows", "kept steps"]
        names += [f"tile:{name}" for name in self.tiles]
        names += [f"{part}:{name}" for name in self.outer for part in ("outer", "stride", "step")]
        names += [f"{part}:{name}" for name in program.new for part in ("start", "final", "step start", "step final")]
        names += [f"stack:{name}" for name in self.stacks]
        names += [f"at:{name}" for name in self.areas]
        self.words = {name: place for place, name in enumerate(names)}
        parts = ("outer", "stride", "step")
        self.outer_words = [(n, *(self.words[f"{part}:{n}"] for part in parts)) for n in self.outer]
        self.state_words = [(n, self.words[f"start:{n}"], self.words[f"final:{n}"]) for n in program.new]
        self.stack_words = [(n, self.words[f"stack:{n}"]) for n in self.stacks]

    def word(self, f: Function, name: str) -> str:
        return f.load("i64", f.at("i64", "%args", self.words[name]), name.replace(":", "_"), 8)

    def pointer(self, f: Function, name: str) -> str:
        return f.load("ptr", f.at("i64", "%args", self.words[name]), name.replace(":", "_"), 8)

    def area(self, buffer: Buffer) -> str:
        """A name of its own for a piece of scratch memory."""
        if buffer not in self._area_names:
            taken = set(self._area_names.values())
            name, k = buffer.name, 0
            while name in taken:
                k += 1
                name = f"{buffer.name}.{k}"
            self._area_names[buffer] = name
        return self._area_names[buffer]

    def kept_size(self, f: Function, rows: Word, width: int) -> Word:
        """What `rounded(rows * width) + APART` is, while the program runs."""
        count = f.add(f.mul(rows, width), ALIGNED - 1)
        return f.add(f.let(f"and i64 {count}, {-ALIGNED}", "size"), APART)

    def _tiles(self) -> tuple[str, ...]:
        """The kinds of tiles that the program calls: products, squares to lay weights out, outer products."""
        passes = [one for _, one in self.program.passes()]
        products = sorted({self.product(one, group) for one in passes for group in one.groups})
        squares = [] if self.program.request.direct else ["square"]
        return (*products, *squares, *(["outer"] if self.program.request.outers else []))

    def product(self, one: Pass, group: Group) -> str:
        """The kind of tile of some products."""
        if not self.program.request.direct:
            return f"product {group_vectors(one, group, self.numbers)}"
        return f"columns {units_of(one, self.numbers)}" if group.transposed else "rows"

    def _areas(self) -> dict[str, Area]:
        program, lanes = self.program, self.numbers.lanes
        words = 8 // self.numbers.bytes
        areas = {
            "table": Area(per_chunk_row=words),
            "table outer": Area(per_chunk_row=words),
            "table step": Area(per_chunk_row=words),
            "tile": Area(fixed=MOST_ROWS * MOST_VECTORS * lanes * self.most_groups),
            "rows": Area(per_chunk_row=words * self._most_segments()),
        }
        if self.kept:
            areas["table kept"] = Area(per_chunk_row=words)
        if program.kept:
            areas["table later"] = Area(per_chunk_row=words)
        for name, buffer in program.new.items():
            if buffer.where == "pair":
                areas[f"pair:{name}"] = Area(per_row=2 * buffer.width)
        for buffers in program.targets.values():
            for buffer in buffers:
                if buffer.where == "step":
                    areas[f"step:{self.area(buffer)}"] = Area(per_row=buffer.width)
                if buffer.where == "chunk":
                    areas[f"chunk:{self.area(buffer)}"] = Area(per_chunk_row=buffer.width)
        if self.sums:
            areas["vector sums"] = Area(fixed=self.sums_size)
        sums = max((len(one.reductions) for _, one in program.passes() if one.groups), default=0)
        if sums:
            areas["sums"] = Area(per_chunk_row=sums * lanes)
        for k, (node, blocks) in enumerate(self.outer_rows):
            units = blocks * -(-(program.width(node) // blocks) // OUTER_ROWS)
            areas[f"packed rows {k}"] = Area(per_chunk_row=units * OUTER_ROWS)
        if program.request.outers:
            span = outer_vectors(self.numbers) * lanes
            widest = max(program.width(outer.columns) for outer in program.request.outers)
            areas["packed columns"] = Area(per_chunk_row=-(-widest // span) * span if program.request.direct else span)
        return areas

    def _sums(self) -> tuple[dict[str, int], int]:
        """Where the gradients of vectors are added up for one chunk, and the size of all."""
        places, end = {}, 0
        for name, node in self.program.request.sums.items():
            places[name] = end
            end += rounded(self.program.width(node))
        return places, end

    @property
    def outer_rows(self) -> list[tuple[Expr, int]]:
        """The histories that give the rows of matrix gradients, and the blocks that they fall into."""
        return list(dict.fromkeys((outer.rows, self.blocks_of(outer.matrix)) for outer in self.program.request.outers))

    def blocks_of(self, matrix: str) -> int:
        return self.program.graph.params[matrix].blocks

    @property
    def most_groups(self) -> int:
        return max((len(one.groups) for _, one in self.program.passes()), default=0) or 1

    def _most_segments(self) -> int:
        counts = [sum(len(group.segments) for group in one.groups) for _, one in self.program.passes()]
        return max(counts, default=0) or 1

    def _packed(self) -> tuple[dict[tuple[int, int, int], Panel], dict[Expr, int], int]:
        """Panels by pass, group and segment; places of what is the same at every step; and the size of it all."""
        panels, once, place = {}, {}, 0
        fitting = self.numbers.bytes // BYTES.get(self.weight, self.numbers.bytes)
        for number, (_, one) in enumerate(self.program.passes()):
            for g, group in enumerate(one.groups):
                units = units_of(one, self.numbers)
                vectors = units * len(group.results)
                count = one.blocks * -(-(one.width // one.blocks) // (units * self.numbers.lanes))
                for k, segment in enumerate(group.segments):
                    weights = count * segment.length * vectors * self.numbers.lanes
                    self.weight_count += weights
                    if not self.program.request.direct:
                        panels[number, g, k] = Panel(place, segment.length, vectors)
                        place += rounded(-(-weights // fitting))
                if self.weight == "int8":
                    self.scales[number, g] = place
                    place += len(group.results) * self.scale_stride(one)
        for node in self.program.once:
            once[node] = place
            place += rounded(self.program.width(node))
        return panels, once, place

    def scale_stride(self, one: Pass) -> int:
        """From the scales of one result to those of the next: the last vector of them may run past the units."""
        return rounded(one.width + self.numbers.lanes)

    def scratch(self, rows: int, span: int) -> tuple[dict[str, int], int]:
        """Where each area begins, and the numbers that all take."""
        places, end = {}, 0
        for name, area in self.areas.items():
            places[name] = end
            end += area.size(rows, span)
        return places, end

    def kept_most(self, sequences: Any, rows: Any) -> Any:
        """The numbers that are kept of so many rows of all steps, at most."""
        return (rows + sequences) * sum(self.kept.values()) + len(self.kept) * (ALIGNED + APART)


def _stack_places(program: Program) -> Mapping[str, tuple[str, int]]:
    """The stack of each parameter, and the row of it where the parameter begins."""
    places = {}
    for stack, members in program.graph.stacks.items():
        row = 0
        for param in members:
            places[param.name] = (stack, row)
            row += program.length(param.sizes[0])
    return places
