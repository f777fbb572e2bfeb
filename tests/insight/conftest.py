"""A small trained classifier, to look into."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from everloop import Classifier

GOOD, BAD = ("great", "clever", "warm"), ("dull", "boring", "slow")
REST = ("a", "film", "story", "plot", "with", "and", "the", "music", "scene", "quite", "some", "of")


def toy_texts(count: int) -> tuple[list[str], list[str]]:
    """Words that say nothing, and two that say it all."""
    dice, texts, labels = random.Random(0), [], []
    for k in range(count):
        words = dice.choices(REST, k=dice.randint(6, 14))
        for word in dice.sample(BAD if k % 2 else GOOD, 2):
            words.insert(dice.randrange(len(words) + 1), word)
        texts.append(" ".join(words))
        labels.append("negative" if k % 2 else "positive")
    return texts, labels


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a classifier in both directions, with its data beside it. To be read only."""
    folder = tmp_path_factory.mktemp("inside")
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(*toy_texts(400), strict=True))
    task = Classifier(
        hidden=6, embedding=8, epochs=15, dropout=0.2, ngrams=0, min_count=1, unit="words", batch=16, lr=0.01
    )
    task.fit(folder / "texts.csv", out=folder / "run", quiet=True)
    assert task.results_[0][1]["accuracy"] > 0.9
    return folder / "run"
