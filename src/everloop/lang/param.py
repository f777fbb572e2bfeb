"""Parameters: what a layer holds for a cell, and matrices made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from everloop.lang.expr import WRITTEN, Expr, Size


@dataclass(frozen=True)
class Param:
    """One member of a family: a matrix (rows, columns) or a vector (rows,).

    blocks: a block-diagonal matrix of that many blocks, one below the other in an array [rows, columns / blocks]:
            each block of rows sees its own block of columns.
    made:   the formula of a matrix that is not held but made of others (`U - U.T`), or of numbers alone.
    """

    family: str
    slot: str
    sizes: tuple[Size, ...]
    blocks: int = 1
    made: Expr | None = None

    @property
    def name(self) -> str:
        return f"{self.family}.{self.slot}" if self.slot else self.family

    @property
    def called(self) -> tuple[str, ...]:
        """The names that it goes by, the closest first: U1.h, U1, and those of all numbered families: U.h, U."""
        base = self.family.rstrip("0123456789")
        return self.name, self.family, f"{base}.{self.slot}", base

    def shape(self, sizes: Mapping[str, int]) -> list[int]:
        """The shape of the array that holds it, for the lengths of the sizes by name."""
        lengths = [sizes[str(size)] for size in self.sizes]
        for size, length in zip(self.sizes, lengths, strict=True):
            if length % self.blocks:
                raise ValueError(f"{self.name} is block-diagonal: {size} = {length} is not {self.blocks} equal parts")
        return [lengths[0], *(length // self.blocks for length in lengths[1:])]

    @property
    def is_matrix(self) -> bool:
        return len(self.sizes) == 2


SIGNS = {"add": (" + ", 1), "sub": (" - ", 1), "mul": (" * ", 2), "div": (" / ", 2), "compose": (" @ ", 2)}
LEAVES = {"row": "i", "column": "j", "count": "n"}


def write_matrix(matrix: Expr, name: Callable[[str], str] = str) -> str:
    """The formula of a matrix, as it would be typed, up to a length. i and j are the row and the column of an entry."""

    left = WRITTEN

    def write(node: Expr, tight: int) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            return "..."
        if node.op == "matrix":
            return name(node.attr)
        if node.op == "const":
            return f"{node.attr:g}"
        if node.op in LEAVES:
            return LEAVES[node.op]
        if node.op == "transpose":
            return f"{write(node.args[0], 4)}.T"
        if node.op == "neg":
            return f"-{write(node.args[0], 3)}"
        if node.op in SIGNS:
            sign, level = SIGNS[node.op]
            text = sign.join((write(node.args[0], level), write(node.args[1], level + 1)))
            return f"({text})" if tight > level else text
        return f"{node.op}({', '.join(write(arg, 0) for arg in node.args)})"

    text = write(matrix, 0)
    return f"({text})" if matrix.op in SIGNS else text
