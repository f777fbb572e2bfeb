"""Clips become sentences, "a seven moves left, then up", and labels. The test asks for digits on paths that no clip of
training showed.

Without arguments: a few clips of the digits that come with scikit-learn. With one: clips of those in a folder of idx
files, such as MNIST's.

    python examples/video.py FOLDER
"""

import sys

import numpy as np

from everloop import Classifier
from everloop.data import read_examples
from everloop.data.sets.moving_digits import Digits, moving_digits
from everloop.tasks.seq2seq import Seq2Seq


def little_digits() -> tuple[Digits, Digits]:
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    pictures = (pictures.reshape(-1, 8, 8) * 15.9).astype(np.uint8)
    return Digits(pictures[:1400], labels[:1400]), Digits(pictures[1400:], labels[1400:])


def digits_of(folder: str) -> tuple[Digits, Digits]:
    read = read_examples(folder)
    rows = {part: [k for k, its in enumerate(read.parts) if its == part] for part in ("train", "test")}
    train, test = (
        Digits(np.stack([read.inputs[k] for k in rows[part]]), [int(read.targets[k]) for k in rows[part]])
        for part in ("train", "test")
    )
    return train, test


if len(sys.argv) > 1:
    digits, clips, options = digits_of(sys.argv[1]), (6_000, 500, 1_000), {"epochs": 16, "batch": 32}
else:
    digits, clips, options = little_digits(), (160, 40, 40), {"epochs": 2, "batch": 16}

captioned = moving_digits(*digits, clips=clips)
teller = Seq2Seq(hidden=128, embedding=128, target_unit="words", metric="exact_match", **options)
teller.fit(captioned, quiet=True)
print(teller.verdict())
test = [k for k, part in enumerate(captioned.parts) if part == "test"][:5]
for said, truth in zip(teller.predict([captioned.inputs[k] for k in test]), test, strict=True):
    print(f"{said:40}  {captioned.targets[truth]}")

labelled = moving_digits(*digits, clips=clips, target="path")
labeller = Classifier(hidden=64, **options).fit(labelled, quiet=True)
print(labeller.verdict())
