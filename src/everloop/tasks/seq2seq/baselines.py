"""What plain counting and copying write: the nearest training input's target, the first words, the commonest answer."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from everloop.tasks.baseline import Baseline
from everloop.tasks.seq2seq.metrics import Metric, text_scores

MOST_FEATURES = 200_000
MOST_ANSWERS = 100
FIRST = (*range(1, 13), 15, 20, 30)
"""Numbers of first words that are tried."""

Known = tuple[Sequence[Any], Sequence[str], Sequence[np.ndarray]]
"""Training inputs, their targets, and their steps as numbers."""


def seq2seq_baselines(
    train: Known,
    valid: tuple[Sequence[Any], Sequence[str]],
    test: tuple[Sequence[Any], Sequence[Sequence[str]], Sequence[np.ndarray]],
    *,
    metric: Metric,
    unit: str | None,
    same_language: bool,
) -> list[Baseline]:
    """For test inputs with their references:

    - phrase memory: the target of the training input that is nearest by tf-idf of its n-grams; of other modalities, by
      the mean of its steps
    - the most frequent target, and where few answers come again, a logistic regression on words
    - of texts in the same language: the whole input, and its first words, as many as are best on the validation split

    unit: what the model reads its texts as, None for inputs that are no texts.
    """
    train_inputs, train_texts, train_steps = train
    inputs, references, steps = test
    answers = metric == "exact_match"

    def judged(name: str, write: Callable[[], Sequence[str]]) -> Baseline:
        start = time.perf_counter()
        metrics = text_scores(list(write()), references, answers=answers)
        return Baseline(name, {metric: metrics[metric], **metrics}, time.perf_counter() - start)

    found = [judged("most frequent target", lambda: _most_frequent(train_texts, len(inputs)))]
    if unit is None:
        found.append(judged("nearest by mean", lambda: _nearest_by_mean(train_steps, train_texts, steps)))
        return found
    before, now = [_text(given) for given in train_inputs], [_text(given) for given in inputs]
    if answers and 2 <= len(set(train_texts)) <= MOST_ANSWERS:
        found.append(judged("logistic regression on words", lambda: _regression(before, train_texts, now, unit)))
    else:
        found.append(judged("phrase memory", lambda: _nearest(before, train_texts, now, unit)))
    if same_language and not answers:
        known = [_text(given) for given in valid[0]]
        count = _best_count(known, valid[1], metric)
        found.append(judged(f"first {count} words", lambda: [_first_words(text, count) for text in now]))
        found.append(judged("copy of the input", lambda: now))
    return found


def _most_frequent(texts: Sequence[str], count: int) -> list[str]:
    """Of equally frequent ones the first by name."""
    seen = Counter(texts)
    return [min(seen, key=lambda text: (-seen[text], text))] * count


def _nearest(known: Sequence[str], targets: Sequence[str], asked: Sequence[str], unit: str) -> list[str]:
    vectorizer = _vectorizer(unit)
    try:
        memory = vectorizer.fit_transform(known)
    except ValueError:  # scikit-learn's word for texts without any word
        return [targets[0]] * len(asked)
    nearest = []
    for begin in range(0, len(asked), 256):
        similar = vectorizer.transform(asked[begin : begin + 256]) @ memory.T
        nearest += np.asarray(similar.argmax(1)).ravel().tolist()
    return [str(targets[k]) for k in nearest]


def _nearest_by_mean(known: Sequence[np.ndarray], targets: Sequence[str], asked: Sequence[np.ndarray]) -> list[str]:
    memory, now = (
        np.stack([steps.mean(0) for steps in several]).reshape(len(several), -1) for several in (known, asked)
    )
    scale = memory.std(0) + 1e-6
    memory, now = memory / scale, now / scale
    distances = (memory**2).sum(1) - 2 * now @ memory.T
    return [str(targets[k]) for k in distances.argmin(1)]


def _regression(known: Sequence[str], targets: Sequence[str], asked: Sequence[str], unit: str) -> list[str]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(_vectorizer(unit), LogisticRegression(C=10.0, max_iter=200))
    with warnings.catch_warnings():
        # That it stops a little short of the optimum is no news to the reader.
        warnings.simplefilter("ignore", UserWarning)
        model.fit(known, targets)
    return [str(answer) for answer in model.predict(asked)]


def _vectorizer(unit: str) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    options: dict[str, Any] = {"ngram_range": (1, 3), "sublinear_tf": True, "max_features": MOST_FEATURES}
    if unit == "chars":
        return TfidfVectorizer(analyzer="char", **options)
    return TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", **options)


def _best_count(inputs: Sequence[str], targets: Sequence[str], metric: Metric) -> int:
    """How many first words are the best target, on at most 500 pairs."""
    some, references = inputs[:500], [[target] for target in targets[:500]]

    def reached(count: int) -> float:
        return text_scores([_first_words(text, count) for text in some], references, answers=False)[metric]

    return max(FIRST, key=reached)


def _first_words(text: str, count: int) -> str:
    return " ".join(text.split()[:count])


def _text(given: Any) -> str:
    return given if isinstance(given, str) else " ".join(given)
