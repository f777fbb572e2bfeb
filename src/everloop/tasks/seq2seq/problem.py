"""Pairs of sources and targets, as a split of the data and as the training loop takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from everloop.data.split import length_buckets
from everloop.tasks.seq2seq.metrics import text_scores
from everloop.tasks.seq2seq.network import EncoderDecoder
from everloop.tasks.seq2seq.pairs import EncodedSource
from everloop.tasks.seq2seq.search import Batch, Writer
from everloop.tasks.training import Carry

VALIDATED = 500
"""Of the validation split so many are written out after every epoch, greedily."""


@dataclass(frozen=True)
class Part:
    """One split: what came, the target texts, and both as numbers."""

    inputs: list[Any]
    texts: list[str]
    sources: list[EncodedSource]
    targets: list[np.ndarray]

    def distinct(self) -> tuple[list[int], list[list[str]]]:
        """The first row of every distinct input, and all its targets. Inputs that are no texts are all distinct."""
        rows: dict[Any, list[int]] = {}
        for k, given in enumerate(self.inputs):
            rows.setdefault(given if isinstance(given, str | tuple) else k, []).append(k)
        return [some[0] for some in rows.values()], [[self.texts[k] for k in some] for some in rows.values()]

    @property
    def features(self) -> list[np.ndarray]:
        return [source.steps for source in self.sources]

    def take(self, rows: Sequence[int]) -> Part:
        def of(values: list[Any]) -> list[Any]:
            return [values[k] for k in rows]

        return Part(of(self.inputs), of(self.texts), of(self.sources), of(self.targets))


@dataclass(eq=False)
class Pairs:
    """Training and validation as the training loop takes them. writer: how targets are written; its network is
    that of the call. monitor: the
    metric of the best epoch, that of greedy search on a part of the validation split."""

    train: Part
    valid: Part
    writer: Writer
    monitor: str
    batch: int
    seed: int
    smoothing: float
    coverage: float

    def batches(self, epoch: int) -> list[Batch]:
        train = self.train
        lengths = [len(s.steps) + len(t) for s, t in zip(train.sources, train.targets, strict=True)]
        several = length_buckets(lengths, self.batch, np.random.default_rng([self.seed, epoch]))
        return [([train.sources[k] for k in rows], [train.targets[k] for k in rows]) for rows in several]

    def loss(self, network: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, int, Carry]:
        writer = self._writer(network)
        decoded, memory, target = writer.decode(batch)
        losses, _ = writer.network.loss(decoded, memory, target, self.smoothing)
        loss = losses.mean()
        if self.coverage:
            loss = loss + self.coverage * writer.network.looked_again(decoded, target)
        return loss, len(losses), None

    def validate(self, network: nn.Module) -> dict[str, float]:
        rows = np.random.default_rng(self.seed).permutation(len(self.valid.texts))[:VALIDATED]
        some = self.valid.take(np.sort(rows).tolist())
        writer = self._writer(network)
        outputs = [found[0].text for found in writer.write(some.sources, 1, 1)]
        metrics = text_scores(outputs, [[text] for text in some.texts], answers=self.monitor == "exact_match")
        return {**writer.forced(self.valid.sources, self.valid.targets), self.monitor: metrics[self.monitor]}

    def _writer(self, network: nn.Module) -> Writer:
        assert isinstance(network, EncoderDecoder)
        return replace(self.writer, network=network)
