"""Whole sequences through the three cells that others have built in: forward, and training."""

from __future__ import annotations

from collections.abc import Iterator

from everloop.bench.contest import contest
from everloop.bench.options import Options
from everloop.bench.problem import Problem
from everloop.bench.row import Row

CELLS = ("lstm", "gru", "elman")

SHAPES = (
    (1, 100, 64, 64),
    (8, 50, 128, 128),
    (256, 28, 28, 128),
    (32, 100, 128, 256),
    (64, 100, 256, 512),
    (64, 128, 512, 1024),
)
"""B, T, I, H."""


def rows(options: Options) -> Iterator[Row]:
    for cell in options.cells(CELLS):
        for shape in SHAPES[:2] if options.quick else SHAPES:
            for what in ("forward", "training"):
                yield contest("sequence", Problem.of(cell, shape, what), options)
