"""Drawings of forecasts for the report: SVG, no script, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from everloop.data.series import Series
from everloop.tasks.forecaster.baselines import Rival
from everloop.tasks.forecaster.windows import Judge, Windows

_WIDTH, _HEIGHT = 640, 236
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 626, 14, 190
_COLOURS = {"truth": "currentColor", "forecast": "#2563eb", "baseline": "#d97706"}
_MORE = ("#2563eb", "#d97706", "#16a34a", "#9333ea", "#dc2626")


@dataclass(frozen=True)
class Drawn:
    """Test windows, known by their first steps [W], with what is needed to draw them in the units of the data."""

    windows: Windows
    first: np.ndarray
    series: Sequence[Series]
    judge: Judge

    def sections(self, model: str, made: np.ndarray, rivals: Sequence[Rival]) -> list[tuple[str, str]]:
        """Headings and HTML: some windows, and the error of each step ahead. made [W, H, C, 1 + Q], the first rival is
        drawn beside it."""
        last = len(self.first) - 1
        columns = made.shape[2]
        places = sorted({round(share * last) for share in (0.0, 0.33, 0.67, 1.0)})
        shown = [self._window(place, k % columns, made, rivals[0]) for k, place in enumerate(places)]
        levels = [f"{100 * q:g} %" for q in self.judge.quantiles]
        band = f"from the quantile {levels[0]} to {levels[-1]}" if len(levels) > 1 else ""
        errors = [(model, self.judge.by_step(made[..., 0]))]
        errors += [(rival.name, self.judge.by_step(rival.forecast)) for rival in rivals]
        what = "Mean absolute error of each step ahead, in standard deviations of the training part"
        return [
            ("Some windows of the test split", windows_html(shown, rivals[0].name, band)),
            ("Error of each step ahead", f"<p>{what}.</p>\n{steps_html(errors, what)}"),
        ]

    def _window(self, place: int, column: int, made: np.ndarray, rival: Rival) -> Shown:
        number = int(self.judge.series[place])
        series = self.series[number]
        begin = int(self.first[place] - self.windows.begins[number])
        back, horizon = min(self.windows.lookback, 4 * self.windows.horizon), self.windows.horizon
        centre, scale = self.judge.centre[place, column], self.judge.scale[place, column]
        own = made[place, :, column] * scale + centre
        values = series.values[begin - back : begin + horizon, column]
        times = series.spelled(begin - back, begin + horizon)
        return Shown(
            title=" ".join(filter(None, [series.name, series.form.columns[column]])),
            past=values[:back],
            truth=values[back:],
            forecast=own[:, 0],
            band=(own[:, 1], own[:, -1]) if len(self.judge.quantiles) > 1 else None,
            baseline=rival.forecast[place, :, column] * scale + centre,
            labels=(times[0], times[back], times[-1]),
        )


@dataclass(frozen=True)
class Shown:
    """One window in the units of the data: what was looked back on [L], and of the steps ahead [H] the truth, the
    forecast, the band of the outermost quantiles (or None) and what the best baseline says."""

    title: str
    past: np.ndarray
    truth: np.ndarray
    forecast: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None
    baseline: np.ndarray
    labels: tuple[str, str, str]  # the times of the first step shown, of the first forecast, and of the last


def windows_html(shown: Sequence[Shown], baseline: str, band: str) -> str:
    """Figures of some windows under one legend. baseline, band: what these are called."""
    entries = [("truth", "truth"), ("forecast", "forecast"), ("baseline", baseline)]
    legend = "".join(_entry(_COLOURS[key], name) for key, name in entries)
    if any(one.band for one in shown):
        legend += f'<li><span style="background:#2563eb33;padding:0 .8em"></span> {escape(band)}</li>'
    return f'<ul class="legend">{legend}</ul>\n' + "\n".join(_window(one) for one in shown)


def steps_html(errors: Sequence[tuple[str, np.ndarray]], what: str) -> str:
    """Curves of the error of each step ahead, one per model."""
    top = max(float(values.max()) for _, values in errors)
    steps = len(errors[0][1])
    lines = [_path(values, 0, steps - 1, 0.0, top, _MORE[k % len(_MORE)]) for k, (_, values) in enumerate(errors)]
    legend = "".join(_entry(_MORE[k % len(_MORE)], name) for k, (name, _) in enumerate(errors))
    return f'<ul class="legend">{legend}</ul>\n' + _figure(what, lines, (0.0, top), ("step 1", "", f"step {steps}"), 0)


def _window(one: Shown) -> str:
    lookback, ahead = len(one.past), len(one.truth)
    last = lookback + ahead - 1
    every = [one.past, one.truth, one.forecast, one.baseline, *(one.band or ())]
    low = min(float(np.nanmin(values)) for values in every)
    high = max(float(np.nanmax(values)) for values in every)
    low, high = (low, high) if high > low else (low - 1, high + 1)
    # The forecast begins where the past ends, so that the eye need not jump.
    joined = [np.concatenate([one.past[-1:], values]) for values in (one.truth, one.baseline, one.forecast)]
    lines = []
    if one.band:
        lower, upper = (_points(values, lookback, last, low, high) for values in one.band)
        lines.append(f'<path d="M{"L".join(lower)}L{"L".join(reversed(upper))}Z" style="fill:#2563eb33"/>')
    lines.append(_path(one.past, 0, last, low, high, _COLOURS["truth"]))
    for values, key in zip(joined, ("truth", "baseline", "forecast"), strict=True):
        lines.append(_path(values, lookback - 1, last, low, high, _COLOURS[key]))
    return f"<p>{escape(one.title)}</p>\n" + _figure(one.title, lines, (low, high), one.labels, (lookback - 1) / last)


def _figure(what: str, lines: list[str], span: tuple[float, float], labels: Sequence[str], middle: float) -> str:
    places = (_LEFT, _LEFT + middle * (_RIGHT - _LEFT), _RIGHT)
    # Where the forecast begins stands a line lower: it is often near the end.
    marks = (("start", 18), ("end" if middle > 0.5 else "start", 34), ("end", 18))
    texts = [
        f'<text x="{x:.0f}" y="{_BOTTOM + down}" text-anchor="{anchor}">{escape(label)}</text>'
        for x, label, (anchor, down) in zip(places, labels, marks, strict=True)
        if label
    ]
    if labels[1]:
        texts.append(f'<path class="mark" d="M{places[1]:.0f} {_TOP}V{_BOTTOM + 36}"/>')
    for value, y in ((span[1], _TOP), (span[0], _BOTTOM)):
        texts.append(f'<text x="{_LEFT - 8}" y="{y}" dy="0.35em" text-anchor="end">{value:.4g}</text>')
        texts.append(f'<path class="grid" d="M{_LEFT} {y}H{_RIGHT}"/>')
    return (
        f'<figure>\n<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(what)}">\n'
        + "\n".join([*texts, *lines])
        + "\n</svg>\n</figure>"
    )


def _path(values: np.ndarray, first: int, last: int, low: float, high: float, colour: str) -> str:
    points = _points(values, first, last, low, high)
    return f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>' if points else ""


def _points(values: np.ndarray, first: int, last: int, low: float, high: float) -> list[str]:
    across, up = (_RIGHT - _LEFT) / max(last, 1), (_BOTTOM - _TOP) / ((high - low) or 1)
    return [
        f"{_LEFT + (first + k) * across:.1f} {_BOTTOM - (value - low) * up:.1f}"
        for k, value in enumerate(values.tolist())
        if value == value
    ]


def _entry(colour: str, name: str) -> str:
    line = f'<path d="M1 8H27" fill="none" stroke="{colour}" stroke-width="2"/>'
    return f'<li><svg viewBox="0 0 28 16" width="28" height="16" aria-hidden="true">{line}</svg> {escape(name)}</li>'
