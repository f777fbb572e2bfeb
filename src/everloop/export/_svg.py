"""A layout as SVG text: one file, no scripts, nothing fetched; light or dark as the reader's screen."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from everloop.export._geometry import HEAD, LEAD, SMALL, TEXT, Edge, Label, Layout, Placed, Point, Rect
from everloop.export._words import Line

# Light is the default and dark a media query, in plain class selectors: programs for slides know no more of CSS.
STYLE = """
.el-root { color: #1f2328; font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
.el-page { fill: #ffffff; }
.el-frame { fill: #f6f7f9; stroke: #c4cad2; stroke-width: 1.2; }
.el-text { fill: currentColor; }
.el-name { font-family: Cambria, Georgia, "Times New Roman", serif; font-style: italic; font-size: 108%; }
.el-soft { fill: #57606a; }
.el-wire { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linejoin: round; }
.el-halo { fill: none; stroke: #f6f7f9; stroke-width: 5; }
.el-tip { fill: currentColor; }
.el-before { fill: #dbe9ff; stroke: #2f6bd0; stroke-width: 1.2; }
.el-loop { fill: #ffe8c7; stroke: #b35c00; stroke-width: 2; }
.el-after { fill: #d8f3df; stroke: #1a7f43; stroke-width: 1.5; stroke-dasharray: 5 3; }
.el-free { fill: #1f57b5; }
@media (prefers-color-scheme: dark) {
.el-root { color: #e6e9ee; }
.el-page { fill: #14171c; }
.el-frame { fill: #1c2027; stroke: #4a525e; }
.el-soft { fill: #a3acb8; }
.el-halo { stroke: #1c2027; }
.el-before { fill: #1b3158; stroke: #79a8f5; }
.el-loop { fill: #4a3010; stroke: #f0a94e; }
.el-after { fill: #143a24; stroke: #5fcf8a; }
.el-free { fill: #9cc1ff; }
}
"""


def write(layout: Layout, title: str, description: str) -> str:
    width, height = _number(layout.width), _number(layout.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="el-root" role="img" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        f"<title>{_escaped(title)}</title>",
        f"<desc>{_escaped(description)}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="el-page" width="{width}" height="{height}" rx="8"/>',
    ]
    lines += [_rect(frame, "el-frame", 14) for frame in layout.frames]
    lines += _wires(layout)
    lines += [line for placed in layout.blocks for line in _block(placed)]
    lines += [_label(label) for label in layout.labels]
    return "\n".join([*lines, "</svg>", ""])


def _escaped(text: str) -> str:
    """As XML text: characters that XML cannot hold are left out."""
    return escape("".join(c for c in text if c in "\t\n" or c >= " "))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rect(rect: Rect, style: str, rounding: float) -> str:
    x, y, width, height, r = map(_number, (rect.x, rect.y, rect.width, rect.height, rounding))
    return f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{r}"/>'


def _text(line: Line, x: float, y: float, size: float, style: str, anchor: str = "middle") -> str:
    """One line of text; what follows an index goes back up to the line."""
    spans, down = "", False
    for run in line:
        classes = " ".join(c for c, on in (("el-name", run.style == "name"), ("el-free", run.free)) if on)
        below = run.style == "sub"
        shift = (
            f' dy="{_number(size / 4)}"'
            if below and not down
            else f' dy="{_number(-size / 4)}"'
            if down and not below
            else ""
        )
        small = f' font-size="{_number(size * SMALL)}"' if below else ""
        kind = f' class="{classes}"' if classes else ""
        spans += (
            f"<tspan{kind}{shift}{small}>{_escaped(run.text)}</tspan>" if kind or shift or small else _escaped(run.text)
        )
        down = below
    place = f'x="{_number(x)}" y="{_number(y)}" font-size="{_number(size)}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place} xml:space="preserve">{spans}</text>'


def _block(placed: Placed) -> list[str]:
    block, rect = placed.block, placed.rect
    middle = rect.x + rect.width / 2
    if block.shape in ("old", "new", "input", "output"):
        return [_text(block.lines[0], middle, rect.y + 17, HEAD, "el-text")]
    rounding = (
        min(rect.width, rect.height) / 2 if block.shape in ("dot", "pill") else 3 if block.shape == "swatch" else 7
    )
    shape = [_rect(rect, f"el-{block.part}", rounding)]
    y = rect.y + (rect.height - LEAD * len(block.lines)) / 2 + LEAD * 0.76
    for k, line in enumerate(block.lines):
        size = HEAD if block.shape == "dot" or (block.headed and k == 0) else TEXT
        if block.shape == "rows":
            shape.append(_text(line, rect.x + 8, y, size, "el-text", "start"))
        else:
            shape.append(_text(line, middle, y, size, "el-text"))
        y += LEAD
    return shape


def _label(label: Label) -> str:
    rect = label.rect
    style = "el-text el-soft" if label.role == "legend" else "el-text"
    lift = 0 if label.role == "mark" else label.size / 3
    return _text(label.line, rect.x, rect.bottom - lift, label.size, style, "start")


def _wires(layout: Layout) -> list[str]:
    """Value by value: a line over another leaves a gap in it, and a dot stands where a line forks."""
    nets: dict[int, list[Edge]] = {}
    for edge in layout.edges:
        nets.setdefault(id(edge.source), []).append(edge)
    lines: list[str] = []
    for edges in nets.values():
        forks = _forks(edges)
        # One path for all: where lines of their own would run on each other, the line would look thicker.
        path = "".join(_path(edge.points, forks) for edge in edges)
        lines += [f'<path class="el-halo" d="{path}"/>', f'<path class="el-wire" d="{path}"/>']
        lines += [f'<circle class="el-tip" cx="{_number(x)}" cy="{_number(y)}" r="2.6"/>' for x, y in forks]
        lines += [_tip(edge) for edge in edges]
    return lines


def _forks(edges: list[Edge]) -> list[Point]:
    """Points from which the lines of one value go three ways."""
    pieces = list(dict.fromkeys(piece for edge in edges for piece in zip(edge.points, edge.points[1:], strict=False)))
    corners = dict.fromkeys(point for edge in edges for point in edge.points[1:-1])
    return [corner for corner in corners if len(_ways(corner, pieces)) > 2]


def _ways(point: Point, pieces: Iterable[tuple[Point, Point]]) -> set[tuple[int, int]]:
    ways: set[tuple[int, int]] = set()
    for begin, end in pieces:
        for k in (0, 1):
            low, high = sorted((begin[k], end[k]))
            if begin[1 - k] == end[1 - k] == point[1 - k] and low <= point[k] <= high:
                ways |= {(k, side) for side, more in ((-1, low < point[k]), (1, point[k] < high)) if more}
    return ways


def _path(points: tuple[Point, ...], forks: list[Point]) -> str:
    """A path with its corners rounded, except where it forks."""
    text = f"M{_number(points[0][0])} {_number(points[0][1])}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        reach = 0 if corner in forks else min(7, _length(before, corner) / 2, _length(corner, after) / 2)
        (ax, ay), (bx, by) = _towards(corner, before, reach), _towards(corner, after, reach)
        text += f"L{_number(ax)} {_number(ay)}"
        if reach:
            text += f"Q{_number(corner[0])} {_number(corner[1])} {_number(bx)} {_number(by)}"
    return f"{text}L{_number(points[-1][0])} {_number(points[-1][1])}"


def _length(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _towards(start: Point, goal: Point, reach: float) -> Point:
    length = _length(start, goal) or 1
    return start[0] + (goal[0] - start[0]) * reach / length, start[1] + (goal[1] - start[1]) * reach / length


def _tip(edge: Edge) -> str:
    before, end = edge.points[-2:]
    length = _length(before, end)
    ux, uy = (end[0] - before[0]) / length, (end[1] - before[1]) / length
    (bx, by) = end[0] - 7 * ux, end[1] - 7 * uy
    corners = [end, (bx - 3.4 * uy, by + 3.4 * ux), (bx + 3.4 * uy, by - 3.4 * ux)]
    return f'<path class="el-tip" d="M{"L".join(f"{_number(x)} {_number(y)}" for x, y in corners)}Z"/>'
