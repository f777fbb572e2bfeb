"""What tasks share in showing what happens inside them: `Task.inside`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everloop.data.audio import HOP
from everloop.data.text import TextCodec
from everloop.tasks.fronts import PictureFront

SHOWN = 20
"""Answers that are given at most."""

MEAN = "the mean of the training data"


def ranked(names: Sequence[str], values: np.ndarray) -> list[tuple[str, float]]:
    """The best few answers with their probabilities [C], best first."""
    order = np.argsort(-values, kind="stable")[:SHOWN]
    return [(names[int(k)], float(values[k])) for k in order]


def place_of(answer: Any, names: Sequence[str], what: str) -> int:
    """Where an answer stands among those that can be given."""
    if str(answer) in names:
        return names.index(str(answer))
    shown = ", ".join(map(repr, names[:12])) + (" ..." if len(names) > 12 else "")
    raise ValueError(f"inside: {answer!r} came; expected {what}: {shown}")


def step_at(at: int | None, default: int, count: int, what: str) -> int:
    """The step whose answer is asked, the default where nobody says."""
    if at is None:
        return default
    if not 0 <= at < count:
        raise ValueError(f"inside: at={at} came; expected {what}, 0 to {count - 1}")
    return at


def with_more(make: Callable[[frozenset[int]], Any], hidden: frozenset[int], count: int) -> Callable[..., Any]:
    """`Inside.without` of an input of so many pieces, of which some are unknown already."""

    def without(pieces: Sequence[int]) -> Any:
        wrong = [k for k in pieces if not 0 <= k < count]
        if wrong:
            raise ValueError(f"without: {wrong[0]} came; expected the places of pieces, 0 to {count - 1}")
        return make(hidden | {int(k) for k in pieces})

    return without


# -- texts -----------------------------------------------------------------------------------------------------------

UNKNOWN = {"chars": "an unknown character", "words": "an unknown word", "subwords": "an unknown piece"}


def pieces_of(codec: TextCodec, text: str, ids: np.ndarray) -> list[str]:
    """How the text spells what has these ids; where the codec composes characters, how the vocabulary does."""
    pieces = codec.pieces(text)
    return pieces[: len(ids)] if len(pieces) >= len(ids) else [codec.piece(int(k)) for k in ids]


def unknown_at(ids: np.ndarray, hidden: Iterable[int], unknown: int) -> np.ndarray:
    """The ids [T] with some of them unknown."""
    found = ids.copy()
    found[sorted(hidden)] = unknown
    return found


# -- values ----------------------------------------------------------------------------------------------------------


def step_names(codec: Any, front: nn.Module | None, count: int) -> list[str]:
    """What the steps are called that a front gives to recurrent layers."""
    if isinstance(front, PictureFront):
        _, columns = front.grid
        places = [f"row {k // columns + 1}, column {k % columns + 1}" for k in range(len(front.place))]
        return places if front.whole is None else [*places, "the whole"]
    if codec.modality == "image":
        if codec.by == "patches":
            across = codec.width // codec.patch
            return [f"row {k // across + 1}, column {k % across + 1}" for k in range(count)]
        return [f"{codec.by.removesuffix('s')} {k + 1}" for k in range(count)]
    if codec.modality == "audio":
        return [f"{k * HOP:.2f} s" for k in range(count)]
    if codec.modality == "frames":
        return [f"frame {k * codec.every + 1}" for k in range(count)]
    return [str(k + 1) for k in range(count)]


def mean_at(values: np.ndarray, hidden: Iterable[int], front: nn.Module | None) -> np.ndarray:
    """The values [T, F] with 0, their mean, where some of the steps lie that a front gives."""
    found = values.copy()
    if not isinstance(front, PictureFront):
        found[sorted(hidden)] = 0
        return found
    picture = front.pixels.picture
    pixels = found.reshape(picture)
    rows, columns = front.grid
    high, wide = -(-picture[0] // rows), -(-picture[1] // columns)
    for k in hidden:
        if k == len(front.place):
            pixels[:] = 0
        top, left = k // columns * high, k % columns * wide
        pixels[top : top + high, left : left + wide] = 0
    return found


# -- networks --------------------------------------------------------------------------------------------------------


def as_batch(steps: np.ndarray, network: nn.Module) -> Tensor:
    """Ids [T] or values [T, F] of one input as a batch of it, as the network takes them."""
    like = next(network.parameters())
    batch = torch.from_numpy(np.ascontiguousarray(steps))[None].to(like.device)
    return batch.to(like.dtype) if batch.is_floating_point() else batch
