"""Examples: what any source of data becomes, whatever its modality, before it is split and made into numbers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from everloop.data._say import count
from everloop.data.stored import is_stored, taken

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How data that are split already call their parts."""


@dataclass(frozen=True)
class Examples:
    """inputs: one per example, as its modality has it: a text (several columns: a tuple of texts), an array [T, F], a
    path, a recording ... targets: a label or a text each; a list of tags; None where there are none.

    parts: "train", "valid" or "test" for each example, where the data fix the split themselves. groups: examples of
    one group never go to different splits (one speaker, one author, one package).
    """

    inputs: Sequence[Any]
    targets: Sequence[Any] | None
    source: str  # for messages: the path, "a table of 3 columns and 120 rows", "lists"
    kind: Literal["table", "text", "folder", "lists"]
    rows: Sequence[int]  # where each example starts: the line of a text file, else its place, both from 1
    notes: tuple[str, ...] = ()  # what was guessed or left out, one sentence each, to be announced
    input_name: str | None = None
    target_name: str | None = None
    modality: str = "text"
    parts: list[str] | None = None
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, places: Sequence[int]) -> Examples:
        """The examples at these places."""

        def of(values: Sequence[Any] | None) -> Any:
            return None if values is None else taken(values, places)

        return replace(
            self,
            inputs=of(self.inputs),
            targets=of(self.targets),
            rows=of(self.rows),
            parts=of(self.parts),
            groups=of(self.groups),
        )

    def digest(self) -> str:
        """What tells these examples from others, in 64 letters."""
        sha = hashlib.sha256()
        for values in (self.inputs, self.targets or ()):
            for value in values:
                part = content(value)
                sha.update(len(part).to_bytes(8, "little") + part)
        return sha.hexdigest()


def joined(several: Sequence[Examples], source: str, notes: Iterable[str] = ()) -> Examples:
    """Examples of several files of one form as one."""
    first = several[0]

    def all_of(name: str) -> list[Any] | None:
        lists = [getattr(one, name) for one in several]
        return None if any(values is None for values in lists) else [value for values in lists for value in values]

    return replace(
        first,
        inputs=all_of("inputs") or [],
        targets=all_of("targets"),
        source=source,
        rows=all_of("rows") or [],
        parts=all_of("parts"),
        groups=all_of("groups"),
        notes=tuple(dict.fromkeys((*(note for one in several for note in one.notes), *notes))),
    )


def drop_duplicates(examples: Examples) -> Examples:
    """Keep the first of each input (spaces around a text do not count): one that is in two splits would leak.

    Data that bring their split are left as they are, so that results can be compared; how many leak is said.
    """
    if examples.parts is not None:
        return _with_leaks_told(examples, examples.parts)
    keep, contrary = _first_ones(examples)
    dropped = len(examples.inputs) - len(keep)
    if not dropped:
        return examples
    noun = "a text" if examples.modality == "text" else "one"
    note = f"{count(dropped, 'duplicate row')} left out before splitting ({noun} that is in two splits would leak)"
    if contrary:
        note += f"; {contrary:,} of them had another label than the first"
    return replace(examples.take(keep), notes=(*examples.notes, note))


def _first_ones(examples: Examples) -> tuple[Sequence[int], int]:
    """The places of the first of each input, and how many of the others have another target than their first."""
    targets = examples.targets
    if is_stored(examples.inputs):
        return _first_of_many(examples.inputs, targets)
    first: dict[bytes, int] = {}
    contrary = 0
    for k, value in enumerate(examples.inputs):
        kept = first.setdefault(_key(value), k)
        contrary += targets is not None and targets[kept] != targets[k]
    return list(first.values()), contrary


def _first_of_many(inputs: Sequence[Any], targets: Sequence[Any] | None) -> tuple[Sequence[int], int]:
    """The same within 100 bytes for each input: of its content only 64 bits are held. Of ten million different texts
    two share theirs once in a hundred thousand times; one of them would be left out."""
    keys = np.fromiter((_hash(value) for value in inputs), dtype=np.uint64, count=len(inputs))
    order = np.argsort(keys, kind="stable")
    begins = np.r_[True, keys[order[1:]] != keys[order[:-1]]]
    if begins.all():
        return range(len(inputs)), 0
    leaders = order[begins]
    contrary = 0
    if targets is not None:
        leader_of = leaders[np.cumsum(begins) - 1]
        others = np.flatnonzero(~begins)
        contrary = sum(targets[int(order[k])] != targets[int(leader_of[k])] for k in others)
    return np.sort(leaders), contrary  # type: ignore[return-value]


def _hash(value: Any) -> int:
    return int.from_bytes(hashlib.blake2b(_key(value), digest_size=8).digest(), "little")


def _with_leaks_told(examples: Examples, parts: list[str]) -> Examples:
    keys = [_key(value) for value in examples.inputs]
    trained = {key for key, part in zip(keys, parts, strict=True) if part == "train"}
    leaking = sum(part == "test" and key in trained for key, part in zip(keys, parts, strict=True))
    if not leaking:
        return examples
    note = f"{leaking:,} of the {parts.count('test'):,} test examples are in the training part, too; left as it came"
    return replace(examples, notes=(*examples.notes, note))


def _key(value: Any) -> bytes:
    """The same for the same input; short for long ones."""
    found = content(value.strip() if isinstance(value, str) else value)
    return found if len(found) < 64 else hashlib.blake2b(found, digest_size=32).digest()


def content(value: Any) -> bytes:
    """The bytes of an input or target of any modality; of a file or a folder, what is in it."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, Path):
        files = sorted(file for file in value.rglob("*") if file.is_file()) if value.is_dir() else [value]
        return b"".join(file.read_bytes() for file in files)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes()
    if dataclasses.is_dataclass(value):
        return content([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, list | tuple):
        parts = [content(item) for item in value]
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return repr(value).encode()
