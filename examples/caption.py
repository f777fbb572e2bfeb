"""Pictures become captions. Without arguments: shapes that are drawn here. With one: a folder of pictures, each beside
a .txt of the same name, or a table with a column of picture files and one of captions; or the dataset `emoji`.

    python examples/caption.py FOLDER [SHEET.png]
"""

import itertools
import random
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from everloop.data.image import load
from everloop.insight.contact_sheet import contact_sheet
from everloop.tasks.seq2seq import Seq2Seq

COLOURS = ("red", "green", "blue", "orange")
SHAPES = {"circle": "ellipse", "square": "rectangle"}


def draw_shapes(folder: Path, copies: int = 40) -> Path:
    """Pictures such as "a red circle", each somewhere else."""
    dice = random.Random(0)
    for k, (colour, shape) in itertools.product(range(copies), itertools.product(COLOURS, SHAPES)):
        x, y, size = dice.randint(0, 8), dice.randint(0, 8), dice.randint(10, 15)
        image = Image.new("RGB", (24, 24), "white")
        getattr(ImageDraw.Draw(image), SHAPES[shape])((x, y, x + size, y + size), fill=colour)
        image.save(folder / f"{colour}-{shape}-{k}.png")
        (folder / f"{colour}-{shape}-{k}.txt").write_text(f"a {colour} {shape}")
    return folder


if len(sys.argv) > 1:
    data = sys.argv[1]
    options = {"metric": "chrf", "batch": 32, "epochs": 60, "patience": 0, "averaging": 0.99}
    options |= {"mirror": True, "turn": 10, "zoom": 0.2, "colour": 0.1}
else:
    data = draw_shapes(Path(tempfile.mkdtemp()))
    options = {"metric": "exact_match", "batch": 16, "epochs": 16, "lr": 0.01, "hidden": 32, "embedding": 32}

model = Seq2Seq(target_unit="words", dropout=0.1, **options)
model.fit(data, quiet=True)
print(model.verdict())

examples = model.read(data)
test = examples.take(model.make_split(examples).test)
pictures, truths = test.inputs[:48], test.targets[:48]
captions = model.predict(pictures)
for caption, truth in list(zip(captions, truths, strict=True))[:6]:
    print(f"{caption:30}  {truth}")
if len(sys.argv) > 2:
    Path(sys.argv[2]).write_bytes(
        contact_sheet([load(path) for path in pictures], list(zip(captions, truths, strict=True)))
    )
