"""The networks of a classifier: what reads ids or values, recurrent layers, pooling over time, a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.nn import Recurrent
from everloop.tasks.running._ngrams import NGRAM_SCALE


class PooledLayers(nn.Module):
    """Steps [B, T, E] and lengths [B] -> class scores [B, C]: what both networks have in common."""

    def __init__(self, recurrent: Recurrent, *, classes: int, pooling: str, dropout: float) -> None:
        super().__init__()
        self.pooling, self.dropout = pooling.split("+"), dropout
        self.mixture = [1.0]
        self.recurrent = recurrent
        self.linear = nn.Linear(len(self.pooling) * recurrent.output_size, classes)

    def classify(self, x: Tensor, lengths: Tensor) -> Tensor:
        y, state = self.recurrent(x, lengths=lengths)
        inside = inside_of(y, lengths)
        pooled = torch.cat([_pool(name, y, state, inside) for name in self.pooling], -1)
        return self.linear(F.dropout(pooled, self.dropout, self.training))

    def experts(self, steps: Tensor, lengths: Tensor) -> list[Tensor]:
        """The scores [B, C] of each model inside, which learn apart from each other; `forward` adds them up, each
        multiplied by its number of `mixture`."""
        raise NotImplementedError

    def forward(self, steps: Tensor, lengths: Tensor) -> Tensor:
        scores = self.experts(steps, lengths)
        if len(scores) == 1:
            return scores[0]
        return sum(
            (weight * one for weight, one in zip(self.mixture, scores, strict=True)), torch.zeros_like(scores[0])
        )


class SequenceClassifier(PooledLayers):
    """Token ids [B, T] and lengths [B] -> class scores [B, C].

    With n-grams, a linear model on these (Wide and deep, Cheng et al. 2016, but with a loss of its own, so that
    neither model leans on the other) stands beside the recurrent one.
    """

    pair_keys: Tensor
    ngram_keys: Tensor

    def __init__(
        self,
        recurrent: Recurrent,
        *,
        vocabulary: int,
        classes: int,
        pooling: str,
        dropout: float,
        unknown: int,
        word_dropout: float,
        pairs: int,
        ngrams: int = 0,
        longest: int = 0,
    ) -> None:
        super().__init__(recurrent, classes=classes, pooling=pooling, dropout=dropout)
        self.unknown, self.word_dropout, self.longest = unknown, word_dropout, longest
        self.embedding = nn.Embedding(vocabulary, recurrent.input_size, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.register_buffer("pair_keys", torch.zeros(pairs, dtype=torch.int64))
        self.pair_embedding = nn.Embedding(pairs + 1, recurrent.input_size, padding_idx=pairs) if pairs else None
        if self.pair_embedding is not None:
            nn.init.normal_(self.pair_embedding.weight, std=0.1)
            self.pair_embedding.weight.data[pairs].zero_()
        self.ngram_scores = None
        if ngrams:
            self.register_buffer("ngram_keys", torch.zeros(ngrams, dtype=torch.int64))
            self.ngram_scores = nn.Embedding(ngrams + 1, classes, padding_idx=ngrams)
            nn.init.zeros_(self.ngram_scores.weight)
            self.ngram_bias = nn.Parameter(torch.zeros(classes))
            self.mixture = [0.5, 0.5]

    def experts(self, steps: Tensor, lengths: Tensor) -> list[Tensor]:
        ids, seen = steps, steps
        if self.training and self.word_dropout:
            seen = ids.masked_fill(torch.rand(ids.shape, device=ids.device) < self.word_dropout, self.unknown)
        x = F.dropout(self.embedding(seen) + self._pairs(seen), self.dropout, self.training)
        scores = self.classify(x, lengths)
        return [scores] if self.ngram_scores is None else [scores, self._wide(self.ngram_scores, ids, lengths)]

    def _pairs(self, ids: Tensor) -> Tensor | float:
        """What each piece and the next one, as a pair, add to its embedding; pairs that are not known add nothing."""
        if self.pair_embedding is None:
            return 0.0
        following = F.pad(ids[:, 1:], (0, 1))
        return self.pair_embedding(_places(ids * self.embedding.num_embeddings + following, self.pair_keys))

    def _wide(self, scores: nn.Embedding, ids: Tensor, lengths: Tensor) -> Tensor:
        """The scores of all n-grams in a text, by the square root of its length."""
        inside = inside_of(ids, lengths)
        base = self.embedding.num_embeddings + 1
        keys, total = torch.zeros_like(ids), 0.0
        for n in range(self.longest):
            # The key of those that end here: the key of one piece less, a step before, and the piece here.
            keys = (F.pad(keys[:, :-1], (1, 0)) if n else keys) * base + ids + 1
            whole = inside & (torch.arange(ids.shape[1], device=ids.device) >= n)
            places = torch.where(whole, _places(keys, self.ngram_keys), len(self.ngram_keys))
            total = total + scores(places).sum(1)
        return NGRAM_SCALE * total / lengths.to(ids.device).clamp(min=1)[:, None].sqrt() + self.ngram_bias


class WindowFront(nn.Module):
    """Each step and the `window` - 1 before it, [B, T, F] -> [B, T, E]: linear, what is below 0 cut off, dropout."""

    def __init__(self, features: int, output_size: int, window: int, dropout: float) -> None:
        super().__init__()
        self.output_size, self.window = output_size, window
        self.linear, self.dropout = nn.Linear(features * window, output_size), nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        seen = [F.pad(x, (0, 0, k, 0))[:, : x.shape[1]] for k in range(self.window)]
        return self.dropout(F.relu(self.linear(torch.cat(seen, -1)))), lengths


class ValuesClassifier(PooledLayers):
    """Values [B, T, F] and lengths [B] -> class scores [B, C]. In training, noise: standard deviation of what is added
    to every value; drift: of what is added to each of the F all along a sequence, and of the logarithm of what it is
    multiplied by, as another microphone or sensor might."""

    def __init__(
        self,
        front: nn.Module,
        recurrent: Recurrent,
        *,
        classes: int,
        pooling: str,
        dropout: float,
        noise: float,
        drift: float,
    ) -> None:
        super().__init__(recurrent, classes=classes, pooling=pooling, dropout=dropout)
        self.front, self.noise, self.drift = front, noise, drift

    def experts(self, steps: Tensor, lengths: Tensor) -> list[Tensor]:
        if self.training and self.drift:
            factor, offset = self.drift * steps.new_empty(2, len(steps), 1, steps.shape[-1]).normal_()
            steps = steps * factor.exp() + offset
        if self.training and self.noise:
            steps = steps + self.noise * torch.randn_like(steps)
        return [self.classify(*self.front(steps, lengths))]


def frequent_pairs(rows: Sequence[np.ndarray], vocabulary: int, most: int) -> np.ndarray:
    """The pairs of neighbouring ids seen 3 times or more, the `most` most frequent, as sorted keys
    first * vocabulary + second."""
    if not most:
        return np.zeros(0, dtype=np.int64)
    return _frequent([row[:-1] * vocabulary + row[1:] for row in rows], 3, most)


def frequent_ngrams(rows: Sequence[np.ndarray], vocabulary: int, longest: int, most: int) -> np.ndarray:
    """The runs of 1 to `longest` ids seen twice or more, the `most` most frequent, as sorted keys: the digits
    id + 1 to the base vocabulary + 1, so that runs of different lengths have different keys."""
    if not most or not longest:
        return np.zeros(0, dtype=np.int64)
    return _frequent([keys for row in rows for keys in _runs(row, vocabulary, longest)], 2, most)


def class_ratios(
    rows: Sequence[np.ndarray], labels: Sequence[int], known: np.ndarray, vocabulary: int, longest: int, classes: int
) -> np.ndarray:
    """[N, C], of each known run of ids: the log of its share of the runs in texts of a class over that in all others,
    each text counting a run once, one added to every count: the weights of naive Bayes, where a linear model does well
    to start (after Wang and Manning 2012, which multiplies features by them)."""
    counts = np.ones((len(known), classes))
    for row, label in zip(rows, labels, strict=True):
        keys = np.unique(np.concatenate(_runs(row, vocabulary, longest)))
        at = np.searchsorted(known, keys).clip(max=len(known) - 1)
        counts[at[known[at] == keys], label] += 1
    others = counts.sum(1, keepdims=True) - counts
    return (np.log(counts / counts.sum(0)) - np.log(others / others.sum(0))).astype(np.float32)


def _runs(row: np.ndarray, vocabulary: int, longest: int) -> list[np.ndarray]:
    """The keys of the runs of 1, 2, ... `longest` ids in a row."""
    found = [row + 1]
    for n in range(1, longest):
        found.append(found[-1][:-1] * (vocabulary + 1) + row[n:] + 1)
    return found


def inside_of(y: Tensor, lengths: Tensor) -> Tensor:
    """[B, T]: which steps of a padded batch are of its sequences."""
    return torch.arange(y.shape[1], device=y.device)[None, :] < lengths.to(y.device)[:, None]


def _frequent(keys: list[np.ndarray], times: int, most: int) -> np.ndarray:
    found, counts = np.unique(np.concatenate(keys), return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:most]
    return np.sort(found[kept[counts[kept] >= times]]).astype(np.int64)


def _places(keys: Tensor, known: Tensor) -> Tensor:
    """Where keys stand among the sorted known ones; those that do not: behind them all."""
    places = torch.searchsorted(known, keys).clamp(max=len(known) - 1)
    return torch.where(known[places] == keys, places, len(known))


def _pool(how: str, y: Tensor, state: Any, inside: Tensor) -> Tensor:
    if how == "max":
        return y.masked_fill(~inside[..., None], -torch.inf).amax(1)
    if how == "mean":
        return y.sum(1) / inside.sum(1)[:, None]
    last = inside.sum(1) - 1
    return y[torch.arange(len(y), device=y.device), last]
