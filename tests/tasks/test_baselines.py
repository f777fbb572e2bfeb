"""The baselines: fair numbers on easy data, sane ones on odd data, probabilities that sum to one."""

import csv
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from everloop.tasks.baseline import Baseline
from everloop.tasks.classifier.baselines import classifier_baselines
from everloop.tasks.generator.baselines import _best_order, _discounts, _probabilities_by_order, ngram_baseline

SHARED = Path(__file__).parents[3] / "shared" / "data"

GOOD = [
    "a good film",
    "really good",
    "good good fun",
    "so very good",
    "a good one",
    "good story",
    "good, good",
]
BAD = ["a bad film", "really bad", "bad bad mess", "so very bad", "a bad one", "bad story", "bad, bad"]
LABELS = ["pos"] * len(GOOD) + ["neg"] * len(BAD)


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not there: it lies in shared/data beside a developer's checkout")
    return path


def word_ids(text: str) -> tuple[np.ndarray, int]:
    words = text.split()
    numbers = {word: number for number, word in enumerate(sorted(set(words)))}
    return np.array([numbers[word] for word in words]), len(numbers)


# Classification.


@pytest.mark.parametrize("unit", ["chars", "words", "subwords"])
def test_regression_learns_what_a_word_gives_away(unit):
    majority, regression = classifier_baselines(
        GOOD + BAD, LABELS, ["good night", "bad luck"], ["pos", "neg"], unit=unit
    )
    assert majority.name == "majority class"
    assert majority.metrics == pytest.approx({"accuracy": 0.5, "macro_f1": 1 / 3, "loss": np.log(2)})
    assert regression.metrics["accuracy"] == regression.metrics["macro_f1"] == 1.0
    assert regression.metrics["loss"] < majority.metrics["loss"]
    assert ("character" in regression.name) == (unit == "chars")


def test_words_of_a_text_without_spaces_are_its_characters():
    texts = ["这部电影很好", "味道真好", "房间太差了", "服务很差", "好", "差"]
    labels = ["pos", "pos", "neg", "neg", "pos", "neg"]
    _, regression = classifier_baselines(texts, labels, ["天气好", "质量差"], ["pos", "neg"], unit="words")
    assert regression.metrics["accuracy"] == 1.0


def test_macro_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    labels = ["a", "b", "c", "b"]
    (majority, *_) = classifier_baselines(["x y"] * 3, ["b", "b", "a"], ["x"] * 4, labels, unit="words")
    expected = f1_score(labels, ["b"] * 4, average="macro")
    assert majority.metrics["macro_f1"] == pytest.approx(expected)


def test_many_classes_some_seen_once_and_one_never():
    names = [f"class{number}" for number in range(40)]
    texts = [f"word{number} again" for number in range(40)]
    test_texts, test_labels = ["word3", "word7 again", "nothing known"], ["class3", "class7", "unheard of"]
    majority, regression = classifier_baselines(texts, names, test_texts, test_labels, unit="words")
    assert regression.metrics["accuracy"] == pytest.approx(2 / 3)
    assert majority.metrics["loss"] == pytest.approx((2 * np.log(40) + np.log(41)) / 3)
    assert all(np.isfinite(value) for value in regression.metrics.values())


def test_texts_without_a_known_token_get_a_probability_all_the_same():
    _, regression = classifier_baselines(GOOD + BAD, LABELS, ["", "?!"], ["pos", "neg"], unit="words")
    assert regression.metrics["loss"] == pytest.approx(np.log(2), rel=0.1)


def test_nothing_to_learn_leaves_the_majority_alone():
    one_class = classifier_baselines(["a b", "c d"], ["x", "x"], ["a"], ["x"], unit="words")
    no_token = classifier_baselines(["?", "!"], ["x", "y"], ["a"], ["x"], unit="words")
    empty = classifier_baselines(["", ""], ["x", "y"], [""], ["x"], unit="chars")
    assert [baseline.name for baseline in one_class + no_token + empty] == ["majority class"] * 3
    assert one_class[0].metrics == {"accuracy": 1.0, "macro_f1": 1.0, "loss": 0.0}


def test_examples_must_be_there_and_in_pairs():
    with pytest.raises(ValueError, match="train: 2 texts came with 1 labels"):
        classifier_baselines(["a", "b"], ["x"], ["a"], ["x"], unit="words")
    with pytest.raises(ValueError, match="test: there are no examples"):
        classifier_baselines(["a"], ["x"], [], [], unit="words")


def test_english_reviews_reach_what_ngrams_are_known_to_reach():
    with shared("reviews_mr.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    texts, labels = zip(*(rows[place] for place in np.random.default_rng(0).permutation(len(rows))), strict=True)
    _, regression = classifier_baselines(texts[1066:], labels[1066:], texts[:1066], labels[:1066], unit="words")
    assert regression.metrics["accuracy"] > 0.76
    assert regression.metrics["loss"] < 0.48


# Language modelling.


def probabilities(train: list[int], test: list[int], vocabulary: int, order: int) -> np.ndarray:
    models = _probabilities_by_order(np.array(train), np.array(test), vocabulary)
    return next(islice(models, order - 1, None))


def test_a_unigram_worked_by_hand():
    # 0 1 0 1 0: counts 3 and 2, so discounts 1.5 and 1.0; the 2.5 taken are shared over three tokens.
    expected = [(1.5 + 2.5 / 3) / 5, (1.0 + 2.5 / 3) / 5, (2.5 / 3) / 5]
    np.testing.assert_allclose(probabilities([0, 1, 0, 1, 0], [0, 1, 2], 3, 1), expected)


def test_a_bigram_worked_by_hand():
    # Each of 0 and 1 follows one other token: lower order (0.5 + 1/3) / 2 = 5/12, and 1/6 for 2.
    # After 0: 1 twice, discount 1; so (1 + 5/12) / 2 for 1, (5/12) / 2 for 0 and (1/6) / 2 for 2.
    after_0 = probabilities([0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 2], 3, 2)
    np.testing.assert_allclose(after_0[[0, 1, 3, 5]], [5 / 12, 17 / 24, 5 / 24, 1 / 12])
    after_the_unseen = probabilities([0, 1, 0, 1, 0], [2, 0], 3, 2)
    np.testing.assert_allclose(after_the_unseen, [1 / 6, 5 / 12])


def test_discounts_are_chen_and_goodmans():
    # 8, 4, 2 and 1 n-grams were seen once, twice, three and four times: Y = 8 / (8 + 2 * 4) = 1/2.
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 3])
    np.testing.assert_allclose(_discounts(counts), [0, 1 - 2 / 4, 2 - 3 / 4, 3 - 4 / 4])


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
def test_probabilities_sum_to_one_in_every_context(order):
    rng = np.random.default_rng(0)
    vocabulary = 12
    train = (rng.random(3000) ** 2 * 11).astype(int)  # token 11 is never seen
    seen = [train[place : place + 8].tolist() for place in rng.integers(0, len(train) - 8, 30)]
    at_the_end_only = train[-8:].tolist()
    unseen = [[11] * 8, [*rng.integers(0, 11, 7).tolist(), 11], rng.integers(0, 11, 8).tolist()]
    for context in [*seen, at_the_end_only, *unseen]:
        test = [token for last in range(vocabulary) for token in [*context, last]]
        of_last = probabilities(train.tolist(), test, vocabulary, order)[8::9]
        assert of_last.min() > 0
        assert of_last.sum() == pytest.approx(1.0, abs=1e-9)


def test_vectorised_counts_are_those_of_a_plain_loop():
    rng = np.random.default_rng(1)
    train, test = rng.integers(0, 4, 400).tolist(), rng.integers(0, 5, 50).tolist()
    pairs = list(pairwise(train))
    left = {token: len({first for first, last in pairs if last == token}) for token in range(5)}
    lower = {token: plain(left, token, 1 / 5) for token in range(5)}
    expected = [lower[test[0]]]
    everything = [pairs.count((first, last)) for first in range(5) for last in range(5)]
    for before, token in pairwise(test):
        after = {last: pairs.count((before, last)) for last in range(5)}
        expected.append(plain(after, token, lower[token], everything) if sum(after.values()) else lower[token])
    np.testing.assert_allclose(probabilities(train, test, 5, 2), expected)


def plain(counts: dict[int, int], token: int, lower: float, all_counts: list[int] | None = None) -> float:
    """Kneser-Ney for one token, by the fixed discounts that apply when too few n-grams are rare."""
    all_counts = list(counts.values()) if all_counts is None else all_counts
    assert not all(all_counts.count(number) for number in (1, 2, 3, 4))
    discounts = {seen: min(seen, 3) * 0.5 for seen in range(max(counts.values()) + 1)}
    taken = sum(discounts[seen] for seen in counts.values())
    return (counts[token] - discounts[counts[token]] + taken * lower) / sum(counts.values())


def test_loss_and_perplexity_are_of_the_same_mean():
    ids, vocabulary = word_ids("the cat sat on the mat and the dog sat on the cat")
    baseline = ngram_baseline(ids, ids, vocabulary=vocabulary, order=2)
    assert isinstance(baseline, Baseline)
    assert baseline.name == "2-gram, Kneser-Ney"
    assert baseline.metrics["perplexity"] == pytest.approx(np.exp(baseline.metrics["loss"]))


def test_order_is_chosen_from_training_tokens():
    # A cycle of four needs two tokens of context at its repeated token, and never more.
    cycle = np.array([0, 1, 0, 2] * 500)
    assert _best_order(cycle, 3) >= 3
    noise = np.random.default_rng(0).integers(0, 50, 2000)
    assert _best_order(noise, 50) == 1
    assert _best_order(np.array([0]), 3) == 1


def test_an_order_beyond_the_training_tokens_is_no_error():
    baseline = ngram_baseline(np.array([0, 1]), np.array([1, 0, 2]), vocabulary=3, order=9)
    assert np.isfinite(baseline.metrics["loss"])


def test_training_tokens_are_bounded_and_the_name_says_so(monkeypatch):
    monkeypatch.setattr("everloop.tasks.generator.baselines.MOST_TOKENS", 40)
    old, new = np.zeros(60, dtype=np.int64), np.ones(40, dtype=np.int64)
    baseline = ngram_baseline(np.concatenate([old, new]), new[:5], vocabulary=2, order=1)
    assert baseline.name == "1-gram, Kneser-Ney, on the last 40 of 100 training tokens"
    assert baseline.metrics["loss"] < 0.1


def test_ids_are_checked():
    good = np.array([0, 1])
    with pytest.raises(ValueError, match="test_ids is empty"):
        ngram_baseline(good, good[:0], vocabulary=2)
    with pytest.raises(ValueError, match="train_ids has ids from 0 to 1"):
        ngram_baseline(good, good, vocabulary=1)
    with pytest.raises(ValueError, match="expected integers of shape"):
        ngram_baseline(good[None], good, vocabulary=2)
    with pytest.raises(ValueError, match="order is 0"):
        ngram_baseline(good, good, vocabulary=2, order=0)


def test_shakespeare_by_characters():
    text = shared("tinyshakespeare.txt").read_text(encoding="utf-8")
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    ids = np.array([alphabet[character] for character in text])
    cut = len(ids) * 9 // 10
    train, test = ids[:cut], ids[cut:]
    unigram = ngram_baseline(train, test, vocabulary=len(alphabet), order=1)
    best = ngram_baseline(train, test, vocabulary=len(alphabet))
    assert best.name == "7-gram, Kneser-Ney"
    assert best.metrics["loss"] < 1.52 < 3.3 < unigram.metrics["loss"]
