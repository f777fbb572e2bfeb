"""Pieces of an input as people read them: set apart or joined, coloured, and named in small."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from everloop.insight.page.drawing import share_of, tint

CLOSING = tuple(".,;:!?)]}’”'%…")
LONGEST = 18
"""Letters of the name of a column."""

SMALL = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}


def coloured(pieces: Sequence[str], values: np.ndarray, *, at: int | None = None) -> str:
    """The input, each piece coloured by its value. at: a piece to be marked."""
    shares = share_of(values)
    apart, kind = set_apart(pieces), "text letters" if are_letters(pieces) else "text"
    parts = []
    for step, (piece, share, value) in enumerate(zip(pieces, shares, values, strict=True)):
        here = ' aria-current="true"' if step == at else ""
        parts.append(
            f'{apart[step]}<span {tint(share)} data-step="{step}" title="{value:+.3g}"{here}>{_shown(piece)}</span>'
        )
    return f'<p class="{kind}" dir="auto">{"".join(parts)}</p>'


def excerpt(pieces: Sequence[str], begin: int, end: int, at: int) -> str:
    """Pieces from begin to end, one of them marked."""
    apart = set_apart(pieces)
    shown = "".join(
        f"{apart[k]}<mark>{_shown(pieces[k])}</mark>" if k == at else f"{apart[k]}{_shown(pieces[k])}"
        for k in range(begin, end)
    )
    return f"{'… ' if begin else ''}{shown.strip()}{' …' if end < len(pieces) else ''}"


def small(piece: str) -> str:
    """As the name of a column."""
    return SMALL.get(piece, piece.strip() or "␣").replace("\n", "↵")


def short(piece: str) -> str:
    """The same, not too long."""
    name = small(piece)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def percent(share: float) -> str:
    """As shares are written."""
    return f"{100 * share:.1f}\u00a0%"


def set_apart(pieces: Sequence[str]) -> list[str]:
    """What stands before each piece: a space between words, nothing between letters or Chinese words."""
    letters, found = are_letters(pieces), []
    for k, piece in enumerate(pieces):
        before = pieces[k - 1] if k else ""
        joined = letters or not k or piece.startswith(CLOSING) or is_wide(piece[:1]) or is_wide(before[-1:])
        found.append("" if joined else " ")
    return found


def are_letters(pieces: Sequence[str]) -> bool:
    """Whether the pieces make the text as they are, spaces included."""
    return all(len(piece) <= 1 for piece in pieces) or any(piece[:1].isspace() for piece in pieces)


def is_wide(letter: str) -> bool:
    """Chinese, Japanese, Korean, and their punctuation."""
    return bool(letter) and (
        "\u2e80" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7af" or "\uff00" <= letter <= "\uffef"
    )


def _shown(piece: str) -> str:
    return escape(piece).replace("\n", '<span class="break">↵</span>\n') or "∅"
