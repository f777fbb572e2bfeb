"""Whom Everloop is compared with, one file each: `NEEDS`, the packages it has to import, and `rivals(problem)`, by the
name in the table; none where it has no such cell.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.util import find_spec

from everloop.bench.problem import Problem, Rival


def rivals(problem: Problem) -> dict[str, Rival]:
    """Of all that are installed."""
    found: dict[str, Rival] = {}
    for name in _names():
        peer = importlib.import_module(f"{__name__}.{name}")
        if not _absent(peer.NEEDS):
            found |= peer.rivals(problem)
    return found


def missing() -> list[str]:
    """A sentence for each peer that is left out."""
    needs = {name: importlib.import_module(f"{__name__}.{name}").NEEDS for name in _names()}
    return [
        f"{' and '.join(absent)} not installed: left out (pip install 'everloop[bench]')"
        for wanted in needs.values()
        if (absent := _absent(wanted))
    ]


def _names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


def _absent(packages: tuple[str, ...]) -> list[str]:
    return [name for name in packages if find_spec(name) is None]
