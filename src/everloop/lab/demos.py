"""Small networks to look at: a text that this file makes, and a generator that learns it in seconds."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.lab.problems import BRACKETS, brackets
from everloop.lab.training import chosen_cell, drawn_from

# Trained networks that are kept.
MOST = 12


@dataclass(frozen=True)
class Demo:
    """about: what the network has learned. text: an input that shows it. make: the text that it is trained on."""

    name: str
    title: str
    text: str
    make: Callable[[np.random.Generator], str]
    epochs: int

    def about(self) -> dict[str, str]:
        return {"name": self.name, "about": self.title, "text": self.text}


def _brackets(generator: np.random.Generator) -> str:
    """Lines of brackets with letters between; each ends when all are closed."""
    lines = []
    for _ in range(300):
        written, innermost = brackets(40, generator)
        last = max(k for k in range(40) if innermost[k] == 3 or k == 0)
        open_ones = [BRACKETS[k] + str(generator.choice(["", "", "a", "b"])) for k in written[: last + 1]]
        lines.append("".join(open_ones))
    return "\n".join(line for line in lines if len(line) > 2) + "\n"


def _counting(generator: np.random.Generator) -> str:
    """Lines of some letters a and as many b."""
    return "".join(f"{'a' * n}{'b' * n}\n" for n in generator.integers(1, 13, 500))


def _sine(generator: np.random.Generator) -> str:
    """A wave in letters: a is its lowest value, m its highest. Its period is another in every line."""
    lines = []
    for _ in range(200):
        period, phase = generator.uniform(9, 16), generator.uniform(0, 2 * math.pi)
        wave = np.sin(2 * np.pi * np.arange(48) / period + phase)
        lines.append("".join("abcdefghijklm"[int(v)] for v in np.rint(6 + 6 * wave)))
    return "\n".join(lines) + "\n"


NOUNS = {"dog": "dogs", "bird": "birds", "child": "children", "friend": "friends"}
VERBS = {"sings": "sing", "runs": "run", "sleeps": "sleep", "waits": "wait"}
PLACES = ("near the house", "with the red hat", "from the old town", "under the trees")


def _sentences(generator: np.random.Generator) -> str:
    """Sentences whose verb agrees with a noun some words before it; half of them are quoted."""

    def one() -> str:
        plural = bool(generator.integers(2))
        noun, verb = (str(generator.choice(list(words))) for words in (NOUNS, VERBS))
        place = f" {generator.choice(PLACES)}" if generator.random() < 0.6 else ""
        said = f"the {NOUNS[noun] if plural else noun}{place} {VERBS[verb] if plural else verb}"
        return f'"{said}"' if generator.random() < 0.5 else said

    return "".join(f"{one()}.\n" for _ in range(500))


DEMOS = {
    demo.name: demo
    for demo in (
        Demo("brackets", "brackets, each of which closes the innermost that is open", "([a]{b()})[{}]", _brackets, 60),
        Demo("counting", "letters a, and then as many letters b", "aaaaaaaabbbbbbbb", _counting, 40),
        Demo("sine", "waves in letters, from a (low) to m (high)", "gjlmlkhebaacfilmmkhdb", _sine, 80),
        Demo(
            "sentences", "sentences whose verb agrees with its noun, some in quotation marks",
            '"the dogs near the house sing".', _sentences, 60,
        ),
    )
}  # fmt: skip


@dataclass
class Trained:
    """A network of a demo. lock: one looks at it at a time."""

    demo: Demo
    task: Any
    lock: threading.Lock

    @property
    def about(self) -> str:
        (_, own), (rival, other), *_ = self.task.results_
        return (
            f"trained on {self.demo.title}: perplexity {own['perplexity']:.2f} on lines that it had not seen, "
            f"a {rival} model {other['perplexity']:.2f}"
        )


class Demos:
    """Networks of demos, trained when they are first asked for."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Trained] = {}
        self._lock = threading.Lock()

    def trained(
        self, name: str, cell: str | dict[str, str], hidden: int, layers: int, seed: int, tell: Callable[[float], None]
    ) -> Trained:
        """tell: is told the share of the training that is done, where there is one."""
        if name not in DEMOS:
            raise ValueError(f"demo: {name!r} came; expected {', '.join(DEMOS)}")
        key = (name, cell if isinstance(cell, str) else cell["text"], hidden, layers, seed)
        with self._lock:
            if key not in self._known:
                self._known[key] = _train(DEMOS[name], cell, hidden, layers, seed, tell)
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]
            return self._known[key]


def _train(
    demo: Demo, cell: str | dict[str, str], hidden: int, layers: int, seed: int, tell: Callable[[float], None]
) -> Trained:
    # A larger network needs fewer passes, and each takes longer.
    epochs = max(demo.epochs // 4, min(demo.epochs, demo.epochs * 32 // hidden))
    task = telling_generator(tell)(
        cell=chosen_cell(cell), hidden=hidden, layers=layers, embedding=16, unit="chars", epochs=epochs, window=48,
        batch=16, lr=1e-2, dropout=0.0, embedding_dropout=0.0, patience=0, seed=seed, device="cpu", threads=1,
    )  # fmt: skip
    task.fit([demo.make(np.random.default_rng(seed))], quiet=True)
    return Trained(demo, task, threading.Lock())


def telling_generator(tell: Callable[[float], None]) -> Any:
    """A generator that says how far its training is, and that others may train beside."""
    from everloop.tasks.generator import Generator

    class Telling(Generator):
        def make_network(self) -> Any:
            # All that is drawn: nothing is dropped out.
            with drawn_from(self.seed):
                return super().make_network()

        def problem(self) -> Any:
            made = super().problem()
            batches = made.batches

            def told(epoch: int) -> Any:
                tell((epoch - 1) / self.epochs_)
                return batches(epoch)

            made.batches = told  # type: ignore[method-assign]
            return made

    return Telling
