"""Single units over the input: those that count most for the answer, those that keep track of something, any other."""

from __future__ import annotations

from html import escape

import numpy as np

from everloop.insight.explanation import Answer
from everloop.insight.page.lanes import Shown, title_of
from everloop.insight.page.text import coloured, percent
from everloop.insight.page.words import Words
from everloop.insight.recording import LayerRecord
from everloop.insight.units import UnitName

UNITS_SHOWN = 3


def units_of(answer: Answer, layers: list[Shown], words: Words) -> str:
    best = telling_units(answer, layers)
    if not best:
        return ""
    figures = []
    for place, name, unit in best:
        layer = layers[place]
        values = layer.values[name][:, unit]
        span = words("range", low=f"{values.min():.2f}", high=f"{values.max():.2f}")
        figures.append(
            f'<figure class="unit"><figcaption><b>{escape(name)}[{unit}]</b> {escape(layer.title)} · {escape(span)}'
            f"</figcaption>{coloured(answer.pieces, values)}</figure>"
        )
    return (
        f"<p>{escape(words('about units'))}</p>\n{''.join(figures)}\n"
        f"{_followers(answer, words)}\n{_picker(answer, layers, words)}"
    )


def telling_units(answer: Answer, layers: list[Shown]) -> list[tuple[int, str, int]]:
    """The units whose values, times what hangs on them, come to most over the steps: (layer, state, unit)."""
    rated = []
    for place, layer in enumerate(layers):
        for name in layer.norms:
            if name in layer.values:
                told = np.abs(layer.values[name] * layer.record.gradients[name][answer.row]).sum(0)
                rated += [(float(amount), place, name, unit) for unit, amount in enumerate(told)]
    rated.sort(key=lambda row: -row[0])
    return [(place, name, unit) for amount, place, name, unit in rated[:UNITS_SHOWN] if amount > 0]


def _followers(answer: Answer, words: Words) -> str:
    if not answer.followers or answer.elsewhere is None:
        return ""
    rows = []
    for what, found in answer.followers.items():
        good = words("auc", share=percent(found.held_out)) if found.measure == "auc" else ""
        good = good or words("correlation", value=f"{found.held_out:.2f}")
        where = next(layer for layer in answer.layers if _is_of(layer, found.name))
        turned = f" · {words('turned')}" if found.sign < 0 else ""
        rows.append(
            f"<div><dt>{escape(words(f'follows {what}'))}</dt><dd><b>{escape(found.name.state)}[{found.name.unit}]</b> "
            f"{escape(title_of(answer, where, words))} · {escape(good + turned)}</dd></div>"
        )
    units = str(next(iter(answer.followers.values())).units)
    about = words("about followers", units=units, count=f"{answer.elsewhere.inputs:,}")
    heading = f'<h3>{escape(words("followers"))}</h3>\n<p class="note">{escape(about)}</p>'
    return f"{heading}\n<dl>{''.join(rows)}</dl>"


def _is_of(layer: LayerRecord, unit: UnitName) -> bool:
    return (layer.name, layer.layer, layer.direction) == (unit.module, unit.layer, unit.direction)


def _picker(answer: Answer, layers: list[Shown], words: Words) -> str:
    options = "".join(
        f'<option value="{k} {escape(name)}">{escape(layer.title)} · {escape(name)}</option>'
        for k, layer in enumerate(layers)
        for name in layer.values
    )
    return (
        f'<div class="picker needs-script"><h3>{escape(words("pick"))}</h3><div class="choosers">'
        f'<label>{escape(words("value"))} <select id="unit-value">{options}</select></label>'
        f'<label>{escape(words("unit"))} <input id="unit-number" type="number" min="0" value="0"></label>'
        f'<input id="unit-slide" type="range" min="0" value="0" aria-label="{escape(words("unit"))}">'
        f'<output id="unit-range"></output></div>{coloured(answer.pieces, np.zeros(len(answer.pieces)))}</div>'
    )
