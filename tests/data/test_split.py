"""Splits that share out every row once, in proportion, and batches of similar length."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.data.examples import Examples
from everloop.data.split import (
    Split,
    length_buckets,
    split_blocks,
    split_examples,
    split_groups,
    split_in_blocks,
    split_rows,
)

SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.3])


@settings(deadline=None)
@given(n=st.integers(3, 300), seed=st.integers(0, 99), valid=SHARES, test=SHARES, classes=st.integers(0, 5))
def test_every_row_is_in_one_split(n, seed, valid, test, classes):
    targets = [i % classes for i in range(n)] if classes else None
    split = split_rows(n, seed=seed, valid=valid, test=test, targets=targets)
    assert sorted(split.train + split.valid + split.test) == list(range(n))
    for rows, share in ((split.valid, valid), (split.test, test)):
        assert len(rows) == (max(1, round(n * share)) if share else 0)
        assert rows == sorted(rows)
    assert split.train


def test_a_seed_fixes_the_split():
    assert split_rows(1000, seed=1) == split_rows(1000, seed=1)
    assert split_rows(1000, seed=1) != split_rows(1000, seed=2)
    targets = ["a", "b"] * 500
    assert split_rows(1000, seed=1, targets=targets) == split_rows(1000, seed=1, targets=targets)
    assert split_rows(1000, seed=1, targets=targets) != split_rows(1000, seed=2, targets=targets)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) >= 10),
    seed=st.integers(0, 99),
)
def test_each_label_has_its_share_of_every_split(sizes, seed):
    targets = [label for label, size in enumerate(sizes) for _ in range(size)]
    split = split_rows(len(targets), seed=seed, valid=0.2, test=0.2, targets=targets)
    for rows in (split.train, split.valid, split.test):
        counts = Counter(targets[i] for i in rows)
        for label, size in enumerate(sizes):
            assert abs(counts[label] - size * len(rows) / len(targets)) < 2


def test_the_last_row_of_a_label_stays_in_training():
    targets = ["a", "b", "c", "c", "d", "d", *["common"] * 44]
    for seed in range(20):
        split = split_rows(50, seed=seed, targets=targets)
        assert {targets[i] for i in split.train} == set(targets)
    alone = split_rows(10, seed=0, targets=list(range(10)))
    assert (len(alone.train), len(alone.valid), len(alone.test)) == (8, 1, 1)


@pytest.mark.parametrize("split", [lambda n, **shares: split_rows(n, seed=0, **shares), split_blocks])
@pytest.mark.parametrize(
    ("n", "shares", "words"),
    [
        (2, {}, "2 {} came; at least 3 {} are needed for training and shares of 0.1 for validation"),
        (0, {}, "0 {} came; at least 3 {} are needed"),
        (1, {"test": 0}, "1 {} came; at least 2 {} are needed"),
        (9, {"valid": 0.9, "test": 0.0}, None),
        (3, {"valid": 0.45, "test": 0.45}, None),
        (2, {"valid": 0.9, "test": 0.0}, "at least 5 {} are needed"),
        (10, {"valid": 0.5, "test": 0.5}, "valid=0.5 and test=0.5 came; expected shares of 0 or more"),
        (10, {"valid": -0.1}, "valid=-0.1 and test=0.1 came"),
    ],
)
def test_too_few_rows(split, n, shares, words):
    if words is None:
        split(n, **shares)
        return
    unit = "steps" if split is split_blocks else "rows"
    with pytest.raises(ValueError, match=re.escape(words.replace("{}", unit))):
        split(n, **shares)


def test_targets_of_another_length():
    with pytest.raises(ValueError, match="2 targets came for 3 rows; expected one target per row"):
        split_rows(3, seed=0, targets=["a", "b"])


@settings(deadline=None)
@given(n=st.integers(3, 3000), valid=SHARES, test=SHARES, blocks=st.integers(1, 12))
def test_blocks_cover_a_text_once_and_end_with_the_test(n, valid, test, blocks):
    train, held, (last,) = split_blocks(n, valid, test, blocks)
    assert last == slice(n - (max(1, round(n * test)) if test else 0), n)
    assert sum(part.stop - part.start for part in held) == (max(1, round(n * valid)) if valid else 0)
    assert len(held) <= blocks
    covered = sorted(step for part in (*train, *held, last) for step in range(part.start, part.stop))
    assert covered == list(range(n))


def test_blocks_are_spread_and_the_test_follows_training():
    train, held, (last,) = split_blocks(10_000, valid=0.1, test=0.1, blocks=10)
    assert [part.start // 900 for part in held] == list(range(10))
    assert train[-1].stop == last.start


def test_splits_cannot_be_changed():
    with pytest.raises(AttributeError):
        Split([0], [1], [2]).train = []  # pyright: ignore[reportAttributeAccessIssue]


class TestLengthBuckets:
    @settings(deadline=None)
    @given(lengths=st.lists(st.integers(0, 40), max_size=200), batch_size=st.integers(1, 7))
    def test_every_index_once(self, lengths, batch_size):
        batches = length_buckets(lengths, batch_size, np.random.default_rng(0))
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        assert all(1 <= len(batch) <= batch_size for batch in batches)

    def test_little_padding_and_random_order(self):
        lengths = np.random.default_rng(0).integers(1, 100, 5_000).tolist()
        batches = length_buckets(lengths, 32, np.random.default_rng(1))
        padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
        assert padded < 1.05 * sum(lengths)
        longest = [max(lengths[i] for i in batch) for batch in batches]
        assert longest != sorted(longest)
        assert batches == length_buckets(lengths, 32, np.random.default_rng(1))
        assert batches != length_buckets(lengths, 32, np.random.default_rng(2))

    def test_a_batch_has_a_size(self):
        with pytest.raises(ValueError, match="batch_size=0 came; expected 1 or more"):
            length_buckets([1, 2], 0, np.random.default_rng(0))


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=3, max_size=30), seed=st.integers(0, 9))
def test_groups_stay_whole(sizes, seed):
    groups = [k for k, size in enumerate(sizes) for _ in range(size)]
    if len(groups) < 12:
        return
    split = split_groups(groups, seed=seed)
    assert sorted(split.train + split.valid + split.test) == list(range(len(groups)))
    assert split.train
    assert split.valid
    assert split.test
    homes = [{groups[k] for k in part} for part in (split.train, split.valid, split.test)]
    assert sum(map(len, homes)) == len(sizes)


def test_too_few_groups():
    with pytest.raises(ValueError, match="2 groups came for 40 rows; expected at least one for each split"):
        split_groups(["a", "b"] * 20, seed=0)


@settings(deadline=None)
@given(n=st.integers(60, 600), gap=st.integers(0, 4), seed=st.integers(0, 9))
def test_blocks_keep_their_distance(n, gap, seed):
    split = split_in_blocks(n, seed=seed, gap=gap)
    home = dict.fromkeys(split.train, "train") | dict.fromkeys(split.valid, "valid") | dict.fromkeys(split.test, "test")
    for k, part in home.items():
        assert all(home.get(k + near, part) == part for near in range(1, gap + 1))
    assert len(split.test) <= n / 3 + 1, "few blocks only where gaps are wide"


def test_data_may_bring_their_split():
    parts = ["test", "train", "train", "valid", "train", "test"]
    examples = Examples(list("abcdef"), None, "lists", "lists", list(range(6)), parts=parts)
    assert split_examples(examples, seed=0) == Split([1, 2, 4], [3], [0, 5])
    parts = ["test"] + ["train"] * 19
    examples = Examples(
        ["a"] * 20, None, "lists", "lists", list(range(20)), parts=parts, groups=["g"] * 10 + ["h"] * 10
    )
    split = split_examples(examples, seed=0)
    assert split.test == [0]
    assert split.valid in ([*range(1, 10)], [*range(10, 20)])
    with pytest.raises(ValueError, match="no example is marked test"):
        split_examples(Examples(["a"], None, "lists", "lists", [1], parts=["train"]), seed=0)
