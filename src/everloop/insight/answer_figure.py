"""The inside of one answer as a figure for a paper: what speaks for it, units, gates and gradients over the pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from everloop.insight.explanation import Answer
from everloop.insight.figures import Look, checked, look_of, save, sheet, styled
from everloop.insight.page.drawing import gates_of, share_of, unit_order
from everloop.insight.page.text import is_wide, short, small
from everloop.insight.recording import LayerRecord

CHINESE = ("Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Microsoft YaHei", "WenQuanYi Micro Hei", "SimHei")


def save_figure(answer: Answer, path: str | Path, *, layer: int = 0, theme: str = "auto") -> Path:
    """Draw it, .png or .svg. layer: which of `answer.layers`. theme: "light", "dark", or "auto", an SVG that follows
    the page around it."""
    path, look = checked(path), look_of(theme)
    with styled(look):
        figure = draw(answer, look, layer)
    return save(figure, path, theme)


def draw(answer: Answer, look: Look, layer: int = 0) -> Any:
    """A figure of matplotlib, in whose style it is drawn: see `styled`."""
    record, count = answer.layers[layer], len(answer.pieces)
    state = next(name for name in record.cell.states if name in record.values)
    gates = gates_of(record)
    heights = [0.7, 2.4, *[0.55] * len(gates), 0.8]
    found, test = answer.saliency[answer.best], answer.tests[answer.best]
    tested = f"{found.method}\n(better than {test.beaten} of\n{len(test.random)} random orders)"
    figure, (whole,) = sheet(
        f"What speaks for “{small(answer.asked)}”", [max(4.5, 1.6 + 0.27 * count)], height=sum(heights) + 2
    )
    whole.set_axis_off()
    rows = whole.get_subplotspec().subgridspec(len(heights), 1, height_ratios=heights)
    axes = [figure.add_subplot(rows[k]) for k in range(len(heights))]
    for one, name in zip(axes, [tested, f"{state}, {record.values[state].shape[-1]} units", *gates, ""], strict=True):
        one.set_xlim(-0.5, count - 0.5)
        one.set_xticks([])
        one.grid(False)
        one.set_ylabel(name, rotation=0, ha="right", va="center")
    _bars(axes[0], found.values, look)
    _map(axes[1], record.values[state][answer.row], look)
    for one, name in zip(axes[2:], gates, strict=False):
        _gate(one, record.values[name][answer.row], look)
    _gradient(axes[-1], record, state, answer.row, look)
    _name_pieces(axes[-1], answer.pieces)
    _know_letters(figure, [answer.asked, *answer.pieces])
    return figure


def _bars(axes: Any, values: np.ndarray, look: Look) -> None:
    colours = [look.colours[0] if value >= 0 else look.colours[1] for value in values]
    axes.bar(range(len(values)), values, 0.75, color=colours)
    axes.axhline(0, color=look.line, linewidth=0.8)
    axes.set_yticks([])


def _map(axes: Any, values: np.ndarray, look: Look) -> None:
    """Values [T, F]: as strong as they are large, on whatever the paper is."""
    from matplotlib.colors import to_rgb

    shares = share_of(values).T[unit_order(values)]
    above, below = (to_rgb(colour) for colour in look.colours[:2])
    pixels = np.empty((*shares.shape, 4))
    pixels[..., :3] = np.where((shares >= 0)[..., None], above, below)
    pixels[..., 3] = np.abs(shares)
    axes.imshow(pixels, aspect="auto", interpolation="nearest", extent=(-0.5, len(values) - 0.5, 0, len(shares)))
    axes.set_yticks([])


def _gate(axes: Any, values: np.ndarray, look: Look) -> None:
    steps = np.arange(len(values))
    low, high = np.quantile(values, (0.1, 0.9), 1)
    axes.fill_between(steps, low, high, color=look.colours[0], alpha=0.18, linewidth=0)
    axes.plot(steps, values.mean(1), color=look.colours[0])
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1])


def _gradient(axes: Any, record: LayerRecord, state: str, row: int, look: Look) -> None:
    norms = np.linalg.norm(record.gradients[state][row], axis=-1)
    axes.bar(range(len(norms)), norms, 0.75, color=look.quiet)
    axes.set_ylabel(f"|∂/∂{state}|", rotation=0, ha="right", va="center")
    if (norms > 0).any() and norms.max() > 10 * norms[norms > 0].min():
        axes.set_yscale("log")
    axes.tick_params(axis="y", which="minor", left=False)


def _name_pieces(axes: Any, pieces: list[str]) -> None:
    letters = all(len(piece) <= 1 for piece in pieces)
    axes.set_xticks(range(len(pieces)), [short(piece) for piece in pieces], rotation=0 if letters else 90)
    axes.tick_params(axis="x", length=0)


def _know_letters(figure: Any, texts: list[str]) -> None:
    """Fonts that have the letters of what was read, where the first choice has not."""
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    there = set(fontManager.get_font_names())
    wide = any(is_wide(letter) for text in texts for letter in text)
    more = [name for name in CHINESE if name in there] if wide else []
    for text in figure.findobj(Text):
        text.set_fontfamily(["sans-serif", "DejaVu Sans", *more])
