"""Signals of unequal length become a classifier, which then follows a signal while it is still coming in.

    python examples/signals.py FILE.ts | FOLDER with NAME_TRAIN.ts and NAME_TEST.ts | FILE.npz | FILE.csv

Without a file: slow and fast waves, made here. A .csv has one sequence a row, and the label in a column of its own.
"""

import sys

import numpy as np

from everloop import Classifier

OPTIONS = {"cell": "gru", "bidirectional": False}


def waves(number: int) -> tuple[list[np.ndarray], list[str]]:
    """Sines of one or two periods in two channels, of 20 to 39 steps."""
    rng = np.random.default_rng(0)
    labels = [("slow", "fast")[k % 2] for k in range(number)]
    signals = []
    for label in labels:
        time = np.linspace(0, 2 * np.pi, rng.integers(20, 40)) * (1 if label == "slow" else 2)
        wave = np.stack([np.sin(time + rng.uniform(0, 6)), np.cos(time)], 1)
        signals.append(wave + 0.3 * rng.normal(size=wave.shape))
    return signals, labels


if len(sys.argv) > 1:
    path = sys.argv[1]
    model = Classifier(**OPTIONS).fit(path, modality="vectors" if path.endswith(".csv") else "auto")
else:
    signals, labels = waves(200)
    model = Classifier(**OPTIONS, hidden=16, batch=16, epochs=12).fit(signals, labels, quiet=True)
print(model.verdict())

if len(sys.argv) < 2:
    live = model.stream()
    for step, values in enumerate(signals[1], start=1):
        probabilities = live.push(values)
        if step % 5 == 0:
            print(step, {name: round(float(p), 2) for name, p in zip(model.classes_, probabilities, strict=True)})
