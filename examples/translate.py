"""Pairs of sentences become a translator, and show what it looked at.

python examples/translate.py FILE [EPOCHS [back]]: a sentence, a tab and its translation on each line, such as
tatoeba_en_zh.tsv; back: from the second language to the first. Without arguments, numbers in words made up here.
"""

import sys
from itertools import product
from pathlib import Path

from everloop.tasks.seq2seq import Seq2Seq

tens = {"twenty": "zwanzig", "thirty": "dreißig", "forty": "vierzig", "fifty": "fünfzig", "sixty": "sechzig"}
ones = {"one": "ein", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs", "seven": "sieben"}
# German says the ones first.
english = [f"{a} {b} {what}" for (a, b), what in product(product(tens, ones), ("cats", "dogs", "trees"))]
words = tens | ones | {"cats": "Katzen", "dogs": "Hunde", "trees": "Bäume"}
german = [f"{words[b]} und {words[a]} {words[what]}" for a, b, what in map(str.split, english)]

if len(sys.argv) > 1:
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    sources, targets = zip(*(line.split("\t")[:2] for line in lines), strict=True)
    if "back" in sys.argv:
        sources, targets = targets, sources
    model = Seq2Seq(epochs=int(sys.argv[2]) if len(sys.argv) > 2 else 0).fit(sources, targets)
else:
    model = Seq2Seq(hidden=48, embedding=24, batch=16, epochs=12, lr=0.02, min_count=1, beam=3)
    model.fit(english, german, quiet=True)

print(model.verdict())
for name, metrics in model.results_:
    print(f"{name}: BLEU {metrics['bleu']:.1f}, chrF {metrics['chrf']:.1f}")
print(*model.signatures_, sep="\n")
tests = model._parts["test"]
for sentence in tests.inputs[:10]:
    print(f"{sentence} -> {model.predict(sentence)[0]}")
attended = model.attend(tests.inputs[0])
for piece, weights in zip(attended.written, attended.weights, strict=True):
    print(f"{piece!r} was written with an eye on {attended.read[weights.argmax()]!r}")
