"""The layout of one step: columns of blocks, and lines at right angles between them.

Old states stand in the first column, new ones in the last. Between two columns is a channel, in which each value
that bends has a vertical line of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from everloop.export._channels import FAR, TRACK, Trunk, tracks
from everloop.export._columns import GAP, Arrangement, Link, arrangements
from everloop.export._flow import Block
from everloop.export._geometry import TEXT, Edge, Label, Layout, Placed, Point, Rect, text_width
from everloop.export._words import say

MARGIN, END = 20, 34


def place(blocks: list[Block], title_height: float = 0) -> Layout:
    """The layout of one step. `title_height` is left free at the top."""
    layouts = [_Picture(arrangement, title_height).layout() for arrangement in arrangements(blocks)]
    return min(layouts, key=_effort) if len(layouts) > 1 else layouts[0]


class _Picture:
    """Places for an arrangement."""

    def __init__(self, arrangement: Arrangement, title_height: float) -> None:
        self.of = arrangement
        everything = [item for items in arrangement.columns for item in items]
        top = min(item.y - arrangement.reach(item, -1) for item in everything) - GAP
        bottom = max(item.y + arrangement.reach(item, 1) for item in everything) + GAP
        self.top = MARGIN + title_height + END
        self.bottom = self.top + bottom - top
        for item in everything:
            item.y += self.top - top
        self.lanes = [tracks(self._trunks(links)) for links in arrangement.channels]
        self.middles, self.left, self.right = self._across()
        self.trunks: dict[tuple[int, int], list[Trunk]] = {}
        for channel, lanes in enumerate(self.lanes):
            for trunk in (trunk for lane in lanes for trunk in lane):
                self.trunks.setdefault((id(trunk.net), channel), []).append(trunk)

    def layout(self) -> Layout:
        placed = self._placed()
        rects = {id(one.block): one.rect for one in placed}
        return Layout(
            max(rect.right for rect in rects.values()) + MARGIN,
            self.bottom + END + MARGIN,
            tuple(placed),
            tuple(self._labels(rects)),
            tuple(self._edges(rects)),
            (Rect(self.left, self.top, self.right - self.left, self.bottom - self.top),),
        )

    def _trunks(self, links: list[Link]) -> list[Trunk]:
        """The vertical lines of a channel: of the values that do not go straight through it."""
        by_net: dict[int, list[Link]] = {}
        for link in links:
            by_net.setdefault(id(link.net), []).append(link)
        return [trunk for group in by_net.values() if (trunk := self._trunk(group)) is not None]

    def _trunk(self, links: list[Link]) -> Trunk | None:
        net, start = links[0].net, links[0].a
        left = start.y if start is not None else None
        rights = sorted({self.of.entry(link) for link in links if link.b is not None})
        heights = [*rights, *([left] if left is not None else [])]
        ends = [link.end for link in links if link.end is not None] + ([net] if start is None else [])
        if len(set(heights)) == 1 and not ends:
            return None
        shapes = [block.shape for block in self.of.all]
        wide = [block for block in ends if shapes.count(block.shape) > 1]
        width = max([TRACK, *(self.of.sizes[id(block)][0] + 6 for block in wide)])
        low = -FAR if any(link.end is not None for link in links) else min(heights)
        return Trunk(net, left, rights, low, FAR if start is None else max(heights), width)

    def _across(self) -> tuple[list[float], float, float]:
        """The middle of every column, and where the frame begins and ends; sets the places of the trunks."""
        x = float(MARGIN)
        middles: list[float] = []
        first = last = x
        for k, items in enumerate(self.of.columns):
            if k == self.of.last:
                last = x = x + (GAP if k else 0)
            left = right = 0.0
            for item in items:
                if item.block is not None:
                    half = self.of.sizes[id(item.block)][0] / 2
                    mark = 14 if any(wire.mark for wire in item.block.wires) and item.block.shape == "dot" else 6
                    left = max(left, half + mark)
                    right = max(right, half + (text_width(item.block.name) + 10 if item.block.name else 4))
            middles.append(x + left)
            x += left + right
            if k == 0:
                first = x
            x += GAP
            for lane in self.lanes[k]:
                width = max(trunk.width for trunk in lane)
                for trunk in lane:
                    trunk.x = x + width / 2
                x += width
            x += GAP if k < self.of.last - 1 else 0
        return middles, first, last

    def _placed(self) -> list[Placed]:
        items = {id(item.block): item for column in self.of.columns for item in column if item.block is not None}
        outgoing = {id(link.end): link for links in self.of.channels for link in links if link.end is not None}
        entry = {id(link.net): link for links in reversed(self.of.channels) for link in links if link.a is None}
        placed: list[Placed] = []
        unused = self.middles[0]
        for block in self.of.all:
            width, height = self.of.sizes[id(block)]
            if id(block) in items:
                item = items[id(block)]
                middle, y = self.middles[item.column], item.y - height / 2
            else:
                y = self.bottom + END - height if block.shape == "input" else self.top - END
                link = (entry if block.shape == "input" else outgoing).get(id(block))
                if link is not None:
                    trunks = self.trunks[id(link.net), link.channel]
                    middle = trunks[0 if block.shape == "input" else -1].x
                else:
                    middle, unused = unused, unused + width + GAP
            placed.append(Placed(block, Rect(middle - width / 2, y, width, height)))
        return placed

    def _edges(self, rects: dict[int, Rect]) -> list[Edge]:
        edges: list[Edge] = []
        paths: dict[int, list[Point]] = {}
        for link in (link for links in self.of.channels for link in links):
            begin = rects[id(link.net)]
            trunks = self.trunks.get((id(link.net), link.channel), [])
            if link.a is None:
                path = [(trunks[0].x, begin.y)]
            else:
                path = paths.get(id(link.a), [(begin.right, link.a.y)])
            if link.b is None:
                assert link.end is not None
                path = _through(path, trunks, rects[id(link.end)].bottom)
                edges.append(Edge(link.net, link.end, _simple(path)))
                continue
            y = self.of.entry(link)
            path = _through(path, trunks, y)
            if link.b.block is None:
                paths[id(link.b)] = [*path, (self.middles[link.b.column], y)]
                continue
            end = rects[id(link.b.block)]
            side = self.of.side[id(link.wire)]
            middle = end.x + end.width / 2
            into = {
                "left": [(end.x, y)],
                "above": [(middle, y), (middle, end.y)],
                "below": [(middle, y), (middle, end.bottom)],
            }
            edges.append(Edge(link.net, link.b.block, _simple([*path, *into[side]])))
        return edges

    def _labels(self, rects: dict[int, Rect]) -> list[Label]:
        labels: list[Label] = []
        for block in self.of.inner:
            rect = rects[id(block)]
            if block.name:
                y = rect.y + rect.height / 2
                labels.append(Label(block.name, Rect(rect.right + 3, y - 17, text_width(block.name), 15)))
            for wire in block.wires:
                if wire.mark and block.shape == "dot":
                    side, port = self.of.side[id(wire)], rect.y + rect.height / 2 + self.of.offset[id(wire)]
                    x, y = {
                        "left": (rect.x - 12, port - 11),
                        "above": (rect.x + rect.width / 2 + 6, rect.y - 11),
                        "below": (rect.x + rect.width / 2 + 6, rect.bottom + 1),
                    }[side]
                    labels.append(Label(say(wire.mark), Rect(x, y, 9, 10), TEXT, "mark"))
        return labels


def _effort(layout: Layout) -> float:
    """How much there is to follow: lines that cross, bends, length."""
    pieces = list(
        dict.fromkeys(
            (id(edge.source), *piece)
            for edge in layout.edges
            for piece in zip(edge.points, edge.points[1:], strict=False)
        )
    )
    flat = [(net, a[1], *sorted((a[0], b[0]))) for net, a, b in pieces if a[1] == b[1]]
    steep = [(net, a[0], *sorted((a[1], b[1]))) for net, a, b in pieces if a[0] == b[0]]
    crossings = sum(
        net != other and left < x < right and low < y < high
        for net, y, left, right in flat
        for other, x, low, high in steep
    )
    length = sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for _, a, b in pieces)
    return 40 * crossings + 24 * len(steep) + 0.15 * length


def _through(path: list[Point], trunks: list[Trunk], y: float) -> list[Point]:
    """The path on through a channel, along the vertical lines there, to a height at its right."""
    path = list(path)
    goals = [*(trunk.rights[0] for trunk in trunks[:-1]), y]
    for trunk, goal in zip(trunks, goals[: len(trunks)], strict=True):
        path += [(trunk.x, path[-1][1]), (trunk.x, goal)]
    return path


def _simple(path: Sequence[Point]) -> tuple[Point, ...]:
    """Without points in the middle of a straight piece."""
    points: list[Point] = []
    for point in path:
        if points and point == points[-1]:
            continue
        if len(points) > 1 and any(points[-2][k] == points[-1][k] == point[k] for k in (0, 1)):
            points.pop()
        points.append(point)
    return tuple(points)
