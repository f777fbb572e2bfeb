"""Splitting examples into training, validation and test, and batching them by length.

The test split is for the last number only; early stopping and choices look at the validation split.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from everloop.data.examples import Examples

_BATCHES_PER_CHUNK = 50


@dataclass(frozen=True)
class Split:
    train: list[int]
    valid: list[int]
    test: list[int]


def split_examples(
    examples: Examples,
    *,
    seed: int,
    valid: float = 0.1,
    test: float = 0.1,
    targets: Sequence[Hashable] | None = None,
    blocks: bool = False,
    gap: int = 0,
) -> Split:
    """The split of any examples: their own parts where they bring them, whole groups where they have some, else
    contiguous blocks or rows at random.

    Where the data fix a test but no validation part, that is taken from training. targets: what random rows are
    stratified by. blocks: for rows that resemble their neighbours; `gap` rows on either side of a block are in none.
    """
    if examples.parts is not None:
        return _of_parts(examples, examples.parts, seed, valid, targets)
    if examples.groups is not None:
        return split_groups(examples.groups, seed=seed, valid=valid, test=test)
    if blocks:
        return split_in_blocks(len(examples), seed=seed, valid=valid, test=test, gap=gap)
    return split_rows(len(examples), seed=seed, valid=valid, test=test, targets=targets)


def _of_parts(
    examples: Examples, parts: list[str], seed: int, valid: float, targets: Sequence[Hashable] | None
) -> Split:
    rows = {part: [k for k, its in enumerate(parts) if its == part] for part in ("train", "valid", "test")}
    for part in ("train", "test"):
        if not rows[part]:
            raise ValueError(f"{examples.source}: no example is marked {part}; there are {dict(Counter(parts))}")
    if rows["valid"]:
        return Split(rows["train"], rows["valid"], rows["test"])
    train = rows["train"]
    if examples.groups is not None:
        inner = split_groups([examples.groups[k] for k in train], seed=seed, valid=valid, test=0.0)
    else:
        of = None if targets is None else [targets[k] for k in train]
        inner = split_rows(len(train), seed=seed, valid=valid, test=0.0, targets=of)
    return Split([train[k] for k in inner.train], [train[k] for k in inner.valid], rows["test"])


def split_groups(groups: Sequence[Hashable], *, seed: int, valid: float = 0.1, test: float = 0.1) -> Split:
    """Share out whole groups at random, until test and validation have about their share of the rows."""
    sizes = Counter(groups)
    n_valid, n_test = _sizes(len(groups), valid, test, "rows")
    if len(sizes) < 1 + (n_valid > 0) + (n_test > 0):
        raise ValueError(
            f"{len(sizes)} group{'s' if len(sizes) > 1 else ''} came for {len(groups):,} rows; "
            "expected at least one for each split"
        )
    names = list(sizes)
    waiting = [names[k] for k in np.random.default_rng(seed).permutation(len(names))]
    chosen: dict[Hashable, str] = {}
    for part, wanted, left in (("test", n_test, 1 + (n_valid > 0)), ("valid", n_valid, 1)):
        taken = 0
        while wanted and len(waiting) > left and (not taken or taken + sizes[waiting[-1]] / 2 <= wanted):
            name = waiting.pop()
            chosen[name], taken = part, taken + sizes[name]
    parts = [chosen.get(group, "train") for group in groups]
    return Split(*([k for k, its in enumerate(parts) if its == part] for part in ("train", "valid", "test")))


def split_in_blocks(
    n: int, *, seed: int, valid: float = 0.1, test: float = 0.1, gap: int = 0, blocks: int = 20
) -> Split:
    """Cut n rows into blocks of neighbours and share these out; `gap` rows before and after a block that is not for
    training are left out of training, so that no row resembles one of another split."""
    n_valid, n_test = _sizes(n, valid, test, "rows")
    blocks = max(3, min(blocks, n // max(1, 4 * gap + 1)))
    edges = [n * k // blocks for k in range(blocks + 1)]
    order = np.random.default_rng(seed).permutation(blocks).tolist()
    parts = np.full(n, "train", dtype=object)
    for part, wanted in (("test", n_test), ("valid", n_valid)):
        for _ in range(max(1, round(wanted * blocks / n)) if wanted else 0):
            k = order.pop()
            parts[edges[k] : edges[k + 1]] = part
    changes = np.flatnonzero(parts[1:] != parts[:-1]) + 1
    near = np.zeros(n, dtype=bool)
    for change in changes:
        near[max(0, change - gap) : change + gap] = True
    # A test block loses no row where only training is beside it: those of training go.
    lost = near & (parts == "train")
    for change in changes:
        if "train" not in (parts[change - 1], parts[change]):
            lost[max(0, change - gap) : change] = True
    parts[lost] = "none"
    found = Split(*(np.flatnonzero(parts == part).tolist() for part in ("train", "valid", "test")))
    if not (found.train and (found.valid or not valid) and (found.test or not test)):
        raise ValueError(f"{n:,} rows in {blocks} blocks with gaps of {gap} leave a split empty; choose a smaller gap")
    return found


def split_rows(
    n: int, *, seed: int, valid: float = 0.1, test: float = 0.1, targets: Sequence[Hashable] | None = None
) -> Split:
    """Share out the rows 0..n-1 at random: the same for the same seed, each split in ascending order.

    With targets, every split has its share of each label's rows, to within two, and the last row of a label
    stays in training as long as others can go. ValueError when a split that was asked for would be empty.
    """
    if targets is not None and len(targets) != n:
        raise ValueError(f"{len(targets):,} targets came for {n:,} rows; expected one target per row")
    n_valid, n_test = _sizes(n, valid, test, "rows")
    order = np.random.default_rng(seed).permutation(n).tolist()
    groups: dict[Hashable, list[int]] = {}
    for row in order:
        groups.setdefault(None if targets is None else targets[row], []).append(row)
    in_test = _take(list(groups.values()), n_test)
    in_valid = _take(list(groups.values()), n_valid)
    in_train = [row for rows in groups.values() for row in rows]
    return Split(sorted(in_train), sorted(in_valid), sorted(in_test))


def split_blocks(
    n: int, valid: float = 0.1, test: float = 0.1, blocks: int = 10
) -> tuple[list[slice], list[slice], list[slice]]:
    """Cut one long text of n steps: the end is the test; validation is a few blocks spread evenly over the rest.

    Validation is then like the whole, and what comes just before the test is trained on, as anybody would who
    wants to go on from there. A text whose parts differ (plays, chapters) is misjudged by its last part alone.
    """
    n_valid, n_test = _sizes(n, valid, test, "steps")
    rest = n - n_test
    blocks = max(1, min(blocks, n_valid, rest // 2))
    train: list[slice] = []
    held: list[slice] = []
    begin = 0
    for k in range(blocks):
        size = n_valid * (k + 1) // blocks - n_valid * k // blocks
        middle = rest * (2 * k + 1) // (2 * blocks) - size // 2
        train.append(slice(begin, middle))
        held.append(slice(middle, middle + size))
        begin = middle + size
    train.append(slice(begin, rest))
    return [part for part in train if part.start < part.stop], held, [slice(rest, n)]


def length_buckets(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """Batches of sequences of similar length, in random order; every index comes exactly once.

    Sorting only inside chunks of 50 batches leaves most of the randomness, and little padding.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} came; expected 1 or more")
    known = np.asarray(lengths)
    order = rng.permutation(len(known))
    batches: list[list[int]] = []
    chunk_size = batch_size * _BATCHES_PER_CHUNK
    for start in range(0, len(order), chunk_size):
        chunk = order[start : start + chunk_size]
        chunk = chunk[np.argsort(known[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size].tolist() for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _sizes(n: int, valid: float, test: float, unit: str) -> tuple[int, int]:
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise ValueError(
            f"valid={valid} and test={test} came; expected shares of 0 or more that leave some for training"
        )
    n_valid, n_test = (max(1, round(n * share)) if share > 0 else 0 for share in (valid, test))
    if n - n_valid - n_test < 1:
        needed = _fewest(valid, test)
        raise ValueError(
            f"{n:,} {unit} came; at least {needed:,} {unit} are needed for training and shares of "
            f"{valid:g} for validation and {test:g} for test"
        )
    return n_valid, n_test


def _fewest(valid: float, test: float) -> int:
    """The smallest n that gives each split something; because of the rounding it is searched for."""
    n = 1
    while n - sum(max(1, round(n * share)) for share in (valid, test) if share > 0) < 1:
        n += 1
    return n


def _take(groups: list[list[int]], size: int) -> list[int]:
    """Remove so many rows from the groups in proportion to their lengths, and return them.

    What rounding down leaves to take comes from the groups with the largest remainders, one row each; a group
    that would be emptied comes last.
    """
    total = sum(map(len, groups))
    shares = [len(rows) * size // total for rows in groups]
    remainders = [len(rows) * size % total for rows in groups]
    order = sorted(range(len(groups)), key=lambda i: (len(groups[i]) - shares[i] <= 1, -remainders[i]))
    for i in order[: size - sum(shares)]:
        shares[i] += 1
    taken: list[int] = []
    for rows, share in zip(groups, shares, strict=True):
        taken += rows[:share]
        del rows[:share]
    return taken
