"""Tang quatrains become a poet, which is given a title, or a title and a first line.

python examples/poems.py FOLDER: poet.tang.*.json of the npm package chinese-poetry (dist/quantangshi), which spells
everything in traditional characters. Without a folder, lines put together from a few words here.

    python examples/poems.py FOLDER TITLE [FIRST LINE]
"""

import json
import re
import sys
from itertools import product
from pathlib import Path

from everloop import Generator

TITLES = ("春山", "秋江", "夜雨", "送別")


def quatrains(folder: Path) -> list[str]:
    """The poems of four lines of 5 or of 7 characters: the title, then a line each."""
    poems = [poem for file in sorted(folder.glob("poet.tang.*.json")) for poem in json.loads(file.read_text("utf-8"))]
    texts = [f"{poem['title']}\n" + "\n".join(lines_of("".join(poem["paragraphs"]))) for poem in poems]
    return [text for text in texts if form(text)]


def lines_of(verses: str) -> list[str]:
    return [line for line in re.split("[，。！？；、\n]", verses) if line]


def form(text: str) -> int:
    """5 or 7 where a text is a title and four lines of that many Chinese characters each, else 0."""
    title, *lines = text.rstrip("\n").split("\n")
    kinds = {len(line) for line in lines if re.fullmatch("[\u3400-\u9fff]+", line)}
    whole = title and len(lines) == 4 and all(re.fullmatch("[\u3400-\u9fff]+", line) for line in lines)
    return kinds.pop() if whole and kinds in ({5}, {7}) else 0


def made_up() -> list[str]:
    places, sights, ends = ("山中", "江上", "門前", "雲外"), ("月", "風", "花", "雪"), ("不見人", "照夜明", "又一春")
    lines = [a + b + c[1:] for a, b, c in product(places, sights, ends)]
    starts = product(TITLES, range(len(lines)))
    return [f"{title}\n" + "\n".join(lines[(start + 5 * k) % len(lines)] for k in range(4)) for title, start in starts]


real = len(sys.argv) > 1
poems = quatrains(Path(sys.argv[1])) if real else made_up()
if real:
    options = {"hidden": 320, "embedding": 160, "tied": True, "dropout": 0.3, "averaging": 0.995, "epochs": 6}
else:
    options = {"hidden": 48, "embedding": 16, "batch": 4, "window": 48, "epochs": 24, "lr": 2e-2}
model = Generator(unit="chars", **options).fit(poems, quiet=not real)
print(model.verdict())

prompt = "\n".join(sys.argv[2:]) if len(sys.argv) > 2 else TITLES[0]
prompts = [f"{prompt}\n"] * 4 + [f"{title}\n" for title in TITLES for _ in range(50 if real else 3)]
written = model.generate_batch(prompts, length=60, temperature=0.7, seed=1)
print("\n".join(written[:4]))
kept = [form(text) for text in written[4:]]
print(
    f"{sum(map(bool, kept))} of {len(kept)} are four lines of 5 ({kept.count(5)}) or of 7 characters ({kept.count(7)})"
)
