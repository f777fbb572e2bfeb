"""The numbers behind the drawings, for the script of the page and for whoever wants to read them: JSON in the page."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from everloop.insight.explanation import Answer
from everloop.insight.page.lanes import Shown
from everloop.insight.page.words import Words

MOST = 3 * 2**20
"""Bytes that the values on a page may take; where they would take more, the states alone are on it."""

SAID = ("speaks", "integrated gradients", "occlusion", "mean of gates", "length of gradient")
"""What the script says of a step."""

STEPS = 32767
"""Values are kept as whole numbers of their largest by this."""


def fitting(layers: Sequence[Shown]) -> tuple[list[Shown], list[str]]:
    """The layers with as many values as there is room for, and the names of those left out."""
    if sum(2 * values.size for layer in layers for values in layer.values.values()) <= MOST:
        return list(layers), []
    kept, gone = [], dict[str, None]()
    for layer in layers:
        states = {name: values for name, values in layer.values.items() if name in layer.record.cell.states}
        gone |= dict.fromkeys(name for name in layer.values if name not in states)
        kept.append(replace(layer, values=states))
    return kept, list(gone)


def data_of(answer: Answer, layers: Sequence[Shown], words: Words) -> str:
    """A script element that holds the numbers and does nothing."""
    content: dict[str, Any] = {
        "pieces": answer.pieces,
        "asked": answer.asked,
        "words": {key: words(key) for key in SAID},
        "answers": answer.answers,
        "saliency": {found.method: _numbers(found.values) for found in answer.saliency},
        "layers": [
            {
                "title": layer.title,
                "module": layer.record.name,
                "layer": layer.record.layer,
                "direction": layer.record.direction,
                "gates": [name for name in layer.gates if name in layer.values],
                "values": {name: packed(values) for name, values in layer.values.items()},
                "norms": {name: _numbers(norms) for name, norms in layer.norms.items()},
            }
            for layer in layers
        ],
    }
    # What would end the element early, or begin a comment in it, cannot stand in it.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="numbers">{text}</script>'


def packed(values: np.ndarray) -> dict[str, Any]:
    """[T, F]: whole numbers of 16 bits, the lower byte first, to be multiplied by `scale`."""
    scale = float(np.abs(values).max()) / STEPS if values.size else 0.0
    whole = np.round(values / scale) if scale else np.zeros_like(values)
    data = base64.b64encode(whole.astype("<i2").tobytes()).decode()
    return {"shape": list(values.shape), "scale": scale, "data": data}


def unpacked(given: dict[str, Any]) -> np.ndarray:
    """What `packed` was given, to within half a scale."""
    whole = np.frombuffer(base64.b64decode(given["data"]), "<i2")
    return whole.reshape(given["shape"]) * given["scale"]


def _numbers(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
