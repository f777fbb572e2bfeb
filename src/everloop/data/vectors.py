"""Vectors: sequences of numbers of unequal length, [T, F], as sensors, tracks and measurements are.

Where they come from: lists (`from_lists` and `arranged` say which shapes), `.ts` and `.npz` files, and tables when
`modality="vectors"` says so, wide or long (`_vector_files`, `_vector_tables`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from everloop.data._asked import Asked
from everloop.data._say import count
from everloop.data._vector_files import read_npz, read_ts, read_ts_pair
from everloop.data._vector_tables import vectors_of_table
from everloop.data.examples import Examples
from everloop.data.reading.columns import texts_of
from everloop.data.reading.tables import BadRows

Layout = Literal["auto", "time-first", "channels-first"]
Missing = Literal["refuse", "previous", "mean"]

DATASETS = {".ts": read_ts, ".npz": read_npz}
read_folder = read_ts_pair
from_table = vectors_of_table


def from_lists(inputs: Sequence[Any], targets: Sequence[Any] | None, asked: Asked) -> Examples:
    """Sequences of numbers in lists or arrays as float32 arrays of one or two axes, not yet arranged."""
    bad = BadRows("lists", asked.bad_rows)
    arrays: list[np.ndarray] = []
    rows: list[int] = []
    for row, value in enumerate(inputs, start=1):
        try:
            arrays.append(as_array(value))
        except ValueError as error:
            bad.add(f"row {row}", str(error))
            continue
        rows.append(row)
    labels = None
    if targets is not None:
        _, labels, kept = texts_of([], [targets[row - 1] for row in rows], rows, bad)
        arrays, rows = [arrays[k] for k in kept], [rows[k] for k in kept]
    return Examples(arrays, labels, "lists", "lists", rows, bad.notes(), modality="vectors")


def as_array(value: Any) -> np.ndarray:
    """Numbers in a list or an array as float32, of one or two axes; None is a missing value."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iufb":
            array = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError):
        raise ValueError(
            f"a {type(value).__name__} came that is no array of numbers; expected numbers [T], or [T, F] with as many "
            "at every step"
        ) from None
    if array.ndim not in (1, 2):
        raise ValueError(f"an array of shape {array.shape} came; expected one sequence, [T] or [T, F]")
    if not array.size:
        raise ValueError("an empty sequence came; expected one step or more")
    return array.astype(np.float32)


def arranged(
    inputs: Sequence[Any] | np.ndarray,
    layout: Layout = "auto",
    channels: int = 1,
    *,
    features: int | None = None,
    cube: bool = False,
) -> tuple[list[np.ndarray], str]:
    """Sequences as [T, F] each, and a sentence that says what was decided about them, if anything was.

    Arrays of one axis have one channel, or are x1, y1, x2, y2, ... with channels=2. Of arrays of two axes the layout
    says which is time; auto: the axis along which their sizes differ; if none does, the one that leaves as many
    channels as `features` (those of a fitted model); if that does not tell them apart, the last for what came as one
    array of three axes (`cube`; aeon's layout [N, C, T]), the first for lists.
    """
    arrays = [as_array(value) for value in inputs]
    if all(array.ndim == 1 for array in arrays):
        return _folded(arrays, channels), ""
    if channels != 1:
        raise ValueError(f"channels={channels} came with arrays [T, F]; it is for flat sequences x1, y1, x2, y2, ...")
    note = ""
    if layout == "auto":
        layout, note = _layout_of(arrays, features, cube)
    if layout == "channels-first":
        arrays = [np.atleast_2d(array).T for array in arrays]
    else:
        arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    _check_channels(arrays, features)
    return arrays, note


def _folded(arrays: list[np.ndarray], channels: int) -> list[np.ndarray]:
    for row, array in enumerate(arrays, start=1):
        if len(array) % channels:
            raise ValueError(
                f"row {row}: {len(array):,} numbers came; with channels={channels} their number must be a multiple "
                f"of {channels}: x1, y1, ... one step after another"
            )
    return [array.reshape(-1, channels) for array in arrays]


def _layout_of(arrays: list[np.ndarray], features: int | None, cube: bool) -> tuple[Layout, str]:
    """A layout, and what to say of it."""
    shapes = {array.shape for array in arrays if array.ndim == 2}
    first, last = ({shape[axis] for shape in shapes} for axis in (0, 1))
    if len(first) > 1 and len(last) == 1:
        return "time-first", f"sequences of unequal length with {count(min(last), 'channel')}, as [T, F]"
    if len(last) > 1 and len(first) == 1:
        return "channels-first", f"sequences of unequal length with {count(min(first), 'channel')}, as [C, T]"
    if features is not None and (features in first) != (features in last):
        return ("channels-first" if features in first else "time-first"), ""
    one, other = max(first), max(last)
    if cube:
        told = f"an array of 3 axes is taken as [N, C, T], {count(one, 'channel')} and {count(other, 'step')}"
        return "channels-first", f"{told}; if its last axis holds the channels: layout='time-first'"
    told = f"arrays of one shape are taken as [T, F], {count(one, 'step')} of {count(other, 'channel')}"
    return "time-first", f"{told}; if their last axis is time: layout='channels-first'"


def _check_channels(arrays: list[np.ndarray], features: int | None) -> None:
    expected = arrays[0].shape[1] if features is None else features
    for row, array in enumerate(arrays, start=1):
        if array.shape[1] != expected:
            told = "as the first has" if features is None else "as the model was trained with"
            raise ValueError(
                f"row {row}: {count(array.shape[1], 'channel')} came, expected {expected}, {told}; "
                "layout='time-first' is for [T, F], 'channels-first' for [C, T]"
            )


@dataclass(frozen=True, eq=False)
class VectorsCodec:
    """Sequences [T, F] to float32 [T, F], standardised. Made by `fit` or `from_json`, never changed afterwards.

    mean, scale: [F], over all steps of the training sequences; of a channel that is constant there, scale is 1, so
    that it gives 0. missing: what happens to values that are not there (NaN): `refuse` says where they are,
    `previous` takes the value before (the mean where there is none), `mean` that of training. Infinite values are
    always refused.
    """

    mean: np.ndarray
    scale: np.ndarray
    missing: Missing
    about: str

    modality: ClassVar[str] = "vectors"

    @classmethod
    def fit(cls, inputs: Sequence[Any], *, missing: Missing = "refuse") -> Self:
        """From training sequences only."""
        if not len(inputs):
            raise ValueError("no sequences came; expected at least one")
        arrays = [_checked(value, None, missing, row) for row, value in enumerate(inputs, start=1)]
        _check_channels(arrays, None)
        steps = np.concatenate(arrays).astype(np.float64)
        known = ~np.isnan(steps)
        number = np.maximum(known.sum(0), 1)
        mean = np.where(known, steps, 0.0).sum(0) / number
        scale = np.sqrt((np.where(known, steps - mean, 0.0) ** 2).sum(0) / number)
        # Of a constant channel rounding leaves a little, by which it must not be divided.
        constant = scale <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
        about = f"standardised by {count(len(arrays), 'sequence')} of {count(len(steps), 'step')}"
        if constant.any():
            about += f"; {count(int(constant.sum()), 'channel')} constant"
        if not known.all():
            about += f"; {count(int((~known).sum()), 'missing value')} filled by the {missing}"
        return cls(mean.astype(np.float32), np.where(constant, 1.0, scale).astype(np.float32), missing, about)

    @property
    def features(self) -> int:
        return len(self.mean)

    def encode_batch(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        """float32 [T, F] of every sequence."""
        return [self.encode(value, row) for row, value in enumerate(inputs, start=1)]

    def encode(self, value: Any, row: int = 1) -> np.ndarray:
        """float32 [T, F] of one sequence."""
        array = _checked(value, self.features, self.missing, row)
        if np.isnan(array).any():
            array = _filled(array, self.mean, self.missing)
        return (array - self.mean) / self.scale

    def describe(self) -> str:
        return f"vectors of {count(self.features, 'channel')}, {self.about}"

    def to_json(self) -> str:
        facts = {
            "modality": self.modality,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "missing": self.missing,
            "about": self.about,
        }
        return json.dumps(facts, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            facts = json.loads(text)
            mean, scale = (np.array(facts[name], np.float32) for name in ("mean", "scale"))
            found = cls(mean, scale, facts["missing"], facts["about"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"this is no codec of vectors ({type(error).__name__}: {error})") from None
        if mean.ndim != 1 or mean.shape != scale.shape or not (scale > 0).all():
            raise ValueError(
                f"this is no codec of vectors: mean {mean.shape} and scale {scale.shape} came; "
                "expected one number per channel, and scales above 0"
            )
        return found


def _checked(value: Any, features: int | None, missing: Missing, row: int) -> np.ndarray:
    """The sequence as [T, F]; what cannot be used is refused by its row, step and channel."""
    try:
        array = as_array(value)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None
    array = array[:, None] if array.ndim == 1 else array
    if features is not None:
        _check_channels([array], features)
    wrong = np.isinf(array) if missing != "refuse" else ~np.isfinite(array)
    if wrong.any():
        step, channel = (int(k) for k in np.argwhere(wrong)[0])
        came = "a missing value (NaN)" if np.isnan(array[step, channel]) else "an infinite value"
        hint = "; missing='previous' or 'mean' fills such values" if missing == "refuse" else ""
        raise ValueError(f"row {row}, step {step + 1}, channel {channel + 1}: {came}; expected numbers{hint}")
    return array


def _filled(array: np.ndarray, mean: np.ndarray, missing: Missing) -> np.ndarray:
    if missing == "mean":
        return np.where(np.isnan(array), mean, array)
    with_start = np.concatenate([mean[None], array])
    places = np.where(np.isnan(with_start), 0, np.arange(len(with_start))[:, None])
    latest = np.maximum.accumulate(places, axis=0)
    return np.take_along_axis(with_start, latest, axis=0)[1:]
