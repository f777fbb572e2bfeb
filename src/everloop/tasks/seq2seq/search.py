"""An encoder and decoder at work: how likely they find true targets, and what they write themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from everloop.tasks.batching import pad
from everloop.tasks.decoding.beam import Hypothesis, beam_search
from everloop.tasks.seq2seq.network import Decoded, EncoderDecoder, Memory, Source
from everloop.tasks.seq2seq.pairs import EncodedSource, PairCodec

Batch = tuple[Sequence[EncodedSource], Sequence[np.ndarray]]
"""Sources and their targets."""


@dataclass(frozen=True)
class Written:
    """A text that the model wrote, its log-probability, and that by the length penalty, which ranks it."""

    text: str
    log_probability: float
    score: float


@dataclass(frozen=True)
class Writer:
    """A network with the codec of its pairs. longest: pieces that are written at most; alpha: of the length penalty."""

    network: EncoderDecoder
    codec: PairCodec
    device: torch.device
    longest: int
    alpha: float

    def decode(self, batch: Batch) -> tuple[Decoded, Memory, Tensor]:
        """All steps of true targets, and the targets [B, T]."""
        sources, targets = batch
        target, _ = pad(targets, self.device)
        before = torch.cat([torch.full_like(target[:, :1], self.codec.target.end), target[:, :-1]], 1)
        decoded, memory = self.network(self._source(sources), before)
        return decoded, memory, target

    def _source(self, sources: Sequence[EncodedSource]) -> Source:
        steps, lengths = pad([source.steps for source in sources], self.device)
        if not self.codec.copying:
            return Source(steps, lengths)
        copied = [source.copied for source in sources if source.copied is not None]
        return Source(steps, lengths, pad(copied, self.device)[0])

    @torch.no_grad()
    def forced(self, sources: Sequence[EncodedSource], targets: Sequence[np.ndarray]) -> dict[str, float]:
        """Loss in nats per piece, and the share of pieces that are the likeliest ones, each after the true ones."""
        total, right, count = 0.0, 0, 0
        self.network.eval()
        for rows in _batches(sources, 128):
            batch = [sources[k] for k in rows], [targets[k] for k in rows]
            losses, hits = self.network.loss(*self.decode(batch), 0.0)
            total, right, count = total + losses.sum().item(), right + int(hits.sum()), count + len(losses)
        return {"loss": total / count, "forced_accuracy": right / count}

    def free(self, sources: Sequence[EncodedSource], targets: Sequence[np.ndarray]) -> dict[str, float]:
        """The share of the pieces of the targets that stand at the same place in what is written greedily."""
        right = count = 0
        for (written,), target in zip(self.search(sources, 1, 1), targets, strict=True):
            own = np.array([*written.pieces, self.codec.target.end])[: len(target)]
            right += int((own == target[: len(own)]).sum())
            count += len(target)
        return {"free_accuracy": right / count}

    def write(self, sources: Sequence[EncodedSource], beam: int, best: int) -> list[list[Written]]:
        """The best texts for every source, the best first."""
        return [
            [Written(self.codec.decode(one.pieces, source), one.log_probability, one.score) for one in hypotheses]
            for hypotheses, source in zip(self.search(sources, beam, best), sources, strict=True)
        ]

    def search(self, sources: Sequence[EncodedSource], beam: int, best: int) -> list[list[Hypothesis]]:
        """The hypotheses for every source, searched in batches of similar length."""
        target = self.codec.target
        how = Search(beam, self.longest, self.alpha, target.end, (target.pad, target.unknown), best)
        found: list[list[Hypothesis]] = [[] for _ in sources]
        self.network.eval()
        for rows in _batches(sources, 64):
            for k, hypotheses in zip(
                rows, search(self.network, self._source([sources[k] for k in rows]), how), strict=True
            ):
                found[k] = hypotheses
        return found


def _batches(sources: Sequence[EncodedSource], size: int) -> list[list[int]]:
    """The places of sources of similar length."""
    order = np.argsort([len(source.steps) for source in sources], kind="stable").tolist()
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


@dataclass(frozen=True)
class Search:
    """beam: how many targets are kept for each source. longest: pieces at most, the end counted. alpha: of the length
    penalty. best: how many to give back. never: pieces that are not written."""

    beam: int
    longest: int
    alpha: float
    end: int
    never: Sequence[int]
    best: int = 1


@torch.no_grad()
def search(network: EncoderDecoder, source: Source, how: Search) -> list[list[Hypothesis]]:
    """The best targets of every source of a batch, the best first."""
    memory = network.remember(source)
    start = torch.full((len(memory.values), 1), how.end, device=memory.values.device)
    decoded, state = network.decoder.step(start, memory)
    first = _allowed(network.log_probabilities(decoded, memory)[:, 0], how.never)
    return beam_search(
        first,
        _State(memory, state, 1),
        _Advance(network, how.never),
        end=how.end,
        beam=how.beam,
        longest=how.longest,
        alpha=how.alpha,
        best=how.best,
    )


@dataclass(frozen=True)
class _State:
    """The sources that are still open, and the state of the decoder for `width` targets of each."""

    memory: Memory
    decoder: Any
    width: int


@dataclass(frozen=True)
class _Advance:
    network: EncoderDecoder
    never: Sequence[int]

    def __call__(self, state: _State, kept: Tensor, parents: Tensor, pieces: Tensor) -> tuple[Tensor, _State]:
        rows = (kept[:, None] * state.width + parents).flatten()
        memory = state.memory if len(kept) == len(state.memory.values) else state.memory.take(kept)
        before = tree_map(lambda array: array.index_select(1, rows), state.decoder)
        decoded, after = self.network.decoder.step(pieces, memory, before)
        scores = _allowed(self.network.log_probabilities(decoded, memory), self.never)
        # What can be copied is known by the sources that are open: their number of pieces may fall.
        return scores, _State(memory, after, pieces.shape[1])


def _allowed(scores: Tensor, never: Sequence[int]) -> Tensor:
    scores[..., list(never)] = -torch.inf
    return scores
