"""Beam search: the likeliest sequences of a model that gives probabilities of the next piece.

At every step the `2 * beam` likeliest continuations of a sentence's beam are looked at. Those among the first `beam`
that end are found; the first `beam` that do not end go on. A sentence is done when it has found `beam` sequences, or
when nothing that goes on could still be better than what was found. Of width 1, this is greedy search; of a width of
all sequences, it is exhaustive.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Advance = Callable[[Any, Tensor, Tensor, Tensor], tuple[Tensor, Any]]
"""(state, kept [N], parents [N, W], pieces [N, W]) -> (log-probabilities [N, W, V] of the next piece, state).

Of the sentences of the call before, those at `kept` go on. Each has W sequences now: number w continues number
parents[n, w] of the call before with pieces[n, w].
"""


@dataclass(frozen=True)
class Hypothesis:
    """pieces, without the one that ends it; their log-probability, the end's among it; and that by the length penalty,
    which is what hypotheses are ranked by. ended: False for one that was cut at the longest length."""

    pieces: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool


def penalty(length: int, alpha: float) -> float:
    """What the log-probability of a sequence of so many pieces, the end counted, is divided by: ((5 + length) / 6) **
    alpha (Wu et al. 2016). 0: nothing; 1: nearly the mean of the pieces."""
    return ((5 + length) / 6) ** alpha


def beam_search(
    first: Tensor,
    state: Any,
    advance: Advance,
    *,
    end: int,
    beam: int,
    longest: int,
    alpha: float = 0.0,
    best: int = 1,
) -> list[list[Hypothesis]]:
    """The `best` hypotheses of every sentence, the best first; fewer where there are fewer.

    first [N, V]: log-probabilities of the first piece of N sentences; -inf for what must not come. state: whatever
    `advance` takes; its sequences are one for each sentence at first. longest: pieces at most, the end counted; what
    has not ended by then is cut there, and ranked with the others.
    """
    _check(first, beam, longest, alpha, best)
    sentences = [_Sentence(beam, best) for _ in range(len(first))]
    open_ones = list(range(len(first)))
    scores, total = first[:, None], first.new_zeros(len(first), 1)
    pieces = torch.zeros(len(first), 1, 0, dtype=torch.int64, device=first.device)
    for length in range(1, longest + 1):
        vocabulary = scores.shape[-1]
        reached = (total[..., None] + scores).flatten(1)
        values, places = reached.topk(min(2 * beam, reached.shape[1]), dim=1)
        parents, last = places // vocabulary, places % vocabulary
        written = torch.cat([_of_parents(pieces, parents), last[..., None]], -1)
        ends = last == end
        for n, c in (ends[:, :beam] & values[:, :beam].isfinite()).nonzero().tolist():
            value = values[n, c].item()
            sentences[open_ones[n]].add(written[n, c, :-1].tolist(), value, value / penalty(length, alpha), ended=True)
        chosen = _first_that_go_on(ends, beam)
        total, parents, last = (array.gather(1, chosen) for array in (values, parents, last))
        pieces = _of_parents(written, chosen)
        if length == longest:
            _cut([sentences[n] for n in open_ones], pieces, total, penalty(length, alpha))
            break
        # A sum of log-probabilities only falls, and the penalty is largest for the longest.
        bounds = (total.amax(1) / penalty(longest, alpha)).tolist()
        going = [n for n, bound in enumerate(bounds) if not sentences[open_ones[n]].is_done(bound)]
        if not going:
            break
        open_ones = [open_ones[n] for n in going]
        kept = torch.tensor(going, device=first.device)
        total, pieces = total[kept], pieces[kept]
        scores, state = advance(state, kept, parents[kept], last[kept])
    return [sentence.ranked() for sentence in sentences]


@dataclass
class _Sentence:
    """What has been found of one sentence."""

    beam: int
    best: int
    found: list[Hypothesis] = field(default_factory=list)

    def add(self, pieces: list[int], log_probability: float, score: float, *, ended: bool) -> None:
        self.found.append(Hypothesis(tuple(pieces), log_probability, score, ended))

    def is_done(self, bound: float) -> bool:
        """bound: no sequence that goes on can get a better score."""
        if bound == -math.inf or len(self.found) >= self.beam:
            return True
        return len(self.found) >= self.best and self.ranked()[-1].score >= bound

    def ranked(self) -> list[Hypothesis]:
        return heapq.nlargest(self.best, self.found, key=lambda one: one.score)


def _of_parents(sequences: Tensor, parents: Tensor) -> Tensor:
    """sequences [N, W, L], parents [N, C] -> [N, C, L]."""
    return sequences.gather(1, parents[..., None].expand(-1, -1, sequences.shape[-1]))


def _first_that_go_on(ends: Tensor, beam: int) -> Tensor:
    """The places [N, W] of the first `beam` candidates that do not end; candidates [N, C] come in order."""
    fewest = int((~ends).sum(1).min())
    return torch.argsort(ends.to(torch.int8), dim=1, stable=True)[:, : min(beam, fewest)]


def _cut(sentences: list[_Sentence], pieces: Tensor, total: Tensor, by: float) -> None:
    """At the longest length: what goes on counts as it is, but for sentences that have found their `beam`."""
    for sentence, sequences, values in zip(sentences, pieces.tolist(), total.tolist(), strict=True):
        if len(sentence.found) < sentence.beam:
            for sequence, value in zip(sequences, values, strict=True):
                if value > -math.inf:
                    sentence.add(sequence, value, value / by, ended=False)


def _check(first: Tensor, beam: int, longest: int, alpha: float, best: int) -> None:
    if first.dim() != 2 or not len(first):
        raise ValueError(f"first: {tuple(first.shape)} came; expected [N, V], log-probabilities of N sentences")
    for name, value in (("beam", beam), ("longest", longest), ("best", best)):
        if value < 1:
            raise ValueError(f"{name}={value} came; expected 1 or more")
    if best > beam:
        raise ValueError(f"best={best} came with beam={beam}; expected a beam at least as wide")
    if alpha < 0:
        raise ValueError(f"alpha={alpha} came; expected 0 or more: a search could not stop early with less")
