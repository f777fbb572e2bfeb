"""Lines of Python: long ones over several, some left out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from itertools import pairwise

WIDTH = 100


def wrapped(name: str, text: str, sign: str = "=") -> str:
    """`name = text`; if that is long, over several lines: one for each term, factor or argument."""
    if len(name) + len(text) + 3 <= WIDTH:
        return f"{name} {sign} {text}"
    for signs in (("+", "-"), ("*", "/", "@")):
        terms = _cut(text, [k for k in _outside(text) if text[k] in signs and text[k - 1 : k + 2] == f" {text[k]} "])
        if len(terms) > 1:
            return "\n".join([f"{name} {sign} (", *(f"    {term}" for term in terms), ")"])
    called, _, rest = text.partition("(")
    if re.fullmatch(r"[\w.]+", called) and text.endswith(")") and all(k <= len(called) for k in _outside(text)):
        inside = rest[:-1]
        arguments = _cut(inside, [k + 1 for k in _outside(inside) if inside[k] == ","])
        return "\n".join([f"{name} {sign} {called}(", *(f"    {part.rstrip(',')}," for part in arguments), ")"])
    return f"{name} {sign} {text}"


def listed(before: str, names: Iterable[str], after: str = "") -> str:
    """Names beside each other between the two texts, a tuple; over several lines if there are many."""
    parts = list(names)
    inside = f"{parts[0]}," if len(parts) == 1 else ", ".join(parts)
    if before or len(parts) == 1:
        text = f"{before}({inside}){after}"
    else:
        text = f"{inside}{after}" if after else f"({inside})"
    if len(text) <= WIDTH:
        return text
    lines = textwrap.wrap(inside + ",", WIDTH, break_long_words=False)
    return "\n".join([f"{before}(", *(f"    {line}" for line in lines), f"){after}"])


def indented(text: str, depth: int = 1) -> str:
    return textwrap.indent(text, "    " * depth)


def _outside(text: str) -> list[int]:
    """The places that are in no brackets."""
    found, depth = [], 0
    for k, letter in enumerate(text):
        depth += letter in "([{"
        if depth == 0:
            found.append(k)
        depth -= letter in ")]}"
    return found


def _cut(text: str, places: list[int]) -> list[str]:
    return [text[a:b].strip() for a, b in pairwise([0, *places, len(text)])]


def hand_on(targets: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """All at once, because the new ones may be made of the old."""
    changed = [name for name in targets if targets[name] != values[name]]
    if not changed:
        return []
    return [f"{', '.join(targets[name] for name in changed)} = {', '.join(values[name] for name in changed)}"]


def with_or_without(text: str, **wanted: bool) -> str:
    """Keep the lines that end in `#what` if that is wanted, or leave them out; `#no what` the other way round."""
    lines = []
    for line in text.split("\n"):
        body, _, mark = line.rpartition("  #")
        what = mark.removeprefix("no ")
        if not body or what not in wanted:
            lines.append(line)
        elif wanted[what] is (mark == what):
            lines.append(body)
    return "\n".join(lines)
