"""Figures of a network of one's own, for papers: `save(plots.gradients(recording), "gradients.svg")`.

Each takes a theme, "light", "dark", or "auto", which `figures.save` has to be given too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from everloop.insight.dynamics import Spectrum, gradient_norms, half_life
from everloop.insight.figures import Look, label_ends, look_of, sheet, styled
from everloop.insight.memory import Memory
from everloop.insight.recording import LayerRecord, Recording

NAMED = 40
"""Up to so many steps are called by their names, more by their numbers."""


def gradients(recording: Recording, *, title: str = "What each step could still change", theme: str = "auto") -> Any:
    """The norm of dL/dh_t over t, of each layer, direction and state: the mean over sequences."""
    look = look_of(theme)
    with styled(look):
        figure, (axes,) = sheet(title, [7.5])
        curves = {
            # Nothing has no place on a scale of powers of ten.
            _called(one, name, recording): np.where(norms.any(0), norms.mean(0), np.nan)
            for one in recording.layers
            for name, norms in gradient_norms(one).items()
        }
        _curves(axes, curves, look)
        axes.set_yscale("log")
        axes.set_ylabel("norm of dL/dh")
        _steps(axes, recording.steps, len(next(iter(curves.values()))))
        label_ends(axes, _ends(curves, look))
    return figure


def values(
    one: LayerRecord,
    name: str,
    *,
    row: int = 0,
    steps: Sequence[str] = (),
    title: str | None = None,
    theme: str = "auto",
) -> Any:
    """Units over time, of one sequence: any state or named value that was recorded."""
    if name not in one.values:
        raise ValueError(f"values: {name!r} came; there are {', '.join(one.values)}")
    look, shown = look_of(theme), one.values[name][row].T
    with styled(look):
        from matplotlib.colors import LinearSegmentedColormap

        figure, (axes,) = sheet(title or f"{name} of {one.cell.name}: units over time", [7.5])
        colours = LinearSegmentedColormap.from_list("turning", [look.colours[1], look.paper, look.colours[0]])
        largest = float(np.abs(shown).max()) or 1.0
        # As one picture in an SVG, too: units times steps would be as many shapes.
        drawn = axes.imshow(
            shown, cmap=colours, vmin=-largest, vmax=largest, aspect="auto", interpolation="none", rasterized=True
        )
        axes.grid(visible=False)
        axes.set_ylabel("unit")
        _steps(axes, steps, shown.shape[1])
        bar = figure.colorbar(drawn, ax=axes, pad=0.02)
        bar.outline.set_visible(False)
    return figure


def stretching(found: Spectrum, *, title: str = "What each step does to a small change", theme: str = "auto") -> Any:
    """The singular values of the step Jacobians along a sequence: the largest, the middle and the smallest, the mean
    over sequences, as `spectrum(step_jacobians(layer, x))` gives them.
    """
    look, mean = look_of(theme), found.singular.mean(0)
    with styled(look):
        figure, (axes,) = sheet(title, [7.5])
        curves = {"largest": mean[:, 0], "middle": mean[:, mean.shape[1] // 2], "smallest": mean[:, -1]}
        _curves(axes, curves, look)
        axes.axhline(1, color=look.quiet, linewidth=0.8, linestyle=(0, (4, 4)))
        axes.set(ylim=(0, None), ylabel="singular value of the step")
        _steps(axes, (), len(mean))
        label_ends(axes, _ends(curves, look))
    return figure


def memories(found: Mapping[str, Memory], *, title: str = "What the state still knows", theme: str = "auto") -> Any:
    """Scores of a linear probe over delays, by name."""
    look = look_of(theme)
    with styled(look):
        figure, (axes,) = sheet(title, [7.5])
        for (name, one), colour in zip(found.items(), _colours(found, look), strict=True):
            axes.plot(one.delays, one.score, color=colour, label=name)
        axes.axhline(max(one.chance for one in found.values()), color=look.quiet, linewidth=0.8, linestyle=(0, (4, 4)))
        (measure, *_) = dict.fromkeys(one.measure for one in found.values())
        axes.set(ylim=(None, 1.02), xlabel="delay, in steps (dashed: chance)", ylabel=measure)
        axes.set_xlim(0, max(int(one.delays.max()) for one in found.values()))
        ends = zip(found.items(), _colours(found, look), strict=True)
        label_ends(axes, [(float(one.score[-1]), name, colour) for (name, one), colour in ends])
    return figure


def half_lives(
    one: LayerRecord,
    *,
    lengths: ArrayLike | None = None,
    title: str = "How long each unit keeps what it has",
    theme: str = "auto",
) -> Any:
    """The half-life of every unit, from the shortest to the longest, by state."""
    look, found = look_of(theme), half_life(one, lengths)
    if not found:
        raise ValueError(f"half_lives: {one.cell.name} keeps its states by matrices alone; no unit has a half-life")
    with styled(look):
        figure, (axes,) = sheet(title, [7.5])
        curves = {name: np.sort(steps) for name, steps in found.items()}
        for (name, steps), colour in zip(curves.items(), _colours(curves, look), strict=True):
            axes.plot(steps, "o-", color=colour, markersize=4, linewidth=1, label=name)
        axes.set(yscale="log", xlabel="units, from the shortest to the longest", ylabel="half-life, in steps")
        for axis in ("major", "minor"):
            getattr(axes.yaxis, f"set_{axis}_formatter")(lambda steps, _: f"{steps:g}")
        label_ends(axes, _ends(curves, look))
    return figure


def _called(one: LayerRecord, name: str, recording: Recording) -> str:
    """A state, and as much of where it is as tells it from the others."""
    parts = [name]
    if len({other.name for other in recording.layers}) > 1:
        parts.insert(0, one.name)
    if len({other.layer for other in recording.layers}) > 1:
        parts.append(f"layer {one.layer}")
    if len({other.direction for other in recording.layers}) > 1:
        parts.append(one.direction)
    return ", ".join(parts)


def _curves(axes: Any, curves: Mapping[str, np.ndarray], look: Look) -> None:
    for (name, curve), colour in zip(curves.items(), _colours(curves, look), strict=True):
        axes.plot(curve, color=colour, label=name)


def _colours(curves: Mapping[str, Any], look: Look) -> list[str]:
    """One each; from the eighth on they come again."""
    return [look.colours[k % len(look.colours)] for k in range(len(curves))]


def _ends(curves: Mapping[str, np.ndarray], look: Look) -> list[tuple[float, str, str]]:
    return [
        (float(curve[-1]), name, colour)
        for (name, curve), colour in zip(curves.items(), _colours(curves, look), strict=True)
    ]


def _steps(axes: Any, steps: Sequence[str], count: int) -> None:
    axes.set_xlim(-0.5, count - 0.5)
    numbers = [str(step + 1) for step in range(count)]
    if count <= NAMED and list(steps[:count]) != numbers and len(steps) >= count:
        axes.set_xticks(range(count), list(steps[:count]), rotation=55, ha="right", rotation_mode="anchor")
        return
    every = next(size for size in (1, 2, 5, 10, 20, 50, 100, count) if count <= 10 * size or size == count)
    shown = range(every - 1, count, every)
    axes.set_xticks(shown, [numbers[step] for step in shown])
    axes.set_xlabel("step")
