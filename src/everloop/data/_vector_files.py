"""Files of many sequences of numbers: `.ts` as sktime and aeon write it, and `.npz`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from everloop.data._asked import Asked
from everloop.data._say import count, names_of
from everloop.data.examples import PARTS, Examples, joined
from everloop.data.reading.tables import BadRows
from everloop.data.reading.text_files import read_text

_NPZ_PARTS = {"X": ("X", "x", "inputs", "data"), "y": ("y", "Y", "labels", "targets", "label")}


def read_ts(path: Path, name: str, asked: Asked) -> Examples:
    """A `.ts` file: `@classLabel true a b` and other lines of its head, `@data`, then one sequence a line, its channels
    apart by colons, the label last. Their lengths may differ; `?` is a missing value."""
    asked.refuse_columns(f"{name} is a .ts file")
    try:
        lines = read_text(path, asked.encoding).split("\n")
    except ValueError as error:
        raise ValueError(f"{name}, {error}") from None
    head, begin = _head(lines, name)
    labelled = head.get("classlabel", "false").lower().startswith("true")
    if head.get("timestamps", "false").lower() == "true":
        raise ValueError(f"{name}: its values have time stamps; expected values at even steps (@timeStamps false)")
    if head.get("targetlabel", "false").lower() == "true":
        raise ValueError(f"{name}: its targets are numbers to be estimated (@targetLabel true); expected classes")
    if asked.want_target == "yes" and not labelled:
        raise ValueError(f"{name} has no labels (@classLabel false); expected one per sequence")
    bad = BadRows(name, asked.bad_rows)
    inputs: list[np.ndarray] = []
    targets: list[str] = []
    rows: list[int] = []
    for row, line in enumerate(lines[begin:], start=begin + 1):
        if not line.strip() or line.startswith("#"):
            continue
        channels = line.strip().split(":")
        label = channels.pop().strip() if labelled else ""
        try:
            inputs.append(_sequence(channels, head.get("dimensions")))
        except ValueError as error:
            bad.add(f"row {row}", str(error))
            continue
        targets.append(label)
        rows.append(row)
    if not inputs:
        raise ValueError(f"{name} has no sequences after @data")
    labels = targets if labelled and asked.want_target != "no" else None
    return Examples(inputs, labels, name, "table", rows, bad.notes(), modality="vectors")


def read_ts_pair(folder: Path, name: str, asked: Asked) -> Examples | None:
    """A folder of `NAME_TRAIN.ts` and `NAME_TEST.ts`, as aeon keeps its datasets; None for other folders.

    Of several pairs, that is taken whose name is the folder's.
    """
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".ts"]
    pairs: dict[str, dict[str, Path]] = {}
    for path in files:
        stem, _, part = path.stem.rpartition("_")
        if part.lower() in PARTS:
            pairs.setdefault(stem, {})[PARTS[part.lower()]] = path
    whole = [stem for stem, parts in pairs.items() if {"train", "test"} <= parts.keys()]
    if not whole:
        return None
    chosen = folder.resolve().name if folder.resolve().name in whole else whole[0]
    if chosen != folder.resolve().name and len(whole) > 1:
        raise ValueError(f"{name} holds several datasets, {names_of(whole)}; expected one, or a file of one")
    several = []
    for part, path in sorted(pairs[chosen].items(), key=lambda item: list(PARTS.values()).index(item[0])):
        examples = read_ts(path, f"{name}/{path.name}", asked)
        several.append(replace(examples, parts=[part] * len(examples)))
    told = ", ".join(f"{one.source.rsplit('/', 1)[-1]} ({one.parts[0]}, {len(one):,})" for one in several if one.parts)
    notes = [f"split as it comes: {told}"]
    if len(files) > len(several):
        notes.append(f"{count(len(files) - len(several), 'other .ts file')} left out")
    return joined(several, name, notes)


def read_npz(path: Path, name: str, asked: Asked) -> Examples:
    """Arrays of NumPy by the names X and y; or X_train, y_train, X_test, y_test (X_valid), which are a split; labels
    y are optional. X is [N, T], or [N, C, T] as aeon has it. Sequences of unequal length: `X` [all steps, F] one after
    another, `lengths` [N]."""
    asked.refuse_columns(f"{name} is a .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise ValueError(f"{name} cannot be read as .npz of plain arrays: {error}") from None
    several = []
    for part, found in _npz_parts(arrays):
        X, y = found.get("X"), found.get("y")
        if X is None:
            raise ValueError(
                f"{name} holds {names_of(list(arrays))}; expected X and y, or X_train, y_train, X_test ..."
            )
        if y is None and asked.want_target == "yes":
            raise ValueError(f"{name} has no labels; expected an array y beside X")
        where = f"{name}{f' ({part})' if part else ''}"
        inputs = _npz_sequences(X, arrays.get(f"lengths_{part}" if part else "lengths"), where)
        if y is not None and y.shape != (len(inputs),):
            raise ValueError(f"{where}: y of shape {y.shape} came; expected one label for each of {len(inputs):,}")
        labels = None if y is None or asked.want_target == "no" else [str(label) for label in y.tolist()]
        rows = list(range(1, len(inputs) + 1))
        parts = [part] * len(inputs) if part else None
        note = ("X is taken as [N, C, T]",) if X.ndim == 3 else ()
        several.append(Examples(inputs, labels, name, "table", rows, note, modality="vectors", parts=parts))
    return joined(several, name) if len(several) > 1 else several[0]


def _head(lines: list[str], name: str) -> tuple[dict[str, str], int]:
    """The entries before @data in small letters, and the line after it."""
    head: dict[str, str] = {}
    for k, line in enumerate(lines):
        words = line.strip().split(None, 1)
        if not words or words[0].startswith("#"):
            continue
        if words[0].lower() == "@data":
            return head, k + 1
        if not words[0].startswith("@"):
            raise ValueError(f"{name}, row {k + 1}: {line[:40]!r} came before @data; expected lines that begin with @")
        head[words[0][1:].lower()] = words[1] if len(words) > 1 else "true"
    raise ValueError(f"{name} has no line @data; expected a .ts file as sktime and aeon write them")


def _sequence(channels: list[str], dimensions: str | None) -> np.ndarray:
    if dimensions is not None and dimensions.isdigit() and len(channels) != int(dimensions):
        raise ValueError(f"{count(len(channels), 'channel')} came, expected {dimensions} (@dimensions)")
    columns = []
    for k, channel in enumerate(channels, start=1):
        values = [value.strip() for value in channel.split(",")]
        try:
            columns.append([np.nan if value in ("?", "") else float(value) for value in values])
        except ValueError as error:
            raise ValueError(f"channel {k}: {error}") from None
    sizes = sorted({len(column) for column in columns})
    if len(sizes) > 1:
        raise ValueError(f"channels of {sizes[0]:,} and {sizes[-1]:,} steps came; expected as many in each")
    return np.array(columns, np.float32).T


def _npz_parts(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """("" or the part, the arrays X and y of it)."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        stem, _, end = key.rpartition("_")
        part = PARTS.get(end.lower(), "") if stem else ""
        stem = stem if part else re.sub(r"_+$", "", key)
        for name, spellings in _NPZ_PARTS.items():
            if stem in spellings:
                found.setdefault(part, {})[name] = value
    if found.keys() == {"", "test"}:  # x, y, x_test, y_test
        found = {"train": found[""], "test": found["test"]}
    yield from found.items() if found else [("", {})]


def _npz_sequences(X: np.ndarray, lengths: np.ndarray | None, where: str) -> list[np.ndarray]:
    if X.dtype.kind not in "iufb":
        raise ValueError(f"{where}: X of {X.dtype} came; expected numbers")
    if lengths is not None:
        if lengths.sum() != len(X):
            raise ValueError(f"{where}: lengths come to {lengths.sum():,} steps; X has {len(X):,}")
        whole = X if X.ndim == 2 else X.reshape(len(X), -1)
        return [part.astype(np.float32) for part in np.split(whole, np.cumsum(lengths)[:-1])]
    if X.ndim not in (2, 3):
        raise ValueError(f"{where}: X of shape {X.shape} came; expected [N, T] or [N, C, T]")
    return [row[:, None] if X.ndim == 2 else row.T for row in X.astype(np.float32)]
