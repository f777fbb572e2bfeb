"""What counting tags gets: every word its most frequent one."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence

from everloop.tasks.baseline import Baseline
from everloop.tasks.tagger.metrics import tag_metrics

LONGEST_ENDING = 4


def tagger_baselines(
    train: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]],
    test: tuple[Sequence[Sequence[str]], Sequence[Sequence[str]]],
    known: Sequence[Sequence[bool]],
) -> list[Baseline]:
    """The most frequent tag of each word; an unknown word gets the most frequent tag of all, or that of its longest
    known ending of four characters or fewer, counted over the different words of training.

    train, test: sentences and their tags. known: of each test word, whether the metrics count it as known.
    """
    start = time.perf_counter()
    by_word: dict[str, Counter[str]] = defaultdict(Counter)
    for words, tags in zip(*train, strict=True):
        for word, tag in zip(words, tags, strict=True):
            by_word[word][tag] += 1
    best = {word: _first(counts) for word, counts in by_word.items()}
    most = _first(Counter(tag for tags in train[1] for tag in tags))
    endings: dict[str, Counter[str]] = defaultdict(Counter)
    for word, tag in best.items():
        for ending in _endings(word):
            endings[ending][tag] += 1
    best_of_ending = {ending: _first(counts) for ending, counts in endings.items()}

    def by_ending(word: str) -> str:
        return next((best_of_ending[end] for end in _endings(word) if end in best_of_ending), most)

    found = []
    for name, unknown in (("every word its most frequent tag", lambda _: most), ("the same, by endings", by_ending)):
        predicted = [[best.get(word) or unknown(word) for word in words] for words in test[0]]
        seconds = time.perf_counter() - start
        found.append(Baseline(name, tag_metrics(predicted, test[1], known), seconds))
        start = time.perf_counter()
    return found


def _endings(word: str) -> list[str]:
    return [word[-n:] for n in range(min(LONGEST_ENDING, len(word)), 0, -1)]


def _first(counts: Counter[str]) -> str:
    """The most frequent; of several, the first by name."""
    return min(counts, key=lambda tag: (-counts[tag], tag))
