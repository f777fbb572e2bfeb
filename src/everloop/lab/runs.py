"""The run folders that the page may open: those in one folder, by name, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Runs:
    """The run folders of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def about(self) -> list[dict[str, str]]:
        """Name and task of each that has a trained model, in the order of names."""
        from everloop.tasks.run import Run

        found = []
        for name in self.names():
            try:
                run = Run.open(self.folder / name)
                if isinstance(run.state.get("fitted"), dict):
                    found.append({"name": name, "task": run.task})
            except (ValueError, OSError) as error:
                found.append({"name": name, "task": "", "error": str(error)})
        return found

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if (path / "run.json").is_file())

    def load(self, name: str) -> Any:
        """The trained task of a run. Only a name that is listed is looked for: none leads out of the folder."""
        from everloop.tasks import load

        return load(self.folder / self._known(name), device="cpu")

    def results(self, name: str, metric: str) -> list[tuple[str, str]]:
        """That metric of the test split, of the model and of its baselines."""
        path = self.folder / self._known(name) / "results.json"
        if not path.is_file():
            return []
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [(f"{metric}, {rival}", f"{row[metric]:.4g}") for rival, row in rows.items() if metric in row]

    def _known(self, name: str) -> str:
        names = self.names()
        if name not in names:
            there = ", ".join(names) or f"none: train one with --out {self.folder}/NAME"
            raise ValueError(f"run: {name!r} came; there are {there}")
        return name
