"""The headline: cells that nobody has built in, at the speed of those that are, for their arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from everloop.bench.contest import contest
from everloop.bench.goals import SHARE_OF_LSTM
from everloop.bench.options import Options
from everloop.bench.problem import Problem, ours
from everloop.bench.row import OURS, Check, Row

CELLS = (
    "peephole_lstm",
    "layernorm_lstm",
    "projection_lstm",
    "gru_before",
    "mgu",
    "slstm",
    "lem",
    "indrnn",
    "mingru",
)
SHAPES = ((8, 50, 128, 128), (32, 100, 128, 256))
YARDSTICK = "everloop's lstm"


def rows(options: Options) -> Iterator[Row]:
    for cell in options.cells(CELLS):
        for shape in SHAPES[:1] if options.quick else SHAPES:
            for what in ("forward", "training"):
                yield beside_lstm(Problem.of(cell, shape, what), options)


def beside_lstm(problem: Problem, options: Options) -> Row:
    """Ours, and our lstm taking turns with it: the GFLOP/s of both. No goal where the loop has no product."""
    lstm = Problem.of("lstm", problem.shape, problem.what)
    found = contest("cells", problem, options, {YARDSTICK: ours(lstm).run})
    share = found.figures[YARDSTICK].median / found.figures[OURS].median * problem.flops / lstm.flops
    goal = SHARE_OF_LSTM if problem.has_products else None
    return replace(found, checks=[*found.checks, Check("GFLOP/s, share of lstm's", share, goal, figure=YARDSTICK)])
