"""Tasks: one file each, discovered. A task is trained on a file and kept in a run folder."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.tasks.task import Task


@cache
def _own() -> dict[str, type[Task]]:
    from everloop.tasks.task import Task

    found: dict[str, type[Task]] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Task) and value.__module__ == f"{__name__}.{module.name}":
                found[module.name] = value
    found.pop("task")
    return found


def names() -> tuple[str, ...]:
    """The names of all tasks: those of this folder, and those of other packages (entry point `everloop.tasks`)."""
    return tuple(sorted({*_own(), *(entry.name for entry in entry_points(group="everloop.tasks"))}))


def get(name: str) -> type[Task]:
    """The task class of that name."""
    if name in _own():
        return _own()[name]
    for entry in entry_points(group="everloop.tasks"):
        if entry.name == name:
            return entry.load()
    near = difflib.get_close_matches(name, names(), 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"no task is named {name!r}; {hint}there are {', '.join(names())}")


def guess(source: str, **how: Any) -> tuple[str, str]:
    """The task that fits the data, and why. `how` as for `read_examples`."""
    from everloop.data.datasets import datasets
    from everloop.data.files import read_examples

    for dataset in datasets():
        if dataset.name == source and not Path(source).exists():
            return dataset.task, f"the dataset {dataset.name} is made for it"
    examples = read_examples(source, want_target="if there", **how)
    if examples.targets is not None:
        return "classifier", "every text has a label"
    if examples.kind == "text":
        return "generator", "it is one text, without labels"
    return "generator", "there is no label column"


def load(folder: str | Path, device: str = "auto") -> Any:
    """The trained task of a run folder: a fitted Classifier, Generator, ..."""
    from everloop.tasks.run import Run

    run = Run.open(folder)
    task = run.config.get("task")
    if not isinstance(task, str):
        raise ValueError(f"{run.folder / 'config.toml'} names no task")
    return get(task).from_run(run, device)
