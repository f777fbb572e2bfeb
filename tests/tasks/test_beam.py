"""Beam search against the enumeration of all sequences, and against itself without its early stop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from everloop.tasks.decoding.beam import Hypothesis, beam_search, penalty
from everloop.testing import SAME

END = 0


@dataclass(frozen=True)
class Model:
    """Log-probabilities of the next piece, different after every sequence of pieces; its state is those sequences."""

    seed: int
    pieces: int
    sharpness: float = 1.0

    def after(self, before: tuple[int, ...]) -> np.ndarray:
        scores = self.sharpness * np.random.default_rng([self.seed, *before]).normal(size=self.pieces)
        return scores - np.logaddexp.reduce(scores)

    def first(self, sentences: list[int]) -> tuple[Tensor, list[list[tuple[int, ...]]]]:
        """A sentence's number is the first thing that its probabilities depend on."""
        state = [[(100 + number,)] for number in sentences]
        return torch.tensor(np.stack([self.after(one[0]) for one in state])), state

    def advance(
        self, state: list[list[tuple[int, ...]]], kept: Tensor, parents: Tensor, pieces: Tensor
    ) -> tuple[Tensor, list[list[tuple[int, ...]]]]:
        after = [
            [(*state[n][parent], piece) for parent, piece in zip(whose, which, strict=True)]
            for n, whose, which in zip(kept.tolist(), parents.tolist(), pieces.tolist(), strict=True)
        ]
        return torch.tensor(np.stack([[self.after(before) for before in one] for one in after])), after

    def search(self, sentences: list[int], **how) -> list[list[Hypothesis]]:
        first, state = self.first(sentences)
        return beam_search(first, state, self.advance, end=END, **how)

    def log_probability(self, sentence: int, pieces: tuple[int, ...]) -> float:
        return sum(self.after((100 + sentence, *pieces[:k]))[piece] for k, piece in enumerate(pieces))

    def everything(self, sentence: int, longest: int, alpha: float) -> list[tuple[float, tuple[int, ...], bool]]:
        """All sequences that end within `longest` pieces, and those that are cut there, the best first."""
        found = []
        others = [piece for piece in range(self.pieces) if piece != END]
        for length in range(longest + 1):
            for pieces in product(others, repeat=length):
                ended = length < longest
                whole = (*pieces, END) if ended else pieces
                score = self.log_probability(sentence, whole) / penalty(len(whole), alpha)
                found.append((score, pieces, ended))
        return sorted(found, key=lambda one: -one[0])


def close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=SAME.relative, abs_tol=SAME.absolute)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize(("pieces", "longest"), [(2, 5), (3, 4), (4, 3)])
def test_a_beam_that_holds_everything_finds_the_best_of_all(pieces, longest, alpha):
    model = Model(pieces, pieces)
    found = model.search([0, 1, 2], beam=pieces**longest, longest=longest, alpha=alpha, best=6)
    for sentence, hypotheses in enumerate(found):
        expected = model.everything(sentence, longest, alpha)[:6]
        assert [(one.pieces, one.ended) for one in hypotheses] == [(pieces, ended) for _, pieces, ended in expected]
        for one, (score, _, _) in zip(hypotheses, expected, strict=True):
            assert close(one.score, score)


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_scores_are_the_sums_of_their_steps(beam):
    model = Model(7, 6)
    for sentence, hypotheses in enumerate(model.search(list(range(8)), beam=beam, longest=9, alpha=0.7, best=beam)):
        assert 1 <= len(hypotheses) <= beam
        assert [one.score for one in hypotheses] == sorted((one.score for one in hypotheses), reverse=True)
        assert len({one.pieces for one in hypotheses}) == len(hypotheses)
        for one in hypotheses:
            whole = (*one.pieces, END) if one.ended else one.pieces
            assert END not in one.pieces
            assert close(one.log_probability, model.log_probability(sentence, whole))
            assert close(one.score, one.log_probability / penalty(len(whole), 0.7))
            assert one.ended or len(whole) == 9


def test_width_one_is_greedy():
    model = Model(3, 5)
    for sentence, (one,) in enumerate(model.search(list(range(20)), beam=1, longest=12)):
        pieces: list[int] = []
        while len(pieces) < 12 and (best := int(model.after((100 + sentence, *pieces)).argmax())) != END:
            pieces.append(best)
        assert one.pieces == tuple(pieces)
        assert one.ended == (len(pieces) < 12)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
@pytest.mark.parametrize(("beam", "best"), [(1, 1), (3, 1), (3, 3), (6, 2)])
def test_stopping_early_changes_nothing(beam, best, alpha):
    """Sharp probabilities let sentences stop at different steps."""
    model = Model(11, 7, sharpness=3.0)
    sentences = list(range(30))
    found = model.search(sentences, beam=beam, longest=10, alpha=alpha, best=best)
    assert found == [patient(model, sentence, beam, 10, alpha, best) for sentence in sentences]


def patient(model: Model, sentence: int, beam: int, longest: int, alpha: float, best: int) -> list[Hypothesis]:
    """The search as its docstring defines it, one sentence at a time, which goes on until it has its `beam`."""
    going, found = [((), 0.0)], []
    for length in range(1, longest + 1):
        candidates = [
            (total + step, (*pieces, piece))
            for pieces, total in going
            for piece, step in enumerate(model.after((100 + sentence, *pieces)).tolist())
        ]
        candidates = sorted(candidates, reverse=True)[: 2 * beam]
        ended = [(total, pieces[:-1]) for total, pieces in candidates[:beam] if pieces[-1] == END]
        found += [Hypothesis(p, total, total / penalty(length, alpha), ended=True) for total, p in ended]
        going = [(pieces, total) for total, pieces in candidates if pieces[-1] != END][:beam]
        if len(found) >= beam:
            break
        if length == longest:
            found += [Hypothesis(p, total, total / penalty(length, alpha), ended=False) for p, total in going]
    return sorted(found, key=lambda one: -one.score)[:best]


def test_a_wider_beam_of_all_sentences_at_once_is_that_of_each():
    model = Model(5, 6)
    together = model.search([3, 1, 4], beam=4, longest=6, alpha=1.0, best=2)
    assert together == [model.search([number], beam=4, longest=6, alpha=1.0, best=2)[0] for number in (3, 1, 4)]


def test_what_must_not_come_does_not():
    model = Model(2, 4)
    first, state = model.first([0])
    first[:, [END, 3]] = -torch.inf

    def advance(*given):
        scores, after = model.advance(*given)
        scores[..., 3] = -torch.inf
        return scores, after

    (hypotheses,) = beam_search(first, state, advance, end=END, beam=50, longest=3, best=50)
    assert {one.pieces for one in hypotheses} == {(a, *rest) for a in (1, 2) for rest in [(), (1,), (2,)]} | {
        (a, b, c) for a, b, c in product((1, 2), repeat=3)
    }


def test_the_penalty_of_wu_et_al():
    assert penalty(1, 0.7) == 1.0
    assert penalty(7, 1.0) == 2.0
    assert penalty(7, 0.0) == 1.0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"beam": 0}, "beam=0 came; expected 1 or more"),
        ({"longest": 0}, "longest=0 came"),
        ({"beam": 2, "best": 3}, "best=3 came with beam=2"),
        ({"alpha": -0.5}, "alpha=-0.5 came; expected 0 or more"),
    ],
)
def test_refusals(how, message):
    with pytest.raises(ValueError, match=message):
        Model(0, 3).search([0], **({"beam": 2, "longest": 3} | how))
    with pytest.raises(ValueError, match=r"first: \(3,\) came; expected \[N, V\]"):
        beam_search(torch.zeros(3), None, Model(0, 3).advance, end=END, beam=1, longest=1)
