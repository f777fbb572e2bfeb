"""Spans against seqeval on random tags, and the other metrics by hand."""

from __future__ import annotations

import random
import re

import pytest

from everloop.tasks.tagger.baselines import tagger_baselines
from everloop.tasks.tagger.metrics import macro_f1, marks_spans, span_f1, spans, tag_metrics
from everloop.testing import assert_close


def random_tags(dice: random.Random, marks: str) -> list[str]:
    names = ["O", "O", *(f"{mark}-{kind}" for mark in marks for kind in ("LOC", "PER"))]
    return [dice.choice(names) for _ in range(dice.randint(1, 12))]


@pytest.mark.parametrize("marks", ["BI", "BIES"])
def test_spans_are_those_of_seqeval(marks):
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.metrics.sequence_labeling import get_entities

    dice = random.Random(0)
    truth = [random_tags(dice, marks) for _ in range(400)]
    guesses = [[dice.choice([tag, "O", tag, f"{marks[-1]}-PER"]) for tag in row] for row in truth]
    for row in (*truth, *guesses):
        assert spans(row) == [(begin, end + 1, kind) for kind, begin, end in get_entities(row)], row
    assert_close(span_f1(guesses, truth), seqeval.f1_score(truth, guesses))


def test_macro_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    dice = random.Random(1)
    truth = [dice.choice("aaabbc") for _ in range(300)]
    guesses = [dice.choice([tag, "a", "d"]) for tag in truth]
    assert_close(macro_f1(zip(guesses, truth, strict=True)), f1_score(truth, guesses, average="macro"))


def test_which_tags_mark_spans():
    assert marks_spans(["O", "B-PER", "I-PER"])
    assert marks_spans(["B-A", "E-A", "S-B", "O"])
    assert not marks_spans(["NOUN", "VERB"])
    assert not marks_spans(["O", "I-PER", "B"])
    assert not marks_spans(["O"])


def test_metrics_by_hand():
    truth = [["a", "b", "a"], ["b"], ["a", "a"]]
    guesses = [["a", "b", "b"], ["b"], ["a", "b"]]
    known = [[True, True, False], [True], [False, True]]
    assert tag_metrics(guesses, truth, known) == {
        "accuracy": 4 / 6,
        "unknown_accuracy": 1 / 2,
        "sentence_accuracy": 1 / 3,
        "macro_f1": (2 * 2 / (2 + 4) + 2 * 2 / (4 + 2)) / 2,
    }
    assert "unknown_accuracy" not in tag_metrics(guesses, truth, [[True] * 3, [True], [True] * 2])
    assert tag_metrics([["B-X", "I-X"]], [["B-X", "I-X"]], [[True, True]])["span_f1"] == 1.0
    with pytest.raises(ValueError, match=re.escape("no sentence came; metrics need at least one")):
        tag_metrics([], [], [])


def test_baselines():
    train = (
        [["the", "runner", "runs"], ["the", "walker", "talks"], ["the", "run"], ["run"]],
        [list("DNV"), list("DNV"), list("DN"), ["N"]],
    )
    test = ([["the", "speaker", "walks"], ["run", "x"]], [list("DNV"), list("VD")])
    plain, by_endings = tagger_baselines(train, test, [[True, False, False], [True, False]])
    # Known: the, run (N). Unknown: N, the most frequent of all, of nine.
    assert plain.metrics["accuracy"] == 2 / 5
    assert plain.metrics["unknown_accuracy"] == 1 / 3
    # speaker ends as runner, walks as talks; nothing ends as x.
    assert by_endings.metrics["accuracy"] == 3 / 5
    assert by_endings.metrics["unknown_accuracy"] == 2 / 3
