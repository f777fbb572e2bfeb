"""Tasks: one folder each, discovered. A task is trained on a file and kept in a run folder."""

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


# The packages of the extra `train`, by the names under which they are imported.
TRAINING = frozenset({"pyarrow", "pydantic", "sklearn", "tomli_w", "torch"})


@cache
def _own() -> dict[str, type[Task]]:
    try:
        return _found()
    except ModuleNotFoundError as error:
        if error.name not in TRAINING:
            raise
        missing = f"this needs the package {error.name}, which is not installed: pip install 'everloop[train]'"
        raise ModuleNotFoundError(missing, name=error.name) from None


def _found() -> dict[str, type[Task]]:
    from everloop.tasks.task import Task

    found: dict[str, type[Task]] = {}
    for module in pkgutil.iter_modules(__path__):
        home = f"{__name__}.{module.name}"
        for value in vars(importlib.import_module(home)).values():
            if isinstance(value, type) and issubclass(value, Task) and value.__module__ in (home, f"{home}.task"):
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


def load(path: str | Path, device: str = "auto") -> Any:
    """The trained task of a run folder: a fitted Classifier, Generator, ...; or the layer that `save_layer` kept in a
    file, to run and stream without torch.

    Where torch is not installed, a task comes without what needs it: it predicts, generates and streams.
    """
    from everloop.tasks.run import Run

    if Path(path).is_file():
        from everloop.stream import load_layer

        return load_layer(path)
    run = Run.open(path)
    task = run.task
    try:
        found = get(task)
    except ModuleNotFoundError as error:
        if error.name not in TRAINING or device not in ("auto", "cpu"):
            raise
        from everloop.tasks import running

        return running.load(path)
    return found.from_run(run, device)
