"""Connectionist temporal classification: from a score for every label at every step to texts, and back.

Graves, Fernandez, Gomez, Schmidhuber 2006. At each of T steps a network gives a probability to each of C labels, one of
which, the blank, says nothing. A path is one label for every step; its text is what is left when repeats are made one
and blanks are taken out. The probability of a text is the sum over all its paths.

Scores are natural logarithms of probabilities, [T, C]; a text is a sequence of labels without the blank.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Prior = Callable[[tuple[int, ...], int], float]
"""(the text so far, the label that comes next) -> what its score gains, in nats."""

_NEVER = -math.inf


@dataclass(frozen=True)
class Hypothesis:
    """A text that was found. log_probability: of the paths that were followed; score: that, bonuses and prior."""

    labels: tuple[int, ...]
    log_probability: float
    score: float


def steps_needed(labels: Sequence[int]) -> int:
    """The fewest steps that have a path for this text: one per label, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))


def log_likelihood(scores: np.ndarray, labels: Sequence[int], blank: int = 0) -> float:
    """The logarithm of a text's probability, exactly, in float64; minus infinity where no path is short enough."""
    at = _spread(scores, labels, blank)
    if not len(at):
        return _NEVER if len(labels) else 0.0
    skips = _skips(labels)
    reached = _begin(at)
    for row in at[1:]:
        one, two = _before(reached, skips)
        reached = np.logaddexp(np.logaddexp(reached, one), two) + row
    return float(np.logaddexp.reduce(reached[-2:]))


def greedy(scores: np.ndarray, blank: int = 0) -> tuple[int, ...]:
    """The text of the single most probable path."""
    best = np.asarray(scores).argmax(1)
    starts = np.concatenate([[True], best[1:] != best[:-1]])
    return tuple(best[starts & (best != blank)].tolist())


def prefix_beam(
    scores: np.ndarray,
    width: int = 16,
    *,
    blank: int = 0,
    bonus: float = 0.0,
    prior: Prior | None = None,
    candidates: int = 40,
) -> list[Hypothesis]:
    """The most probable texts, best first: prefix beam search (Hannun, Maas, Jurafsky, Ng 2014).

    After each step the `width` best beginnings of texts are kept, each with all of its paths so far. bonus: nats that
    every label adds to the score of a text (above 0, longer texts win). prior: what the score gains with each label, a
    weighted language model. candidates: labels that may come next at a step, the most probable ones.
    """
    scores = np.asarray(scores, dtype=np.float64)
    # Of every beginning: its paths that end in a blank, those that end in its last label, and what it has gained.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, _NEVER)}
    gained: dict[tuple[int, ...], float] = {(): 0.0}
    for row in scores:
        likely = np.argsort(-row, kind="stable")[: candidates + 1].tolist()
        following = [(label, float(row[label])) for label in likely if label != blank][:candidates]
        found: dict[tuple[int, ...], tuple[float, float]] = {}
        for text, (rested, spoken) in beam.items():
            both = _sum(rested, spoken)
            before = found.get(text, (_NEVER, _NEVER))
            stay = spoken + float(row[text[-1]]) if text else _NEVER
            found[text] = (_sum(before[0], both + float(row[blank])), _sum(before[1], stay))
            for label, score in following:
                longer = (*text, label)
                # A repeat without a blank between is the same label going on.
                come = rested if text and text[-1] == label else both
                before = found.get(longer, (_NEVER, _NEVER))
                found[longer] = (before[0], _sum(before[1], come + score))
                if longer not in gained:
                    gained[longer] = gained[text] + bonus + (prior(text, label) if prior else 0.0)
        best = sorted(found, key=lambda text: -_sum(*found[text]) - gained[text])[:width]
        beam = {text: found[text] for text in best}
        gained = {text: gained[text] for text in best}
    whole = {text: _sum(*ends) for text, ends in beam.items()}
    ranked = sorted(whole, key=lambda text: -whole[text] - gained[text])
    return [Hypothesis(text, whole[text], whole[text] + gained[text]) for text in ranked if whole[text] > _NEVER]


def align(scores: np.ndarray, labels: Sequence[int], blank: int = 0) -> list[tuple[int, int]]:
    """Where each label of a text lies on the text's most probable path (Viterbi): its first step, and the one after
    its last. ValueError where the text has no path."""
    at = _spread(scores, labels, blank)
    if len(at) < steps_needed(labels):
        raise ValueError(
            f"{len(labels)} labels need {steps_needed(labels)} steps or more; {len(at)} came, so no path leads there"
        )
    if not len(labels):
        return []
    skips = _skips(labels)
    reached = _begin(at)
    came: list[np.ndarray] = []
    for row in at[1:]:
        ways = np.stack([reached, *_before(reached, skips)])
        came.append(ways.argmax(0))
        reached = ways.max(0) + row
    place = len(reached) - 2 + int(reached[-1] > reached[-2])
    path = [place]
    for back in reversed(came):
        place -= int(back[place])
        path.append(place)
    path.reverse()
    steps = [[step for step, at_place in enumerate(path) if at_place == 2 * k + 1] for k in range(len(labels))]
    return [(of[0], of[-1] + 1) for of in steps]


def _spread(scores: np.ndarray, labels: Sequence[int], blank: int) -> np.ndarray:
    """The scores of blank, label, blank, label, ..., blank at every step, [T, 2 L + 1]."""
    if blank in labels:
        raise ValueError(f"the text holds label {blank}, the blank; expected labels without it")
    places = np.full(2 * len(labels) + 1, blank)
    places[1::2] = labels
    return np.asarray(scores, dtype=np.float64)[:, places]


def _skips(labels: Sequence[int]) -> np.ndarray:
    """Which places of blank, label, blank, ... may be reached from two before: labels after another label."""
    skips = np.zeros(2 * len(labels) + 1, dtype=bool)
    skips[3::2] = [a != b for a, b in itertools.pairwise(labels)]
    return skips


def _begin(at: np.ndarray) -> np.ndarray:
    """The scores of all places at the first step, where a path is in the blank or in the first label."""
    return np.where(np.arange(at.shape[1]) < 2, at[0], _NEVER)


def _before(reached: np.ndarray, skips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every place, the scores of the place before it, and of the one before that where it may be skipped."""
    padded = np.concatenate([[_NEVER, _NEVER], reached])
    return padded[1:-1], np.where(skips, padded[:-2], _NEVER)


def _sum(a: float, b: float) -> float:
    """The logarithm of the sum of two numbers, from their logarithms."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))
