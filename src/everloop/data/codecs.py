"""Modalities, discovered: a file of this folder that has a codec class is one, and other packages add theirs by entry
points of the group "everloop.modalities", each naming a module.

A modality's module has a class with `modality`, its name, and may have:

- `EXTENSIONS`: the ends of the names of files that hold one example (`.wav`)
- `DATASETS`: {extension: read(path, name, asked) -> Examples}, for files that hold many
- `read_folder(path, name, asked) -> Examples | None`, for folders of a form of its own
- `from_lists(inputs, targets, asked) -> Examples`, for Python data
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

GROUP = "everloop.modalities"


@runtime_checkable
class Codec(Protocol):
    """What turns inputs of a modality into numbers: ids int64 [T], or values float32 [T, F], F being `features`.

    `fit(inputs, ...)` makes one from training inputs; the options are the modality's own.
    """

    modality: ClassVar[str]

    def encode_batch(self, inputs: Sequence[Any]) -> Sequence[np.ndarray]: ...
    def describe(self) -> str: ...
    def to_json(self) -> str: ...
    @classmethod
    def from_json(cls, text: str) -> Self: ...


@cache
def modules() -> dict[str, ModuleType]:
    """The module of each modality, by its name."""
    found = {}
    folder = importlib.import_module("everloop.data")
    for info in pkgutil.iter_modules(folder.__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"everloop.data.{info.name}")
            if _codec_of(module) is not None:
                found[info.name] = module
    return found | {entry.name: entry.load() for entry in entry_points(group=GROUP)}


def names() -> tuple[str, ...]:
    return tuple(sorted(modules()))


def get(name: str) -> Any:
    """The codec class of a modality."""
    if name.isidentifier() and importlib.util.find_spec(f"everloop.data.{name}") is not None:
        found = _codec_of(importlib.import_module(f"everloop.data.{name}"))  # without importing all the others
        if found is not None:
            return found
    if name not in modules():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"no modality is named {name!r}; {hint}there are {', '.join(names())}")
    return _codec_of(modules()[name])


def from_json(text: str) -> Codec:
    """The codec that a `codec.json` holds."""
    try:
        content = json.loads(text)
        name = content.get("modality", "text")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"this is no codec of Everloop ({type(error).__name__}: {error})") from None
    return get(name).from_json(text)


def by_extension(extension: str) -> str | None:
    """The modality whose examples are kept in files of that extension (`.wav`)."""
    return next((name for name, module in modules().items() if extension in getattr(module, "EXTENSIONS", ())), None)


def dataset_reader(extension: str) -> Any:
    """What reads a file that holds many examples of one modality; None if nothing does."""
    readers = (getattr(module, "DATASETS", {}).get(extension) for module in modules().values())
    return next((reader for reader in readers if reader is not None), None)


def _codec_of(module: ModuleType) -> Any:
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and "modality" in vars(value):
            named = vars(value)["modality"]
            if isinstance(named, str) and hasattr(value, "encode_batch"):
                return value
    return None
