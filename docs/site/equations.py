"""Equations as MathML, worked out when the site is built: every browser shows it without a script."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from latex2mathml.converter import convert

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", NAMESPACE)

WORD = re.compile(r"\\(?:operatorname|mathrm)\{((?:[^{}\\]|\\_)+)\}")
"""A name of more than one letter. The converter would set it letter by letter."""


def table(equations: Iterable[str]) -> str:
    """One LaTeX equation a line, `left &= right`, as one table whose signs of equality stand under each other."""
    rows = [_row(*equation.split(" &= ", 1)) for equation in equations]
    math = f'<math xmlns="{NAMESPACE}" display="block"><mtable displaystyle="true">{"".join(rows)}</mtable></math>'
    return f'<div class="equations" tabindex="0">{math}</div>'


def _row(left: str, right: str) -> str:
    return f"<mtr><mtd>{_inner(left)}</mtd><mtd><mo>=</mo></mtd><mtd>{_inner(right)}</mtd></mtr>"


def _inner(latex: str) -> str:
    """The row of MathML that a formula becomes. What the converter does not know it would print as it stands."""
    root = ElementTree.fromstring(convert(re.sub(WORD, _as_text, latex)))
    left = [part.text for part in root.iter() if part.text and "\\" in part.text]
    if left:
        raise ValueError(f"no MathML for {left[0]} in {latex}")
    return "".join(ElementTree.tostring(part, encoding="unicode") for part in root).replace(f' xmlns="{NAMESPACE}"', "")


def _as_text(word: re.Match[str]) -> str:
    return rf"\text{{{word[1].replace(chr(92) + '_', '_')}}}"
