"""CTC against brute force: every path of small cases written out, and against torch's loss in float64."""

from __future__ import annotations

import math
from itertools import groupby, product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from everloop.tasks.decoding import ctc
from everloop.testing import SAME, assert_close

CASES = [(steps, labels, seed) for steps, labels in ((1, 3), (3, 4), (4, 3), (5, 3), (6, 2)) for seed in range(3)]


def scores_of(steps: int, labels: int, seed: int, sharp: float = 1.0) -> np.ndarray:
    values = sharp * torch.randn(steps, labels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values.log_softmax(-1).numpy()


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in groupby(path) if label)


def all_texts(scores: np.ndarray) -> dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]]:
    """Of every text: the logarithm of the probability of each of its paths, and the path."""
    found: dict[tuple[int, ...], list[tuple[float, tuple[int, ...]]]] = {}
    for path in product(range(scores.shape[1]), repeat=len(scores)):
        value = float(sum(row[label] for row, label in zip(scores, path, strict=True)))
        found.setdefault(collapse(path), []).append((value, path))
    return found


def total(paths: list[tuple[float, tuple[int, ...]]]) -> float:
    return math.log(math.fsum(math.exp(value) for value, _ in paths))


class TestLikelihood:
    @pytest.mark.parametrize(("steps", "labels", "seed"), CASES)
    def test_of_every_text_is_the_sum_over_its_paths(self, steps: int, labels: int, seed: int):
        scores = scores_of(steps, labels, seed)
        texts = all_texts(scores)
        assert_close([ctc.log_likelihood(scores, text) for text in texts], [total(paths) for paths in texts.values()])

    @pytest.mark.parametrize("text", [(1,), (1, 2, 3), (2, 2), (3, 1, 1, 1, 2), (4,) * 6])
    def test_is_torchs_loss(self, text: tuple[int, ...]):
        scores = scores_of(20, 5, 1)
        expected = F.ctc_loss(torch.tensor(scores), torch.tensor(text), torch.tensor(20), torch.tensor(len(text)))
        assert_close(-ctc.log_likelihood(scores, text) / len(text), expected)

    def test_is_minus_infinity_where_no_path_is_short_enough(self):
        scores = scores_of(3, 3, 0)
        assert ctc.steps_needed([1, 1]) == 3
        assert ctc.log_likelihood(scores, [1, 1]) > -math.inf
        assert ctc.steps_needed([1, 1, 2]) == 4
        assert ctc.log_likelihood(scores, [1, 1, 2]) == -math.inf
        assert ctc.log_likelihood(scores[:0], []) == 0
        assert ctc.log_likelihood(scores[:0], [1]) == -math.inf

    def test_a_blank_of_another_number(self):
        scores = scores_of(4, 3, 0)
        assert_close(ctc.log_likelihood(scores[:, [1, 2, 0]], [0, 1], blank=2), ctc.log_likelihood(scores, [1, 2]))
        with pytest.raises(ValueError, match="label 0, the blank"):
            ctc.log_likelihood(scores, [1, 0])


class TestGreedy:
    @pytest.mark.parametrize(("steps", "labels", "seed"), CASES)
    def test_is_the_text_of_the_best_path(self, steps: int, labels: int, seed: int):
        scores = scores_of(steps, labels, seed)
        _, best = max(path for paths in all_texts(scores).values() for path in paths)
        assert ctc.greedy(scores) == collapse(best)

    def test_repeats_need_a_blank_between(self):
        rows = np.eye(3)
        assert ctc.greedy(rows[[1, 1, 0, 1, 2, 2, 0]]) == (1, 1, 2)
        assert ctc.greedy(rows[[0, 0]]) == ()


class TestBeam:
    @pytest.mark.parametrize(("steps", "labels", "seed"), CASES)
    def test_a_wide_one_finds_every_text_and_its_probability(self, steps: int, labels: int, seed: int):
        scores = scores_of(steps, labels, seed)
        expected = {text: total(paths) for text, paths in all_texts(scores).items()}
        found = ctc.prefix_beam(scores, 10_000)
        assert {one.labels for one in found} == expected.keys()
        assert_close([one.log_probability for one in found], [expected[one.labels] for one in found])
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)

    def test_finds_a_better_text_than_the_best_path(self):
        # Graves 2006: two paths of "a" are together more probable than the one best path, which is empty.
        scores = np.log([[0.6, 0.4], [0.6, 0.4]])
        assert ctc.greedy(scores) == ()
        assert ctc.prefix_beam(scores, 2)[0].labels == (1,)
        assert_close(ctc.prefix_beam(scores, 2)[0].log_probability, math.log(0.64))

    def test_a_narrow_one_gives_no_more_than_the_probability(self):
        scores = scores_of(40, 6, 3, sharp=3.0)
        for one in ctc.prefix_beam(scores, 8):
            assert one.log_probability <= ctc.log_likelihood(scores, one.labels) + SAME.absolute

    @pytest.mark.parametrize("bonus", [-1.0, 0.7])
    def test_a_bonus_counts_labels(self, bonus: float):
        scores = scores_of(4, 3, 2)
        texts = {text: total(paths) + bonus * len(text) for text, paths in all_texts(scores).items()}
        best = ctc.prefix_beam(scores, 10_000, bonus=bonus)[0]
        assert best.labels == max(texts, key=lambda text: texts[text])
        assert_close(best.score, texts[best.labels])

    def test_a_prior_is_asked_for_every_label(self):
        scores = scores_of(4, 3, 5)

        def prior(text: tuple[int, ...], label: int) -> float:
            return -2.0 if text and text[-1] > label else 0.5 * label

        texts = {
            text: total(paths) + sum(prior(text[:k], label) for k, label in enumerate(text))
            for text, paths in all_texts(scores).items()
        }
        found = ctc.prefix_beam(scores, 10_000, prior=prior)
        assert_close([one.score for one in found], [texts[one.labels] for one in found])
        assert found[0].labels == max(texts, key=lambda text: texts[text])

    def test_few_candidates_are_the_most_probable_labels(self):
        scores = np.log([[0.1, 0.5, 0.3, 0.1]])
        assert {one.labels for one in ctc.prefix_beam(scores, 100, candidates=1)} == {(), (1,)}


class TestAlign:
    @pytest.mark.parametrize(("steps", "labels", "seed"), CASES)
    def test_is_the_best_path_of_the_text(self, steps: int, labels: int, seed: int):
        scores = scores_of(steps, labels, seed)
        for text, paths in all_texts(scores).items():
            _, best = max(paths)
            expected, place = [], 0
            for label, run in groupby(best):
                length = len(list(run))
                if label:
                    expected.append((place, place + length))
                place += length
            assert ctc.align(scores, text) == expected

    def test_says_that_there_is_no_path(self):
        with pytest.raises(ValueError, match="2 labels need 3 steps or more; 2 came"):
            ctc.align(scores_of(2, 3, 0), [1, 1])
