"""How far one text is from another: word error rate and character error rate."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Edits:
    """The fewest changes that make one sequence of another, and how long the other is."""

    substitutions: int
    insertions: int
    deletions: int
    length: int

    @property
    def total(self) -> int:
        return self.substitutions + self.insertions + self.deletions


def edits(came: Sequence[Hashable], expected: Sequence[Hashable]) -> Edits:
    """Levenshtein 1966. What came and should not have is an insertion, what should have come a deletion."""
    # Of each beginning of `expected`, after each item that came: all changes, and substitutions and insertions of them.
    row = [(k, 0, 0) for k in range(len(expected) + 1)]
    for item in came:
        above, row = row, [(row[0][0] + 1, 0, row[0][2] + 1)]
        for k, wanted in enumerate(expected):
            total, substitutions, insertions = above[k]
            wrong = int(item != wanted)
            row.append(
                min(
                    (total + wrong, substitutions + wrong, insertions),
                    (above[k + 1][0] + 1, above[k + 1][1], above[k + 1][2] + 1),
                    (row[k][0] + 1, row[k][1], row[k][2]),
                )
            )
    total, substitutions, insertions = row[-1]
    return Edits(substitutions, insertions, total - substitutions - insertions, len(expected))


def word_error_rate(came: Sequence[str], expected: Sequence[str]) -> float:
    """Changes by words over all texts together; above 1 is possible. Words are what spaces part."""
    return _rate([text.split() for text in came], [text.split() for text in expected])


def character_error_rate(came: Sequence[str], expected: Sequence[str]) -> float:
    """The same by characters, spaces too."""
    return _rate(came, expected)


def _rate(came: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> float:
    found = [edits(one, other) for one, other in zip(came, expected, strict=True)]
    length = sum(one.length for one in found)
    if not length:
        raise ValueError("the expected texts are all empty, so that there is no error rate")
    return sum(one.total for one in found) / length
