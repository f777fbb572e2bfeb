"""Sequences of different lengths in one batch: time should go with the sum of the lengths, not with the padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from everloop.bench.classes import sequence
from everloop.bench.contest import measured, row
from everloop.bench.goals import RAGGED
from everloop.bench.options import Options
from everloop.bench.peers import torch_layer
from everloop.bench.problem import Problem, Rival, disagreements, module_rival, ours
from everloop.bench.row import OURS, Check, Row

SHAPES = ((32, 100, 128, 256), (256, 28, 28, 128))
FULL, PACKED = "full batch", "torch.nn, packed"


def rows(options: Options) -> Iterator[Row]:
    for cell in options.cells((*sequence.CELLS, "mingru")):
        for shape in SHAPES[1:] if options.quick else SHAPES:
            for what in ("forward", "training"):
                yield ragged(Problem.of(cell, shape, what), options)


def ragged(problem: Problem, options: Options) -> Row:
    batch, time, _, _ = problem.shape
    lengths = torch.from_numpy(np.random.default_rng(0).integers(1, time + 1, batch))
    share = float(lengths.sum()) / (batch * time)
    mine, theirs = padded(problem, lengths), packed(problem, lengths)
    wrong = disagreements(problem, theirs, mine)
    timed = {OURS: mine.run, FULL: ours(problem).run}
    figures = measured(timed | {name: rival.run for name, rival in theirs.items() if name not in wrong}, options)
    part = figures[OURS].median / figures[FULL].median
    checks = [Check(f"time for {share:.0%} of the steps, over that share", part / share, RAGGED, True, FULL)]
    if PACKED in figures:
        checks.append(Check(PACKED, figures[PACKED].median / figures[OURS].median, figure=PACKED))
    rate = share * problem.flops / figures[OURS].median / 1e9
    more = {"rate": rate, "rate_unit": "GFLOP/s", "wrong": list(wrong.values())}
    return row("ragged", problem, options, figures, checks, **more)


def padded(problem: Problem, lengths: Tensor) -> Rival:
    layer, given = problem.layer, lengths.tolist()
    weights = dict(layer.named_parameters())
    return module_rival(problem, lambda x: layer(x, lengths=given, side=problem.side)[0], weights)


def packed(problem: Problem, lengths: Tensor) -> dict[str, Rival]:
    """torch's packed sequence, packed and unpacked in every call: ours comes and goes padded too."""
    if problem.cell.name not in torch_layer.LAYERS:
        return {}
    layer, rnn = torch_layer.make_layer(problem), torch.nn.utils.rnn

    def forward(x: Tensor) -> Tensor:
        together = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(layer(together)[0], batch_first=True, total_length=x.shape[1])[0]

    return {PACKED: module_rival(problem, forward, torch_layer.family_weights(problem, layer))}
