"""One step of one live sequence, again and again, from Python: what a stream costs."""

from __future__ import annotations

from collections.abc import Iterator

from everloop import Recurrent
from everloop.bench.classes import cells, sequence
from everloop.bench.contest import contest
from everloop.bench.options import Options
from everloop.bench.problem import Problem
from everloop.bench.row import Row

UNITS = (64, 256)


def rows(options: Options) -> Iterator[Row | str]:
    if not hasattr(Recurrent, "stream"):
        yield "step: left out, because this version has no layer.stream()"
        return
    for cell in options.cells((*sequence.CELLS, *cells.CELLS)):
        for units in UNITS[:1] if options.quick else UNITS:
            yield contest("step", Problem.of(cell, (1, 1, units, units), "step"), options)
