"""A program as LLVM functions.

run      called from Python, with one array of words (Layout): lays the weights out, then the blocks of sequences,
         each by whichever thread comes first
pack     the weights as the tiles read them, and what is the same at every step
block    some sequences from their first step to their last (or back), in chunks of steps
"""

from __future__ import annotations

from collections.abc import Callable

from everloop.backends.llvm import direct, tiles
from everloop.backends.llvm.builder import Function, Word
from everloop.backends.llvm.functions import FUNCTIONS, define
from everloop.backends.llvm.functions import declarations as function_declarations
from everloop.backends.llvm.layout import BLOCK_WORDS, DONE, GRADS, SCRATCH, Layout
from everloop.backends.llvm.lower import Buffer, Program
from everloop.backends.llvm.outers import write_outers
from everloop.backends.llvm.pack import write_pack
from everloop.backends.llvm.passes import Rows, write_pass, write_share
from everloop.backends.llvm.tiles import ATTRIBUTES, MOST_ROWS, MOST_VECTORS
from everloop.backends.llvm.vectors import Lane, Numbers, declarations

_ATTRIBUTES = 'attributes #0 = { nounwind "no-trapping-math"="true" "min-legal-vector-width"="512" }'


def write(program: Program, numbers: Numbers, weight: str = "") -> str:
    """The module of a program. weight: the kind of number that weights are stored in, if another one."""
    layout = Layout(program, numbers, weight)
    block = Block(program, numbers, layout, weight)
    functions = [write_pack(program, numbers, layout), block.write(), _run(program, numbers, layout)]
    functions += [part.write() for part in block.shared]
    head = set(declarations(numbers))
    ops = sorted({node.op for node in program.nodes if node.op in FUNCTIONS})
    for kind in (numbers.vector, numbers.scalar):
        head |= function_declarations(ops, kind)
        functions += [define(op, kind) for op in ops]
    return _module(program.graph.name, sorted(head), functions)


def write_tile(name: str, numbers: Numbers, weight: str = "") -> str:
    """The module of one kind of tile, which the programs of all cells share: see `Layout.tiles`."""
    match name.split():
        case ["product", vectors]:
            function = tiles.product(int(vectors), numbers, weight)
        case ["outer"]:
            function = tiles.outer(numbers)
        case ["rows"]:
            function = direct.rows(numbers)
        case ["columns", units]:
            function = direct.columns(int(units), numbers)
        case _:
            function = tiles.square(numbers)
    return _module(name, declarations(numbers), [function])


def _module(name: str, declared: list[str], functions: list[str]) -> str:
    return "\n".join([f"; {name}", *declared, "", *functions, _ATTRIBUTES, ""])


def _run(program: Program, numbers: Numbers, layout: Layout) -> str:
    f = Function("run", [("ptr", "args")], ATTRIBUTES)
    with f.when(f.compare("eq", layout.word(f, "ready"), 0)):
        f.do("call void @pack(ptr %args)")
    count = layout.word(f, "count")
    alone = f.compare("sle", layout.word(f, "threads"), 1)
    one, many, end = f.label("alone"), f.label("together"), f.label("end")
    f.do(f"br i1 {alone}, label %{one}, label %{many}")
    f._open(one)
    with f.loop(0, count, 1, "block") as block:
        f.do(f"call void @block(ptr %args, i64 {block})")
    f.do(f"br label %{end}")
    f._open(many)
    pool = layout.pointer(f, "pool")
    f.do(f"call void {pool}(ptr @block, ptr %args, i64 {count}, i64 {layout.word(f, 'threads')})")
    f.go(end)
    if program.request.gradients:
        _add_up(f, program.request.gradients, numbers, layout)
    return str(f)


def _add_up(f: Function, size: int, numbers: Numbers, layout: Layout) -> None:
    """The gradients of all blocks, in the place of the first one's."""
    blocks = layout.pointer(f, "blocks")
    with f.loop(1, layout.word(f, "count"), 1, "block") as block:
        sums = f.load("ptr", f.at("i64", blocks, GRADS), "sums", 8)
        more = f.load("ptr", f.at("i64", blocks, f.add(f.mul(block, BLOCK_WORDS), GRADS)), "more", 8)
        whole, rest = divmod(size, numbers.lanes)
        for first, count, lane in ((0, whole, Lane(f, numbers)), (whole, int(rest > 0), Lane(f, numbers, count=rest))):
            with f.loop(first, first + count, 1, "v") as v:
                target = f.at(numbers.scalar, sums, f.mul(v, numbers.lanes))
                part = lane.load(f.at(numbers.scalar, more, f.mul(v, numbers.lanes)), "part")
                lane.store(lane.compute("add", [lane.load(target, "sum"), part], "sum"), target)


class Block:
    """Writes the function of one block of sequences."""

    def __init__(self, program: Program, numbers: Numbers, layout: Layout, weight: str) -> None:
        self.program, self.numbers, self.layout, self.weight = program, numbers, layout, weight
        self.f = Function("block", [("ptr", "args"), ("i64", "block")], ATTRIBUTES)
        self.scalar, self.bytes = numbers.scalar, numbers.bytes
        self.backwards = program.request.backwards
        self.shared: list[Part] = []

    def write(self) -> str:
        f = self.f
        self._entry()
        self._begin()
        with f.loop(0, self.chunks, 1, "chunk") as number:
            first = f.mul(f.sub(f.sub(self.chunks, 1), number) if self.backwards else number, self.span)
            count = f.smaller(self.span, f.sub(self.steps, first), "steps")
            self.first = first
            self._start_sums()
            if self.program.before or self.program.after or self.program.request.outers:
                self.active = self._table(count)
            for one in self.program.before:
                write_pass(self, one, Rows("before", self.active))
            with f.loop(0, count, 1, "s") as s:
                self._step(f.sub(f.sub(count, 1), s) if self.backwards else s)
            for one in self.program.after:
                write_pass(self, one, Rows("after", self.active))
            if self.program.request.outers:
                write_outers(self, Rows("sums", self.active))
            self._finish_sums()
        self._leave()
        return str(f)

    # Before the first step and after the last.

    def _entry(self) -> None:
        f, layout = self.f, self.layout
        record = f.at("i64", layout.pointer(f, "blocks"), f.mul("%block", BLOCK_WORDS))
        words = [f.load("i64", f.at("i64", record, k), name, 8) for k, name in enumerate(("begin", "rows", "steps"))]
        self.begin, self.rows, self.steps = words
        self.record, self.done = record, f.load("i64", f.at("i64", record, DONE), "done", 8)
        self.scratch = f.load("ptr", f.at("i64", record, SCRATCH), "scratch", 8)
        self.grads = f.load("ptr", f.at("i64", record, GRADS), "grads", 8)
        self.sizes, self.offsets = layout.pointer(f, "batch_sizes"), layout.pointer(f, "offsets")
        self.order = f.at("i64", layout.pointer(f, "order"), self.begin)
        self.ends = f.at("i64", layout.pointer(f, "ends"), self.begin)
        self.packed = layout.pointer(f, "packed")
        self.tiles = {name: layout.pointer(f, f"tile:{name}") for name in layout.tiles}
        self.span = layout.word(f, "span")
        self.chunks = f.ceil_div(self.steps, self.span)
        self.areas = {
            name: f.at(self.scalar, self.scratch, layout.word(f, f"at:{name}"), name) for name in layout.areas
        }
        self.outer = {
            name: (
                layout.pointer(f, f"outer:{name}"),
                layout.word(f, f"stride:{name}"),
                layout.word(f, f"step:{name}"),
            )
            for name in layout.outer
        }
        self.stacks = {name: layout.pointer(f, f"stack:{name}") for name in layout.stacks}
        self._keep_regions()
        self.index = layout.pointer(f, "index")

    def sequence(self, row: Word) -> Word:
        """Which of the caller's sequences a row of the block is."""
        return self.f.load("i64", self.f.at("i64", self.order, row), "sequence", 8)

    def turned(self, row: Word, t: Word) -> Word:
        """A step of a row as the arrays of the caller count: from the end, where sequences are read so. Their steps lie
        apart by a negative number then.
        """
        return self.f.sub(t, self.f.load("i64", self.f.at("i64", self.ends, row), "end", 8))

    def _clear(self) -> None:
        """Zeros in the outputs, past the ends of the sequences: where the caller's arrays have room for all steps."""
        f = self.f
        turn = self.layout.word(f, "turn")
        with f.loop(0, self.layout.word(f, "time"), 1, "t") as t, f.loop(self._running(t), self.rows, 1, "row") as row:
            number, after = self.sequence(row), f.mul(t, turn)
            for name, buffer in self.program.outers.items():
                base, stride, step = self.outer[name]
                place = f.at(self.scalar, base, f.add(f.mul(number, stride), f.mul(after, step)))
                f.do(f"call void @llvm.memset.p0.i64(ptr {place}, i8 0, i64 {buffer.width * self.bytes}, i1 0)")

    def _begin(self) -> None:
        """The states before the first step."""
        f, layout = self.f, self.layout
        self._clear()
        if self.program.request.gradients and not self.program.request.fresh:
            size = self.program.request.gradients * self.bytes
            f.do(f"call void @llvm.memset.p0.i64(ptr {self.grads}, i8 0, i64 {size}, i1 0)")
        for name, buffer in self.program.new.items():
            if not self.backwards:
                self._states(name, buffer, "start", self.slot(buffer, 0), 0, self.rows)
            with f.when(f.compare("ne", layout.word(f, f"start:{name}"), layout.word(f, f"final:{name}"))):
                self._hand_over(name, buffer)

    def _keep_regions(self) -> None:
        """What is kept lies step by step, the rows of all blocks together; before the first step are the states."""
        f, layout = self.f, self.layout
        self.regions: dict[str, str] = {}
        if not layout.kept:
            return
        self.kept_steps = layout.pointer(f, "kept steps")
        keep, rows = layout.pointer(f, "keep"), layout.word(f, "kept rows")
        place: Word = 0
        for name, width in layout.kept.items():
            self.regions[name] = f.at(self.scalar, keep, place, name)
            place = f.add(place, layout.kept_size(f, rows, width))

    def kept_row(self, t: Word) -> Word:
        """The first row of the block among those kept of a step, or, of states, those before it."""
        f = self.f
        return f.add(f.load("i64", f.at("i64", self.kept_steps, t), "kept", 8), self.begin)

    def _leave(self) -> None:
        """The gradients of the states before the first step."""
        f = self.f
        f.store("i64", str(f.add(self.done, self.steps)), f.at("i64", self.record, DONE), 8)
        if not self.backwards:
            return
        with f.when(f.compare("sgt", self.steps, 0)):
            count = self._running(0)
            for name, buffer in self.program.new.items():
                self._states(name, buffer, "final", self.slot(buffer, 0), 0, count)

    def _states(self, name: str, buffer: Buffer, side: str, slot: str, first: Word, count: Word) -> None:
        """Some rows of a state, from the caller's first ones to a slot, or from a slot to the caller's last ones."""
        f = self.f
        with f.loop(0, count, 1, "row") as k:
            row = f.add(first, k)
            array, own = self._state_row(name, side, row), f.at(self.scalar, slot, f.mul(row, buffer.width))
            self._copy(*((own, array) if side == "start" else (array, own)), buffer.width)

    def _hand_over(self, name: str, buffer: Buffer) -> None:
        """Sequences of no step leave the state as it came."""
        with self.f.loop(0, self.rows, 1, "row") as row:
            self._copy(self._state_row(name, "final", row), self._state_row(name, "start", row), buffer.width)

    def _state_row(self, name: str, side: str, row: Word) -> str:
        """A row of the caller's states, which an index may number anew."""
        f = self.f
        place = f.alloca("i64", "place")
        number = f.add(self.begin, row)
        f.store("i64", str(number), place, 8)
        with f.when(f.let(f"icmp ne ptr {self.index}, null", "is")):
            f.store("i64", f.load("i64", f.at("i64", self.index, number), "place", 8), place, 8)
        array, stride = self.layout.pointer(f, f"{side}:{name}"), self.layout.word(f, f"step {side}:{name}")
        return f.at(self.scalar, array, f.mul(f.load("i64", place, "place", 8), stride))

    def _copy(self, target: str, source: str, count: int) -> None:
        """Numbers, whole vectors first: most states are a few of them, and a call would cost more."""

        def copy(lane: Lane, offset: Word) -> None:
            value = lane.load(self.f.at(self.scalar, source, offset), "v")
            lane.store(value, self.f.at(self.scalar, target, offset))

        self._vectors(count, copy)

    def _vectors(self, count: int, do: Callable[[Lane, Word], None]) -> None:
        """For every vector of so many numbers: `do(lanes in use, number of the first)`."""
        f, lanes = self.f, self.numbers.lanes
        whole, rest = divmod(count, lanes)
        if whole:
            with f.loop(0, whole, 1, "v") as v:
                do(Lane(f, self.numbers), f.mul(v, lanes))
        if rest:
            do(Lane(f, self.numbers, count=rest), whole * lanes)

    # Gradients of vectors: summed up for each chunk by itself, since a sum of few numbers keeps its digits.

    def _start_sums(self) -> None:
        size = self.layout.sums_size * self.bytes
        if size:
            self.f.do(f"call void @llvm.memset.p0.i64(ptr {self.areas['vector sums']}, i8 0, i64 {size}, i1 0)")

    def _finish_sums(self) -> None:
        f = self.f
        for name, node in self.program.request.sums.items():
            f.note(f"gradient of {name}")
            part = f.at(self.scalar, self.areas["vector sums"], self.layout.sums[name])
            whole = f.at(self.scalar, self.grads, self.program.request.places[name])

            def add(lane: Lane, offset: Word, part: str = part, whole: str = whole) -> None:
                place, found = f.at(self.scalar, whole, offset), lane.load(f.at(self.scalar, part, offset), "part")
                if not self.program.request.fresh:
                    found = lane.compute("add", [lane.load(place, "sum"), found], "sum")
                lane.store(found, place)

            self._vectors(self.program.width(node), add)

    # Time.

    def _running(self, step: Word) -> Word:
        """How many sequences of the block have a step."""
        f = self.f
        size = f.load("i64", f.at("i64", self.sizes, step), "running", 8)
        return f.larger(0, f.smaller(self.rows, f.sub(size, self.begin)))

    def _step(self, s: Word) -> None:
        f = self.f
        t = f.add(self.first, s, "step")
        count = self._running(t)
        outer = f.load("i64", f.at("i64", self.offsets, t), "offset", 8)
        kept = (self.kept_row(t), self.kept_row(f.add(t, 1))) if self.regions else (0, 0)
        rows = Rows("loop", count, t, f.mul(s, self.rows), outer, *kept)
        later = f.alloca("i64", "later")
        f.store("i64", "0", later, 8)
        with f.when(f.compare("slt", f.add(t, 1), self.steps)):
            f.store("i64", str(self._running(f.add(t, 1))), later, 8)
        other = f.load("i64", later, "later", 8)
        moved = f.sub(count, other)
        if self.backwards:
            with f.when(f.compare("sgt", moved, 0)):
                self._states_between("start", other, moved, t)
        for one in self.program.loop:
            write_pass(self, one, rows)
        if not self.backwards:
            with f.when(f.compare("sgt", moved, 0)):
                self._states_between("final", other, moved, t)

    def _states_between(self, side: str, row: Word, count: Word, t: Word) -> None:
        """Forwards, sequences that end leave their state; backwards, those that begin get one."""
        for name, buffer in self.program.new.items():
            self._states(name, buffer, side, self.slot(buffer, self.f.add(t, 1)), row, count)

    def slot(self, buffer: Buffer, t: Word) -> str:
        """The states between step t - 1 and step t."""
        f = self.f
        if buffer.where == "slots":
            return f.at(self.scalar, self.regions[buffer.name], f.mul(self.kept_row(t), buffer.width))
        turn = t & 1 if isinstance(t, int) else f.let(f"and i64 {t}, 1", "turn")
        return f.at(self.scalar, self.areas[f"pair:{buffer.name}"], f.mul(f.mul(turn, self.rows), buffer.width))

    def _table(self, count: Word) -> Word:
        """Which rows of the chunk there are: their places in its buffers, and in the arrays of the caller."""
        f = self.f
        total = f.alloca("i64", "total")
        f.store("i64", "0", total, 8)
        with f.loop(0, count, 1, "s") as s:
            t = f.add(self.first, s)
            outer = f.load("i64", f.at("i64", self.offsets, t), "offset", 8)
            place = f.mul(s, self.rows)
            firsts = {"table": place}
            for name, step in (("table kept", t), ("table later", f.add(t, 1))):
                if name in self.areas:
                    firsts[name] = self.kept_row(step)
            running = self._running(t)
            begin = f.load("i64", total, "n", 8)
            with f.loop(0, running, 1, "r") as r:
                k = f.add(begin, r)
                entries = {name: f.add(first, r) for name, first in firsts.items()}
                entries |= {"table outer": f.add(outer, self.sequence(r)), "table step": self.turned(r, t)}
                for name, entry in entries.items():
                    f.store("i64", str(entry), f.at("i64", self.areas[name], k), 8)
            f.store("i64", str(f.add(begin, running)), total, 8)
        return f.load("i64", total, "active", 8)

    # Sharing out the units of one step.

    def share(self, number: int, rows: Rows) -> None:
        """Have the units of a pass computed by several threads, some groups of them each."""
        f, words = self.f, len(CONTEXT)
        context = f.alloca("i64", "context", words)
        found = {"args": "%args", "block": "%block", "first": self.first, "count": rows.count}
        found |= {"step": rows.step, "place": rows.place, "outer": rows.outer, "kept": rows.kept, "later": rows.later}
        for k, name in enumerate(CONTEXT):
            kind = "ptr" if name == "args" else "i64"
            f.store(kind, str(found[name]), f.at("i64", context, k), 8)
        part = Part(self, number, rows.phase)
        self.shared.append(part)
        run, threads = self.layout.pointer(f, "pool"), self.layout.word(f, "threads")
        shares = f.mul(threads, SHARES)
        f.do(f"call void {run}(ptr @{part.f.name}, ptr {context}, i64 {shares}, i64 {threads})")


CONTEXT = ("args", "block", "first", "count", "step", "place", "outer", "kept", "later")
"""What a thread has to know to compute some units of one pass of one step."""


SHARES = 4
"""Shares of the units for each thread: one that comes late finds some of its own taken."""


class Part(Block):
    """Writes the function that computes a share of the units of a pass."""

    def __init__(self, block: Block, number: int, phase: str) -> None:
        super().__init__(block.program, block.numbers, block.layout, block.weight)
        self.number, self.phase = number, phase
        self.f = Function(f"units_{number}", [("ptr", "context"), ("i64", "part")], ATTRIBUTES, "internal")

    def write(self) -> str:
        f = self.f
        word = {
            name: f.load("ptr" if name == "args" else "i64", f.at("i64", "%context", k), name, 8)
            for k, name in enumerate(CONTEXT)
        }
        self._entry()
        self.first = word["first"]
        # Each thread has a tile of its own.
        self.areas["tile"] = f.alloca(self.numbers.vector, "tile", MOST_ROWS * MOST_VECTORS * self.layout.most_groups)
        one = list(self.program.passes())[self.number][1]
        places = (word[name] for name in CONTEXT[4:])
        rows = Rows(self.phase, word["count"], *places)
        write_share(self, one, rows, f.mul(self.layout.word(f, "threads"), SHARES))
        return str(f)
