"""A text becomes a model of its next word, and goes on from a beginning.

python examples/next_word.py FILE [BEGINNING]. Without a file, sentences put together here. The trigrams that it is
measured against are Kneser-Ney's, on the same words of the same split.
"""

import random
import sys
from itertools import product
from pathlib import Path

from everloop import Generator

real = len(sys.argv) > 1
sentences = [
    f"{who} {does} {what}.\n"
    for who, does, what in product(
        ("the king", "a servant", "his brother"),
        ("went up unto", "came out of", "looked upon"),
        ("the city", "the river", "the mountain", "his house"),
    )
]
random.Random(0).shuffle(sentences)
text = Path(sys.argv[1]).read_text("utf-8") if real else "".join(6 * sentences)
options = (
    {"hidden": 320, "embedding": 256, "window": 48, "dropout": 0.4, "embedding_dropout": 0.2, "lr": 4e-3, "epochs": 6}
    if real
    else {"hidden": 32, "embedding": 32, "window": 16, "batch": 4, "epochs": 8, "lr": 2e-2}
)
model = Generator(unit="words", tied=True, averaging=0.995, **options).fit([text], quiet=not real)
for name, metrics in model.results_:
    print(f"{name:20} perplexity {metrics['perplexity']:.1f}")

beginning = sys.argv[2] if len(sys.argv) > 2 else "the king"
stream = model.stream(beginning)
likely = stream.probabilities.argsort()[::-1][:5]
print(f"after {beginning!r}:", [model.codec_.piece(int(k)) for k in likely])
print(model.generate(beginning, length=40, temperature=0.7, seed=1))
