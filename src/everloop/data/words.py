"""Sentences of words as numbers, for tasks that say something about every word.

A word is seen as several pieces, each with an id of its own in a vocabulary of its own: the word itself
(lowercased, full-width letters as plain ones), its shape (`Xxx` for Paris, `00-00` for 1998-2001), its first one to
three and last one to four characters where it has more, and all of its characters, capitals too (digits are all 0
there). An unknown word is thereby known by its parts: `-ing` and `un-` in English, 们 and 第 in Chinese.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from everloop.data import tagged
from everloop.data._asked import Asked
from everloop.data._say import count
from everloop.data.examples import Examples
from everloop.data.tagged import from_table

__all__ = ["DATASETS", "PIECES", "WordsCodec", "check_sentences", "from_lists", "from_table"]

DATASETS = dict.fromkeys((".conllu", ".conll", ".bio", ".iob"), tagged.read_tagged)

PIECES = ("word", "shape", "first 1", "first 2", "first 3", "last 1", "last 2", "last 3", "last 4")
CHARACTERS = 12
"""Of a longer word, the first and the last six characters are seen."""

_DIGIT = re.compile(r"\d")
_REPEATED = re.compile(r"(.)\1+")


@dataclass(frozen=True, eq=False)
class WordsCodec:
    """Words to rows of ids. Made by `fit` or `from_json`, never changed afterwards.

    A sentence of T words becomes int32 [T, 9 + 12]: a column for each of `PIECES`, then the characters, padded with
    0. Id 0 is padding (a word has no such piece, or the sentence has ended), id 1 a piece that is not in the
    vocabulary.
    """

    vocabularies: tuple[tuple[str, ...], ...]
    """Of each of `PIECES`, then of the characters; the first of each has the id 2."""
    rare: frozenset[str] = frozenset()
    """Words of training that come too seldom to have an id."""

    modality: ClassVar[str] = "words"
    pad: ClassVar[int] = 0
    unknown: ClassVar[int] = 1

    @classmethod
    def fit(cls, inputs: Sequence[Sequence[str]], *, min_count: int = 2, vocabulary: int = 50_000) -> Self:
        """A codec with the pieces that come min_count times in these (training) sentences, each vocabulary with its
        most frequent ones."""
        if min_count < 1:
            raise ValueError(f"min_count={min_count} came; expected 1 or more")
        check_sentences(inputs)
        words = Counter(word for sentence in inputs for word in sentence)
        seen = [Counter[str]() for _ in range(len(PIECES) + 1)]
        for word, times in words.items():
            pieces, characters = _pieces(word)
            for counter, piece in zip(seen, pieces, strict=False):
                counter[piece] += times
            for character in characters:
                seen[-1][character] += times
        vocabularies = tuple(_most_frequent(counter, min_count, vocabulary) for counter in seen)
        return cls(vocabularies, frozenset(seen[0]) - frozenset(vocabularies[0]))

    def encode_batch(self, inputs: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """int32 [T, 21] of every sentence."""
        check_sentences(inputs)
        forms: dict[str, int] = {}
        places = [np.array([forms.setdefault(word, len(forms)) for word in sentence]) for sentence in inputs]
        rows = np.array([self._row(form) for form in forms], dtype=np.int32).reshape(-1, self.width)
        return [rows[place.astype(np.int64)] for place in places]

    def knows(self, word: str) -> bool:
        """Whether the word, whatever its capitals, was in the training sentences."""
        plain = _plain(word)
        return plain in self._ids[0] or plain in self.rare

    @property
    def width(self) -> int:
        return len(PIECES) + CHARACTERS

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many ids there are for each of `PIECES`, then for characters, with padding and unknown."""
        return tuple(2 + len(vocabulary) for vocabulary in self.vocabularies)

    def describe(self) -> str:
        parts = sum(map(len, self.vocabularies[1:-1]))
        return (
            f"{count(len(self.vocabularies[0]), 'word')}, {parts:,} shapes, beginnings and endings, "
            f"{count(len(self.vocabularies[-1]), 'character')}"
        )

    def __len__(self) -> int:
        return self.sizes[0]

    def to_json(self) -> str:
        vocabularies = dict(zip((*PIECES, "characters"), self.vocabularies, strict=True))
        content = {"modality": self.modality, "vocabularies": vocabularies, "rare": sorted(self.rare)}
        return json.dumps(content, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        known = content.get("vocabularies") if isinstance(content, dict) else None
        if not isinstance(known, dict) or list(known) != [*PIECES, "characters"]:
            raise ValueError(f"this is not a codec of words: expected vocabularies of {', '.join(PIECES)}, characters")
        return cls(tuple(tuple(vocabulary) for vocabulary in known.values()), frozenset(content.get("rare", ())))

    @cached_property
    def _ids(self) -> list[dict[str, int]]:
        return [{piece: k for k, piece in enumerate(known, start=2)} for known in self.vocabularies]

    def _row(self, word: str) -> list[int]:
        pieces, characters = _pieces(word)
        row = [
            ids.get(piece, self.unknown) if piece else self.pad for ids, piece in zip(self._ids, pieces, strict=False)
        ]
        spelled = [self._ids[-1].get(character, self.unknown) for character in characters]
        return [*row, *spelled, *[self.pad] * (CHARACTERS - len(spelled))]


def from_lists(inputs: Sequence[Any], targets: Sequence[Any] | None, asked: Asked) -> Examples:
    """Sentences in Python lists, for `read_examples`."""
    return tagged.from_lists(list(inputs) if targets is None else (inputs, targets), asked)


def check_sentences(inputs: Any) -> None:
    """Raise TypeError or ValueError for what is not lists of words."""
    if isinstance(inputs, str):
        raise TypeError("one string came; expected a list of sentences, each a list of words")
    for k, sentence in enumerate(inputs):
        if isinstance(sentence, str) or not isinstance(sentence, Iterable):
            raise TypeError(f"sentence {k + 1}: a {type(sentence).__name__} came; expected a list of words")
        for word in sentence:
            if not isinstance(word, str):
                raise TypeError(f"sentence {k + 1}: a word is a {type(word).__name__}; expected a string")
            if not word:
                raise ValueError(f"sentence {k + 1}: an empty word came; expected words of a character or more")


def _pieces(word: str) -> tuple[list[str], str]:
    """The pieces in the order of `PIECES`, empty where the word is too short for one, and its characters."""
    composed = unicodedata.normalize("NFKC", word) or word
    written = _DIGIT.sub("0", composed)
    spelled = written.lower() or written
    first = [spelled[:n] if len(spelled) > n else "" for n in (1, 2, 3)]
    last = [spelled[-n:] if len(spelled) > n else "" for n in (1, 2, 3, 4)]
    half = CHARACTERS // 2
    characters = written if len(written) <= CHARACTERS else written[:half] + written[-half:]
    return [_plain(word), _shape(word), *first, *last], characters


def _plain(word: str) -> str:
    return unicodedata.normalize("NFKC", word).lower() or word


def _shape(word: str) -> str:
    kinds = "".join(map(_kind, unicodedata.normalize("NFKC", word)))
    return _REPEATED.sub(r"\1\1", kinds)


def _kind(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isupper():
        return "X"
    if character.islower():
        return "x"
    return "c" if character.isalpha() else character


def _most_frequent(seen: Counter[str], min_count: int, size: int) -> tuple[str, ...]:
    frequent = sorted((-n, piece) for piece, n in seen.items() if n >= min_count and piece)
    return tuple(piece for _, piece in frequent[:size])
