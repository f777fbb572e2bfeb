"""Clips of handwritten digits that move, each with a sentence that says what happens: "a seven moves left, then up".

Made from pictures of single digits, such as MNIST's. A combination of digit and path is in one split only, and so is
every picture: what the test asks for has never been seen, neither this digit on this path nor this handwriting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from everloop.data.examples import Examples
from everloop.data.image import fit_to

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
PATHS = tuple((one, other) for one, other in product(DIRECTIONS, DIRECTIONS))
"""Two directions, one after the other; where they are the same, the digit keeps moving."""

FRAMES, SIDE, DIGIT = 8, 28, 14
_STEPS = (FRAMES - 1) // 2 + 1  # the frame at which the digit turns
_PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Digits:
    """Pictures of single digits, uint8 [N, H, W], and which digit each is, 0 to 9."""

    pictures: NDArray[np.uint8]
    labels: Sequence[int]


def moving_digits(
    train: Digits,
    test: Digits,
    *,
    clips: tuple[int, int, int] = (6_000, 500, 1_000),
    seed: int = 0,
    target: Literal["caption", "digit", "path"] = "caption",
) -> Examples:
    """Clips, uint8 [8, 28, 28], of one digit moving along one of 16 paths at a speed and from a place of its own.

    clips: how many for training, validation and test. Of the 160 combinations of digit and path, 16 are for the test,
    one of every path, 8 for validation and 136 for training. The pictures of train are dealt out to training and
    validation, those of test are for the test. target: what is asked for: the sentence, the digit, or the path alone.
    """
    rng = np.random.default_rng(seed)
    combinations = held_out_combinations(rng)
    pictures = _dealt(train, test, rng)
    inputs: list[Any] = []
    targets: list[str] = []
    parts: list[str] = []
    for part, count in zip(_PARTS, clips, strict=True):
        for k in rng.integers(len(combinations[part]), size=count):
            digit, path = combinations[part][k]
            inputs.append(_clip(rng.choice(pictures[part][digit]), path, rng))
            targets.append(_said(digit, path, target))
            parts.append(part)
    rows = list(range(1, len(inputs) + 1))
    note = f"{', '.join(str(len(combinations[part])) for part in _PARTS)} combinations of digit and path in the splits"
    return Examples(inputs, targets, "moving-digits", "lists", rows, (note,), modality="frames", parts=parts)


def held_out_combinations(rng: np.random.Generator) -> dict[str, list[tuple[int, tuple[str, str]]]]:
    """Combinations of digit and path for each split; those of the test have every path once, and every digit."""
    digits, paths = rng.permutation(10), rng.permutation(len(PATHS))
    found: dict[str, list[tuple[int, tuple[str, str]]]] = {part: [] for part in _PARTS}
    for (i, digit), (k, path) in product(enumerate(digits), enumerate(paths)):
        diagonal = (i + k) % 10
        part = "test" if diagonal == 0 else "valid" if diagonal == 5 and k % 2 else "train"
        found[part].append((int(digit), PATHS[path]))
    return found


def _dealt(train: Digits, test: Digits, rng: np.random.Generator) -> dict[str, list[NDArray[np.uint8]]]:
    """The pictures of each digit in each split; a tenth of those for training are for validation."""
    found: dict[str, list[NDArray[np.uint8]]] = {part: [] for part in _PARTS}
    for digit in range(10):
        places = rng.permutation(np.flatnonzero(np.asarray(train.labels) == digit))
        asked = np.flatnonzero(np.asarray(test.labels) == digit)
        if len(places) < 2 or not len(asked):
            raise ValueError(
                f"{len(places)} pictures of a {DIGITS[digit]} came for training and {len(asked)} for the test; "
                "expected 2 or more and 1 or more of every digit"
            )
        held = max(1, len(places) // 10)
        found["train"].append(train.pictures[places[held:]])
        found["valid"].append(train.pictures[places[:held]])
        found["test"].append(test.pictures[asked])
    return found


def caption(digit: int, path: tuple[str, str]) -> str:
    """`a seven moves left, then up`; `an eight moves down` where it does not turn."""
    first, then = path
    article = "an" if digit == 8 else "a"
    return f"{article} {DIGITS[digit]} moves {first}" + ("" if first == then else f", then {then}")


def _said(digit: int, path: tuple[str, str], target: str) -> str:
    if target == "digit":
        return DIGITS[digit]
    return caption(digit, path) if target == "caption" else caption(digit, path).split(" moves ")[1]


def _clip(picture: NDArray[np.uint8], path: tuple[str, str], rng: np.random.Generator) -> NDArray[np.uint8]:
    small = fit_to(picture[..., None].astype(np.float32), DIGIT, DIGIT, 1)[..., 0].round().clip(0, 255).astype(np.uint8)
    places = _places(path, rng)
    clip = np.zeros((FRAMES, SIDE, SIDE), dtype=np.uint8)
    for frame, (row, column) in zip(clip, places, strict=True):
        frame[row : row + DIGIT, column : column + DIGIT] = small
    return clip


def _places(path: tuple[str, str], rng: np.random.Generator) -> NDArray[np.int64]:
    """Upper left corners [T, 2] that stay inside: a digit moves by 1.5 to 3.5 pixels a frame, or less if it must."""
    steps = np.array([DIRECTIONS[path[0]]] * _STEPS + [DIRECTIONS[path[1]]] * (FRAMES - 1 - _STEPS), dtype=np.float64)
    offsets = np.concatenate([np.zeros((1, 2)), steps.cumsum(0)]) * rng.uniform(1.5, 3.5)
    room = SIDE - DIGIT
    offsets *= min(1.0, room / np.ptp(offsets, axis=0).max())
    offsets -= offsets.min(0)
    start = rng.random(2) * (room - offsets.max(0)).clip(0)
    return (start + offsets).round().astype(np.int64).clip(0, room)
