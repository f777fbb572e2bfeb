"""The inside of a network as a score to be read: steps from left to right, below each other what happens at them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from everloop.insight.explanation import Answer
from everloop.insight.page.drawing import band, bars, decades, gates_of, heat_map, logarithmic
from everloop.insight.page.text import is_wide, short, small
from everloop.insight.page.words import Words
from everloop.insight.recording import LayerRecord


@dataclass(frozen=True)
class Shown:
    """One layer in one direction, as the page has it. values: [T, F] by name, the states first. gates: those of the
    values that are shares. norms: of the gradients of each state, [T]; all zero where none came. lost: how many values
    were no finite numbers, in whose place there is 0."""

    record: LayerRecord
    title: str
    values: dict[str, np.ndarray]
    gates: list[str]
    norms: dict[str, np.ndarray]
    lost: int


def shown(record: LayerRecord, row: int, title: str) -> Shown:
    states = [name for name in record.cell.states if name in record.values]
    named = [name for name in record.values if name not in states]
    # An output that is a state says nothing twice.
    if "y" in named and any(np.array_equal(record.values["y"], record.values[name]) for name in states):
        named.remove("y")
    values = {name: record.values[name][row] for name in [*states, *named] if record.values[name].shape[-1]}
    norms = {name: np.linalg.norm(record.gradients[name][row], axis=-1) for name in states if name in record.gradients}
    every = [*values.values(), *norms.values()]
    lost = sum(int((~np.isfinite(array)).sum()) for array in every)
    return Shown(record, title, _finite(values), gates_of(record), _finite(norms), lost)


def _finite(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.where(np.isfinite(array), array, 0.0) for name, array in arrays.items()}


def title_of(answer: Answer, record: LayerRecord, words: Words) -> str:
    """What a layer is called on the page."""
    parts = [f"{words('layer')} {record.layer + 1}"]
    if any(layer.direction == "backward" for layer in answer.layers):
        parts.append(words(record.direction))
    return " · ".join(parts)


def timeline(answer: Answer, layer: Shown, saliency: np.ndarray, words: Words) -> str:
    """All lanes of a layer, above each other."""
    steps = len(answer.pieces)
    first = next(iter(layer.values), None)
    lanes = [
        _lane("pieces", "", _labels(answer.pieces)),
        _lane("bars", escape(words("speaks")), bars(saliency)),
        *(_map(name, values, layer, words, hidden=name != first) for name, values in layer.values.items()),
        *(_gate(name, layer, words) for name in layer.gates if name in layer.values),
        *(_reach(name, norms, words) for name, norms in layer.norms.items() if norms.any()),
    ]
    room = "narrow" if steps > 140 else "tight" if steps > 50 else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(layer.title)}">'
        f'<div class="lanes {room}" style="--steps:{steps}" data-steps="{steps}">\n'
        + "\n".join(lanes)
        + '\n<div class="cursor" hidden></div></div></div>'
    )


def notes(answer: Answer, layer: Shown, words: Words) -> str:
    """What the lanes mean, in the order in which they stand."""
    said = [words("about map")]
    if layer.gates:
        said.append(words("about gates"))
    what = words("the loss" if answer.target is not None else "the score")
    felt = {name: norms for name, norms in layer.norms.items() if norms.any()}
    if felt:
        said.append(words("about gradients", what=what, ranges=words("and").join(map(_range, felt, felt.values()))))
    said += [words("no gradient", what=what, state=name) for name in layer.norms if name not in felt]
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in said)


def _range(state: str, norms: np.ndarray) -> str:
    return f"{state} {norms.max() / 10 ** decades(norms):.2g} … {norms.max():.2g}"


def _lane(kind: str, name: str, track: str, more: str = "") -> str:
    return f'<div class="lane {kind}"{more}><div class="name">{name}</div><div class="track">{track}</div></div>'


def _labels(pieces: list[str]) -> str:
    """The name of each step: on its side, unless it is short or Chinese, which goes down."""
    found = []
    for step, piece in enumerate(pieces):
        whole, name = small(piece), short(piece)
        way = "flat" if len(name) <= 1 else "down" if is_wide(name[0]) else "side"
        found.append(
            f'<span class="{way}" data-step="{step}" title="{step + 1}: {escape(whole)}">{escape(name)}</span>'
        )
    return "".join(found)


def _map(name: str, values: np.ndarray, layer: Shown, words: Words, *, hidden: bool) -> str:
    units = values.shape[1]
    kind = words("state") if name in layer.record.cell.states else words("output") if name == "y" else ""
    kind = kind or (words("gate") if name in layer.gates else "")
    title = f"<b>{escape(name)}</b> <span>{escape(kind)}</span> <span>{words('units', count=str(units))}</span>"
    high = min(max(units * 0.2, 4), 18)
    picture = f'<img alt="{escape(name)}" src="{heat_map(values)}" style="height:{high:g}rem">'
    kinds = "map state" if name in layer.record.cell.states else "map"
    return _lane(kinds, title, picture, f' data-value="{escape(name)}"{" hidden" if hidden else ""}')


def _gate(name: str, layer: Shown, words: Words) -> str:
    meaning = words.gate(layer.record.cell.name, name) or words("gate")
    return _lane("gate", f"<b>{escape(name)}</b> <span>{escape(meaning)}</span>", band(layer.values[name]))


def _reach(name: str, norms: np.ndarray, words: Words) -> str:
    title = f"<b>{escape(words('gradient', state=name))}</b> <span>{escape(words('matters'))}</span>"
    return _lane("reach", title, logarithmic(norms))
