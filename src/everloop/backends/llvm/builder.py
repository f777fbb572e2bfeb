"""Text of LLVM functions, written from top to bottom: values with readable names, loops, conditions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

Word = str | int
"""An i64: a number known now, or the name of a value."""


class Function:
    """One LLVM function being written. Its methods add an instruction each and give the name of the result."""

    def __init__(self, name: str, params: Sequence[tuple[str, str]], attributes: str, linkage: str = "") -> None:
        self.name, self.attributes, self.linkage = name, attributes, linkage
        self.params = tuple(params)
        self.allocas: list[str] = []
        self.lines: list[str] = []
        self.block = "entry"
        self._used: dict[str, int] = {}
        for _, param in params:
            self._fresh(param)

    def __str__(self) -> str:
        params = ", ".join(f"{kind} %{name}" for kind, name in self.params)
        body = "\n".join([*self.allocas, *self.lines])
        head = f"define {self.linkage + ' ' if self.linkage else ''}void @{self.name}({params}) {self.attributes} {{"
        return f"{head}\nentry:\n{body}\n  ret void\n}}\n"

    def note(self, text: str) -> None:
        self.lines.append(f"  ; {text}")

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def let(self, text: str, name: str = "t") -> str:
        result = self._fresh(name)
        self.lines.append(f"  {result} = {text}")
        return result

    def alloca(self, kind: str, name: str = "local", count: int = 1) -> str:
        result = self._fresh(name)
        self.allocas.append(f"  {result} = alloca {kind}, i64 {count}, align 64")
        return result

    # Whole numbers: worked out now where they are known.

    def add(self, a: Word, b: Word, name: str = "n") -> Word:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0:
            return b
        return a if b == 0 else self.let(f"add nsw i64 {a}, {b}", name)

    def sub(self, a: Word, b: Word, name: str = "n") -> Word:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.let(f"sub nsw i64 {a}, {b}", name)

    def mul(self, a: Word, b: Word, name: str = "n") -> Word:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1:
            return b
        return a if b == 1 else self.let(f"mul nsw i64 {a}, {b}", name)

    def smaller(self, a: Word, b: Word, name: str = "n") -> Word:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.let(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})", name)

    def larger(self, a: Word, b: Word, name: str = "n") -> Word:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.let(f"call i64 @llvm.smax.i64(i64 {a}, i64 {b})", name)

    def ceil_div(self, a: Word, b: Word) -> Word:
        if isinstance(a, int) and isinstance(b, int):
            return -(-a // b)
        return self.let(f"udiv i64 {self.add(a, self.sub(b, 1))}, {b}", "n")

    # Memory.

    def at(self, kind: str, pointer: str, index: Word, name: str = "p") -> str:
        return pointer if index == 0 else self.let(f"getelementptr {kind}, ptr {pointer}, i64 {index}", name)

    def load(self, kind: str, pointer: str, name: str = "v", align: int = 4) -> str:
        return self.let(f"load {kind}, ptr {pointer}, align {align}", name)

    def store(self, kind: str, value: str, pointer: str, align: int = 4) -> None:
        self.do(f"store {kind} {value}, ptr {pointer}, align {align}")

    # The flow of control.

    @contextmanager
    def loop(self, start: Word, end: Word, step: Word = 1, name: str = "i") -> Iterator[str]:
        """`for name in range(start, end, step)`, step positive."""
        index = self._fresh(name)
        label = index[1:].strip('"')
        head, body, latch, after = (f"{label}.{part}" for part in ("head", "body", "next", "done"))
        before = self.block
        self.do(f"br label %{head}")
        self.lines.append(f"{head}:")
        self.lines.append(f"  {index} = phi i64 [ {start}, %{before} ], [ %{label}.up, %{latch} ]")
        self.do(f"%{label}.on = icmp slt i64 {index}, {end}")
        self.do(f"br i1 %{label}.on, label %{body}, label %{after}")
        self._open(body)
        yield index
        self.do(f"br label %{latch}")
        self.lines.append(f"{latch}:")
        self.do(f"%{label}.up = add nsw i64 {index}, {step}")
        self.do(f"br label %{head}")
        self._open(after)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        label = self._fresh("if")[1:]
        self.do(f"br i1 {condition}, label %{label}.then, label %{label}.end")
        self._open(f"{label}.then")
        yield
        self.do(f"br label %{label}.end")
        self._open(f"{label}.end")

    @contextmanager
    def case(self, value: Word, number: int, done: str) -> Iterator[None]:
        """If the value is the number: what follows, then on to the label `done`."""
        label = self._fresh("case")[1:]
        hit = self.let(f"icmp eq i64 {value}, {number}", "is")
        self.do(f"br i1 {hit}, label %{label}.then, label %{label}.else")
        self._open(f"{label}.then")
        yield
        self.do(f"br label %{done}")
        self._open(f"{label}.else")

    def label(self, name: str) -> str:
        return self._fresh(name)[1:]

    def go(self, label: str) -> None:
        """Go on at a label, which begins here."""
        self.do(f"br label %{label}")
        self._open(label)

    def compare(self, how: str, a: Word, b: Word) -> str:
        return self.let(f"icmp {how} i64 {a}, {b}", "is")

    def _open(self, label: str) -> None:
        self.block = label
        self.lines.append(f"{label}:")

    def _fresh(self, name: str) -> str:
        """A name not used before, in letters that need no quotes."""
        plain = re.sub(r"[^a-zA-Z0-9_]", "_", name.replace("'", "_new"))
        plain = plain if plain[:1].isalpha() else f"l{plain}"
        count = self._used.get(plain, 0)
        self._used[plain] = count + 1
        return f"%{plain}" if not count else f"%{plain}.{count}"
