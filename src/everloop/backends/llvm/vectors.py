"""Vectors of one kind of number, as wide as a register of the machine, and what is done with them in a function."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from everloop.backends.llvm.builder import Function, Word
from everloop.backends.llvm.functions import FUNCTIONS, name


@dataclass(frozen=True)
class Numbers:
    """What a kernel computes with: `float` or `double`, so many to a register, so many registers."""

    scalar: str
    lanes: int
    registers: int

    @property
    def bytes(self) -> int:
        return 4 if self.scalar == "float" else 8

    @property
    def vector(self) -> str:
        return f"<{self.lanes} x {self.scalar}>"

    @property
    def suffix(self) -> str:
        return f"v{self.lanes}f{8 * self.bytes}"

    def number(self, value: float) -> str:
        """A constant as LLVM writes it: rounded to the kind of number, in hexadecimal."""
        rounded = struct.unpack("<f", struct.pack("<f", _in_range(value)))[0] if self.scalar == "float" else value
        return "0x" + struct.pack(">d", rounded).hex().upper()

    def splat(self, value: float) -> str:
        return "<" + ", ".join([f"{self.scalar} {self.number(value)}"] * self.lanes) + ">"

    def mask(self, count: int) -> str:
        """The first lanes only."""
        return "<" + ", ".join(f"i1 {'true' if k < count else 'false'}" for k in range(self.lanes)) + ">"

    @property
    def mask_type(self) -> str:
        return f"<{self.lanes} x i1>"


def _in_range(value: float) -> float:
    """A number beyond single precision is infinite there."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


@dataclass
class Lane:
    """Instructions on one value at a time, vector or number: how the operations of the language are written.

    count: the lanes in use, where a vector runs past the end of an axis.
    """

    f: Function
    numbers: Numbers
    wide: bool = True
    count: int | None = None

    @property
    def kind(self) -> str:
        return self.numbers.vector if self.wide else self.numbers.scalar

    def const(self, value: float) -> str:
        return self.numbers.splat(value) if self.wide else self.numbers.number(value)

    def load(self, pointer: str, name: str) -> str:
        if self.count is None or not self.wide:
            return self.f.load(self.kind, pointer, name, self.numbers.bytes)
        return self.f.let(
            f"call {self.kind} @llvm.masked.load.{self.numbers.suffix}.p0(ptr align {self.numbers.bytes} {pointer}, "
            f"{self.numbers.mask_type} {self.numbers.mask(self.count)}, {self.kind} zeroinitializer)",
            name,
        )

    def store(self, value: str, pointer: str) -> None:
        if self.count is None or not self.wide:
            self.f.store(self.kind, value, pointer, self.numbers.bytes)
            return
        self.f.do(
            f"call void @llvm.masked.store.{self.numbers.suffix}.p0({self.kind} {value}, ptr align "
            f"{self.numbers.bytes} {pointer}, {self.numbers.mask_type} {self.numbers.mask(self.count)})"
        )

    def spread(self, value: str, name: str) -> str:
        """One number in every lane."""
        if not self.wide:
            return value
        first = self.f.let(f"insertelement {self.kind} poison, {self.numbers.scalar} {value}, i64 0", name)
        zeros = f"<{self.numbers.lanes} x i32> zeroinitializer"
        return self.f.let(f"shufflevector {self.kind} {first}, {self.kind} poison, {zeros}", name)

    def keep(self, value: str, other: float) -> str:
        """The value in the lanes in use, a number in the others."""
        if self.count is None or not self.wide:
            return value
        mask = self.numbers.mask(self.count)
        return self.f.let(
            f"select {self.numbers.mask_type} {mask}, {self.kind} {value}, {self.kind} {self.const(other)}"
        )

    def compute(self, op: str, args: list[str], name: str) -> str:
        """An elementwise operation of the language."""
        return _WRITTEN[op](self, args, name) if op in _WRITTEN else self._call(op, args[0], name)

    def _call(self, op: str, arg: str, hint: str) -> str:
        assert op in FUNCTIONS, op
        return self.f.let(f"call {self.kind} {name(op, self.kind)}({self.kind} {arg})", hint)

    def compare(self, how: str, a: str, b: str) -> str:
        return self.f.let(f"fcmp {how} {self.kind} {a}, {b}", "is")

    def choose(self, condition: str, a: str, b: str, name: str) -> str:
        bits = self.numbers.mask_type if self.wide else "i1"
        return self.f.let(f"select {bits} {condition}, {self.kind} {a}, {self.kind} {b}", name)

    def either(self, a: str, b: str) -> str:
        return self.f.let(f"or {self.numbers.mask_type if self.wide else 'i1'} {a}, {b}", "is")


def _arithmetic(instruction: str) -> Callable[[Lane, list[str], str], str]:
    # contract: a product and a sum may become one instruction, rounded once.
    return lambda lane, args, name: lane.f.let(f"{instruction} contract {lane.kind} {', '.join(args)}", name)


def _extreme(how: str) -> Callable[[Lane, list[str], str], str]:
    """At a tie the second; NaN in either wins."""

    def write(lane: Lane, args: list[str], name: str) -> str:
        a, b = args
        first = lane.either(lane.compare(how, a, b), lane.compare("uno", a, a))
        return lane.choose(first, a, b, name)

    return write


def _comparison(how: str) -> Callable[[Lane, list[str], str], str]:
    return lambda lane, args, name: lane.choose(lane.compare(how, *args), lane.const(1.0), lane.const(0.0), name)


_WRITTEN: dict[str, Callable[[Lane, list[str], str], str]] = {
    "add": _arithmetic("fadd"),
    "sub": _arithmetic("fsub"),
    "mul": _arithmetic("fmul"),
    "div": _arithmetic("fdiv"),
    "neg": _arithmetic("fneg"),
    "stop": lambda lane, args, name: args[0],
    "maximum": _extreme("ogt"),
    "minimum": _extreme("olt"),
    "gt": _comparison("ogt"),
    "ge": _comparison("oge"),
    "where": lambda lane, args, name: lane.choose(
        lane.compare("une", args[0], lane.const(0.0)), args[1], args[2], name
    ),
}


def declarations(numbers: Numbers) -> list[str]:
    vector, bits, suffix = numbers.vector, numbers.mask_type, numbers.suffix
    return [
        "declare i64 @llvm.smin.i64(i64, i64)",
        "declare i64 @llvm.smax.i64(i64, i64)",
        f"declare {vector} @llvm.fma.{suffix}({vector}, {vector}, {vector})",
        f"declare {vector} @llvm.masked.load.{suffix}.p0(ptr, {bits}, {vector})",
        f"declare void @llvm.masked.store.{suffix}.p0({vector}, ptr, {bits})",
        f"declare {numbers.scalar} @llvm.vector.reduce.fadd.{suffix}({numbers.scalar}, {vector})",
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
    ]


def unit_vector(f: Function, numbers: Numbers, first: Word) -> str:
    """The places of the units of a vector, from the first on, as numbers."""
    base = f.let(f"sitofp i64 {first} to {numbers.scalar}", "first")
    lane = Lane(f, numbers)
    steps = "<" + ", ".join(f"{numbers.scalar} {numbers.number(k)}" for k in range(numbers.lanes)) + ">"
    return lane.compute("add", [lane.spread(base, "first"), steps], "place")
