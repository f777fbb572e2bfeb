"""Parts of a report, as HTML that is safe to put on the page: every text is escaped here."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

from everloop.insight.report import LONGEST_EXAMPLE

WIDTH, HEIGHT = 640, 220
LEFT, TOP, BOTTOM = 54, 10, 24


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Texts and numbers; a column of numbers stands right."""
    numeric = [all(isinstance(row[k], int | float) for row in rows) for k in range(len(columns))]
    head = "".join(
        f'<th scope="col"{_right(is_number)}>{escape(name)}</th>'
        for name, is_number in zip(columns, numeric, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td dir="auto"{_right(is_number)}>{escape(_written(value))}</td>'
            for value, is_number in zip(row, numeric, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0">\n<table class="examples">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def lines(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    band: Sequence[tuple[float, float, float]] = (),
    label: str = "",
    across: str = "",
) -> str:
    """Curves of points (x, y) by name, and a band of (x, low, high) behind them. The first curve is drawn as the
    truth, the second as the model, the others dotted. label: of the y axis; across: of the x axis."""
    points = [point for curve in curves.values() for point in curve] + [(x, y) for x, *ys in band for y in ys]
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    kinds = ["train", "valid", *["baseline"] * max(0, len(curves) - 2)]

    def place(x: float, y: float) -> str:
        right = (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        up = (y - min(ys)) / ((max(ys) - min(ys)) or 1)
        return f"{LEFT + right * (WIDTH - LEFT - 12):.1f} {HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{_written(min(ys))}</text>',
        f'<text x="{LEFT - 6}" y="{TOP}" dy="0.7em" text-anchor="end">{_written(max(ys))}</text>',
        f'<path class="grid" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - 12}"/>',
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape(across)}</text>',
    ]
    if band:
        there = [place(x, low) for x, low, _ in band], [place(x, high) for x, _, high in reversed(band)]
        parts.append(f'<path d="M{"L".join([*there[0], *there[1]])}Z" style="fill:rgb(var(--accent)/0.18)"/>')
    legend = []
    for kind, (name, curve) in zip(kinds, curves.items(), strict=False):
        known = [(x, y) for x, y in curve if math.isfinite(x) and math.isfinite(y)]
        if known:
            parts.append(f'<path class="{kind}" d="M{"L".join(place(x, y) for x, y in known)}"/>')
        legend.append(
            f'<li><svg viewBox="0 0 28 16" width="28" height="16" aria-hidden="true">'
            f'<path class="{kind}" d="M1 8H27"/></svg> {escape(name)}</li>'
        )
    return (
        f'<figure>\n<ul class="legend">{"".join(legend)}</ul>\n'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">\n'
        + "\n".join(parts)
        + "\n</svg>\n</figure>"
    )


def heat(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A map of shares between 0 and 1, [rows, columns]: attention, confusion."""
    head = "".join(f'<th scope="col" class="number"><span>{escape(name)}</span></th>' for name in columns)
    body = "\n".join(
        f'<tr><th scope="row" dir="auto"><span>{escape(name)}</span></th>'
        + "".join(f'<td style="--share:{share:.3f}" title="{share:.3f}">&nbsp;</td>' for share in row)
        + "</tr>"
        for name, row in zip(rows, values, strict=True)
    )
    return (
        '<div class="scroll" tabindex="0">\n<table class="confusion upright">\n'
        f"<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def pictures(shown: Sequence[tuple[bytes, str]], *, width: int = 96) -> str:
    """PNG pictures, each with a caption below; they are part of the page."""
    each = "\n".join(
        f'<figure style="width:{width}px"><img alt="" width="{width}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f'<figcaption class="note" dir="auto" style="margin:0">{escape(caption)}</figcaption></figure>'
        for png, caption in shown
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:1rem">\n{each}\n</div>'


def _right(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= LONGEST_EXAMPLE else text[:LONGEST_EXAMPLE].rstrip() + " …"
