"""Texts and their summaries become a summariser, which copies the words that it does not know.

python examples/summarise.py FILE [INPUT TARGET GROUP [EPOCHS]]: a table, the names of the columns of texts and
summaries, and of one whose equal values stay in one split, such as summaries.csv description synopsis source. Without
arguments, a few descriptions of programs made up here.
"""

import sys
from itertools import product

from everloop.tasks.seq2seq import Seq2Seq

names = [
    f"{a}{b}{c}" for a, b, c in product(("pix", "net", "lib", "sim"), ("o", "a", "et"), ("ra", "do", "lyn", "box"))
]
kinds = ("viewer of pictures", "player of music", "editor of texts")
texts = [f"{name} is a small and quick {kind} for desktops . It is free ." for name, kind in product(names, kinds)]
summaries = [f"{kind} {name}" for name, kind in product(names, kinds)]

if len(sys.argv) > 1:
    input, target, group = sys.argv[2:5] or (None, None, None)
    # What is not among the 8,000 most frequent words is copied.
    model = Seq2Seq(copy=True, hidden=128, embedding=128, vocabulary=8_000, length=80, target_length=20)
    model.set_params(epochs=int(sys.argv[5]) if len(sys.argv) > 5 else 0)
    model.fit(sys.argv[1], input=input, target=target, group=group)
else:
    model = Seq2Seq(copy=True, hidden=32, embedding=16, batch=16, epochs=12, lr=0.02, vocabulary=30, beam=3)
    model.fit(texts, summaries, quiet=True)

print(model.verdict())
for name, metrics in model.results_:
    print(f"{name}: ROUGE-L {metrics['rouge_l']:.3f}")
for text in model._parts["test"].inputs[:3]:
    print(f"{text[:200]} -> {model.predict(text)[0]}")
