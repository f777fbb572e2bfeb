"""Texts as a trained task reads them: ids, and what each of them is called."""

from __future__ import annotations

from typing import Any

import numpy as np

from everloop.lab.arrays import number
from everloop.tasks.inside import pieces_of

# Steps of one input: more is no longer looked at one by one.
LONGEST = 1_000


def generator_ids(task: Any, text: str) -> tuple[np.ndarray, list[str]]:
    """The ids [T] that a generator of texts reads, and their names. Without a text it reads a line break; where its
    texts have ends, one begins where another ended.
    """
    codec = task.codec_
    if codec.modality != "text":
        raise ValueError(f"this generator writes {codec.modality}; the lab reads and writes texts")
    end = ([codec.end], [codec.piece(codec.end)])
    if text:
        read = codec.encode(text)
        ids, pieces = read.tolist(), pieces_of(codec, text, read)
        if task.ends_:
            ids, pieces = [*end[0], *ids], [*end[1], *pieces]
    else:
        first = codec.unknown if task.ends_ else int(codec.encode("\n")[0])
        ids, pieces = end if first == codec.unknown else ([first], ["\n"])
    check_length(len(ids))
    return np.array(ids), pieces


def check_length(steps: int) -> None:
    if steps > LONGEST:
        raise ValueError(f"text: {steps:,} pieces came; expected {LONGEST:,} at most")


def likeliest(probabilities: np.ndarray, codec: Any, count: int = 5) -> list[list[Any]]:
    """The pieces [piece, probability] that a distribution [V] expects most."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [[codec.piece(int(k)), number(probabilities[k])] for k in order]
