"""A program compiled, with all that a call of it needs to know. Knows memory by its addresses only."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from everloop.backends.llvm.emit import write, write_tile
from everloop.backends.llvm.jit import Address, library
from everloop.backends.llvm.layout import Layout
from everloop.backends.llvm.lower import Program, Request
from everloop.backends.llvm.machine import host
from everloop.backends.llvm.passes import WORTH_SHARING
from everloop.backends.llvm.pool import run_address
from everloop.backends.llvm.vectors import Numbers
from everloop.compiler.ahead import ahead
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.expr import Expr, Size
from everloop.lang.graph import Graph

CHUNK_ROWS = 256
"""Rows of all sequences of a block and the steps of one chunk together: what lies in its buffers stays in the cache."""


LENGTH_PER_ROW, MOST_DIRECT = 8, 64
"""Of `Engine.few`. Measured for LSTM and GRU of 64, 256 and 512 units: forward, 8, 32 and 64 rows take 0.5 to 1.0 of
the time that they take with panels, four times as many up to 1.5; backward gains with all of them.
"""


@cache
def numbers_of(dtype: str) -> Numbers:
    """float32 or float64, in the registers of this machine."""
    machine = host()
    if dtype == "float32":
        return Numbers("float", machine.lanes, machine.registers)
    return Numbers("double", machine.lanes // 2, machine.registers)


class Engine:
    """The code of one program, and what its calls have in common."""

    def __init__(self, request: Request, dtype: str, weight: str = "") -> None:
        self.numbers, self.weight, self._dtype = numbers_of(dtype), weight, dtype
        self.program = Program(request)
        self.layout = Layout(self.program, self.numbers, weight)
        self.library = library(f"{fingerprint(self.program)} {dtype} {weight}", self.source)
        self._tiles = {
            name: tile(name, dtype, weight if name.startswith("product") else "") for name in self.layout.tiles
        }
        self.shapes: dict[Any, Any] = {}
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self.run_at, self.pack_at = call(self.library.address("run")), call(self.library.address("pack"))

    @cached_property
    def shared(self) -> Engine:
        """The same for one sequence and several threads: they share the units of every step, where there are many."""
        if self.layout.weight_count < WORTH_SHARING:
            return self
        return Engine(replace(self.program.request, shared=True), self._dtype, self.weight)

    @cached_property
    def few(self) -> int:
        """Rows of all steps up to which it is quicker to read matrices as they lie than to lay them out: the sum over
        the lanes at the end of a product is repaid by the length of a line.
        """
        segments = [segment for _, one in self.program.passes() for group in one.groups for segment in group.segments]
        if not segments or self.weight or self.program.request.direct:
            return 0
        mean = sum(segment.length for segment in segments) / len(segments)
        return int(min(mean / LENGTH_PER_ROW, MOST_DIRECT))

    @cached_property
    def direct(self) -> Engine:
        """The same for calls of a few rows, all of which have a first step."""
        return Engine(replace(self.program.request, direct=True), self._dtype)

    def source(self) -> str:
        """The intermediate code."""
        return write(self.program, self.numbers, self.weight)

    def words(self, values: Mapping[str, int]) -> np.ndarray:
        """The array of words of a call, from its words by name."""
        made = np.empty(len(self.layout.words), np.int64)
        for name, place in self.layout.words.items():
            made[place] = values[name]
        for name, address in self._tiles.items():
            made[self.layout.words[f"tile:{name}"]] = address
        return made


def tile(name: str, dtype: str, weight: str) -> Address:
    """The code of a kind of tile: the same for all programs of one type."""
    numbers = numbers_of(dtype)
    return library(f"{name} {dtype} {weight}", lambda: write_tile(name, numbers, weight)).address("tile")


def source(graph: Graph, sizes: Mapping[str, int], dtype: str = "float32") -> str:
    """The intermediate code of a cell's forward kernel, as this machine gets it."""
    kernel = plan(kernel_graph(ahead(graph).graph)).graph
    return write(Program(Request(kernel, sizes, outer=kernel.outputs)), numbers_of(dtype))


@lru_cache(maxsize=256)
def steps_of(batch_sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of every step, and the first row of each: int64 [T] both."""
    sizes = np.array(batch_sizes, np.int64)
    return sizes, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])[: len(sizes)]


def parts(batch: int, threads: int, weights: int = 0) -> int:
    """Into how many blocks of sequences a batch is cut for some threads: a few more than there are threads, if each is
    of some size, so that a thread that is late finds its work done by the others. Not so where every block reads more
    weights at every step than a core's own cache holds.
    """
    if threads <= 1 or batch <= 1:
        return min(batch, 1)
    return min(batch, 2 * threads if batch >= 16 * threads and weights <= CACHED else threads)


CACHED = 500_000
"""Weights that the second-level cache of a core holds: 2 MB."""


def cut(batch: int, count: int) -> list[tuple[int, int]]:
    """So many blocks of sequences, of about the same size: the first of each, and how many."""
    ends = [batch * k // max(1, count) for k in range(count + 1)]
    return [(begin, end - begin) for begin, end in pairwise(ends)]


def lengths(blocks: Sequence[tuple[int, int]], batch_sizes: Sequence[int]) -> list[int]:
    """The steps of each block: those of its first, longest sequence."""
    if not batch_sizes or batch_sizes[-1] > blocks[-1][0]:
        return [len(batch_sizes)] * len(blocks)
    sizes, _ = steps_of(tuple(batch_sizes))
    return [int(np.count_nonzero(sizes > begin)) for begin, _ in blocks]


def fingerprint(program: Program) -> str:
    """A text that is the same for programs that become the same code."""
    request, graph = program.request, program.graph
    number = {node: k for k, node in enumerate(program.nodes)}
    # Sizes of one length are not one size: what is computed together depends on which is which.
    roots = dict.fromkeys(node.size.root() for node in program.nodes if node.size is not None)
    axis = {root: k for k, root in enumerate(roots)}
    lines = [f"backwards {request.backwards} shared {request.shared} single {request.single} direct {request.direct}"]
    for node in program.nodes:
        attr = program.length(node.attr) if node.op == "count" else node.attr
        lines.append(f"{node.op} {[number[arg] for arg in node.args]} {attr!r} {_extent(node, program, axis)}")
    for title, found in (("outer", request.outer), ("keep", request.keep), ("sums", request.sums), ("new", graph.new)):
        lines.append(f"{title} {[(name, number[node]) for name, node in found.items()]}")
    lines += [f"sum {outer.matrix} {number[outer.rows]} {number[outer.columns]}" for outer in request.outers]
    lines += [f"input {name} {buffer.where} {buffer.width}" for name, buffer in request.inputs.items()]
    lines += [f"gradients {request.gradients}"]
    lines += [f"place {name} {place}" for name, place in request.places.items()]
    for stack, members in graph.stacks.items():
        shapes = [(param.name, [program.length(size) for size in param.sizes], param.blocks) for param in members]
        lines.append(f"stack {stack} {shapes}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _extent(node: Expr, program: Program, axis: Mapping[Size, int]) -> tuple[int, ...]:
    return () if node.size is None else (axis[node.size.root()], program.width(node))


@cache
def pool() -> int:
    """The address of the function that has blocks run by several threads: compiled when a call first wants several."""
    return run_address()
