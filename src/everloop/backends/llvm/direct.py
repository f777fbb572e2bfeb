"""Products with matrices as they lie, row after row: for calls of so few sequences and steps that to lay weights out in
panels would take longer than to use them. Two tiles:

    rows      some sequences times some rows of a matrix         acc[r][u] (+)= sum over k of a_r[k] * matrix[u][k]
    columns   some sequences times some columns of a matrix      acc[r][u] (+)= sum over k of a_r[k] * matrix[k][u]

count: the rows, or columns, that are there. apart: from the results of one sequence to those of the next.
"""

from __future__ import annotations

from collections.abc import Callable

from everloop.backends.llvm.builder import Function, Word
from everloop.backends.llvm.tiles import ATTRIBUTES, accumulate, add_product, finish, rows_of, sums_of
from everloop.backends.llvm.vectors import Numbers

SEQUENCES = 3
"""Sequences that meet a row of a matrix while it is in a register."""


def rows(numbers: Numbers) -> str:
    """`void tile(rows, ptr* a, matrix, K, count, acc, apart, more)`: rows of a matrix lie K apart."""
    params = [("i64", "rows"), ("ptr", "a"), ("ptr", "matrix"), ("i64", "K"), ("i64", "count")]
    f = Function("tile", [*params, ("ptr", "acc"), ("i64", "apart"), ("i1", "more")], ATTRIBUTES)
    units = min(numbers.lanes, 8 if numbers.registers > 16 else 4)
    whole = f.let(f"and i64 %count, {-units}", "whole")
    several = f.mul(f.let(f"udiv i64 %rows, {SEQUENCES}", "several"), SEQUENCES)
    for high, first, last in ((units, 0, whole), (1, whole, "%count")):
        with f.loop(first, last, high, "unit") as unit:
            for wide, begin, end in ((SEQUENCES, 0, several), (1, several, "%rows")):
                with f.loop(begin, end, wide, "row") as row:
                    _dots(f, numbers, unit, high, row, wide)
    return str(f)


def _dots(f: Function, numbers: Numbers, unit: Word, units: int, row: Word, sequences: int) -> None:
    """The dot products of some rows of the matrix with some sequences: sums in all lanes, added up at the end."""
    scalar, lanes = numbers.scalar, numbers.lanes
    matrix = [f.at(scalar, "%matrix", f.mul(f.add(unit, u), "%K"), "w") for u in range(units)]
    a = [f.load("ptr", f.at("ptr", "%a", f.add(row, r)), "a", 8) for r in range(sequences)]
    sums = sums_of(f, sequences, units, 1, numbers)[0]

    def add(load: Callable[[str], str]) -> None:
        kept = [load(array) for array in a]
        for u, array in enumerate(matrix):
            weight = load(array)
            for r, number in enumerate(kept):
                add_product(f, numbers, number, weight, sums[r][u])

    whole = f.let(f"and i64 %K, {-lanes}", "whole")
    with f.loop(0, whole, lanes, "k") as k:
        add(lambda array: f.load(numbers.vector, f.at(scalar, array, k), "v", numbers.bytes))
    with f.when(f.compare("slt", whole, "%K")):
        mask = first_lanes(f, numbers, f.sub("%K", whole))
        add(lambda array: masked(f, numbers, f.at(scalar, array, whole), mask))
    kind = f"<{units} x {scalar}>"
    for r, of in enumerate(sums):
        found = _added_up(f, numbers, [f.load(numbers.vector, place, "sum", 64) for place in of])
        place = f.at(scalar, "%acc", f.add(f.mul(f.add(row, r), "%apart"), unit))
        old = f.let(f"select i1 %more, {kind} {f.load(kind, place, 'old', numbers.bytes)}, {kind} zeroinitializer")
        f.store(kind, f.let(f"fadd {kind} {found}, {old}", "sum"), place, numbers.bytes)


def _added_up(f: Function, numbers: Numbers, vectors: list[str]) -> str:
    """The sum of the lanes of each of 1, 2, 4 ... vectors: one number for each of them, side by side."""
    lanes, count, kind = numbers.lanes, len(vectors), numbers.vector
    distance = 1
    while len(vectors) > 1:
        low = [k if not k & distance else lanes + k - distance for k in range(lanes)]
        high = [k + distance if not k & distance else lanes + k for k in range(lanes)]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [
            f.let(f"fadd {kind} {_mixed(f, kind, a, b, low)}, {_mixed(f, kind, a, b, high)}", "sum") for a, b in pairs
        ]
        distance *= 2
    (found,) = vectors
    while lanes > count:
        lanes //= 2
        low, high = list(range(lanes)), list(range(lanes, 2 * lanes))
        half = f"<{lanes} x {numbers.scalar}>"
        parts = [_mixed(f, kind, found, found, places) for places in (low, high)]
        kind, found = half, f.let(f"fadd {half} {parts[0]}, {parts[1]}", "sum")
    return found


def _mixed(f: Function, kind: str, a: str, b: str, places: list[int]) -> str:
    mask = ", ".join(f"i32 {place}" for place in places)
    return f.let(f"shufflevector {kind} {a}, {kind} {b}, <{len(places)} x i32> <{mask}>", "w")


def columns(units: int, numbers: Numbers) -> str:
    """`void tile(rows, ptr* a, matrix, columns, K, count, acc, apart, more)`: K rows that lie so many columns apart."""
    params = [("i64", "rows"), ("ptr", "a"), ("ptr", "matrix"), ("i64", "columns"), ("i64", "K"), ("i64", "count")]
    f = Function("tile", [*params, ("ptr", "acc"), ("i64", "apart"), ("i1", "more")], ATTRIBUTES)
    done = f.label("ready")
    most = range(rows_of(units, numbers), 0, -1)
    with f.case("%count", units * numbers.lanes, done):
        for count in most:
            with f.case("%rows", count, done):
                _columns(f, numbers, units, count, [])
    lanes = [first_lanes(f, numbers, f.sub("%count", v * numbers.lanes)) for v in range(units)]
    for count in most:
        with f.case("%rows", count, done):
            _columns(f, numbers, units, count, lanes)
    f.go(done)
    return str(f)


def _columns(f: Function, numbers: Numbers, units: int, count: int, lanes: list[str]) -> None:
    """lanes: those of each vector that are there, if not all of them are."""
    parts = 1 if count * units >= 8 else 2 if count * units >= 4 else 4
    a = [f.load("ptr", f.at("ptr", "%a", r), f"a{r}", 8) for r in range(count)]

    def at(r: int, k: Word, offset: int) -> str:
        return f.load(numbers.scalar, f.at(numbers.scalar, f.at(numbers.scalar, a[r], k), offset), "x", numbers.bytes)

    def weights(v: int, k: Word, offset: int) -> str:
        line = f.at(numbers.scalar, "%matrix", f.mul(f.add(k, offset), "%columns"))
        place = f.at(numbers.vector, line, v)
        if lanes:
            return masked(f, numbers, place, lanes[v])
        return f.load(numbers.vector, place, "w", numbers.bytes)

    sums = sums_of(f, count, units, parts, numbers, "%more", "%apart")
    accumulate(f, numbers, sums, "%K", at, weights)
    finish(f, numbers, sums, "%apart")


def first_lanes(f: Function, numbers: Numbers, count: Word) -> str:
    """A mask of so many lanes, none if negative."""
    kind = f"<{numbers.lanes} x i32>"
    short = f.let(f"trunc i64 {count} to i32", "count")
    first = f.let(f"insertelement {kind} poison, i32 {short}, i64 0", "count")
    each = f.let(f"shufflevector {kind} {first}, {kind} poison, {kind} zeroinitializer", "count")
    places = "<" + ", ".join(f"i32 {lane}" for lane in range(numbers.lanes)) + ">"
    return f.let(f"icmp slt {kind} {places}, {each}", "mask")


def masked(f: Function, numbers: Numbers, place: str, mask: str) -> str:
    """A vector of the lanes of a mask, zero in the others."""
    return f.let(
        f"call {numbers.vector} @llvm.masked.load.{numbers.suffix}.p0(ptr align {numbers.bytes} {place}, "
        f"{numbers.mask_type} {mask}, {numbers.vector} zeroinitializer)",
        "w",
    )
