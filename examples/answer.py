"""Stories and questions about them become a reader that answers.

python examples/answer.py FILE [TASK [EPOCHS]]: an archive of bAbI, such as babi_en.tar.xz, and which of its tasks, 1 to
20. Without arguments, a few stories made up here.
"""

import sys
from itertools import permutations, product

from everloop.data.sets.babi import babi
from everloop.tasks.seq2seq import Seq2Seq

places = ("kitchen", "garden", "office", "hall")
stories = [
    (f"Mary went to the {one}. John went to the {other}.", who, one if who == "Mary" else other)
    for (one, other), who in product(permutations(places, 2), ("Mary", "John"))
]
made_up = {
    "question": [f"Where is {who}?" for _, who, _ in stories] * 6,
    "story": [story for story, _, _ in stories] * 6,
    "answer": [answer for _, _, answer in stories] * 6,
}

if len(sys.argv) > 1:
    data = babi(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    how = {"part": "part", "group": "group"}
    options = {"hidden": 64, "embedding": 64, "epochs": int(sys.argv[3]) if len(sys.argv) > 3 else 40}
    options |= {"lr": 5e-3, "length": 2_000, "patience": 0}
else:
    data, how = made_up, {}
    options = {"hidden": 32, "embedding": 16, "epochs": 10, "lr": 0.02}

# Most answers are words of the story: to copy them is far easier to learn than to name them.
model = Seq2Seq(copy=True, batch=16, min_count=1, dropout=0.1, smoothing=0.0, beam=1, metric="exact_match", **options)
model.fit(data, input="story,question", target="answer", quiet=len(sys.argv) == 1, **how)
print(model.verdict())
tests = model._parts["test"]
for (story, question), answer in list(zip(tests.inputs, tests.texts, strict=True))[:3]:
    print(f"{story} {question} {model.predict([(story, question)])[0]} (it is {answer})")
