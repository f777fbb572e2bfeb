"""Why this answer: all that can be said of one answer of a fitted model, as data. `render_page` makes a page of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any, Literal

import numpy as np
from torch import nn

from everloop.insight.inside import Inside
from everloop.insight.neighbours import Neighbour, collect, nearest, reading_layers, top_outputs
from everloop.insight.recording import LayerRecord, Recording, record
from everloop.insight.saliency import (
    DeletionTest,
    Saliency,
    deletion_test,
    integrated_gradients,
    occlusion,
    score_of,
)
from everloop.insight.units import FoundUnit, Watched
from everloop.nn import Recurrent

FOLLOWED = ("quotes", "brackets", "line")
"""Properties of texts for which the unit that follows them best is looked for."""


@dataclass(frozen=True)
class Attention:
    """weights: how much each piece that was read was looked at for each that was written, [written, read]. copied:
    with which probability each written piece is a copy, [written]; None where the model cannot copy."""

    read: list[str]
    written: list[str]
    weights: np.ndarray
    copied: np.ndarray | None


@dataclass(frozen=True)
class Elsewhere:
    """The steps of other inputs most like each step of this one, [T][...], and what these inputs are labelled."""

    nearest: list[list[Neighbour]]
    labels: list[str]
    inputs: int


@dataclass(frozen=True)
class Answer:
    """One answer, and what it rests on.

    model: the kind of task; facts: of the model. answers: what the model says, best first, with probabilities, or
    values where unit is "value". asked: the one that is explained. target: what the truth is, if it was given.
    recording: all that happened inside. Its gradients are those of the loss against the target, or without one of the
    score of the asked answer with its sign turned: of its surprise. layers: those of the recording whose steps the
    pieces are, row: which of their sequences is asked about (a forecaster has one for each column).
    followers: the unit that follows each of FOLLOWED best, in the other inputs, where there is something to follow.
    saliency, tests: by each method, in the same order. ablation: what stands in for a piece that is taken away.
    """

    model: str
    facts: list[tuple[str, str]]
    pieces: list[str]
    answers: list[tuple[str, float]]
    asked: str
    target: str | None
    unit: Literal["log-probability", "value"]
    recording: Recording
    layers: list[LayerRecord]
    row: int
    saliency: list[Saliency]
    tests: list[DeletionTest]
    ablation: str
    attention: Attention | None = None
    elsewhere: Elsewhere | None = None
    followers: dict[str, FoundUnit] = field(default_factory=dict)

    @property
    def best(self) -> int:
        """Which method finds what the answer rests on best, as its test says."""
        return min(range(len(self.tests)), key=lambda k: (self.tests[k].chance, float(self.tests[k].most_first.mean())))


def explain_answer(
    model: Any,
    input: Any = None,
    target: Any = None,
    *,
    answer: str | None = None,
    at: int | None = None,
    others: Sequence[Any] = (),
    labels: Sequence[Any] = (),
    steps: int = 64,
    orders: int = 39,
    seed: int = 0,
) -> Answer:
    """Look inside a fitted model while it answers.

    model: a fitted task, asked about `input`; or an `Inside`, which brings its input with it. target: the truth, for
    gradients of the loss. answer: which answer to explain (None: the model's first). at: of which step, where there is
    an answer at every step. others: inputs to look for like states in, labels: of each, to show beside it. steps,
    orders: of `integrated_gradients` and `deletion_test`, whose random orders are drawn with seed.
    """
    if len(labels) not in (0, len(others)):
        raise ValueError(f"labels: {len(labels)} came for {len(others)} other inputs; expected one each, or none")
    inside: Inside = model if isinstance(model, Inside) else model.inside(input, target, at=at)
    found = [integrated_gradients(inside, answer, steps=steps), occlusion(inside, answer)]
    asked = found[0].answer
    recording = _recorded(inside, asked)
    layers = reading_layers(recording, inside.reads)
    known: dict[frozenset[int], float] = {}
    row = [name for name, _ in inside.answers].index(asked) if len(layers[0].x) > 1 else 0
    found_elsewhere, followers = _from_others(model, inside, top_outputs(layers, row), others, labels)
    return Answer(
        model=type(inside.network if model is inside else model).__name__,
        facts=_facts(model, inside.network),
        pieces=list(inside.pieces),
        answers=list(inside.answers),
        asked=asked,
        target=None if target is None else " ".join(target) if isinstance(target, list | tuple) else str(target),
        unit=_unit(inside),
        recording=recording,
        layers=layers,
        row=row,
        saliency=found,
        tests=[deletion_test(inside, one, orders=orders, seed=seed, known=known) for one in found],
        ablation=inside.ablation,
        attention=_attention(model, input),
        elsewhere=found_elsewhere,
        followers=followers,
    )


def _unit(inside: Inside) -> Literal["log-probability", "value"]:
    """What a score is: answers stand with their probabilities, of which scores are the logarithms, or with values,
    which are scores."""
    answer, amount = inside.answers[0]
    score = score_of(inside, answer)
    return "value" if score == amount or abs(amount - score) < abs(amount - exp(min(score, 0.0))) else "log-probability"


def _recorded(inside: Inside, asked: str) -> Recording:
    if inside.loss is not None:
        return record(inside)
    return record(inside, loss=lambda output, _: -inside.score(output, asked))


def _facts(model: Any, network: nn.Module) -> list[tuple[str, str]]:
    facts = getattr(model, "facts", None)
    if facts is not None:
        return list(facts())
    layers = next(module for module in network.modules() if isinstance(module, Recurrent))
    count = sum(array.numel() for array in network.parameters())
    return [
        ("cell", f"{layers.cell.name}, {layers.num_layers} x {layers.hidden_size} units"),
        ("parameters", f"{count:,}"),
    ]


def _attention(model: Any, input: Any) -> Attention | None:
    """Of a task that has any, for the text that it writes."""
    if not hasattr(model, "attend"):
        return None
    seen = model.attend(input)
    return Attention(list(seen.read), list(seen.written), np.asarray(seen.weights), seen.copied)


def _from_others(
    model: Any, inside: Inside, outputs: np.ndarray, others: Sequence[Any], labels: Sequence[Any]
) -> tuple[Elsewhere | None, dict[str, FoundUnit]]:
    if model is inside:
        return None, {}
    found = [model.inside(given) for given in others]
    different = [k for k, other in enumerate(found) if other.pieces != inside.pieces]
    if not different:
        return None, {}
    places = collect(found[k] for k in different)
    told = [str(labels[k]) for k in different if len(labels)]
    elsewhere = Elsewhere(nearest(places, outputs), told, len(places.pieces))
    if len(different) < 2:
        return elsewhere, {}
    watched = Watched.of(found[k] for k in different)
    followed = [name for name in FOLLOWED if watched.changes(name)]
    return elsewhere, {name: watched.following(name, count=1)[0] for name in followed}
