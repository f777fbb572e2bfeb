"""Where else was the network in this state of mind? The steps of other inputs whose outputs are most alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from everloop.insight.inside import Inside
from everloop.insight.recording import LayerRecord, Recording, record


@dataclass(frozen=True)
class Places:
    """Steps of many inputs, with what the top layer put out there.

    vectors: [N, F]. inputs, steps: of each, which input it is of, and which of its steps. pieces: of every input.
    """

    vectors: np.ndarray
    inputs: np.ndarray
    steps: np.ndarray
    pieces: list[list[str]]


@dataclass(frozen=True)
class Neighbour:
    """A step of another input. likeness: the cosine of the angle between the two, both seen from the mean of all
    places: 1 is the same direction, 0 is none in common."""

    input: int
    step: int
    likeness: float
    pieces: tuple[str, ...]


def collect(insides: Iterable[Inside], *, most: int = 20_000) -> Places:
    """The places of inputs of one model. most: steps in all; what is beyond is left out."""
    vectors, inputs, steps, pieces, count = [], [], [], [], 0
    for inside in insides:
        made = top_outputs(reading_layers(record(inside), inside.reads))
        if count + len(made) > most and count:
            break
        vectors.append(made)
        inputs.append(np.full(len(made), len(pieces)))
        steps.append(np.arange(len(made)))
        pieces.append(list(inside.pieces))
        count += len(made)
    if not vectors:
        raise ValueError("no inputs came to look for neighbours in; expected one or more")
    return Places(np.concatenate(vectors), np.concatenate(inputs), np.concatenate(steps), pieces)


def nearest(places: Places, vectors: np.ndarray, *, count: int = 3) -> list[list[Neighbour]]:
    """Of each of these vectors [T, F], the places most like it, the best first; of an input that has several, only its
    best, so that neighbouring steps do not crowd out the rest."""
    if vectors.ndim != 2 or vectors.shape[1] != places.vectors.shape[1]:
        raise ValueError(f"vectors: {vectors.shape} came; expected [T, {places.vectors.shape[1]}], as the places are")
    middle = places.vectors.mean(0)
    likeness = _unit(vectors - middle) @ _unit(places.vectors - middle).T
    return [_best(places, row, count) for row in likeness]


def reading_layers(recording: Recording, reads: str) -> list[LayerRecord]:
    """The layers whose steps the pieces are: those of that name (`Inside.reads`), or the first that ran."""
    named = [layer for layer in recording.layers if layer.name == reads]
    return named or [layer for layer in recording.layers if layer.name == recording.layers[0].name]


def top_outputs(layers: Sequence[LayerRecord], row: int = 0) -> np.ndarray:
    """What the top layer put out for one sequence, both directions side by side: [T, F]."""
    top = max(layer.layer for layer in layers)
    return np.concatenate([layer.values["y"][row] for layer in layers if layer.layer == top], -1)


def _best(places: Places, likeness: np.ndarray, count: int) -> list[Neighbour]:
    found: dict[int, Neighbour] = {}
    for place in np.argsort(-likeness, kind="stable"):
        which = int(places.inputs[place])
        if which not in found:
            pieces = tuple(places.pieces[which])
            found[which] = Neighbour(which, int(places.steps[place]), float(likeness[place]), pieces)
        if len(found) == count:
            break
    return list(found.values())


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def around(pieces: Sequence[str], step: int, reach: int) -> tuple[int, int]:
    """The first piece, and the one after the last, of the surroundings of a step."""
    return max(0, step - reach), min(len(pieces), step + reach + 1)
