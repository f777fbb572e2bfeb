"""What counting words, and what a hidden Markov model without any learnt features, get on the same recordings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from everloop.tasks.baseline import Baseline
from everloop.tasks.edits import character_error_rate, word_error_rate
from everloop.tasks.recognizer.markov import Markov, cepstra

Decode = Callable[[Sequence[int]], str]


def recognizer_baselines(
    train_values: Sequence[np.ndarray],
    train_labels: Sequence[Sequence[int]],
    test_values: Sequence[np.ndarray],
    test_texts: Sequence[str],
    *,
    decode: Decode,
) -> list[Baseline]:
    """Word and character error rate of the most frequent label at each place, and of a hidden Markov model.

    values: features [T, F]; labels: those of the texts, from 1; decode: the text of labels. The model is of the kind
    that was in use before networks, see `Markov`.
    """
    start = time.perf_counter()
    counted = [decode(labels) for labels in _most_frequent(train_values, train_labels, test_values)]
    baselines = [_baseline("most frequent label at each place", counted, test_texts, start)]
    start = time.perf_counter()
    known = [cepstra(of) for of in train_values]
    model = Markov.fit(known, train_labels)
    model.choose_penalty(known, train_labels)
    found = [decode(labels) for labels in model.recognise([cepstra(of) for of in test_values])]
    minutes = sum(map(len, train_values)) / 6_000
    name = f"hidden Markov model, {model.states} Gaussians per label, on {minutes:.0f} min"
    return [*baselines, _baseline(name, found, test_texts, start)]


def _baseline(name: str, came: Sequence[str], expected: Sequence[str], start: float) -> Baseline:
    metrics = {"wer": word_error_rate(came, expected), "cer": character_error_rate(came, expected)}
    return Baseline(name, metrics, time.perf_counter() - start)


def _most_frequent(
    train_values: Sequence[np.ndarray], train_labels: Sequence[Sequence[int]], test_values: Sequence[np.ndarray]
) -> list[list[int]]:
    """As many labels as the length of the recording suggests, at each place the most frequent one there."""
    per_frame = sum(map(len, train_labels)) / sum(map(len, train_values))
    longest = max(map(len, train_labels))
    places = [Counter(labels[k] for labels in train_labels if len(labels) > k) for k in range(longest)]
    best = [min(counts, key=lambda label, counts=counts: (-counts[label], label)) for counts in places]
    return [best[: max(1, round(per_frame * len(values)))] for values in test_values]
