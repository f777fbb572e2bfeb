"""How well words were tagged: by word, by sentence, by tag, and by the spans that BIO and BIOES tags mark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

Tags = Sequence[str]
Span = tuple[int, int, str]
"""First word, word after the last, kind."""


def tag_metrics(predicted: Sequence[Tags], truth: Sequence[Tags], known: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Accuracy over the words; that over words that were not in training (if there are any); the share of sentences
    with no mistake; macro F1 over the tags that occur; F1 of the spans, where the true tags mark spans.

    known: of every word, whether it was in training.
    """
    if not truth:
        raise ValueError("no sentence came; metrics need at least one")
    pairs = [pair for guess, true in zip(predicted, truth, strict=True) for pair in zip(guess, true, strict=True)]
    right = [guess == true for guess, true in pairs]
    novel = [hit for hit, seen in zip(right, (seen for row in known for seen in row), strict=True) if not seen]
    found = {
        "accuracy": sum(right) / len(right),
        **({"unknown_accuracy": sum(novel) / len(novel)} if novel else {}),
        "sentence_accuracy": sum(map(_same, predicted, truth)) / len(truth),
        "macro_f1": macro_f1(pairs),
    }
    if marks_spans({tag for row in truth for tag in row}):
        found["span_f1"] = span_f1(predicted, truth)
    return found


def macro_f1(pairs: Iterable[tuple[str, str]]) -> float:
    """The mean F1 over the tags that occur among (predicted, true) pairs, each counting the same."""
    counts = Counter(pairs)
    guesses, truths = Counter[str](), Counter[str]()
    for (guess, true), times in counts.items():
        guesses[guess] += times
        truths[true] += times
    names = guesses.keys() | truths.keys()
    return sum(2 * counts[name, name] / (guesses[name] + truths[name]) for name in names) / len(names)


def marks_spans(tags: Iterable[str]) -> bool:
    """Whether these are BIO or BIOES tags: `O`, and `B-`, `I-`, `E-`, `S-` before the kind of a span."""
    rest = set(tags) - {"O"}
    return any(tag.startswith("B-") for tag in rest) and all(tag[:2] in ("B-", "I-", "E-", "S-") for tag in rest)


def spans(tags: Tags) -> list[Span]:
    """The spans of a sentence. A span whose beginning is not marked begins where its kind does."""
    found: list[Span] = []
    begin, kind, before = 0, "", "O"
    for k, tag in enumerate((*tags, "O")):
        mark, this = tag[:1], tag[2:]
        goes_on = mark in "IE" and before in "BI" and this == kind
        if goes_on:
            before = mark
            continue
        if before != "O":
            found.append((begin, k, kind))
        begin, kind, before = k, this, mark
    return found


def span_f1(predicted: Sequence[Tags], truth: Sequence[Tags]) -> float:
    """2 * precision * recall / (precision + recall) over all spans; a span is right if its ends and its kind are."""
    hits = made = true = 0
    for guess, wanted in zip(predicted, truth, strict=True):
        own, its = set(spans(guess)), set(spans(wanted))
        hits, made, true = hits + len(own & its), made + len(own), true + len(its)
    return 2 * hits / (made + true) if made + true else 1.0


def _same(guess: Tags, true: Tags) -> bool:
    return list(guess) == list(true)
