"""Sources and targets as numbers and back: two codecs, or one for both where pieces of the source can be copied."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from everloop.data.text import TextCodec, Unit

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class EncodedSource:
    """steps: ids [S] or values [S, F]. copied [S]: what copying each step writes, an id of the target codec, or its
    length and more for the `unseen` pieces, those of this source that it does not know. None: no copying."""

    steps: np.ndarray
    copied: np.ndarray | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PairCodec:
    """source: the codec of what is read; target: that of what is written, which can spell what it encodes.

    Several texts as one source, such as (passage, question), are read one after the other with the end piece between
    them. length: steps of each text, or of the whole of another modality, that are read; the rest is left out.
    copying: source and target are the same codec, and pieces that it does not know are copied as they are spelled.
    """

    source: Any
    target: TextCodec
    length: int
    copying: bool

    @property
    def reads_text(self) -> bool:
        return isinstance(self.source, TextCodec)

    def encode_sources(self, inputs: Sequence[Any]) -> list[EncodedSource]:
        if not isinstance(self.source, TextCodec):
            return [EncodedSource(steps[: self.length]) for steps in self.source.encode_batch(inputs)]
        texts = [_texts_of(given) for given in inputs]
        spaced = [spaced_for(self.source, text) for several in texts for text in several]
        encoded = iter(zip(self.source.encode_batch(spaced), spaced, strict=True))
        return [self._joined([next(encoded) for _ in several]) for several in texts]

    def _joined(self, parts: list[tuple[np.ndarray, str]]) -> EncodedSource:
        """One source of the ids and the spelling of each of its texts."""
        end = np.array([self.target.end])
        steps = [piece for ids, _ in parts for piece in (ids[: self.length], end)][:-1]
        if not self.copying:
            return EncodedSource(np.concatenate(steps))
        unseen: dict[str, int] = {}
        copied = [np.array([self.target.unknown])] * len(steps)
        copied[::2] = [self._copied(ids[: self.length], text, unseen) for ids, text in parts]
        return EncodedSource(np.concatenate(steps), np.concatenate(copied), tuple(unseen))

    def _copied(self, ids: np.ndarray, text: str, unseen: dict[str, int]) -> np.ndarray:
        if not (ids == self.target.unknown).any():
            return ids
        found = ids.copy()
        pieces = self.target.pieces(text)
        for k in np.flatnonzero(ids == self.target.unknown):
            found[k] = len(self.target) + unseen.setdefault(pieces[k], len(unseen))
        return found

    def encode_targets(self, texts: Sequence[str], sources: Sequence[EncodedSource]) -> list[np.ndarray]:
        """The ids [T] of each target, its end among them; those that its source alone knows as numbered there."""
        spaced = [spaced_for(self.target, text) for text in texts]
        end = np.array([self.target.end])
        encoded = []
        for ids, text, source in zip(self.target.encode_batch(spaced), spaced, sources, strict=True):
            if source.unseen and (ids == self.target.unknown).any():
                ids = self._as_in_source(ids, text, source.unseen)
            encoded.append(np.concatenate([ids, end]))
        return encoded

    def _as_in_source(self, ids: np.ndarray, text: str, unseen: tuple[str, ...]) -> np.ndarray:
        found, pieces = ids.copy(), self.target.pieces(text)
        for k in np.flatnonzero(ids == self.target.unknown):
            if pieces[k] in unseen:
                found[k] = len(self.target) + unseen.index(pieces[k])
        return found

    def decode(self, ids: Sequence[int], source: EncodedSource) -> str:
        """The text that was written."""
        return "".join(self._runs(ids, source.unseen)).strip()

    def _runs(self, ids: Sequence[int], unseen: tuple[str, ...]) -> Iterator[str]:
        """Subwords are decoded many at a time: a character may lie over several."""
        known: list[int] = []
        for piece in ids:
            if piece < len(self.target):
                known.append(piece)
                continue
            yield self.target.decode(known)
            known = []
            yield unseen[piece - len(self.target)]
        yield self.target.decode(known)

    def target_pieces(self, ids: Sequence[int], source: EncodedSource) -> list[str]:
        """Each piece of what was written, as it is spelled."""
        size = len(self.target)
        return [self.target.piece(k) if k < size else source.unseen[k - size] for k in ids]

    def source_pieces(self, given: Any) -> list[str]:
        """Each piece of a text that is read, as it is spelled; the one between two texts is <end>."""
        pieces: list[str] = []
        for text in _texts_of(given):
            pieces += ["<end>"] * bool(pieces) + self.source.pieces(spaced_for(self.source, text))[: self.length]
        return pieces


def spaced_for(codec: TextCodec, text: str) -> str:
    """The text as a reversible codec of words reads it: the first word has a space before it like any other."""
    return f" {text}" if codec.reversible and codec.unit != "chars" else text


def fit_text(texts: Sequence[str], *, unit: Unit, reversible: bool, min_count: int, vocabulary: int) -> TextCodec:
    """A codec of training texts; `spaced_for` says what it reads."""
    if reversible and unit != "chars":
        texts = [f" {text}" for text in texts]
    return TextCodec.fit(texts, unit=unit, reversible=reversible, min_count=min_count, vocabulary=vocabulary)


def texts_within(inputs: Sequence[Any]) -> list[str]:
    """All texts of inputs that are texts or tuples of them."""
    return [text for given in inputs for text in _texts_of(given)]


def _texts_of(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def shared_words(inputs: Sequence[Any], targets: Sequence[str], most: int = 2_000) -> float:
    """Of the words of the first so many targets, the share that is in their inputs, too."""
    found = total = 0
    for given, target in zip(inputs[:most], targets[:most], strict=True):
        known = {word for text in _texts_of(given) for word in _WORD.findall(text)}
        words = _WORD.findall(target)
        found, total = found + sum(word in known for word in words), total + len(words)
    return found / max(total, 1)


def linked(sources: Sequence[Any], targets: Sequence[str], most: float = 0.1) -> list[str]:
    """A group for each pair: those that share a source or a target, over any number of steps, are of one. Where that
    would put more than this share of all pairs together (answers that come again and again), the source alone counts.
    """
    for by_target in (True, False):
        groups = _groups(sources, targets if by_target else None)
        if max(Counter(groups).values()) <= max(1, most * len(groups)):
            return groups
    return groups


def _groups(sources: Sequence[Any], targets: Sequence[str] | None) -> list[str]:
    parent: dict[Any, Any] = {}

    def root(key: Any) -> Any:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for k, source in enumerate(sources):
        first = root(("source", source))
        if targets is not None:
            parent[first] = root(("target", targets[k]))
    names: dict[Any, str] = {}
    return [names.setdefault(root(("source", source)), str(len(names))) for source in sources]


def are_tuples(data: Any) -> bool:
    """Whether the inputs are several texts each."""
    first = data[0] if isinstance(data, list | tuple) and data else None
    return isinstance(first, tuple) and all(isinstance(text, str) for text in first)


def table_of(inputs: Sequence[tuple[str, ...]], targets: Sequence[Any]) -> tuple[dict[str, list[Any]], str]:
    """A table with a column for each text of the inputs, and which columns these are."""
    names = [f"input {k + 1}" for k in range(len(inputs[0]))]
    columns = {name: [given[k] for given in inputs] for k, name in enumerate(names)}
    return columns | {"target": list(targets)}, ",".join(names)


def named(given: Any) -> dict[str, str]:
    """An input as columns of a table of predictions; arrays are left out."""
    if isinstance(given, tuple):
        return {f"input {k + 1}": text for k, text in enumerate(given)}
    return {} if isinstance(given, np.ndarray) else {"input": str(given)}
