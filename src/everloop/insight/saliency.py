"""Which pieces of an input speak for an answer, and a test of whether that can be believed.

Works on an `Inside`, one input of a fitted model: `task.inside(text)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from everloop.insight.inside import Inside
from everloop.nn import Recurrent

Method = Literal["integrated gradients", "occlusion"]

CONVINCING = 0.05
"""A deletion test as good as this by chance alone, or less often, is taken to say something."""


@dataclass(frozen=True)
class Saliency:
    """How much each piece speaks for an answer, or below zero against it.

    values: [T], in the unit of the score. score: of the answer. empty: the score when the layers read nothing but
    zeros (occlusion has none: NaN). error: by how much the values miss `score - empty` in sum, NaN for occlusion.
    """

    method: Method
    answer: str
    values: np.ndarray
    score: float
    empty: float
    error: float


@dataclass(frozen=True)
class DeletionTest:
    """The score as more and more pieces are made unknown.

    shares: of the pieces gone, [L]. most_first, least_first: the scores when those go first that speak most, or least,
    for the answer, [L]. random: in random orders, [R, L]. chance: how often a random order makes the score fall as
    fast as the saliency does, or faster: (1 + those that did) / (1 + R).
    """

    shares: np.ndarray
    most_first: np.ndarray
    least_first: np.ndarray
    random: np.ndarray
    chance: float

    @property
    def convinces(self) -> bool:
        """Whether the saliency finds what the answer rests on better than chance does."""
        return self.chance <= CONVINCING

    @property
    def beaten(self) -> int:
        """How many of the random orders make the score fall more slowly."""
        return int((area(self.shares, self.random) > area(self.shares, self.most_first)).sum())


def integrated_gradients(inside: Inside, answer: str | None = None, *, steps: int = 64) -> Saliency:
    """What each step that the layers read adds to the score, on the straight way there from zero.

    answer: None takes the model's first. steps: at how many points of the way the gradient is taken (those of Gauss
    and Legendre: exact where the score is a polynomial on it). What goes past the layers, such as n-grams beside them,
    is held as it is; occlusion sees that as well.
    Sundararajan, Taly, Yan 2017, Axiomatic Attribution for Deep Networks.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps} came; expected 1 or more")
    answer = asked(inside, answer)
    whole, read = _score_at(inside, answer, 1.0)
    empty, _ = _score_at(inside, answer, 0.0)
    total = torch.zeros_like(read.x)
    for point, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        score, way = _score_at(inside, answer, (point + 1) / 2)
        (gradient,) = torch.autograd.grad(score, way.scaled)
        total += gradient * (weight / 2)
    values = read.by_step(total * read.x).double().cpu().numpy()
    difference = float(whole.detach()) - float(empty.detach())
    error = abs(float(values.sum()) - difference)
    return Saliency("integrated gradients", answer, values, float(whole.detach()), float(empty.detach()), error)


def occlusion(inside: Inside, answer: str | None = None, *, width: int = 1) -> Saliency:
    """How much the score falls when a piece is made unknown.

    width: how many neighbours go at once, which a piece by itself may be too small for (letters); a piece then has the
    mean of what it was part of.
    """
    count = len(inside.pieces)
    if not 1 <= width <= max(1, count):
        raise ValueError(f"width: {width} came; expected 1 to {count}, the number of pieces")
    answer = asked(inside, answer)
    score = score_of(inside, answer)
    found, times = np.zeros(count), np.zeros(count)
    for begin in range(count - width + 1):
        gone = range(begin, begin + width)
        found[begin : begin + width] += (score - score_of(inside.without(gone), answer)) / width
        times[begin : begin + width] += 1
    return Saliency("occlusion", answer, found / np.maximum(times, 1), score, np.nan, np.nan)


def deletion_test(
    inside: Inside,
    saliency: Saliency,
    *,
    orders: int = 39,
    levels: int = 10,
    seed: int = 0,
    known: dict[frozenset[int], float] | None = None,
) -> DeletionTest:
    """Take pieces away, those that are said to matter most first: if the saliency means anything, the score falls
    faster than when they go in random orders.

    orders: how many of these. levels: after how many parts of the input, each as large, the score is looked at. known:
    scores by what is gone, which grow as more are found out: for several tests of one answer, with one seed.
    Petsiuk, Das, Saenko 2018, RISE; against random orders, as a permutation test.
    """
    if orders < 1 / CONVINCING - 1:
        raise ValueError(f"orders: {orders} came; expected {round(1 / CONVINCING) - 1} or more, to tell from chance")
    count = len(inside.pieces)
    if saliency.values.shape != (count,):
        raise ValueError(f"saliency: values of shape {saliency.values.shape} came; expected one per piece, ({count},)")
    counts = np.unique(np.linspace(0, count, min(levels, count) + 1).round().astype(int))
    known = {} if known is None else known

    def curve(order: np.ndarray) -> list[float]:
        found = []
        for k in counts:
            gone = frozenset(int(place) for place in order[:k])
            if gone not in known:
                known[gone] = score_of(inside.without(sorted(gone)) if gone else inside, saliency.answer)
            found.append(known[gone])
        return found

    dice = np.random.default_rng(seed)
    first = np.argsort(-saliency.values, kind="stable")
    shares = counts / max(1, count)
    most, least = np.array(curve(first)), np.array(curve(first[::-1]))
    random = np.array([curve(dice.permutation(count)) for _ in range(orders)])
    as_fast = (area(shares, random) <= area(shares, most)).sum()
    return DeletionTest(shares, most, least, random, float((1 + as_fast) / (1 + orders)))


def area(shares: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Below a curve of scores [..., L] over shares [L]: its mean height."""
    return ((scores[..., 1:] + scores[..., :-1]) / 2 * np.diff(shares)).sum(-1)


def asked(inside: Inside, answer: str | None) -> str:
    """The answer that is to be explained: the model's first, unless another is named."""
    return inside.answers[0][0] if answer is None else answer


def score_of(inside: Inside, answer: str) -> float:
    with torch.no_grad():
        return float(inside.score(inside.run(inside.network), answer))


# What the first layer reads.


class Read:
    """x: what came. scaled: what the layer read instead, which gradients are taken with respect to. time: the axis of
    its steps."""

    x: Tensor
    scaled: Tensor
    time: int

    def by_step(self, values: Tensor) -> Tensor:
        """Summed over all but the steps: [T]."""
        return values.movedim(self.time, 0).flatten(1).sum(1)


def _score_at(inside: Inside, answer: str, share: float) -> tuple[Tensor, Read]:
    """The score of the answer where the first layer reads a share of what it would read."""
    with torch.enable_grad(), _reading(inside, share) as read:
        score = inside.score(inside.run(inside.network), answer)
    if not hasattr(read, "x"):
        raise ValueError(f"{type(inside.network).__name__}: no recurrent layer ran, so there is nothing to ask about")
    if read.x.shape[read.time] != len(inside.pieces):
        raise ValueError(
            f"the layers read {read.x.shape[read.time]} steps and there are {len(inside.pieces)} pieces; expected one "
            "name per step (Inside.pieces) of the layers that read them (Inside.reads)"
        )
    return score, read


@contextmanager
def _reading(inside: Inside, share: float) -> Iterator[Read]:
    """Within the block, the layers whose steps the pieces are read a share of their input."""
    read = Read()

    def scale(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if hasattr(read, "x"):
            return None
        given = args[0]
        read.x = (given.data if isinstance(given, PackedSequence) else given).detach()
        read.time = 0 if read.x.dim() == 2 or (isinstance(module, nn.RNNBase) and not module.batch_first) else 1
        read.scaled = (share * read.x).requires_grad_()
        return (given._replace(data=read.scaled) if isinstance(given, PackedSequence) else read.scaled, *args[1:])

    hooks = [layer.register_forward_pre_hook(scale) for layer in _readers(inside)]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


def _readers(inside: Inside) -> list[nn.Module]:
    """The layers whose steps the pieces are; where no name leads to them, all: the first that runs will be it."""
    found = dict(inside.network.named_modules())
    layers = [found[inside.reads]] if inside.reads in found else list(found.values())
    return [module for module in layers if isinstance(module, Recurrent | nn.RNNBase)]
