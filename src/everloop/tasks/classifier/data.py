"""What a classifier takes: inputs of any modality, labels of any type."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from everloop.data.examples import Examples
from everloop.data.stored import is_stored


def is_cube(data: Any) -> bool:
    """Whether sequences came as one array of three axes."""
    return isinstance(data, np.ndarray) and data.ndim == 3


def several(inputs: Any) -> Any:
    """One text or path as a list of it; an array of sequences as it is."""
    if isinstance(inputs, str | Path):
        return [inputs]
    return inputs if is_cube(inputs) else list(inputs)


def as_text(value: Any) -> str:
    """A text; several columns as one, a line each."""
    return "\n".join(value) if isinstance(value, tuple) else value


def as_texts(values: Sequence[Any]) -> Sequence[str]:
    """The same of many; texts on disk stay there."""
    return values if is_stored(values) else [as_text(value) for value in values]


def longest_run(unit: str, vocabulary: int) -> int:
    """Two words reach a phrase, three Chinese characters and five letters a word; keys have to fit 64 bits."""
    wanted = 2 if unit != "chars" else 3 if vocabulary > 500 else 5
    return min(wanted, int(62 / math.log2(vocabulary + 1)))


def rarest(classes: Sequence[Any], targets: Sequence[Any]) -> int:
    """The place of the rarest class; of equally rare ones the last."""
    counts = Counter(targets)
    fewest = min(counts.values())
    return max(k for k, name in enumerate(classes) if counts[name] == fewest)


def labels_in(data: Any) -> list[Any]:
    """The labels as they came with lists."""
    if isinstance(data, Examples):
        return list(data.targets or ())
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str):
        return list(data[1])
    return [pair[1] for pair in data if isinstance(pair, list | tuple) and len(pair) == 2]


def names_of_numbers(labels: Sequence[Any]) -> dict[str, Any]:
    """Labels that are all numbers, by what they are called in texts; nothing for others."""
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if not all(isinstance(label, numbers.Real) for label in plain):
        return {}
    return {name_of(label): label for label in plain}


def name_of(label: Any) -> str:
    """What a label is called in a table of texts."""
    if isinstance(label, bool | np.bool_):
        return str(label).lower()
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    return str(label)


def check_classes(classes: list[Any], targets: Sequence[Any], examples: Examples) -> None:
    column = f"column {examples.target_name!r} of {examples.source}" if examples.target_name else examples.source
    if len(classes) < 2:
        raise ValueError(
            f"{column} holds one class only ({classes[0]!r}, {len(targets):,} of them); a classifier needs two or more"
        )
    if len(classes) > max(2, len(targets) // 2):
        raise ValueError(
            f"{column} holds {len(classes):,} different values in {len(targets):,} rows: these are not classes. "
            "Name the label column with --target, or train a generator with --task generator"
        )
