"""Wording shared by the messages of this folder: lists of names, counts, near misses."""

import difflib
from collections.abc import Iterable, Sequence


def count(n: int, noun: str) -> str:
    """`1 row`, `17,760 rows`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def names_of(names: Sequence[str], shown: int = 12) -> str:
    """`"text", "label" and "id"`, cut short when there are very many."""
    quoted = [f'"{name}"' for name in names[:shown]]
    if len(names) > shown:
        quoted.append(f"{len(names) - shown} more")
    if len(quoted) < 2:
        return "".join(quoted)
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean "text"?`, or nothing when no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
