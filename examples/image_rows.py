"""A picture read as a sequence of its rows: MNIST, or a folder with one subfolder of pictures per class.

    python examples/image_rows.py FOLDER | mnist

Without a folder: small pictures of horizontal and vertical strokes, made here.
"""

import sys

import numpy as np

from everloop import Classifier


def strokes(number: int) -> tuple[list[np.ndarray], list[str]]:
    """Grey pictures [12, 12] with one stroke each."""
    rng = np.random.default_rng(0)
    labels = [("across", "down")[k % 2] for k in range(number)]
    pictures = []
    for label in labels:
        picture = rng.integers(0, 60, (12, 12), dtype=np.uint8)
        picture[rng.integers(2, 10), 2:10] = 255
        pictures.append(picture if label == "across" else picture.T.copy())
    return pictures, labels


if len(sys.argv) > 1:
    model = Classifier(cell="gru").fit(sys.argv[1])
else:
    model = Classifier(cell="gru", hidden=16, batch=16, epochs=6).fit(*strokes(200), modality="image", quiet=True)
print(model.verdict())
