"""Baselines of a generator: interpolated n-grams."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from everloop.tasks.baseline import Baseline, mean_loss

LONGEST_ORDER = 10
MOST_TOKENS = 4_000_000


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
    loss = mean_loss(next(islice(models, chosen - 1, None)))
    name = f"{chosen}-gram, Kneser-Ney"
    if len(train) < len(train_ids):
        name += f", on the last {len(train):,} of {len(train_ids):,} training tokens"
    metrics = {"loss": loss, "perplexity": float(np.exp(loss))}
    return Baseline(name, metrics, time.perf_counter() - start)


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
        loss = mean_loss(probabilities)
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
