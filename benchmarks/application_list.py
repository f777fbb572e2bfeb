"""The applications: a task, a modality and a file each, with the options that they are run with in full."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from everloop.data import datasets, read_examples
from everloop.insight.metrics import is_better, lower_is_better

Source = Callable[[Path, int], tuple[Any, Any]]
"""(folder of the plain files, seed) -> data for `fit`, and how to read it; None and why it is not here."""


@dataclass(frozen=True, kw_only=True)
class Application:
    """metric: what it is judged by. wanted: what it should reach. published: a figure of others, with its source.
    also: what else to measure on the fitted task, for the page."""

    name: str
    title: str
    about: str
    task: str
    data: Source
    command: str
    metric: str
    wanted: float | None
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    published: str = ""
    also: Callable[[Any], dict[str, str]] | None = None

    @property
    def lower_is_better(self) -> bool:
        return lower_is_better(self.metric)

    def reaches(self, value: float) -> bool:
        assert self.wanted is not None
        return value == self.wanted or is_better(self.metric, value, self.wanted)


def file(name: str, **how: Any) -> Source:
    """A plain file, or folder, of --data."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        path = folder / name
        return (str(path), how) if path.exists() else (None, f"there is no {name} in --data")

    return source


def dataset(name: str) -> Source:
    """A dataset by name, fetched when it is not there yet."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        found = datasets.get(name)
        if found.recipe is not None:
            path = fetched(name)
            return (str(path), {}) if found.file else (name, {})
        return name, {}

    return source


def babi(task: int) -> Source:
    """Stories, questions and answers of one task."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        from everloop.data.babi import babi as read

        path = folder / "babi" / "babi_en.tar.xz"
        if not path.exists():
            return None, "there is no babi/babi_en.tar.xz in --data"
        return read(path, task), {"input": "story,question", "target": "answer", "part": "part", "group": "group"}

    return source


def digit_strings(unknown: str | None) -> Source:
    """Digits spoken in a row, written into a folder that is gone when the process ends."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        from everloop.data.spoken_digits import write_digit_strings

        recordings = folder / "fsdd" / "recordings"
        if not recordings.is_dir():
            return None, "there is no fsdd/recordings in --data"
        place = tempfile.TemporaryDirectory()
        atexit.register(place.cleanup)
        table = write_digit_strings(recordings, place.name, unknown=unknown, seed=seed)
        return table, {"input": "audio", "target": "text", "part": "part", "group": "speaker"}

    return source


def moving(target: Literal["caption", "digit", "path"]) -> Source:
    """Clips of digits of MNIST on paths; those of the test were in no clip of training."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        from everloop.data.moving_digits import Digits, moving_digits

        read = read_examples(str(fetched("mnist")))
        assert read.parts is not None
        assert read.targets is not None
        by_part = []
        for part in ("train", "test"):
            rows = [k for k, its in enumerate(read.parts) if its == part]
            by_part.append(Digits(np.stack([read.inputs[k] for k in rows]), [int(read.targets[k]) for k in rows]))
        return moving_digits(*by_part, seed=seed, target=target), {}

    return source


def fetched(name: str) -> Path:
    """The folder of a dataset, fetched when it is not there yet."""
    found = datasets.get(name)
    if not found.installed:
        found.get(say=print)
    return found.path


APPLICATIONS: list[Application] = []
