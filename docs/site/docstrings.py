"""Docstrings as Markdown: lines such as `lengths: of a padded batch` become items of a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

NAMED = re.compile(r"(`?[a-z]\w*`?(?:, `?[a-z]\w*`?)*): +(?=\S)")


class NamedLines(griffe.Extension):
    """A paragraph that opens with a name and a colon explains names, one or more lines each."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(doc: str) -> str:
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n(?:[ \t]*\n)+", doc))


def _paragraph(paragraph: str) -> str:
    if not NAMED.match(paragraph):
        return paragraph
    items: list[str] = []
    for line in paragraph.splitlines():
        named = NAMED.match(line)
        if named:
            items.append(f"- **{named[1]}**: {line[named.end() :]}")
        else:
            items[-1] += f" {line.strip()}"
    return "\n".join(items)
