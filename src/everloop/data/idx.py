"""Files of the idx form, in which MNIST and its like are given away: arrays of pictures, and of their labels beside."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everloop.data._asked import Asked
from everloop.data.examples import Examples, joined

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PICTURES, _LABELS = "images", "labels"
_TEST = ("t10k", "test")


def read_idx(path: str | Path) -> NDArray[Any]:
    """The array of an idx file (`train-images-idx3-ubyte`; also with .gz), to be read only.

    Two zero bytes, one for the type, one for the number of axes; the length of each axis, 4 bytes, the high one first;
    the values (LeCun, Cortes, Burges: the MNIST database of handwritten digits).
    """
    path = Path(path)
    data = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES:
        raise ValueError(f"{path} begins with the bytes {data[:4].hex(' ')}; expected an idx file: 00 00, type, axes")
    axes, kind = data[3], np.dtype(_TYPES[data[2]])
    begin = 4 + 4 * axes
    if len(data) < begin:
        raise ValueError(f"{path} ends within the lengths of its {axes} axes; it is cut short")
    shape = struct.unpack(f">{axes}I", data[4:begin])
    wanted = begin + kind.itemsize * math.prod(shape)
    if len(data) != wanted:
        raise ValueError(f"{path} has {len(data):,} bytes; one of shape {list(shape)} has {wanted:,}: it is damaged")
    return np.frombuffer(data, kind, offset=begin).reshape(shape)


def read_folder(folder: Path, name: str, asked: Asked) -> Examples | None:
    """The pictures of a folder of idx files, each file of pictures (`train-images-idx3-ubyte`) with one of labels
    (`train-labels-idx1-ubyte`); None if it holds none. `t10k` or `test` in a name makes it the test part."""
    pictures = [path for path in sorted(folder.iterdir()) if _is_idx(path) and _PICTURES in path.name.lower()]
    if not pictures or asked.modality not in ("auto", "image"):
        return None
    asked.refuse_columns(f"{name} is a folder of idx files")
    several = [_with_labels(path, f"{name}/{path.name}", asked) for path in pictures]
    told = ", ".join(f"{path.name} ({len(one):,})" for path, one in zip(pictures, several, strict=True))
    found = joined(several, name, [f"pictures of {told}"])
    parts = {part for one in several for part in one.parts or ()}
    return found if len(parts) > 1 else replace(found, parts=None)


def _with_labels(path: Path, name: str, asked: Asked) -> Examples:
    pictures = read_idx(path)
    if pictures.ndim not in (3, 4):
        raise ValueError(f"{name} holds an array of shape {list(pictures.shape)}; expected pictures [N, H, W]")
    labels = None if asked.want_target == "no" else _labels_beside(path, len(pictures))
    part = "test" if any(word in path.name.lower() for word in _TEST) else "train"
    count = len(pictures)
    rows = list(range(1, count + 1))
    return Examples(list(pictures), labels, name, "folder", rows, modality="image", parts=[part] * count)


def _labels_beside(path: Path, count: int) -> list[str]:
    stem = path.name.lower().split(_PICTURES)[0]
    beside = [p for p in sorted(path.parent.iterdir()) if _is_idx(p) and p.name.lower().startswith(stem + _LABELS)]
    if not beside:
        raise FileNotFoundError(f"{path}: there is no file of labels beside it; expected {stem}{_LABELS}-idx1-ubyte")
    labels = read_idx(beside[0])
    if labels.shape != (count,):
        raise ValueError(f"{beside[0]} holds {list(labels.shape)} labels for the {count:,} pictures of {path.name}")
    return [str(label) for label in labels.tolist()]


def _is_idx(path: Path) -> bool:
    return path.is_file() and path.name.lower().removesuffix(".gz").endswith("-ubyte")
