"""What the report of a seq2seq shows: ten test examples, and where the model looked while it wrote one of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from everloop.data.image import load, pillow, pixels_of
from everloop.insight.parts import heat, note, pictures, table
from everloop.insight.report import Report

SHOWN = 10
WIDEST = 60
PICTURES = 48
LARGEST = 192  # pixels of a side


@dataclass(frozen=True)
class Attended:
    """read: the S pieces of the input, or the numbers of its steps; written: the T pieces of the output, its end among
    them; weights [T, S]: how much of each step was looked at; copied [T]: the probability that the piece was copied
    from where it was looked at (None: the model does not copy)."""

    read: list[str]
    written: list[str]
    weights: np.ndarray
    copied: np.ndarray | None

    @property
    def copy_weights(self) -> np.ndarray | None:
        """[T, S]: the probability of copying each step."""
        return None if self.copied is None else self.copied[:, None] * self.weights


def seq2seq_report(task: Any, report: Report, part: Any, outputs: Sequence[str], signatures: Sequence[str]) -> Report:
    """part: the test split, `outputs` what was written for it."""
    rows = np.linspace(0, len(part.texts) - 1, min(SHOWN, len(part.texts))).astype(int).tolist()
    shown = [(_spelled(part.inputs[k]), part.texts[k], outputs[k]) for k in rows]
    more = [("Test examples", table(("input", "reference", "output"), shown) + _notes(signatures))]
    if task.codec_.source.modality == "image":
        more.append(("Pictures", _pictures(part, outputs)))
    if task.attention != "none":
        # The most legible: the longest output of those that are shown whose input is not wider than the page.
        narrow = [k for k in rows if len(part.sources[k].steps) <= WIDEST] or rows[:1]
        more.append(("Attention", attention_map(task.attend(part.inputs[max(narrow, key=lambda k: len(outputs[k]))]))))
    return replace(report, more=[*report.more, *more])


def attention_map(attended: Attended) -> str:
    """Each piece that was written is a row; how dark a field is, is how much the piece above it was looked at."""
    columns, values = attended.read[:WIDEST], attended.weights[:, :WIDEST]
    text = "Each row is a piece that was written; the darker a field, the more the piece of its column was looked at."
    if attended.copied is not None:
        columns, values = ["copied", *columns], np.concatenate([attended.copied[:, None], values], 1)
        text += " The first column is the probability that the piece was copied from there."
    if len(attended.read) > WIDEST:
        text += f" The first {WIDEST} of {len(attended.read)} pieces are shown."
    return heat(attended.written, columns, values.tolist()) + note(text)


def _pictures(part: Any, outputs: Sequence[str]) -> str:
    rows = np.linspace(0, len(part.texts) - 1, min(PICTURES, len(part.texts))).astype(int).tolist()
    shown = [(_png(part.inputs[k]), f"{outputs[k]} | {part.texts[k]}") for k in rows]
    return pictures(shown, width=128) + note("Under each picture what was written, then its reference.")


def _png(given: Any) -> bytes:
    """A picture that an `ImageCodec` reads, no larger than a page needs it."""
    array = given if isinstance(given, np.ndarray) else load(given)
    pixels = (pixels_of(array, "a picture") * 255).round().clip(0, 255).astype(np.uint8)
    image = pillow().fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((LARGEST, LARGEST))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _spelled(given: Any) -> str:
    if isinstance(given, tuple):
        return " | ".join(given)
    return "" if isinstance(given, np.ndarray) else str(given)


def _notes(signatures: Sequence[str]) -> str:
    return note("; ".join(signatures)) if signatures else ""
