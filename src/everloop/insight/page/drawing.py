"""What is drawn on the page: colours of values, heat maps as pictures, lanes and curves. Colours come from the style
sheet, so that one drawing does for light, dark and paper.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from everloop.insight.recording import LayerRecord

FOR, AGAINST = (34, 128, 214), (224, 116, 22)
"""Of values above and below zero: told apart by those who see no red or no green, on white and on black."""


def share_of(values: np.ndarray) -> np.ndarray:
    """Values as shares of the largest, from -1 to 1."""
    largest = np.abs(values).max() if values.size else 0.0
    return values / largest if largest > 0 else np.zeros_like(values)


def tint(share: float) -> str:
    """The class and the strength of a coloured piece."""
    return f'class="{"up" if share >= 0 else "down"}" style="--s:{abs(share):.3f}"'


def heat_map(values: np.ndarray) -> str:
    """Values [T, F] as a picture, one row per unit: the address of a PNG that is part of the page."""
    shares = share_of(values).T[unit_order(values)]
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = np.where((shares >= 0)[..., None], FOR, AGAINST)
    pixels[..., 3] = np.round(255 * np.abs(shares))
    return png(pixels)


def unit_order(values: np.ndarray) -> np.ndarray:
    """Units [F] in an order in which those that move alike lie side by side: by their angle in the plane of the two
    main directions of what they do."""
    centred = values - values.mean(0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    if len(rows) < 2:
        return np.argsort(-values.mean(0), kind="stable")
    return np.argsort(np.arctan2(rows[1], rows[0]), kind="stable")


def gates_of(record: LayerRecord) -> list[str]:
    """The named values that a sigmoid makes: shares of something, in any cell."""
    names = {name: node for node, name in record.cell.graph.names.items()}
    return [name for name in record.values if name in names and names[name].op == "sigmoid"]


def png(pixels: np.ndarray) -> str:
    """[H, W, 4] bytes as the address of a picture."""
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw, 9)),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def band(values: np.ndarray) -> str:
    """A gate over time, values [T, F] between 0 and 1: the mean, and between which eight in ten of the units lie."""
    low, mean, high = np.quantile(values, 0.1, 1), values.mean(1), np.quantile(values, 0.9, 1)
    there = [_at(k, 1 - v) for k, v in enumerate(high)]
    back = [_at(k, 1 - v) for k, v in reversed(list(enumerate(low)))]
    return _stretched(
        len(values),
        f'<path class="rule" d="M0 .5H{len(values)}"/>'
        f'<path class="band" d="M{"L".join([*_wide(there, len(values)), *_wide(back, len(values), -1)])}Z"/>'
        f'<path class="line" d="M{"L".join(_wide([_at(k, 1 - v) for k, v in enumerate(mean)], len(values)))}"/>',
    )


def bars(values: np.ndarray) -> str:
    """Values [T] above and below a middle line."""
    each = "".join(
        f'<rect class="{"up" if share >= 0 else "down"}" x="{k + 0.14:.2f}" width=".72" '
        f'y="{0.5 - max(share, 0) / 2:.3f}" height="{abs(share) / 2:.3f}"/>'
        for k, share in enumerate(share_of(values))
    )
    return _stretched(len(values), f'{each}<path class="rule" d="M0 .5H{len(values)}"/>')


MOST_DECADES = 8


def decades(values: np.ndarray) -> int:
    """Over how many powers of ten values above zero are drawn, so that the least of them is still seen."""
    above = values[values > 0]
    return int(np.clip(np.floor(np.log10(above.max() / above.min())) + 1, 1, MOST_DECADES))


def logarithmic(values: np.ndarray) -> str:
    """Values [T] above zero, each bar its logarithm: a full one is the largest, an empty one 10**decades times less."""
    count = decades(values)
    with np.errstate(divide="ignore"):
        heights = np.clip(1 + np.log10(values / values.max()) / count, 0, 1)
    each = "".join(
        f'<rect class="reach" x="{k + 0.14:.2f}" width=".72" y="{1 - high:.3f}" height="{high:.3f}"/>'
        for k, high in enumerate(heights)
    )
    rules = "".join(f'<path class="rule" d="M0 {k / count:.4g}H{len(values)}"/>' for k in range(1, count))
    return _stretched(len(values), f'{rules}{each}<path class="rule" d="M0 1H{len(values)}"/>')


def _stretched(steps: int, body: str) -> str:
    """As wide as there is room, whatever the number of steps."""
    return f'<svg viewBox="0 0 {steps} 1" preserveAspectRatio="none" aria-hidden="true">{body}</svg>'


def _at(step: int, down: float) -> str:
    return f"{step + 0.5:g} {down:.3f}"


def _wide(points: list[str], steps: int, way: int = 1) -> list[str]:
    """Points of a line that goes on to the edges, level."""
    ends = ("0", f"{steps}")[::way]
    return [f"{ends[0]} {points[0].split()[1]}", *points, f"{ends[1]} {points[-1].split()[1]}"]


# The deletion test.

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 230, 74, 14, 10, 40


def deletion_chart(
    shares: np.ndarray,
    most: np.ndarray,
    least: np.ndarray,
    random: np.ndarray,
    *,
    across: str,
    names: Sequence[str],
    write: Callable[[float], str],
) -> str:
    """What is left of the probability (or value) as pieces go. random: [R, L]. names: of the three, for the legend.
    write: how a value is written."""
    low, high = np.quantile(random, 0.05, 0), np.quantile(random, 0.95, 0)
    every = np.concatenate([most, least, low, high])
    bottom, top = float(every.min()), float(every.max())
    room = (top - bottom) or 1.0

    def points(values: np.ndarray) -> list[str]:
        xs = LEFT + shares * (WIDTH - LEFT - RIGHT)
        ys = HEIGHT - BOTTOM - (values - bottom) / room * (HEIGHT - TOP - BOTTOM)
        return [f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)]

    lines = [("chance", random.mean(0)), ("least", least), ("most", most)]
    curves = "".join(f'<path class="{kind}" d="M{"L".join(points(values))}"/>' for kind, values in lines)
    band = f'<path class="spread" d="M{"L".join([*points(low), *reversed(points(high))])}Z"/>'
    axis = (
        f'<path class="rule" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 7}" y="{HEIGHT - BOTTOM}" text-anchor="end">{write(bottom)}</text>'
        f'<text x="{LEFT - 7}" y="{TOP}" dy=".7em" text-anchor="end">{write(top)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - BOTTOM + 17}">0 %</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM + 17}" text-anchor="end">100 %</text>'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>'
    )
    legend = "".join(
        f'<li><svg viewBox="0 0 28 12" aria-hidden="true"><path class="{kind}" d="M1 6H27"/></svg>{escape(name)}</li>'
        for kind, name in zip(("most", "least", "chance"), names, strict=True)
    )
    drawn = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{band}{axis}{curves}</svg>'
    return f'<figure class="deletion">{drawn}<ul class="legend">{legend}</ul></figure>'
