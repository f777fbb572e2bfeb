"""Numbers and their bits as values of LLVM's language, with Python's operators: each adds an instruction to a body.

A value is a number or a vector of them, and formulas do not say which. Numbers of Python stand for constants.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Type:
    """`float`, `double`, or a vector of them. lanes: 0 for a number alone."""

    scalar: str
    lanes: int = 0

    @staticmethod
    def read(text: str) -> Type:
        words = text.strip("<>").split(" x ")
        found = Type(words[-1], int(words[0]) if len(words) == 2 and words[0].isdecimal() else 0)
        if found.scalar not in ("float", "double") or str(found) != text:
            raise ValueError(f"{text!r} is no type of numbers; expected float, double or a vector such as <8 x float>")
        return found

    def __str__(self) -> str:
        return self.of(self.scalar)

    @property
    def bits(self) -> int:
        return 32 if self.scalar == "float" else 64

    @property
    def suffix(self) -> str:
        """As in the names of LLVM's intrinsics."""
        return f"v{self.lanes}f{self.bits}" if self.lanes else f"f{self.bits}"

    @property
    def word(self) -> str:
        """Whole numbers of the same size."""
        return self.of(f"i{self.bits}")

    def of(self, element: str) -> str:
        """As many of something else."""
        return f"<{self.lanes} x {element}>" if self.lanes else element


class Body:
    """The instructions of a function, in order, and the functions that they call."""

    def __init__(self, type_: Type) -> None:
        self.type = type_
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self._beside: list[str] = []
        self._count = 0

    def function(self, signature: str, result: Real) -> str:
        """The text of the function of these instructions, and of those that only it calls."""
        head = f"define internal {signature} alwaysinline nounwind {{\nentry:"
        whole = "\n  ".join([head, *self.lines, f"ret {result.type} {result.text}"]) + "\n}\n"
        return "\n".join([whole, *self._beside])

    def do(self, *instructions: str) -> None:
        self.lines += instructions

    def let(self, instruction: str) -> str:
        self._count += 1
        self.lines.append(f"%{self._count} = {instruction}")
        return f"%{self._count}"

    def call(self, result: str, function: str, *args: tuple[str, str]) -> str:
        self.declared.add(f"declare {result} {function}({', '.join(type_ for type_, _ in args)})")
        return self.let(f"call {result} {function}({', '.join(f'{type_} {text}' for type_, text in args)})")

    def splat(self, element: str, literal: str) -> str:
        return f"splat ({element} {literal})" if self.type.lanes else literal

    def far(self, function: str, limit: float) -> str:
        """The name of a function of two places of vectors: where |x| in the first exceeds the limit, it puts what the C
        library says of x into the second. Vectors in registers would be passed as the caller's attributes have it.
        """
        scalar, name = self.type.scalar, f"@el.{function}.far.{self.type.suffix}"
        self.declared |= {f"declare double @{function}(double)", "declare double @llvm.fabs.f64(double)"}
        wide, narrow = ("fpext float", "fptrunc double") if scalar == "float" else ("bitcast double", "bitcast double")
        self._beside.append(f"""\
define internal void {name}(ptr %x, ptr %y) noinline cold nounwind {{
entry:
  br label %lane
lane:
  %i = phi i64 [ 0, %entry ], [ %up, %next ]
  %from = getelementptr {scalar}, ptr %x, i64 %i
  %value = load {scalar}, ptr %from
  %wide = {wide} %value to double
  %size = call double @llvm.fabs.f64(double %wide)
  %is = fcmp ogt double %size, {limit!r}
  br i1 %is, label %there, label %next
there:
  %result = call double @{function}(double %wide)
  %narrow = {narrow} %result to {scalar}
  %to = getelementptr {scalar}, ptr %y, i64 %i
  store {scalar} %narrow, ptr %to
  br label %next
next:
  %up = add i64 %i, 1
  %on = icmp ult i64 %up, {max(self.type.lanes, 1)}
  br i1 %on, label %lane, label %done
done:
  ret void
}}
""")
        return name


@dataclass(frozen=True)
class _Value:
    body: Body
    text: str


class Real(_Value):
    """Floating point."""

    @property
    def type(self) -> str:
        return str(self.body.type)

    @staticmethod
    def constant(body: Body, value: float) -> Real:
        """A constant, rounded to the body's type."""
        rounded = struct.unpack("<f", struct.pack("<f", value))[0] if body.type.bits == 32 else value
        return Real(body, body.splat(body.type.scalar, f"0x{struct.pack('>d', rounded).hex()}"))

    def __add__(self, other: Real | float) -> Real:
        return self._with("fadd", other)

    def __sub__(self, other: Real | float) -> Real:
        return self._with("fsub", other)

    def __mul__(self, other: Real | float) -> Real:
        return self._with("fmul", other)

    def __truediv__(self, other: Real | float) -> Real:
        return self._with("fdiv", other)

    def __neg__(self) -> Real:
        return Real(self.body, self.body.let(f"fneg {self.type} {self.text}"))

    def __abs__(self) -> Real:
        return self.intrinsic("fabs")

    def copysign(self, other: Real) -> Real:
        return self.intrinsic("copysign", other)

    def intrinsic(self, function: str, *others: Real | float) -> Real:
        """A function of LLVM's own of this value and others."""
        args = [(self.type, self._text_of(value)) for value in (self, *others)]
        return Real(self.body, self.body.call(self.type, f"@llvm.{function}.{self.body.type.suffix}", *args))

    def below(self, other: Real | float) -> Mask:
        return self._compare("olt", other)

    def above(self, other: Real | float) -> Mask:
        return self._compare("ogt", other)

    def equals(self, other: Real | float) -> Mask:
        return self._compare("oeq", other)

    def at_most(self, limit: float) -> Real:
        """The smaller one; NaN stays what it is."""
        return self.above(limit).choose(limit, self)

    def at_least(self, limit: float) -> Real:
        return self.below(limit).choose(limit, self)

    def within(self, limit: float, x: Real, function: str) -> Real:
        """This value where |x| <= limit, and what a function of the C library gives for x elsewhere."""
        body = self.body
        some = abs(x).above(limit).any()
        there, result = body.let(f"alloca {self.type}"), body.let(f"alloca {self.type}")
        body.do(
            f"br i1 {some}, label %far, label %done",
            "far:",
            f"store {self.type} {x.text}, ptr {there}",
            f"store {self.type} {self.text}, ptr {result}",
            f"call void {body.far(function, limit)}(ptr {there}, ptr {result})",
        )
        found = body.let(f"load {self.type}, ptr {result}")
        body.do("br label %done", "done:")
        return Real(body, body.let(f"phi {self.type} [ {self.text}, %entry ], [ {found}, %far ]"))

    def bits(self) -> Bits:
        return Bits(self.body, self.body.let(f"bitcast {self.type} {self.text} to {self.body.type.word}"))

    def _text_of(self, other: Real | float) -> str:
        return other.text if isinstance(other, Real) else self.constant(self.body, other).text

    def _with(self, instruction: str, other: Real | float) -> Real:
        return Real(self.body, self.body.let(f"{instruction} {self.type} {self.text}, {self._text_of(other)}"))

    def _compare(self, how: str, other: Real | float) -> Mask:
        return Mask(self.body, self.body.let(f"fcmp {how} {self.type} {self.text}, {self._text_of(other)}"))


class Bits(_Value):
    """Whole numbers as wide as the floating point of the same body, without sign, that wrap around."""

    @property
    def type(self) -> str:
        return self.body.type.word

    def __add__(self, other: Bits | int) -> Bits:
        return self._with("add", other)

    def __sub__(self, other: Bits | int) -> Bits:
        return self._with("sub", other)

    def __and__(self, other: Bits | int) -> Bits:
        return self._with("and", other)

    def __or__(self, other: Bits | int) -> Bits:
        return self._with("or", other)

    def __xor__(self, other: Bits | int) -> Bits:
        return self._with("xor", other)

    def __lshift__(self, other: int) -> Bits:
        return self._with("shl", other)

    def __rshift__(self, other: int) -> Bits:
        return self._with("lshr", other)

    def equals(self, other: int) -> Mask:
        return Mask(self.body, self.body.let(f"icmp eq {self.type} {self.text}, {self._text_of(other)}"))

    def real(self) -> Real:
        """The floating point number of these bits."""
        return Real(self.body, self.body.let(f"bitcast {self.type} {self.text} to {self.body.type}"))

    @staticmethod
    def constant(body: Body, value: int) -> Bits:
        return Bits(body, body.splat(f"i{body.type.bits}", str(value)))

    def _text_of(self, other: Bits | int) -> str:
        return other.text if isinstance(other, Bits) else self.constant(self.body, other).text

    def _with(self, instruction: str, other: Bits | int) -> Bits:
        return Bits(self.body, self.body.let(f"{instruction} {self.type} {self.text}, {self._text_of(other)}"))


class Mask(_Value):
    """Yes or no for each number."""

    @property
    def type(self) -> str:
        return self.body.type.of("i1")

    def choose(self, yes: Real | float, no: Real | float) -> Real:
        yes, no = (side if isinstance(side, Real) else Real.constant(self.body, side) for side in (yes, no))
        choice = f"select {self.type} {self.text}, {yes.type} {yes.text}, {no.type} {no.text}"
        return Real(self.body, self.body.let(choice))

    def any(self) -> str:
        """An i1: whether it is yes for one at least."""
        lanes = self.body.type.lanes
        return (
            self.body.call("i1", f"@llvm.vector.reduce.or.v{lanes}i1", (self.type, self.text)) if lanes else self.text
        )
