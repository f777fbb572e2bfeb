"""The two inner loops of every kernel, a tile of results in registers each, and how weights are turned for them:

    product   some rows of a sequence times a panel of weights       acc[r][v] (+)= sum over k of a_r[k] * panel[k][v]
    outer     the sum of the outer products of two packed histories  acc[m][v]   = sum over i of a[i][m] * b[i][v]

where v counts vectors of units. A panel holds, for a few units and every k, the weights side by side: [K][V][lanes].
"""

from __future__ import annotations

from collections.abc import Callable

from everloop.backends.llvm.builder import Function, Word
from everloop.backends.llvm.lower import Group, Pass
from everloop.backends.llvm.vectors import Numbers

ATTRIBUTES = "#0"
UNROLLED = 4
MOST_ROWS = 8
OUTER_ROWS = 8
MOST_VECTORS = 8


def rows_of(vectors: int, numbers: Numbers) -> int:
    """The rows of a tile of so many vectors: as many as the registers hold, beside the operands of one step."""
    fits = (rows for rows in range(MOST_ROWS, 1, -1) if _registers(rows, vectors) <= numbers.registers)
    return next(fits, 1)


def _registers(rows: int, vectors: int) -> int:
    # Of the two operands, the fewer are loaded first and stay; the others come one by one.
    return rows * vectors + min(rows, vectors) + 1


def outer_vectors(numbers: Numbers) -> int:
    return next(v for v in (3, 2, 1) if _registers(OUTER_ROWS, v) <= numbers.registers or v == 1)


def group_vectors(one: Pass, group: Group, numbers: Numbers) -> int:
    """Vectors of a tile: those of each matrix, for as many units as the tile is wide."""
    return units_of(one, numbers) * len(group.results)


def units_of(one: Pass, numbers: Numbers) -> int:
    """Vectors of units that a pass handles together: few matrices leave room for more of them."""
    widest = max(len(group.results) for group in one.groups)
    there = -(-(one.width // one.blocks) // numbers.lanes)
    return max(1, min((4 if numbers.registers > 16 else 2) // widest, there))


def product(vectors: int, numbers: Numbers, weight: str = "") -> str:
    """`void tile(rows, ptr* a, panel, K, acc, more)`: a are pointers to the rows; with `more` the sums that acc holds
    are gone on with.
    """
    params = [("i64", "rows"), ("ptr", "a"), ("ptr", "panel"), ("i64", "K"), ("ptr", "acc"), ("i1", "more")]
    f = Function("tile", params, ATTRIBUTES)
    done = f.label("ready")
    for rows in range(rows_of(vectors, numbers), 0, -1):
        with f.case("%rows", rows, done):
            _product_rows(f, rows, vectors, numbers, weight)
    f.go(done)
    return str(f)


def _product_rows(f: Function, rows: int, vectors: int, numbers: Numbers, weight: str) -> None:
    # One chain of additions waits for itself: so few sums are kept in several parts.
    parts = 1 if rows * vectors >= 8 else 2 if rows * vectors >= 4 else 4
    a = [f.load("ptr", f.at("ptr", "%a", r), f"a{r}", 8) for r in range(rows)]

    def at(r: int, k: Word, offset: int) -> str:
        return f.load(numbers.scalar, f.at(numbers.scalar, f.at(numbers.scalar, a[r], k), offset), "x", numbers.bytes)

    def weights(v: int, k: Word, offset: int) -> str:
        place = f.at(_stored(numbers, weight), "%panel", f.mul(k, vectors))
        return _weight(f, numbers, place, offset * vectors + v, weight)

    sums = sums_of(f, rows, vectors, parts, numbers, "%more")
    accumulate(f, numbers, sums, "%K", at, weights)
    finish(f, numbers, sums)


def _stored(numbers: Numbers, weight: str) -> str:
    """A vector of weights as it lies in memory."""
    kinds = {"bfloat16": "i16", "int8": "i8"}
    return f"<{numbers.lanes} x {kinds[weight]}>" if weight else numbers.vector


def _weight(f: Function, numbers: Numbers, panel: str, vector: Word, weight: str) -> str:
    """A vector of weights, from the kind of number they are stored in."""
    if not weight:
        return f.load(numbers.vector, f.at(numbers.vector, panel, vector), "w", numbers.bytes * numbers.lanes)
    n, wide = numbers.lanes, f"<{numbers.lanes} x i32>"
    if weight == "bfloat16":
        short = f.load(f"<{n} x i16>", f.at(f"<{n} x i16>", panel, vector), "w", 2 * n)
        whole = f.let(f"zext <{n} x i16> {short} to {wide}", "w")
        places = "<" + ", ".join(["i32 16"] * n) + ">"
        bits = f.let(f"shl {wide} {whole}, {places}", "w")
        return f.let(f"bitcast {wide} {bits} to <{n} x float>", "w")
    short = f.load(f"<{n} x i8>", f.at(f"<{n} x i8>", panel, vector), "w", n)
    whole = f.let(f"sext <{n} x i8> {short} to {wide}", "w")
    return f.let(f"sitofp {wide} {whole} to {numbers.vector}", "w")


def outer(numbers: Numbers) -> str:
    """`void tile(a, b, n, acc)`: a packed [n][OUTER_ROWS], b packed [n][V][lanes]."""
    vectors = outer_vectors(numbers)
    f = Function("tile", [("ptr", "a"), ("ptr", "b"), ("i64", "n"), ("ptr", "acc")], ATTRIBUTES)

    def at(r: int, k: Word, offset: int) -> str:
        place = f.add(f.mul(k, OUTER_ROWS), offset * OUTER_ROWS + r)
        return f.load(numbers.scalar, f.at(numbers.scalar, "%a", place), "x", numbers.bytes)

    def columns(v: int, k: Word, offset: int) -> str:
        place = f.at(numbers.vector, "%b", f.mul(k, vectors))
        return f.load(numbers.vector, f.at(numbers.vector, place, offset * vectors + v), "w", numbers.bytes)

    sums = sums_of(f, OUTER_ROWS, vectors, 1, numbers, "")
    accumulate(f, numbers, sums, "%n", at, columns)
    finish(f, numbers, sums)
    return str(f)


def square(numbers: Numbers) -> str:
    """`void tile(source, columns, target, step)`: as many rows as a vector has lanes, transposed. Row r of the source
    begins at r * columns, of the target at r * step. Blocks of 1, 2, 4 ... change places with each other.
    """
    kind, lanes, size = numbers.vector, numbers.lanes, numbers.bytes
    f = Function("tile", [("ptr", "source"), ("i64", "columns"), ("ptr", "target"), ("i64", "step")], ATTRIBUTES)

    def at(array: str, r: int, apart: str) -> str:
        return f.at(numbers.scalar, array, f.mul(r, apart))

    def mixed(a: str, b: str, places: list[int]) -> str:
        mask = ", ".join(f"i32 {place}" for place in places)
        return f.let(f"shufflevector {kind} {a}, {kind} {b}, <{lanes} x i32> <{mask}>", "w")

    rows = [f.load(kind, at("%source", r, "%columns"), "w", size) for r in range(lanes)]
    distance = 1
    while distance < lanes:
        low = [j if not j & distance else lanes + j - distance for j in range(lanes)]
        high = [j + distance if not j & distance else lanes + j for j in range(lanes)]
        for r in (r for r in range(lanes) if not r & distance):
            a, b = rows[r], rows[r + distance]
            rows[r], rows[r + distance] = mixed(a, b, low), mixed(a, b, high)
        distance *= 2
    for r, row in enumerate(rows):
        f.store(kind, row, at("%target", r, "%step"), size)
    return str(f)


Sums = list[list[list[str]]]
"""Places of the sums: [part][row][vector]. They become registers."""


def sums_of(
    f: Function, rows: int, vectors: int, parts: int, numbers: Numbers, more: str = "", apart: Word = 0
) -> Sums:
    """Zero, or what acc holds. apart: from the results of one row to those of the next; 0: they lie without gaps."""
    kind = numbers.vector
    sums = [[[f.alloca(kind, "sum") for _ in range(vectors)] for _ in range(rows)] for _ in range(parts)]
    for part in sums:
        for row in part:
            for place in row:
                f.store(kind, "zeroinitializer", place, 64)
    if more:
        with f.when(more):
            for r, row in enumerate(sums[0]):
                for v, place in enumerate(row):
                    held = _held(f, numbers, r, v, apart or vectors * numbers.lanes)
                    f.store(kind, f.load(kind, held, "sum"), place, 64)
    return sums


def accumulate(
    f: Function,
    numbers: Numbers,
    sums: Sums,
    count: str,
    at: Callable[[int, Word, int], str],
    vector: Callable[[int, Word, int], str],
) -> None:
    """The loop: some steps at once, then those that are left one by one."""
    unrolled = f.let(f"and i64 {count}, {-UNROLLED}", "most")
    for start, end, steps in ((0, unrolled, UNROLLED), (unrolled, count, 1)):
        with f.loop(start, end, steps, "k") as k:
            for offset in range(steps):
                part = sums[offset % len(sums)]
                rows, vectors = range(len(part)), range(len(part[0]))
                if len(rows) < len(vectors):
                    spread = [_spread(f, numbers, at(r, k, offset)) for r in rows]
                    for v in vectors:
                        loaded = vector(v, k, offset)
                        for r in rows:
                            add_product(f, numbers, spread[r], loaded, part[r][v])
                else:
                    kept = [vector(v, k, offset) for v in vectors]
                    for r in rows:
                        number = _spread(f, numbers, at(r, k, offset))
                        for v in vectors:
                            add_product(f, numbers, number, kept[v], part[r][v])


def add_product(f: Function, numbers: Numbers, a: str, b: str, place: str) -> None:
    kind = numbers.vector
    old = f.load(kind, place, "sum", 64)
    new = f.let(f"call {kind} @llvm.fma.{numbers.suffix}({kind} {a}, {kind} {b}, {kind} {old})", "sum")
    f.store(kind, new, place, 64)


def finish(f: Function, numbers: Numbers, sums: Sums, apart: Word = 0) -> None:
    """Add the parts, and put the tile into acc."""
    kind = numbers.vector
    for r in range(len(sums[0])):
        for v in range(len(sums[0][0])):
            values = [f.load(kind, part[r][v], "sum", 64) for part in sums]
            while len(values) > 1:
                values = [f.let(f"fadd {kind} {a}, {b}", "sum") for a, b in zip(values[::2], values[1::2], strict=True)]
            f.store(kind, values[0], _held(f, numbers, r, v, apart or len(sums[0][0]) * numbers.lanes))


def _held(f: Function, numbers: Numbers, r: int, v: int, apart: Word) -> str:
    return f.at(numbers.vector, f.at(numbers.scalar, "%acc", f.mul(apart, r)), v)


def _spread(f: Function, numbers: Numbers, value: str) -> str:
    kind, n = numbers.vector, numbers.lanes
    first = f.let(f"insertelement {kind} poison, {numbers.scalar} {value}, i64 0", "x")
    return f.let(f"shufflevector {kind} {first}, {kind} poison, <{n} x i32> zeroinitializer", "x")
