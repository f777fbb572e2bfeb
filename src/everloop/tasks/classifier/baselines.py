"""Baselines of a classifier: the majority class, and a regression on n-grams."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from everloop.tasks.baseline import Baseline, mean_loss

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

MOST_FEATURES = 200_000
MOST_WEIGHTS = 2_000_000


def classifier_baselines(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    test_labels: Sequence[str],
    *,
    unit: Literal["chars", "words", "subwords"],
) -> list[Baseline]:
    """The majority class and a logistic regression on n-grams, with accuracy, macro_f1 and loss in nats.

    `unit` is what the model beside them reads: a model that reads characters stands beside character
    n-grams, any other beside words. A test label that never occurs in training counts as wrong, and its loss
    is that of probability 1 / (training examples + 1), so that no baseline gets an infinite loss. The
    regression is left out where there is nothing to learn: only one class, or no token in any training text.
    """
    _check_pairs("train", train_texts, train_labels)
    _check_pairs("test", test_texts, test_labels)
    baselines = [majority(train_labels, test_labels)]
    regression = _regression(train_texts, train_labels, test_texts, test_labels, unit == "chars")
    return baselines if regression is None else [*baselines, regression]


def _check_pairs(split: str, texts: Sequence[str], labels: Sequence[str]) -> None:
    if len(texts) != len(labels):
        raise ValueError(f"{split}: {len(texts)} texts came with {len(labels)} labels; give one label per text")
    if not len(texts):
        raise ValueError(f"{split}: there are no examples; a baseline needs at least one")


def majority(train_labels: Sequence[str], test_labels: Sequence[str]) -> Baseline:
    """The most frequent class, always, with the shares of the classes as probabilities."""
    start = time.perf_counter()
    counts = Counter(train_labels)
    # Of equally frequent classes the first by name, so that the order of the rows does not matter.
    classes = sorted(counts)
    frequencies = np.array([counts[name] for name in classes]) / len(train_labels)
    probabilities = np.tile(frequencies, (len(test_labels), 1))
    metrics = _metrics(classes, probabilities, test_labels, len(train_labels))
    return Baseline("majority class", metrics, time.perf_counter() - start)


def _regression(
    train_texts: Sequence[str],
    train_labels: Sequence[str],
    test_texts: Sequence[str],
    test_labels: Sequence[str],
    by_character: bool,
) -> Baseline | None:
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    classes = sorted(set(train_labels))
    column = {name: index for index, name in enumerate(classes)}
    longest = _longest_ngram(train_texts, by_character)
    vectorizer = _vectorizer(by_character, longest, len(classes))
    analyze = vectorizer.build_analyzer()
    if len(classes) < 2 or not any(analyze(text) for text in train_texts):
        return None
    features = vectorizer.fit_transform(train_texts)
    # On sparse text this solver is 3 to 50 times faster than the others, and as good to the third decimal.
    passes = max(10, min(100, 3_000 // len(classes)))
    model = LogisticRegression(C=10.0, solver="saga", tol=1e-3, max_iter=passes, random_state=0)
    with warnings.catch_warnings():
        # That it stops a little short of the optimum, or that classes are many, is no news to the reader.
        warnings.simplefilter("ignore", UserWarning)
        model.fit(features, [column[label] for label in train_labels])
    probabilities = model.predict_proba(vectorizer.transform(test_texts))
    metrics = _metrics(classes, probabilities, test_labels, len(train_labels))
    unit = f"character 1- to {longest}-grams" if by_character else "word unigrams and bigrams"
    return Baseline(f"logistic regression on {unit}", metrics, time.perf_counter() - start)


def _longest_ngram(texts: Sequence[str], by_character: bool) -> int:
    if not by_character:
        return 2
    # Five letters reach a word. Two Chinese characters do already, and longer n-grams of so many different
    # characters cost time and gain nothing; on much text they would cost minutes and gigabytes.
    is_alphabetic = len(set().union(*texts)) < 500
    return 5 if is_alphabetic and sum(map(len, texts)) <= 3_000_000 else 3


def _vectorizer(by_character: bool, longest: int, classes: int) -> TfidfVectorizer:
    """Measured on held-out training texts, English and Chinese reviews: tf-idf with logarithmic counts and
    C = 10 beat binary counts and every other C, in accuracy and in loss."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Most n-grams occur once and teach nothing: the frequent ones do, and keep time and memory bounded.
    features = max(1_000, min(MOST_FEATURES, MOST_WEIGHTS // classes))
    options: dict[str, Any] = {"ngram_range": (1, longest), "sublinear_tf": True, "max_features": features}
    if by_character:
        return TfidfVectorizer(analyzer="char", **options)
    # Chinese and Japanese put no spaces between words, so there every character counts as a word.
    unspaced = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    return TfidfVectorizer(token_pattern=rf"[{unspaced}]|[^\W{unspaced}]+", **options)


def _metrics(
    classes: list[str], probabilities: np.ndarray, test_labels: Sequence[str], examples: int
) -> dict[str, float]:
    predicted = [classes[best] for best in probabilities.argmax(axis=1)]
    column = {name: index for index, name in enumerate(classes)}
    truths = [
        row[column[label]] if label in column else 1 / (examples + 1)
        for row, label in zip(probabilities, test_labels, strict=True)
    ]
    hits = Counter(guess for guess, label in zip(predicted, test_labels, strict=True) if guess == label)
    return {
        "accuracy": hits.total() / len(test_labels),
        "macro_f1": _macro_f1(hits, Counter(test_labels), Counter(predicted)),
        "loss": mean_loss(np.array(truths)),
    }


def _macro_f1(hits: Counter[str], truths: Counter[str], predictions: Counter[str]) -> float:
    """The mean F1 of all labels that occur among the truths or the predictions, as scikit-learn has it."""
    labels = truths.keys() | predictions.keys()
    return sum(2 * hits[name] / (truths[name] + predictions[name]) for name in labels) / len(labels)
