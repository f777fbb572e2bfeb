"""The run folder: everything about one training, and all that a trained model needs.

    config.toml             every option; `everloop train --config` repeats the run
    run.json                format, versions, status, sizes, and the sha256 of the files below
    model.safetensors       the best weights
    codec.json              how input becomes numbers (target_codec.json: targets, where they are texts)
    cell.py                 the cell, if it was read from a text (else config.toml has its name)
    metrics.csv             one row per epoch
    results.json            the test split: the model beside its baselines
    checkpoint.safetensors  what --resume goes on from
    report.html             the same for reading

Files are written whole or not at all: a full disk or a crash leaves the last good one. Nothing here is pickled.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import everloop

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FORMAT = 1
CELL = "cell.py"
CHECKED = ("model.safetensors", "checkpoint.safetensors", "codec.json", "target_codec.json", CELL)


@dataclass(frozen=True)
class Run:
    """A run folder, open for writing and reading."""

    folder: Path

    # Making and opening

    @staticmethod
    def create(folder: Path, config: Mapping[str, Any]) -> Run:
        """A new run folder. One that exists and is not empty is left alone."""
        import tomli_w

        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(folder)
        run.write_text("config.toml", tomli_w.dumps(dict(config)))
        run.update(format=FORMAT, everloop=everloop.__version__, status="training")
        return run

    @staticmethod
    def open(folder: str | Path) -> Run:
        """A run folder that exists, after a look at its format."""
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no run folder {folder}")
        if not (folder / "run.json").is_file():
            raise FileNotFoundError(f"{folder} is not a run folder: it has no run.json")
        run = Run(folder)
        version = run.state.get("format")
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"{folder / 'run.json'}: format {version!r} came; expected a number of 1 or more")
        if version > FORMAT:
            raise ValueError(
                f"{folder} was written by Everloop {run.state.get('everloop', '?')} in run format {version}; "
                f"this is Everloop {everloop.__version__}, which reads formats up to {FORMAT}. "
                "Upgrade it: pip install --upgrade everloop"
            )
        return run

    @property
    def state(self) -> dict[str, Any]:
        return self._json("run.json")

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as it was written."""
        return _read_config(self.folder / "config.toml")

    @property
    def task(self) -> str:
        """The name of the task that was trained."""
        task = self.config.get("task")
        if not isinstance(task, str):
            raise ValueError(f"{self.folder / 'config.toml'} names no task")
        return task

    @property
    def fitted(self) -> dict[str, Any]:
        """What the task noted when it looked at its data."""
        fitted = self.state.get("fitted")
        if not isinstance(fitted, dict):
            raise ValueError(f"{self.folder / 'run.json'} has no entry 'fitted': the run was stopped before training")
        return fitted

    def update(self, **entries: Any) -> None:
        """Set entries of run.json."""
        known = self.state if (self.folder / "run.json").is_file() else {}
        self.write_json("run.json", known | entries)

    # Writing

    def write_bytes(self, name: str, content: bytes) -> None:
        target = self.folder / name
        partial = target.with_name(f".{name}.partial")
        if name in CHECKED:
            self._note_sum(name, content)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(
                    error.errno,
                    f"no space left to write {target} ({len(content):,} bytes); what the run folder held before is "
                    "intact. Make room, then go on with --resume",
                ) from None
            raise

    def write_text(self, name: str, content: str) -> None:
        self.write_bytes(name, content.encode())

    def write_json(self, name: str, content: Any) -> None:
        self.write_text(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
        from safetensors.torch import save as save_tensors

        plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        self.write_bytes(name, save_tensors(plain, {"everloop": json.dumps(facts or {})}))

    def write_history(self, history: Sequence[Mapping[str, float]]) -> None:
        text = io.StringIO()
        columns = list(dict.fromkeys(key for row in history for key in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        self.write_text("metrics.csv", text.getvalue())

    def _note_sum(self, name: str, content: bytes) -> None:
        """Note the sha256 of a file that is about to be written, so that a changed one is noticed when it is read.

        The sum of the one that is there is noted as well: a crash or a full disk may leave either.
        """
        path = self.folder / name
        before = {name: _sum(path.read_bytes())} if path.is_file() else {}
        self.update(files=self._sums("files") | {name: _sum(content)}, files_before=self._sums("files_before") | before)

    def _sums(self, entry: str) -> dict[str, str]:
        sums = self.state.get(entry, {})
        if not isinstance(sums, dict):
            raise ValueError(f"{self.folder / 'run.json'}: the entry {entry!r} is damaged; copy the run folder again")
        return sums

    # Reading

    def read_bytes(self, name: str) -> bytes:
        """A file of the run; one that is missing or not as it was written is refused."""
        path = self.folder / name
        if not path.is_file():
            status = self.state.get("status", "?")
            raise FileNotFoundError(f"{path} is missing: the run (status: {status}) has no trained model to load")
        content = path.read_bytes()
        expected = [self._sums(entry).get(name) for entry in ("files", "files_before")]
        if any(expected) and _sum(content) not in expected:
            raise ValueError(
                f"{path} is damaged or was changed: its sha256 is not the one that run.json notes. "
                "Copy the run folder again, or train anew"
            )
        return content

    def read_text(self, name: str) -> str:
        try:
            return self.read_bytes(name).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.folder / name} is damaged: it is not text ({error})") from None

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of a file and the facts stored with them."""
        from safetensors.torch import load

        return self._read_safetensors(name, load)

    def read_arrays(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The same as NumPy arrays, without torch."""
        from safetensors.numpy import load

        return self._read_safetensors(name, load)

    def _read_safetensors(self, name: str, load: Callable[[bytes], dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        from safetensors import SafetensorError

        content = self.read_bytes(name)
        try:
            tensors = load(content)
            size = int.from_bytes(content[:8], "little")
            facts = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get("everloop", "{}")
            return tensors, json.loads(facts)
        except (SafetensorError, ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.folder / name} cannot be read as safetensors: {error}") from None

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold one JSON object")
        return content


def read_config(path: str | Path) -> dict[str, Any]:
    """A config.toml as plain dictionaries. The file of a cell is looked for beside it."""
    path = Path(path)
    if path.is_dir():
        path = path / "config.toml"
    config = _read_config(path)
    options = config.get("options", {})
    if isinstance(options.get("cell"), str) and options["cell"].endswith(".py"):
        options["cell"] = str(path.parent / options["cell"])
    return config


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration {path}")
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    for name, value in config.items():
        if name not in _ENTRIES:
            raise ValueError(f"{path} has an entry {name!r}; expected {', '.join(_ENTRIES)}: options go in [options]")
        kind, noun = _ENTRIES[name]
        if not isinstance(value, kind):
            raise ValueError(f"{path}: {name} = {value!r} came; expected {noun}")
    return config


_ENTRIES = {
    "everloop": (str, "a text"),
    "task": (str, "a text"),
    "options": (dict, "a table, [options]"),
    "data": (dict, "a table, [data]"),
}


def check_free(folder: Path) -> None:
    """Raise FileExistsError unless a run folder can be made there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = ", or --resume to go on with the run in it" if (folder / "run.json").is_file() else ""
        raise FileExistsError(f"{folder} exists and is not empty; give another --out{hint}")


def free_folder(stem: str, parent: Path = Path("runs")) -> Path:
    """runs/STEM-1, or the first number that is free."""
    k = 1
    while (parent / f"{stem}-{k}").exists():
        k += 1
    return parent / f"{stem}-{k}"


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
