"""The layout of a network unrolled over time: a row of boxes for every layer and direction.

Two directions of a layer are two rows that stand a little apart sideways too, so that what goes into the upper one
and comes out of the lower one passes between the boxes of the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from everloop.export._flow import Block, Line, Wire
from everloop.export._geometry import HEAD, TEXT, Edge, Label, Layout, Placed, Point, Rect, size_of, text_width
from everloop.export._words import say, symbol
from everloop.lang.graph import Graph

MARGIN, LANE = 20, 24
RISE, FORK, PASS = 44, 22, 26
"""Between rows; below a row, where an input forks; beside a box, where another row's value passes."""
Way = Literal[1, -1]


def place(graph: Graph, steps: int, layers: int, bidirectional: bool, title_height: float) -> Layout:
    """The layout of `layers` layers over `steps` steps."""
    return _Unrolled(graph, steps, bidirectional).layout(layers, title_height)


@dataclass
class _Unrolled:
    graph: Graph
    steps: int
    both: bool
    blocks: list[Placed] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.graph
        self.name: Line = say(graph.name)
        self.width = max(64, 2 * round(text_width(self.name, HEAD) / 2) + 24)
        self.height = max(44, LANE * len(graph.states) + 14)
        last = str(self.steps + 1)
        self.label = max(text_width(symbol(state, last)) for state in graph.states)
        self.aside = max(self.width / 4 + PASS / 2, 52) if self.both else 0
        self.inputs = {t: self._input_text(t) for t in range(1, self.steps + 1)}
        terminal = text_width(self.inputs[self.steps], HEAD) + 16
        self.pitch = max(self.width + self._passing + self.label + 44, terminal)

    @property
    def _passing(self) -> float:
        """How far from a box the value of another row passes, at that side on which one does."""
        return 2 * self.aside - self.width / 2 if self.both else 0

    def _input_text(self, t: int) -> Line:
        text: Line = ()
        for k, name in enumerate(self.graph.inputs):
            text += (*say(", " if k else ""), *symbol(name, str(t)))
        return text

    def layout(self, layers: int, title_height: float) -> Layout:
        rows = [text for layer in range(1, layers + 1) for text in self._row_names(layer, layers)]
        wide = max((text_width(text) for text in rows), default=0)
        ends = text_width(symbol(max(self.graph.states, key=len), str(self.steps + 1)), HEAD) + 8
        self.first = MARGIN + wide + 12 + ends + 30 + self.aside + self.width / 2
        y = 0.0
        sources = {t: self._terminal("input", self.inputs[t], t, y) for t in self.inputs}
        for layer in range(1, layers + 1):
            sources, y = self._layer(sources, y, self._row_names(layer, layers))
        for t, source in sources.items():
            top = self._terminal("output", symbol("y", str(t)), t, y - RISE + 12)
            self._wire(source, top, [(self._x(t), source.rect.y), (self._x(t), top.rect.bottom)])
        return self._moved(MARGIN + title_height)

    def _row_names(self, layer: int, layers: int) -> list[Line]:
        """Of the lower row and the upper one; none if there is only one row."""
        name = f"layer {layer}" if layers > 1 else ""
        if self.both:
            return [say(f"{name} →".strip()), say(f"{name} ←".strip())]
        return [say(name)]

    def _x(self, t: int) -> float:
        return self.first + (t - 1) * self.pitch

    def _terminal(self, shape: Literal["input", "output"], text: Line, t: int, y: float) -> Placed:
        block = Block(shape, "end", (text,))
        width, height = size_of(block)
        top = y if shape == "input" else y - height
        return self._put(block, Rect(self._x(t) - width / 2, top, width, height))

    def _put(self, block: Block, rect: Rect) -> Placed:
        placed = Placed(block, rect)
        self.blocks.append(placed)
        return placed

    def _wire(self, source: Placed, target: Placed, points: list[Point]) -> None:
        target.block.wires.append(Wire(source.block))
        self.edges.append(Edge(source.block, target.block, tuple(points)))

    def _layer(self, sources: dict[int, Placed], y: float, names: list[Line]) -> tuple[dict[int, Placed], float]:
        """A layer on top of its sources: what it gives, and where it ends."""
        lower = self._row(1, y - RISE - (FORK if self.both else 0), names[0])
        if not self.both:
            for t, source in sources.items():
                x = self._x(t)
                self._wire(source, lower[t], [(x, source.rect.y), (x, lower[t].rect.bottom)])
            return lower, lower[1].rect.y
        upper = self._row(-1, lower[1].rect.y - FORK - 12, names[1])
        joined: dict[int, Placed] = {}
        for t, source in sources.items():
            x = self._x(t)
            fork = lower[t].rect.bottom + FORK
            for row, way in ((lower, -1), (upper, 1)):
                side = x + way * self.aside
                points = [(x, source.rect.y), (x, fork), (side, fork), (side, row[t].rect.bottom)]
                self._wire(source, row[t], points)
            block = Block("pill", "loop", (say("concat"),))
            width, height = size_of(block)
            top = upper[1].rect.y - FORK - height
            joined[t] = self._put(block, Rect(x - width / 2, top, width, height))
            for row, way in ((lower, -1), (upper, 1)):
                side, middle = x + way * self.aside, top + height / 2
                points = [(side, row[t].rect.y), (side, middle), (x + way * width / 2, middle)]
                self._wire(row[t], joined[t], points)
        return joined, joined[1].rect.y

    def _row(self, way: Way, bottom: float, name: Line) -> dict[int, Placed]:
        """The boxes of one layer in one direction, with the states that go from box to box."""
        top = bottom - self.height
        row: dict[int, Placed] = {}
        for t in range(1, self.steps + 1):
            x = self._x(t) - way * self.aside - self.width / 2
            block = Block("cell", "loop", (self.name,), headed=True)
            row[t] = self._put(block, Rect(x, top, self.width, self.height))
        if name:
            width = text_width(name)
            self.labels.append(Label(name, Rect(MARGIN, top + self.height / 2 - 8, width, 16), TEXT, "legend"))
        for k, state in enumerate(self.graph.states):
            y = top + self.height / 2 + (k - (len(self.graph.states) - 1) / 2) * LANE
            self._state(state, row, y, way)
        return row

    def _state(self, state: str, row: dict[int, Placed], y: float, way: Way) -> None:
        """One state along a row: what comes in, from box to box, what goes out."""
        order = list(row) if way > 0 else list(row)[::-1]
        before, after = self._end("old", state, order[0] - way, row[order[0]], y, -way), None
        for t in order:
            box = row[t]
            self._wire(before, box, _level(before.rect, box.rect, y))
            if after is not None:
                self._state_label(state, t - way, row, y, way)
            before = after = box
        end = self._end("new", state, order[-1], row[order[-1]], y, way)
        self._wire(before, end, _level(before.rect, end.rect, y))

    def _end(self, shape: Literal["old", "new"], state: str, t: int, box: Placed, y: float, side: int) -> Placed:
        block = Block(shape, "end", (symbol(state, str(t)),))
        width, height = size_of(block)
        room = self._passing + 14 if self.both and shape == "new" else 30
        x = box.rect.right + room if side > 0 else box.rect.x - room - width
        return self._put(block, Rect(x, y - height / 2, width, height))

    def _state_label(self, state: str, t: int, row: dict[int, Placed], y: float, way: Way) -> None:
        """In the middle of what is free between two boxes."""
        begin, end = sorted((row[t].rect, row[t + way].rect), key=lambda rect: rect.x)
        left = begin.right + (self._passing if way > 0 else 0)
        right = end.x - (self._passing if way < 0 else 0)
        line = symbol(state, str(t))
        width = text_width(line)
        self.labels.append(Label(line, Rect((left + right - width) / 2, y - 18, width, 16)))

    def _moved(self, top: float) -> Layout:
        """Everything moved down so that it begins at `top`."""
        rects = [placed.rect for placed in self.blocks] + [label.rect for label in self.labels]
        down = top - min(rect.y for rect in rects)

        def moved(rect: Rect) -> Rect:
            return Rect(rect.x, rect.y + down, rect.width, rect.height)

        return Layout(
            max(rect.right for rect in rects) + MARGIN,
            max(rect.bottom for rect in rects) + down + MARGIN,
            tuple(Placed(placed.block, moved(placed.rect)) for placed in self.blocks),
            tuple(Label(label.line, moved(label.rect), label.size, label.role) for label in self.labels),
            tuple(Edge(e.source, e.target, tuple((x, y + down) for x, y in e.points)) for e in self.edges),
        )


def _level(begin: Rect, end: Rect, y: float) -> list[Point]:
    return [(begin.right, y), (end.x, y)] if begin.x < end.x else [(begin.x, y), (end.right, y)]
