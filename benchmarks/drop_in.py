"""What `everloop.convert` makes of three whole programs, and of single layers, beside torch as it is.

    python benchmarks/drop_in.py [NAME ...] [--seconds 20] [--quick] [--json build/drop_in.json]

The programs are those of tests/models: a tagger, a language model, a translator, written against torch.nn. Each runs
as it is and converted, in float32 on one thread, with the sizes of its kind in the literature. An update is everything
that training does with a batch: forward, loss, backward, clipping, optimizer. Both sides get the same weights, batches
and masks, take turns, and have to arrive at the same losses before anybody is timed. Shown is the median.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import everloop
from everloop.bench.machine import machine, versions
from everloop.bench.measure import compare

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
import language_model
import tagger
import translator

BATCHES = 4
"""Different ones per program; a sample goes through them all, since their lengths differ."""
AGREE = 1e-3
"""How far, as a share, losses of a few updates in float32 may differ between two ways to round."""


@dataclass(frozen=True)
class Side:
    """One of the two: what it does in training with every batch, the losses, and what it does in use."""

    train: Callable[[], list[float]]
    use: Callable[[], object]


@dataclass(frozen=True)
class Contest:
    name: str
    shape: str
    side: Callable[[nn.Module], Side]
    model: Callable[[], nn.Module]
    calls: int = 1
    """What a call of `train` and `use` goes through, so that the table shows one."""


@dataclass(frozen=True)
class Row:
    name: str
    shape: str
    what: str
    torch: float
    everloop: float
    """Seconds, medians."""
    quartiles: dict[str, tuple[float, float]]

    @property
    def ratio(self) -> float:
        return self.torch / self.everloop


# -- programs ---------------------------------------------------------------------------------------------------------


def tag(quick: bool) -> Contest:
    """Sizes as in Huang et al. 2015 and Lample et al. 2016: 100 features a word, one to two layers of a few hundred."""
    words, tags, longest, batch, hidden = (200, 9, 10, 4, 16) if quick else (10_000, 17, 40, 32, 256)
    data = tagger.batches(BATCHES, batch, words, tags, longest)

    def side(model: Any) -> Side:
        optimizer = torch.optim.Adam(model.parameters())
        return Side(
            lambda: [tagger.update(model, optimizer, one) for one in data],
            lambda: [tagger.predict(model, one) for one in data],
        )

    steps = sum(int(lengths.sum()) for _, lengths, _ in data) / (BATCHES * batch)
    shape = f"B {batch}, T {steps:.0f} of {longest}, E 100, H {hidden}, 2 layers, both ways"
    return Contest("tagger", shape, side, lambda: tagger.Tagger(words, tags, 100, hidden), BATCHES)


def write(kind: str, quick: bool) -> Contest:
    """Sizes as in Zaremba et al. 2014: 35 words at a time, 10,000 different ones."""
    words, size, batch, steps = (200, 16, 4, 7) if quick else (10_000, 256, 32, 35)
    text = torch.randint(0, words, (steps * BATCHES + 1, batch), generator=torch.Generator().manual_seed(0))

    def side(model: Any) -> Side:
        return Side(
            lambda: language_model.train(model, text, steps),
            lambda: language_model.generate(model, text[0, :1], BATCHES),
        )

    shape = f"B {batch}, T {steps}, E = H {size}, 2 layers, {words:,} words; in use B 1, word by word"
    return Contest(
        f"language model, {kind}", shape, side, lambda: language_model.LanguageModel(kind, words, size), BATCHES
    )


def translate(quick: bool) -> Contest:
    """Sizes as in the tutorials that teach it."""
    words, longest, batch, hidden = (50, 6, 4, 16) if quick else (5_000, 20, 32, 256)
    data = translator.batches(BATCHES, batch, words, longest)

    def side(model: Any) -> Side:
        optimizer = torch.optim.Adam(model.parameters())
        return Side(
            lambda: [translator.update(model, optimizer, one) for one in data],
            lambda: [translator.translate(model, one) for one in data],
        )

    shape = f"B {batch}, T up to {longest}, E = H {hidden}, {words:,} words"
    return Contest("translator", shape, side, lambda: translator.Translator(words, words, hidden, hidden), BATCHES)


# -- layers -----------------------------------------------------------------------------------------------------------

SHAPES = ((32, 100, 128, 128), (64, 50, 256, 256), (16, 200, 64, 256), (1, 100, 256, 512))
"""B, T, I, H"""
CELLS = ((1, 256, 256), (32, 256, 256))
"""B, I, H"""


def layers(quick: bool) -> Iterator[Contest]:
    for kind, (batch, steps, width, hidden) in itertools.product(("LSTM", "GRU", "RNN"), SHAPES):
        steps = 5 if quick else steps
        shape = f"B {batch}, T {steps}, I {width}, H {hidden}"
        model = _maker(kind, width, hidden)
        yield Contest(f"nn.{kind}", shape, _layer_side(torch.randn(steps, batch, width)), model)
    for kind, (batch, width, hidden) in itertools.product(("LSTMCell", "GRUCell", "RNNCell"), CELLS):
        model = _maker(kind, width, hidden)
        yield Contest(f"nn.{kind}", f"B {batch}, I {width}, H {hidden}", _layer_side(torch.randn(batch, width)), model)


def _maker(kind: str, width: int, hidden: int) -> Callable[[], nn.Module]:
    return lambda: getattr(nn, kind)(width, hidden)


def _layer_side(x: Tensor) -> Callable[[nn.Module], Side]:
    def side(model: nn.Module) -> Side:
        leaf = x.clone().requires_grad_()

        def output(inputs: Tensor) -> Tensor:
            found = model(inputs)
            return found[0] if isinstance(found, tuple) else found

        def update() -> list[float]:
            model.zero_grad()
            leaf.grad = None
            loss = output(leaf).square().mean()
            loss.backward()
            return [loss.item()]

        @torch.no_grad()
        def use() -> Tensor:
            return output(x)

        return Side(update, use)

    return side


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(contest: Contest, seconds: float) -> list[Row]:
    plain = _seeded(contest.model)
    both = {"torch": contest.side(plain), "everloop": contest.side(everloop.convert(copy.deepcopy(plain)))}
    losses = {name: _seeded(side.train) for name, side in both.items()}
    for ours, theirs in zip(losses["everloop"], losses["torch"], strict=True):
        if abs(ours - theirs) > AGREE * abs(theirs):
            raise AssertionError(f"{contest.name}: a loss of {ours} came; expected torch's, {theirs}")
    rows = []
    for what in ("train", "use"):
        found = compare({name: getattr(side, what) for name, side in both.items()}, repeats=1000, seconds=seconds / 2)
        times = {name: figure.median / contest.calls for name, figure in found.items()}
        quartiles = {name: (figure.low / contest.calls, figure.high / contest.calls) for name, figure in found.items()}
        rows.append(Row(contest.name, contest.shape, what, times["torch"], times["everloop"], quartiles))
    return rows


def _seeded(run: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    random.seed(0)
    return run()


def settings() -> dict[str, Any]:
    return {
        "command": "python benchmarks/drop_in.py",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "threads": 1,
        "dtype": "float32",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of names, such as tagger or LSTM; all if none")
    parser.add_argument("--seconds", type=float, default=20.0, help="that each line of the table may take")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it all work here?")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    everloop.set_num_threads(1)
    print(f"{'':<22} {'':<5} {'torch':>10} {'everloop':>10} {'ratio':>6}")
    rows = []
    for contest in contests(arguments.quick):
        if not arguments.names or any(name in contest.name for name in arguments.names):
            for row in measure(contest, 0.5 if arguments.quick else arguments.seconds):
                print(_line(row), flush=True)
                rows.append(row)
    if arguments.json:
        found = settings() | {"rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def contests(quick: bool) -> Iterator[Contest]:
    yield tag(quick)
    yield write("LSTM", quick)
    yield write("GRU", quick)
    yield translate(quick)
    yield from layers(quick)


def _line(row: Row) -> str:
    times = f"{_time(row.torch)} {_time(row.everloop)} {row.ratio:>5.2f}x"
    return f"{row.name:<22} {row.what:<5} {times}  {row.shape}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:>7.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:>7.1f} us"


if __name__ == "__main__":
    main()
