"""Honest baselines: what plain counting gets on the same split, to stand beside every trained model."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

LONGEST_ORDER = 10
MOST_TOKENS = 4_000_000
MOST_FEATURES = 200_000
MOST_WEIGHTS = 2_000_000


@dataclass(frozen=True)
class Baseline:
    """One baseline: its name, its metrics on the test split, and the seconds it took to fit and score."""

    name: str
    metrics: dict[str, float]
    seconds: float


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
    baselines = [_majority(train_labels, test_labels)]
    regression = _regression(train_texts, train_labels, test_texts, test_labels, unit == "chars")
    return baselines if regression is None else [*baselines, regression]


def ngram_baseline(
    train_ids: np.ndarray, test_ids: np.ndarray, *, vocabulary: int, order: int | None = None
) -> Baseline:
    """An interpolated n-gram language model (modified Kneser-Ney) over token ids `[T]` below `vocabulary`.

    The loss is the mean of nats per test token, each predicted from up to order - 1 test tokens before it
    and the first one from no context. Without an order, the one that predicts the last tenth of the training
    tokens best is taken. At most the last 4 million training tokens are used; the name says so if some are
    not.

    Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1998.
    """
    _check_ids("train_ids", train_ids, vocabulary)
    _check_ids("test_ids", test_ids, vocabulary)
    if order is not None and order < 1:
        raise ValueError(f"order is {order}; an n-gram model has an order of at least 1")
    start = time.perf_counter()
    train = np.asarray(train_ids[-MOST_TOKENS:], dtype=np.int64)
    test = np.asarray(test_ids, dtype=np.int64)
    chosen = _best_order(train, vocabulary) if order is None else order
    models = _probabilities_by_order(train, test, vocabulary)
    loss = _loss(next(islice(models, chosen - 1, None)))
    name = f"{chosen}-gram, Kneser-Ney"
    if len(train) < len(train_ids):
        name += f", on the last {len(train):,} of {len(train_ids):,} training tokens"
    metrics = {"loss": loss, "perplexity": float(np.exp(loss))}
    return Baseline(name, metrics, time.perf_counter() - start)


# Classification.


def _check_pairs(split: str, texts: Sequence[str], labels: Sequence[str]) -> None:
    if len(texts) != len(labels):
        raise ValueError(f"{split}: {len(texts)} texts came with {len(labels)} labels; give one label per text")
    if not len(texts):
        raise ValueError(f"{split}: there are no examples; a baseline needs at least one")


def _majority(train_labels: Sequence[str], test_labels: Sequence[str]) -> Baseline:
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
        "loss": _loss(np.array(truths)),
    }


def _macro_f1(hits: Counter[str], truths: Counter[str], predictions: Counter[str]) -> float:
    """The mean F1 of all labels that occur among the truths or the predictions, as scikit-learn has it."""
    labels = truths.keys() | predictions.keys()
    return sum(2 * hits[name] / (truths[name] + predictions[name]) for name in labels) / len(labels)


def _loss(probabilities: np.ndarray) -> float:
    return float(np.log(1 / np.maximum(probabilities, np.finfo(np.float64).tiny)).mean())


# Language modelling.


@dataclass(frozen=True)
class _Level:
    """The distinct n-grams of one length in the training tokens, and which of them stand where.

    An n-gram is known by its place in `keys`; its key is (number of its first n - 1 tokens) * vocabulary +
    last token. Numbers are at most the count of training tokens, so that a key fits 64 bits at any length.
    """

    keys: np.ndarray  # [N], sorted
    counts: np.ndarray  # [N]
    first: np.ndarray  # [N], the first place of each in train_numbers
    contexts: int  # how many distinct (n - 1)-grams there are
    train_numbers: np.ndarray  # [T - n + 1], the n-gram that starts at each training token
    test_numbers: np.ndarray  # [S], the n-gram that ends at each test token; -1 where training has none
    test_contexts: np.ndarray  # [S], the (n - 1)-gram before each test token; -1 where training has none


def _check_ids(name: str, ids: np.ndarray, vocabulary: int) -> None:
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{name} is {ids.dtype} of shape {ids.shape}; expected integers of shape [T]")
    if not len(ids):
        raise ValueError(f"{name} is empty; a language model needs at least one token")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ValueError(
            f"{name} has ids from {ids.min()} to {ids.max()}; "
            f"with a vocabulary of {vocabulary} they must lie from 0 to {vocabulary - 1}"
        )


def _best_order(train: np.ndarray, vocabulary: int) -> int:
    held_out = len(train) // 10
    if not held_out:
        return 1
    best, best_loss = 1, np.inf
    models = _probabilities_by_order(train[:-held_out], train[-held_out:], vocabulary)
    for order, probabilities in enumerate(islice(models, LONGEST_ORDER), start=1):
        loss = _loss(probabilities)
        if loss >= best_loss:
            break
        best, best_loss = order, loss
    return best


def _probabilities_by_order(train: np.ndarray, test: np.ndarray, vocabulary: int) -> Iterator[np.ndarray]:
    """The probability of every test token `[S]` under the models of order 1, 2, 3, ... in turn.

    The models share all but their highest level, so each order costs one more level and no model is kept.
    Beyond the length of the training tokens there are no n-grams, and the last model is repeated.
    """
    lower = np.full(len(test), 1 / vocabulary)
    level = _first_level(train, test, vocabulary)
    length = 1
    while length < len(train):
        longer = _next_level(level, length, train, test, vocabulary)
        yield _interpolate(level, level.counts, lower, vocabulary)
        lower = _interpolate(level, _continuations(level, longer), lower, vocabulary)
        level, length = longer, length + 1
    last = _interpolate(level, level.counts, lower, vocabulary)
    while True:
        yield last


def _first_level(train: np.ndarray, test: np.ndarray, vocabulary: int) -> _Level:
    # Before a single token stands one context, the empty one, whose number is 0.
    return _level(train, np.zeros_like(test), test, 1, vocabulary)


def _next_level(level: _Level, length: int, train: np.ndarray, test: np.ndarray, vocabulary: int) -> _Level:
    train_keys = level.train_numbers[:-1] * vocabulary + train[length:]
    test_contexts = np.concatenate([[-1], level.test_numbers[:-1]])
    return _level(train_keys, test_contexts, test, len(level.keys), vocabulary)


def _level(
    train_keys: np.ndarray, test_contexts: np.ndarray, test: np.ndarray, contexts: int, vocabulary: int
) -> _Level:
    keys, first, numbers, counts = np.unique(train_keys, return_index=True, return_inverse=True, return_counts=True)
    test_keys = test_contexts * vocabulary + test
    places = np.minimum(np.searchsorted(keys, test_keys), len(keys) - 1)
    test_numbers = np.where((keys[places] == test_keys) & (test_contexts >= 0), places, -1)
    return _Level(keys, counts, first, contexts, numbers, test_numbers, test_contexts)


def _continuations(level: _Level, longer: _Level) -> np.ndarray:
    """After how many different tokens each n-gram occurs: what Kneser-Ney puts in place of its plain count
    at all levels but the highest."""
    endings = level.train_numbers[1:][longer.first]
    # An n-gram that only begins the training tokens has no token before it, but did occur.
    return np.maximum(np.bincount(endings, minlength=len(level.keys)), 1)


def _interpolate(level: _Level, counts: np.ndarray, lower: np.ndarray, vocabulary: int) -> np.ndarray:
    """Take a discount off every count of a context, and share what was taken out as the lower order would."""
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    contexts = level.keys // vocabulary
    totals = np.bincount(contexts, counts, minlength=level.contexts)[level.test_contexts]
    taken = np.bincount(contexts, discounts, minlength=level.contexts)[level.test_contexts]
    kept = np.where(level.test_numbers >= 0, (counts - discounts)[level.test_numbers], 0.0)
    known = (level.test_contexts >= 0) & (totals > 0)
    return np.where(known, (kept + taken * lower) / np.where(known, totals, 1.0), lower)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What to take off a count of 0, 1, 2, and 3 or more: Chen and Goodman's estimate from how many n-grams
    were counted once to four times."""
    once, twice, thrice, four_times = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    # Few tokens or a small vocabulary leave a gap in those numbers, and the estimate undefined.
    if not (once and twice and thrice and four_times):
        return np.array([0.0, 0.5, 1.0, 1.5])
    share = once / (once + 2 * twice)
    estimates = [
        1 - 2 * share * twice / once,
        2 - 3 * share * thrice / twice,
        3 - 4 * share * four_times / thrice,
    ]
    return np.array([0.0, *np.clip(estimates, 0.05, [0.95, 1.95, 2.95])])
