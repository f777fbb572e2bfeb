"""The applications: a task, a modality and a file each, with the options that they are run with in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        from everloop.data import datasets

        found = datasets.get(name)
        if not found.installed:
            found.get(say=print)
        return (str(found.path), {}) if found.file else (name, {})

    return source


APPLICATIONS: list[Application] = []
