"""Sequences that lie on disk, for data larger than memory: texts, rows of ids, and labels of which few differ.

They behave as lists that are read only. The files have no name: they are gone when nobody holds them any more, however
the process ends. What is read is copied, not mapped, so that the memory of the process stays small.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import NDArray

LARGE = 256_000_000
"""Bytes of a file from which it is read piece by piece, and its texts and ids are kept on disk."""

SAMPLE = 32_000_000
"""Characters, or ids, that are looked at where all of a large set would take too long: evenly spaced examples."""

Places = NDArray[np.int64]
_BLOCK = 1 << 22
_GROUP = 4_096
_MOST_LABELS = 65_536
_MANY = 1_000_000


class StoredTexts(Sequence[str]):
    """Texts on disk, made by a `TextWriter`. `take` gives a view, which costs 8 bytes for each text."""

    def __init__(self, file: IO[bytes], ends: Places, places: Places | None = None) -> None:
        self._file, self._ends, self._places = file, ends, places

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._places is None else len(self._places)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        begin, end = self._span(_place(at, len(self)))
        return _read(self._file, begin, end).decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        if self._places is not None:
            for k in range(len(self)):
                yield self[k]
            return
        first = 0
        while first < len(self):
            after = int(np.searchsorted(self._ends, self._ends[first] + _BLOCK, side="right")) - 1
            after = min(max(after, first + 1), len(self))
            begin = int(self._ends[first])
            block = _read(self._file, begin, int(self._ends[after]))
            for k in range(first, after):
                yield block[self._ends[k] - begin : self._ends[k + 1] - begin].decode("utf-8")
            first = after

    def take(self, places: Sequence[int] | Places) -> StoredTexts:
        chosen = np.asarray(places, dtype=np.int64)
        return StoredTexts(self._file, self._ends, chosen if self._places is None else self._places[chosen])

    @property
    def bytes(self) -> int:
        """How long all of them are, in UTF-8."""
        if self._places is None:
            return int(self._ends[-1])
        return int((self._ends[self._places + 1] - self._ends[self._places]).sum())

    def _span(self, k: int) -> tuple[int, int]:
        at = k if self._places is None else int(self._places[k])
        return int(self._ends[at]), int(self._ends[at + 1])


class TextWriter:
    """Takes texts one by one; `finish` gives them as a sequence."""

    def __init__(self) -> None:
        self._file = _nameless()
        self._ends = array("q", [0])

    def add(self, text: str) -> None:
        data = text.encode("utf-8")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def finish(self) -> StoredTexts:
        self._file.flush()
        return StoredTexts(self._file, np.frombuffer(self._ends, dtype=np.int64))


class StoredRows(Sequence[np.ndarray]):
    """Rows of ids on disk, int64 [T] when read; made by `encode_all`. lengths [N]: how long each is.

    most: of each row, no more than that is read.
    """

    def __init__(
        self, file: IO[bytes], kind: np.dtype, ends: Places, places: Places | None = None, most: int | None = None
    ) -> None:
        self._file, self._kind, self._ends, self._places, self._most = file, kind, ends, places, most

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._places is None else len(self._places)

    @overload
    def __getitem__(self, at: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, at: slice) -> list[np.ndarray]: ...
    def __getitem__(self, at: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(at, slice):
            return [self[k] for k in range(*at.indices(len(self)))]
        k = _place(at, len(self))
        k = k if self._places is None else int(self._places[k])
        begin, end = int(self._ends[k]), int(self._ends[k + 1])
        if self._most is not None:
            end = min(end, begin + self._most)
        size = self._kind.itemsize
        return np.frombuffer(_read(self._file, begin * size, end * size), self._kind).astype(np.int64)

    @property
    def lengths(self) -> Places:
        whole = np.diff(self._ends)
        whole = whole if self._places is None else whole[self._places]
        return whole if self._most is None else np.minimum(whole, self._most)

    def take(self, places: Sequence[int] | Places) -> StoredRows:
        chosen = np.asarray(places, dtype=np.int64)
        chosen = chosen if self._places is None else self._places[chosen]
        return StoredRows(self._file, self._kind, self._ends, chosen, self._most)

    def cut(self, most: int) -> StoredRows:
        """The same rows, of each the first ids."""
        return StoredRows(self._file, self._kind, self._ends, self._places, most)


class StoredIds:
    """One long row of ids on disk: `len` and slices, int64, as of an array [N]."""

    def __init__(self, file: IO[bytes], kind: np.dtype, length: int) -> None:
        self._file, self._kind, self._length = file, kind, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, at: slice) -> np.ndarray:
        begin, end, step = at.indices(self._length)
        size = self._kind.itemsize
        data = _read(self._file, begin * size, max(begin, end) * size)
        return np.frombuffer(data, self._kind)[::step].astype(np.int64)


class Labels(Sequence[str]):
    """Texts of which few differ: a number for each, and the texts by number."""

    def __init__(self, codes: NDArray[np.int32], names: Sequence[str]) -> None:
        self.codes, self.names = codes, list(names)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self.names[code] for code in self.codes[at].tolist()]
        return self.names[self.codes[at]]

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), _BLOCK):
            for code in self.codes[begin : begin + _BLOCK].tolist():
                yield self.names[code]

    def take(self, places: Sequence[int] | Places) -> Labels:
        return Labels(self.codes[np.asarray(places, dtype=np.int64)], self.names)


def is_stored(values: Any) -> bool:
    """Whether a sequence lies on disk, so that nobody should make a list of it."""
    return isinstance(values, StoredTexts | StoredRows | StoredIds)


def taken(values: Sequence[Any], places: Sequence[int]) -> Any:
    """The values at these places: a list, or a view of what is stored."""
    if isinstance(values, StoredTexts | StoredRows | Labels):
        return values.take(places)
    if (
        isinstance(values, array)
        or (isinstance(values, np.ndarray) and values.ndim == 1)
        or (isinstance(values, range) and len(places) > _MANY)
    ):
        return np.asarray(values)[np.asarray(places, dtype=np.int64)]
    return [values[k] for k in places]


def spread(values: Sequence[Any], most: int | None = None) -> range:
    """Places to look at: all of what is not stored; of stored values evenly spaced ones, as many as have so many
    characters or ids together (about). most: `SAMPLE` if left out."""
    if isinstance(values, StoredTexts):
        size = values.bytes
    elif isinstance(values, StoredRows):
        size = int(values.lengths.sum())
    else:
        return range(len(values))
    return range(0, len(values), max(1, -(-size // (most or SAMPLE))))


def sample(values: Sequence[Any], most: int | None = None) -> Sequence[Any]:
    """The values at the places of `spread`: what came, or a list."""
    places = spread(values, most)
    return values if places.step == 1 and not is_stored(values) else [values[k] for k in places]


def lengths_of(rows: Sequence[Any]) -> NDArray[np.int64]:
    """[N], how long each row is."""
    return rows.lengths if isinstance(rows, StoredRows) else np.array([len(row) for row in rows], dtype=np.int64)


def cut(rows: Sequence[Any], most: int) -> Sequence[Any]:
    """Of each row the first so many."""
    return rows.cut(most) if isinstance(rows, StoredRows) else [row[:most] for row in rows]


def keep_texts(values: Iterable[str]) -> Labels | StoredTexts:
    """Texts as labels if few of them differ, else on disk."""
    codes = array("i")
    places: dict[str, int] = {}
    writer: TextWriter | None = None
    for value in values:
        if writer is not None:
            writer.add(value)
            continue
        codes.append(places.setdefault(value, len(places)))
        if len(places) > _MOST_LABELS:
            writer, names = TextWriter(), list(places)
            for code in codes:
                writer.add(names[code])
    return Labels(np.frombuffer(codes, dtype=np.int32), list(places)) if writer is None else writer.finish()


def encode_all(codec: Any, inputs: Sequence[Any]) -> Sequence[np.ndarray]:
    """What `codec.encode_batch` gives for these inputs; on disk, if the inputs are."""
    if not isinstance(inputs, StoredTexts):
        return codec.encode_batch(inputs)
    file, kind, ends = _nameless(), _smallest(len(codec)), array("q", [0])
    for rows in _encoded(codec, inputs):
        file.write(np.concatenate(rows).astype(kind).tobytes())
        for row in rows:
            ends.append(ends[-1] + len(row))
    file.flush()
    return StoredRows(file, kind, np.frombuffer(ends, dtype=np.int64))


def encode_joined(codec: Any, texts: Sequence[str], end: int | None = None) -> np.ndarray | StoredIds:
    """The ids of all texts as one row, int64, each with `end` after it; on disk, if the texts are and are large."""
    after = [] if end is None else [np.array([end])]
    if not isinstance(texts, StoredTexts):
        return np.concatenate([part for ids in codec.encode_batch(texts) for part in (ids, *after)])
    file, kind, length = _nameless(), _smallest(len(codec)), 0
    for rows in _encoded(codec, texts):
        ids = np.concatenate([part for row in rows for part in (row, *after)])
        file.write(ids.astype(kind).tobytes())
        length += len(ids)
    file.flush()
    return StoredIds(file, kind, length)


def _encoded(codec: Any, texts: StoredTexts) -> Iterator[list[np.ndarray]]:
    """The ids of the texts, some of them at a time."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _BLOCK or len(group) == _GROUP:
            yield codec.encode_batch(group)
            group, size = [], 0
    if group:
        yield codec.encode_batch(group)


def _smallest(size: int) -> np.dtype:
    """The type of ids below `size`."""
    return np.dtype(np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.int32)


def _nameless() -> IO[bytes]:
    """A file of this process alone: where TMPDIR says, else in the user's folder for caches, because the system's
    temporary folder is memory on many machines."""
    from everloop.data.sets.fetch import cache

    folder = None
    if not os.environ.get("TMPDIR"):
        folder = cache().parent if not os.environ.get("EVERLOOP_DATA") else cache()
        Path(folder).mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, buffering=_BLOCK)


def _read(file: IO[bytes], begin: int, end: int) -> bytes:
    """Some bytes, whoever else reads the file now."""
    if hasattr(os, "pread"):
        data = os.pread(file.fileno(), end - begin, begin)
    else:
        file.seek(begin)
        data = file.read(end - begin)
    if len(data) != end - begin:
        raise OSError(f"a file of stored data is shorter than it was: {len(data):,} of {end - begin:,} bytes came")
    return data


def _place(at: int, length: int) -> int:
    """A place from the end as one from the beginning."""
    if not -length <= at < length:
        raise IndexError(f"place {at} of {length:,}")
    return at + length if at < 0 else at
