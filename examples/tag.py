"""Sentences of tagged words become a tagger.

python examples/tag.py FILE [EPOCHS]: lines of word/tag items, CoNLL-U, a word and its tag per line, or a folder with
a train and a test file of these. Without arguments, a few sentences made up here.
"""

import sys
from itertools import product

from everloop.tasks.tagger import Tagger

# 报告 and 研究 are nouns or verbs: only their neighbours tell which.
people, things, ends = ("我/r", "你/r", "他/r", "她/r", "我们/r"), ("报告/n", "研究/n"), ("很/d 好/a", "不/d 长/a")
made_up = [f"{who} 的/u {thing} {end}" for who, thing, end in product(people, things, ends)]
made_up += [f"{who} {does}/v {what}" for who, does, what in product(people, ("报告", "研究"), ("成绩/n", "问题/n"))]

real = len(sys.argv) > 1
data = sys.argv[1] if real else made_up
options = {"epochs": int(sys.argv[2]) if len(sys.argv) > 2 else 0} if real else {"hidden": 32, "batch": 8, "epochs": 20}

model = Tagger(**options).fit(data, quiet=not real)
print(model.verdict())
for words in model.read(data).inputs[:3]:
    print(model.tag(" ".join(words)))
