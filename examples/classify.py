"""Lists of labelled texts become a classifier, a run folder, and predictions."""

import tempfile
from pathlib import Path

from everloop import Classifier, load

good = ["great fun", "a warm and clever film", "great acting", "clever and great", "warm fun", "fun and warm"]
bad = ["dull and slow", "a boring mess", "slow acting", "boring and dull", "a dull mess", "slow and boring"]
texts = [f"{text} number {k}" for k in range(20) for text in (*good, *bad)]
labels = ["positive" if text.rsplit(" number ")[0] in good else "negative" for text in texts]

folder = Path(tempfile.mkdtemp()) / "run"
model = Classifier(hidden=16, embedding=32, batch=16).fit(texts, labels, out=folder, quiet=True)
print(model.verdict())
print(load(folder).predict(["a clever film", "what a boring mess"]))
