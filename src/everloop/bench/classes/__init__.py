"""What is measured, one class a file: `rows(options)` gives what it finds, one row after another, or a sentence about
what it leaves out.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from everloop.bench.options import Options
from everloop.bench.row import Row

NAMES: tuple[str, ...] = ("step", "sequence", "cells", "scan", "ragged", "memory", "compile", "contention")
"""In the order in which they are run."""

ONCE = ("memory", "compile", "contention")
"""Those that are measured for the last number of threads that is asked for, not for all."""


def rows(name: str, options: Options) -> Iterator[Row | str]:
    return importlib.import_module(f"{__name__}.{name}").rows(options)
