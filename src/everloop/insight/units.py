"""What a single unit follows: its values along an input, and the search for the unit that tracks quotes, brackets, the
place in a line, or anything that can be computed from the pieces read so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from everloop.insight.inside import Inside
from everloop.insight.neighbours import reading_layers
from everloop.insight.recording import LayerRecord, Recording, record

Property = Callable[[Sequence[str]], Sequence[bool] | Sequence[float] | np.ndarray]
"""From the pieces of an input to one value per piece: true or false, or a number."""


@dataclass(frozen=True, order=True)
class UnitName:
    """Where a unit is. state: the name of the state that it is a unit of. direction: "forward" or "backward"."""

    module: str
    layer: int
    direction: str
    state: str
    unit: int

    def __str__(self) -> str:
        return " ".join(
            filter(None, [self.module, f"layer {self.layer}", self.direction, f"{self.state}[{self.unit}]"])
        )


@dataclass(frozen=True)
class FoundUnit:
    """The unit that follows a property best, chosen on one half of the inputs and measured on the other.

    measure: "auc", for what is true or false: how often the unit is higher at a true step than at a false one (0.5:
    it knows nothing); "correlation", for numbers (0: nothing). held_out: of the inputs not chosen on, 0.5 or 0 being
    nothing, and on the other side of that where what was found does not hold. sign: -1 where the unit is low when the
    property is high; held_out is of the unit turned so. chosen: the same on the half it was chosen on. units: how many
    there were to choose from. steps: on which held_out was measured.
    """

    name: UnitName
    measure: Literal["auc", "correlation"]
    held_out: float
    chosen: float
    sign: int
    units: int
    steps: int

    def __str__(self) -> str:
        what = "AUC" if self.measure == "auc" else "correlation"
        low = ", low when it is high" if self.sign < 0 else ""
        return f"{self.name}{low}: {what} {self.held_out:.3f} on {self.steps:,} steps it was not chosen on"


def values_of(recording: Recording, name: UnitName) -> np.ndarray:
    """[T], of a single input."""
    for layer in recording.layers:
        if (layer.name, layer.layer, layer.direction) == (name.module, name.layer, name.direction):
            values = layer.values.get(name.state)
            if values is not None and 0 <= name.unit < values.shape[-1]:
                return values[0, :, name.unit]
    known = ", ".join(f"{layer.name} {layer.layer} {layer.direction}" for layer in recording.layers)
    raise ValueError(f"unit: {name} came, which the recording does not have; its layers are {known}")


def find_units(
    model: Any, inputs: Sequence[Any], follows: str | Property, *, count: int = 3, seed: int = 0
) -> list[FoundUnit]:
    """The units of any layer that follow a property of the input best, the best of the choosing half first.

    model: a fitted task. inputs: texts, or whatever it reads: half of them, drawn with seed, are for choosing, the rest
    for measuring. follows: one of PROPERTIES, or a function of the pieces of an input.
    """
    return Watched.of(model.inside(given) for given in inputs).following(follows, count=count, seed=seed)


@dataclass(frozen=True)
class Watched:
    """What every unit of every state did along some inputs: values [T, U] of each, U as the names are, and pieces."""

    names: list[UnitName]
    values: list[np.ndarray]
    pieces: list[list[str]]

    @classmethod
    def of(cls, insides: Iterable[Inside]) -> Watched:
        found = cls([], [], [])
        for inside in insides:
            layers = reading_layers(record(inside), inside.reads)
            found.names[:] = unit_names(layers)
            found.values.append(np.concatenate([values for _, _, values in _states(layers)], -1))
            found.pieces.append(list(inside.pieces))
        if len(found.pieces) < 2:
            came = len(found.pieces)
            raise ValueError(f"inputs: {came} came; expected two or more: some to choose on, others to measure on")
        return found

    def changes(self, follows: str | Property, *, seed: int = 0) -> bool:
        """Whether there is something to follow: in what is chosen on, and in what is measured on."""
        return all(len(np.unique(truth)) > 1 for truth in self._truths(follows, self._halves(seed)))

    def following(self, follows: str | Property, *, count: int = 3, seed: int = 0) -> list[FoundUnit]:
        """See `find_units`."""
        halves = self._halves(seed)
        truth, other_truth = self._truths(follows, halves)
        for found, half in ((truth, "choose"), (other_truth, "measure")):
            if len(np.unique(found)) < 2:
                raise ValueError(
                    f"the property is {found[0]} at every step of the inputs to {half} on: nothing to follow"
                )
        chosen, other = (np.concatenate([self.values[k] for k in half]) for half in halves)
        is_number = truth.dtype != bool or other_truth.dtype != bool
        rate, nothing = (_correlation, 0.0) if is_number else (_auc, 0.5)
        rated = rate(chosen, truth)
        best = np.argsort(-np.abs(rated - nothing), kind="stable")[:count]
        signs = np.where(rated[best] >= nothing, 1, -1)
        held_out = rate(other[:, best] * signs, other_truth)
        return [
            FoundUnit(
                self.names[place],
                "correlation" if is_number else "auc",
                float(reached),
                float(nothing + abs(rated[place] - nothing)),
                int(sign),
                len(self.names),
                len(other),
            )
            for place, sign, reached in zip(best, signs, held_out, strict=True)
        ]

    def _halves(self, seed: int) -> tuple[list[int], list[int]]:
        """The inputs to choose on, and those to measure on."""
        order = np.random.default_rng(seed).permutation(len(self.pieces)).tolist()
        return sorted(order[len(order) // 2 :]), sorted(order[: len(order) // 2])

    def _truths(self, follows: str | Property, halves: tuple[list[int], list[int]]) -> list[np.ndarray]:
        what = _property(follows)
        return [np.concatenate([_checked(what(self.pieces[k]), len(self.pieces[k])) for k in half]) for half in halves]


def unit_names(layers: Sequence[LayerRecord]) -> list[UnitName]:
    """Every unit of every state."""
    return [
        UnitName(layer.name, layer.layer, layer.direction, state, unit)
        for layer, state, values in _states(layers)
        for unit in range(values.shape[-1])
    ]


def _states(layers: Sequence[LayerRecord]) -> list[tuple[LayerRecord, str, np.ndarray]]:
    """Of one input, the states [T, F]."""
    return [
        (layer, state, layer.values[state][0])
        for layer in layers
        for state in layer.cell.states
        if state in layer.values
    ]


# How well a unit follows.


def _auc(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of each column of values [N, F]: how often a true row is higher than a false one; rows as high count half."""
    positive = int(truth.sum())
    ranks = np.stack([_ranks(column) for column in values.T], 1)
    above = ranks[truth].sum(0) - positive * (positive + 1) / 2
    return above / (positive * (len(truth) - positive))


def _ranks(column: np.ndarray) -> np.ndarray:
    """From 1 up; equal values share the mean of their ranks."""
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _correlation(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson's, of each column of values [N, F]; 0 for a unit that never moves."""
    centred, wanted = values - values.mean(0), truth - truth.mean()
    lengths = np.linalg.norm(centred, axis=0) * np.linalg.norm(wanted)
    return wanted @ centred / np.where(lengths > 0, lengths, 1)


# Properties.

BRACKETS = {"(": ")", "[": "]", "{": "}", "（": "）", "《": "》", "【": "】"}
QUOTES = {"“": "”", "「": "」", "『": "』", "«": "»"}


def inside_quotes(pieces: Sequence[str]) -> np.ndarray:
    """Whether a quotation is open after each piece."""
    found, closing = [], ""
    for piece in pieces:
        for letter in piece:
            if letter == closing:
                closing = ""
            elif not closing and (letter == '"' or letter in QUOTES):
                closing = QUOTES.get(letter, letter)
        found.append(bool(closing))
    return np.array(found, bool)


def inside_brackets(pieces: Sequence[str]) -> np.ndarray:
    """Whether a bracket is open after each piece."""
    return bracket_depth(pieces) > 0


def bracket_depth(pieces: Sequence[str]) -> np.ndarray:
    """How many brackets are open after each piece; one that closes nothing counts for nothing."""
    found, waiting = [], []
    for piece in pieces:
        for letter in piece:
            if letter in BRACKETS:
                waiting.append(BRACKETS[letter])
            elif waiting and letter == waiting[-1]:
                waiting.pop()
        found.append(float(len(waiting)))
    return np.array(found)


def place_in_line(pieces: Sequence[str]) -> np.ndarray:
    """Letters since the line began, after each piece."""
    found, place = [], 0
    for piece in pieces:
        _, broken, rest = piece.rpartition("\n")
        place = len(rest) + (0 if broken else place)
        found.append(float(place))
    return np.array(found)


PROPERTIES: dict[str, Property] = {
    "quotes": inside_quotes,
    "brackets": inside_brackets,
    "depth": bracket_depth,
    "line": place_in_line,
}


def _property(follows: str | Property) -> Property:
    if not isinstance(follows, str):
        return follows
    if follows not in PROPERTIES:
        raise ValueError(f"follows: {follows!r} came; expected one of {', '.join(PROPERTIES)}, or a function of pieces")
    return PROPERTIES[follows]


def _checked(found: Any, count: int) -> np.ndarray:
    values = np.asarray(found)
    if values.shape != (count,):
        raise ValueError(f"the property gave values of shape {values.shape}; expected one per piece, ({count},)")
    return values if values.dtype == bool else values.astype(float)
