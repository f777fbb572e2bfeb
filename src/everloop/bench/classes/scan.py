"""Scans, which memory bounds and not arithmetic: against a copy of as many bytes, and over growing lengths.

The first part is the scan alone, without the product that makes its coefficients: these come as inputs. Of bytes, those
count that have to be moved: inputs read and outputs written once; in training also the gradient of the outputs, the
inputs and the outputs read, and the gradients of the inputs written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from everloop import cell, exp, expm1, maximum, sigmoid, softplus, sqrt, tanh
from everloop.bench.contest import contest, measured, row
from everloop.bench.goals import SHARE_OF_COPY
from everloop.bench.options import Options
from everloop.bench.peers import torch_layer
from everloop.bench.problem import Problem, module_rival, ours
from everloop.bench.row import OURS, Check, Row

WIDE = ((8, 2048, 512, 512), (1, 16384, 256, 256))
"""B, T, I, H of the scans alone: no cache holds an array."""

SHAPES = ((1, 64, 64), (1, 256, 256), (8, 64, 64), (8, 64, 256))
LENGTHS = (128, 1024, 16384)
"""B, I, H and T of whole layers."""


@cell(states="h:input", gates="", inputs="z:input")
def mingru_scan(x, h, z):
    z = sigmoid(z)
    return (1 - z) * h + z * x


@cell(states="c:input", gates="", inputs="f:input o:input")
def qrnn_scan(x, c, f, o):
    f = sigmoid(f)
    c = f * c + (1 - f) * tanh(x)
    return sigmoid(o) * c, c


@cell(states="h:input", gates="h", inputs="r:input i:input")
def rg_lru_scan(x, h, r, i, p):
    log_a = -8 * sigmoid(r) * softplus(p.h)
    return exp(log_a) * h + sqrt(maximum(-expm1(2 * log_a), 1e-12)) * (sigmoid(i) * x)


SCANS = {"mingru": mingru_scan, "qrnn": qrnn_scan, "rg_lru": rg_lru_scan}


def rows(options: Options) -> Iterator[Row | str]:
    for name in options.cells(tuple(SCANS)):
        if name not in SCANS:
            yield f"scan: {name} is none of {', '.join(SCANS)}"
            return
        for shape in WIDE[1:] if options.quick else WIDE:
            for what in ("forward", "training"):
                yield beside_copy(Problem.of(SCANS[name], shape, what), options)
    for batch, inputs, units in SHAPES[:1] if options.quick else SHAPES:
        for time in LENGTHS[:1] if options.quick else LENGTHS:
            yield beside_loops(Problem.of(options.cell or "mingru", (batch, time, inputs, units), "training"), options)


def beside_copy(problem: Problem, options: Options) -> Row:
    total = moved(problem)
    source = torch.ones(total // 2 // 4)
    target = torch.zeros_like(source)
    figures = measured({OURS: ours(problem).run, "copy": lambda: target.copy_(source)}, options)
    share = figures["copy"].median / figures[OURS].median
    checks = [Check("share of a copy's speed", share, SHARE_OF_COPY, figure="copy")]
    rate = total / figures[OURS].median / 1e9
    return row("scan", problem, options, figures, checks, rate=rate, rate_unit="GB/s")


def moved(problem: Problem) -> int:
    """Bytes that have to be read or written."""
    given = sum(array.nbytes for array in (problem.x, *problem.side.values()))
    return (given + problem.dy.nbytes) * (3 if problem.what == "training" else 1)


def beside_loops(problem: Problem, options: Options) -> Row:
    """And beside torch's own layers, which are other cells of the same width."""
    others = {}
    for name in ("gru", "lstm"):
        other = Problem.of(name, problem.shape, problem.what)
        layer = torch_layer.make_layer(other)
        forward = _outputs_of(layer)
        others[f"torch.nn {name}"] = module_rival(other, forward, torch_layer.family_weights(other, layer)).run
    found = contest("scan", problem, options, others)
    mine = found.figures[OURS].median
    more = [Check(name, found.figures[name].median / mine, figure=name) for name in others]
    return replace(found, checks=[*found.checks, *more])


def _outputs_of(layer: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: layer(x)[0]
