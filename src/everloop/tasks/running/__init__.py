"""Trained tasks where there is no torch: one file each, named like the task, discovered.

What a task needs to run is here and nowhere else; the tasks themselves, which train, use it as well.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from everloop.tasks.run import Run


def names() -> tuple[str, ...]:
    """The tasks that run without torch."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(folder: str | Path) -> Any:
    """The trained task of a run folder, to predict, generate and stream with; torch is not looked for."""
    run = Run.open(folder)
    task = run.task
    if task not in names():
        raise ModuleNotFoundError(
            f"{run.folder} is a {task}, which needs torch to run: pip install 'everloop[train]'", name="torch"
        )
    return importlib.import_module(f"{__name__}.{task}").load(run)
