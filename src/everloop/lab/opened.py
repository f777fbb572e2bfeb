"""A trained task, opened for a tab: how a text becomes what it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from everloop.lab.runs import Runs


class Opened:
    """A task that reads texts. results: what it is judged by, beside its baselines."""

    def __init__(self, task: Any, name: str = "", results: Sequence[tuple[str, str]] = ()) -> None:
        self.task, self.name, self.results = task, name, results
        # Of what is read: where texts are written as well, they have a codec of their own.
        codec = getattr(task.codec_, "source", task.codec_)
        if codec.modality not in ("text", "words"):
            raise ValueError(
                f"run: {name} reads {codec.modality}; the lab reads texts. `everloop inspect` shows the others"
            )

    @property
    def about(self) -> str:
        facts = dict(self.task.facts())
        return f"{self.name}: " + ", ".join(f"{key} {value}" for key, value in facts.items() if len(value) < 60)

    def given(self, text: str) -> Any:
        """A text as the task takes one input."""
        words = text.split() if self.task.name == "tagger" else text
        if not words:
            raise ValueError("text: nothing came; expected something to read")
        return words

    def target(self, text: str | None) -> Any:
        return text.split() if text is not None and self.task.name == "tagger" else text


Made = TypeVar("Made")


class Opening(Generic[Made]):
    """The runs that a tab has opened: each has a network of its own. The last few are kept.

    make: what is kept of one.
    """

    def __init__(self, runs: Runs, make: Callable[[Opened], Made], most: int = 3) -> None:
        self._runs, self._make, self._most = runs, make, most
        self._known: dict[str, Made] = {}

    def open(self, name: str) -> Made:
        if name not in self._known:
            task = self._runs.load(name)
            self._known[name] = self._make(Opened(task, name, self._runs.results(name, task.judged_by)))
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
        return self._known[name]
