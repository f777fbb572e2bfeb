"""What comes before the first step: weights laid out as the tiles read them, and values that are the same at every
step.
"""

from __future__ import annotations

from everloop.backends.llvm.builder import Function, Word
from everloop.backends.llvm.layout import Layout, Panel
from everloop.backends.llvm.lower import Group, Pass, Program, Segment
from everloop.backends.llvm.tiles import ATTRIBUTES, units_of
from everloop.backends.llvm.vectors import Lane, Numbers, unit_vector
from everloop.lang.expr import Expr


def write_pack(program: Program, numbers: Numbers, layout: Layout) -> str:
    """The function `pack`."""
    f = Function("pack", [("ptr", "args")], ATTRIBUTES)
    stacks = {name: layout.pointer(f, f"stack:{name}") for name in layout.stacks}
    packed = layout.pointer(f, "packed")
    # Narrow weights are laid out before, in NumPy (narrow.py): they are packed once, not in every call. Others may be
    # read as they lie.
    for number, (_, one) in enumerate(() if layout.weight or program.request.direct else program.passes()):
        for g, group in enumerate(one.groups):
            for k, segment in enumerate(group.segments):
                panel = layout.panels[number, g, k]
                f.note("weights " + " ".join(segment.matrices))
                target = f.at(numbers.scalar, packed, panel.place)
                _Panel(f, program, numbers, layout, one, group, segment, panel, target, stacks).write()
    for node in program.once:
        _once(f, program, numbers, layout, node, packed, stacks)
    return str(f)


class _Panel:
    """One panel: for each group of units and each k, the weights of all matrices side by side."""

    def __init__(
        self,
        f: Function,
        program: Program,
        numbers: Numbers,
        layout: Layout,
        one: Pass,
        group: Group,
        segment: Segment,
        panel: Panel,
        target: str,
        stacks: dict[str, str],
    ) -> None:
        self.f, self.numbers, self.target = f, numbers, target
        self.square = layout.pointer(f, "tile:square")
        self.group, self.segment, self.panel = group, segment, panel
        self.units = units_of(one, numbers)
        self.blocks = one.blocks
        self.width = one.width // one.blocks
        self.span = self.units * numbers.lanes
        self.groups = -(-self.width // self.span)
        self.arrays = []
        for name in segment.matrices:
            stack, row = layout.places[name]
            param = program.graph.params[name]
            columns = program.length(param.sizes[1]) // param.blocks
            self.arrays.append((f.at(numbers.scalar, stacks[stack], row * columns), columns))

    def write(self) -> None:
        f, numbers = self.f, self.numbers
        if self.width % self.span:
            size = self.blocks * self.groups * self.panel.length * self.panel.vectors * numbers.lanes * numbers.bytes
            f.do(f"call void @llvm.memset.p0.i64(ptr {self.target}, i8 0, i64 {size}, i1 0)")
        with f.loop(0, self.blocks, 1, "block") as head, f.loop(0, self.groups, 1, "units") as j:
            first = f.mul(j, self.span)
            count = f.smaller(self.span, f.sub(self.width, first), "count")
            place = f.mul(f.add(f.mul(head, self.groups), j), self.panel.length * self.panel.vectors * numbers.lanes)
            panel = f.at(numbers.scalar, self.target, place, "panel")
            for gate, (array, columns) in enumerate(self.arrays):
                start = f.at(numbers.scalar, panel, gate * self.span)
                if self.group.transposed:
                    self._rows(array, columns, head, first, count, start)
                else:
                    self._columns(array, columns, head, first, count, start)

    def _columns(self, array: str, columns: int, head: Word, first: Word, count: Word, start: str) -> None:
        """Units are rows of the matrix: squares of it are transposed, and what is left goes one by one."""
        f, lanes, length = self.f, self.numbers.lanes, self.panel.length
        row = f.add(f.mul(head, self.width), first)
        whole = length - length % lanes
        squares = f.let(f"and i64 {count}, {-lanes}", "squares") if isinstance(count, str) else count - count % lanes
        if whole:
            with f.loop(0, squares, lanes, "unit") as unit, f.loop(0, whole, lanes, "k") as k:
                source, target, apart, step = self._places(array, columns, row, unit, k, start)
                f.do(f"call void {self.square}(ptr {source}, i64 {apart}, ptr {target}, i64 {step})")
        for begin, end, from_k in ((0, squares, whole), (squares, count, 0)):
            with f.loop(begin, end, 1, "unit") as unit, f.loop(from_k, length, 1, "k") as k:
                source, target = self._places(array, columns, row, unit, k, start)[:2]
                self._move(source, target)

    def _places(
        self, array: str, columns: int, row: Word, unit: Word, k: Word, start: str
    ) -> tuple[str, str, int, int]:
        """Where a weight is and where it goes, and how far apart the next ones are."""
        f, scalar, step = self.f, self.numbers.scalar, self.panel.vectors * self.numbers.lanes
        source = f.at(scalar, array, f.add(f.mul(f.add(row, unit), columns), k))
        return source, f.at(scalar, start, f.add(f.mul(k, step), unit)), columns, step

    def _move(self, source: str, target: str) -> None:
        f, numbers = self.f, self.numbers
        f.store(numbers.scalar, f.load(numbers.scalar, source, "w", numbers.bytes), target, numbers.bytes)

    def _rows(self, array: str, columns: int, head: Word, first: Word, count: Word, start: str) -> None:
        """Units are columns of the matrix: they lie side by side already."""
        f, numbers, step = self.f, self.numbers, self.panel.vectors * self.numbers.lanes
        own = self.group.blocks > 1
        column = first if own else f.add(f.mul(head, self.width), first)
        with f.loop(0, self.panel.length, 1, "k") as k:
            row = f.add(f.mul(head, self.panel.length), k) if own else k
            source = f.at(numbers.scalar, array, f.add(f.mul(row, columns), column))
            target = f.at(numbers.scalar, start, f.mul(k, step))
            f.do(
                f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {f.mul(count, numbers.bytes)}, i1 0)"
            )


def _once(
    f: Function,
    program: Program,
    numbers: Numbers,
    layout: Layout,
    node: Expr,
    packed: str,
    stacks: dict[str, str],
) -> None:
    """One value of all steps."""
    f.note(program.name(node))

    def value(arg: Expr, lane: Lane, offset: Word) -> str:
        match arg.op:
            case "const":
                return lane.const(arg.attr)
            case "count":
                return lane.const(float(program.length(arg.attr)))
            case "index":
                return unit_vector(f, numbers, offset)
            case "vector":
                stack, row = layout.places[arg.attr]
                return lane.load(f.at(numbers.scalar, stacks[stack], f.add(row, offset)), arg.attr)
        place = f.at(numbers.scalar, packed, layout.once[arg])
        if arg.size is None:
            return lane.spread(f.load(numbers.scalar, place, program.name(arg), numbers.bytes), program.name(arg))
        return lane.load(f.at(numbers.scalar, place, offset), program.name(arg))

    def write(lane: Lane, offset: Word) -> None:
        args = [value(arg, lane, offset) for arg in node.args]
        made = args[0] if node.op == "spread" else lane.compute(node.op, args, program.name(node))
        lane.store(made, f.at(numbers.scalar, f.at(numbers.scalar, packed, layout.once[node]), offset))

    if node.size is None:
        write(Lane(f, numbers, wide=False), 0)
        return
    whole, tail = divmod(program.width(node), numbers.lanes)
    if whole:
        with f.loop(0, whole, 1, "unit") as vector:
            write(Lane(f, numbers), f.mul(vector, numbers.lanes))
    if tail:
        write(Lane(f, numbers, count=tail), whole * numbers.lanes)
