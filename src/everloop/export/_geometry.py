"""The places of a diagram: rectangles, labels and edges, and how large a block is."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from everloop.export._flow import Block
from everloop.export._words import Line

HEAD, TEXT, SMALL = 14, 12, 0.75
LEAD = 16
"""Height of a line of text."""
PAD, PORT, RADIUS = 9, 12, 13
Point = tuple[float, float]


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def meets(self, other: Rect) -> bool:
        """Whether they have an area in common."""
        across = self.x < other.right and other.x < self.right
        return across and self.y < other.bottom and other.y < self.bottom

    def holds(self, other: Rect) -> bool:
        across = self.x <= other.x and other.right <= self.right
        return across and self.y <= other.y and other.bottom <= self.bottom


@dataclass(frozen=True)
class Placed:
    block: Block
    rect: Rect


@dataclass(frozen=True)
class Label:
    """Text beside the blocks: the name of a value, a sign, a title."""

    line: Line
    rect: Rect
    size: float = TEXT
    role: str = "name"


@dataclass(frozen=True)
class Edge:
    """A wire: from the block that makes the value to one that reads it, in straight pieces."""

    source: Block
    target: Block
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Layout:
    width: float
    height: float
    blocks: tuple[Placed, ...]
    labels: tuple[Label, ...]
    edges: tuple[Edge, ...]
    frames: tuple[Rect, ...] = ()


def text_width(line: Line, size: float = TEXT) -> float:
    """No less than the width of a line of text in any usual font."""
    return sum(_em(run.text) * size * (SMALL if run.style == "sub" else 1) for run in line)


def _em(text: str) -> float:
    width = 0.0
    for char in text:
        if unicodedata.east_asian_width(char) in "WF":
            width += 1.05
        elif unicodedata.combining(char):
            continue
        elif char in "mwMW@%+−=<>×÷≥":
            width += 0.98 if char.isalpha() else 0.86
        elif char in "iljtfr.,:;'|!()[] ·":
            width += 0.42
        else:
            width += 0.8 if char.isupper() else 0.66
    return width


def size_of(block: Block) -> tuple[float, float]:
    """Width and height, whole and even."""
    widths = [text_width(line, HEAD if block.headed and k == 0 else TEXT) for k, line in enumerate(block.lines)]
    widest = max(widths, default=0)
    match block.shape:
        case "old" | "new" | "input" | "output":
            return _even(text_width(block.lines[0], HEAD) + 8), 24
        case "dot":
            radius = max(RADIUS, widest / 2 + 4)
            return _even(2 * radius), _even(max(2 * radius, LEAD * len(block.wires) if len(block.wires) > 3 else 0))
        case "pill":
            return _even(widest + 18), 26
        case "rows":
            return _even(widest + 2 * PAD), LEAD * len(block.lines) + 10
    tall = LEAD * len(block.lines) + 12
    return _even(max(widest + 2 * PAD, 34)), _even(max(tall, PORT * len(block.wires) + 8))


def _even(number: float) -> float:
    return 2 * -(-number // 2)
