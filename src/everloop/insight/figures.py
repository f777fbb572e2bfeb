"""The common look of figures, on light and on dark ground, and how they are kept: PNG, or SVG that turns dark by itself
where the page around it is dark.

Drawn with matplotlib, without its global state. Text in an SVG stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

THEMES = ("auto", "light", "dark")
SUFFIXES = (".png", ".svg")

# On light and on dark ground; those of the report, and beside its blue, hues that stay apart for the colour-blind.
_PAPER, _INK, _QUIET, _LINE = (
    ("#fdfdfb", "#15171a"),
    ("#1c1d1f", "#e7e6e2"),
    ("#5c6066", "#a3a8b0"),
    ("#dcdcd6", "#33373d"),
)
_COLOURS = (
    ("#005ba6", "#7ab6f2"),
    ("#c2500f", "#f79a5b"),
    ("#15803d", "#63d08f"),
    ("#8239b5", "#cb9df2"),
    ("#8a6a00", "#e3c15a"),
    ("#0a7884", "#5ac9d4"),
    ("#b0246a", "#f286b8"),
)


@dataclass(frozen=True)
class Look:
    """Colours by what they are for. line: of grids and frames; colours: of curves, in this order."""

    paper: str
    ink: str
    quiet: str
    line: str
    colours: tuple[str, ...]


LIGHT, DARK = (Look(_PAPER[k], _INK[k], _QUIET[k], _LINE[k], tuple(pair[k] for pair in _COLOURS)) for k in (0, 1))


def look_of(theme: str) -> Look:
    """ "dark", or else light: what turns dark by itself is drawn light."""
    if theme not in THEMES:
        raise ValueError(f"theme: {theme!r} came; expected {', '.join(THEMES)}")
    return DARK if theme == "dark" else LIGHT


@contextmanager
def styled(look: Look) -> Iterator[None]:
    """Figures made and drawn in here have the look."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": look.line,
            "axes.facecolor": look.paper,
            "axes.grid": True,
            "axes.labelcolor": look.quiet,
            "axes.labelsize": 9.5,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlecolor": look.ink,
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.titlesize": 10.5,
            "figure.facecolor": look.paper,
            "font.family": ["sans-serif"],
            "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
            "font.size": 9.5,
            "grid.color": look.line,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.8,
            "lines.solid_capstyle": "round",
            "mathtext.fontset": "dejavusans",
            "savefig.facecolor": look.paper,
            "svg.fonttype": "none",
            "svg.hashsalt": "everloop",
            "text.color": look.ink,
            "xtick.color": look.line,
            "xtick.labelcolor": look.quiet,
            "xtick.labelsize": 9,
            "ytick.color": look.line,
            "ytick.labelcolor": look.quiet,
            "ytick.labelsize": 9,
        }
    ):
        yield


def sheet(title: str, widths: Sequence[float], *, height: float = 3.9) -> tuple[Any, list[Any]]:
    """A figure with a sentence on top and axes side by side, as wide as said, in inches."""
    _matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(sum(widths), height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.14, h_pad=0.1, wspace=0.02)  # type: ignore[union-attr]
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)
    return figure, list(axes[0])


def label_ends(axes: Any, ends: Sequence[tuple[float, str, str]], *, gap: float = 0.065) -> None:
    """Names of curves at the right edge, in their colours, instead of a legend: (y, name, colour), none on another.

    gap: between two, as a share of the height.
    """
    if not ends:
        return
    to_share = axes.transData + axes.transAxes.inverted()
    middle = sum(axes.get_xlim()) / 2
    heights = [min(max(float(to_share.transform((middle, y))[1]), 0.0), 1.0) for y, _, _ in ends]
    for place, (_, name, colour) in zip(spread_out(heights, gap), ends, strict=True):
        axes.text(1.015, place, name, color=colour, transform=axes.transAxes, va="center", fontsize=9.5)


def spread_out(places: Sequence[float], gap: float) -> list[float]:
    """Places moved as little as possible, in their order, so that no two are nearer than the gap."""
    order = sorted(range(len(places)), key=lambda k: places[k])
    clusters: list[list[int]] = []
    centres: list[float] = []
    for k in order:
        clusters.append([k])
        centres.append(places[k])
        while len(clusters) > 1 and centres[-1] - centres[-2] < gap * (len(clusters[-1]) + len(clusters[-2])) / 2:
            last = clusters.pop()
            centres.pop()
            clusters[-1] += last
            centres[-1] = sum(places[j] for j in clusters[-1]) / len(clusters[-1])
    found = [0.0] * len(places)
    for centre, members in zip(centres, clusters, strict=True):
        for rank, k in enumerate(members):
            found[k] = centre + gap * (rank - (len(members) - 1) / 2)
    return found


def save(figure: Any, path: str | Path, theme: str = "auto") -> Path:
    """Keep a figure as its suffix says, .png or .svg; "auto": an SVG that follows the page around it.

    Drawn in the look of the theme, `look_of(theme)`. The same figure gives the same bytes.
    """
    path, look = checked(path), look_of(theme)
    path.parent.mkdir(parents=True, exist_ok=True)
    with styled(look):
        if path.suffix == ".png":
            figure.savefig(path, dpi=200, metadata={"Software": None})
        else:
            text = StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            written = text.getvalue()
            path.write_text(_turning(written) if theme == "auto" else written, encoding="utf-8")
    return path


def checked(path: str | Path) -> Path:
    """Where a figure can be kept."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: the suffix {path.suffix!r} came; expected {' or '.join(SUFFIXES)}")
    return path


def _turning(svg: str) -> str:
    """The same picture, whose colours are those for dark ground where that is asked for."""
    pairs = zip((LIGHT.paper, LIGHT.ink, LIGHT.quiet, LIGHT.line, *LIGHT.colours), _flat(DARK), strict=True)
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}' for light, dark in pairs for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda found: f"{found[1]}\n {style}", svg, count=1)


def _flat(look: Look) -> tuple[str, ...]:
    return look.paper, look.ink, look.quiet, look.line, *look.colours


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        missing = "figures need matplotlib, which is not installed: pip install 'everloop[figures]'"
        raise ModuleNotFoundError(missing, name="matplotlib") from error
    return matplotlib
