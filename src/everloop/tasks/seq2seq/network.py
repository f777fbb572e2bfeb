"""Encoder and decoder with attention and copying: sequences in, probabilities of the next piece out.

All steps of a target are computed at once. The recurrence over them needs no attention weights (attention is given
its outputs, Luong et al. 2015), so it is one call of `Recurrent`, and attention is a product of whole arrays. A second
recurrence over outputs and contexts side by side knows what has been attended to before, which input feeding is for.

B sequences, S steps of the source, T of the target, E features of an embedding, M of the memory, V target pieces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.nn import Recurrent

LEAST = 1e-9
"""Probabilities below count as this: a piece that can neither be drawn nor copied has a finite loss."""

AttentionKind = Literal["general", "dot", "additive", "none"]


class Source(NamedTuple):
    """Sources of a batch. steps: ids [B, S] or values [B, S, F], padded; lengths [B], on the CPU. copied [B, S]: what
    copying each step writes, an id of the target, or V, V + 1, ... for pieces that it does not know; None: no copying.
    """

    steps: Tensor
    lengths: Tensor
    copied: Tensor | None = None


@dataclass(frozen=True)
class Memory:
    """What a decoder looks at: values [B, S, M]; keys [B, S, K], which queries are compared with; padding [B, S], True
    where a source has ended; summary [B, M], of the whole source; copied as in `Source`."""

    values: Tensor
    keys: Tensor
    padding: Tensor
    summary: Tensor
    copied: Tensor | None

    def take(self, rows: Tensor) -> Memory:
        """The memory of these sequences."""
        copied = None if self.copied is None else self.copied[rows]
        return Memory(self.values[rows], self.keys[rows], self.padding[rows], self.summary[rows], copied)


class Decoded(NamedTuple):
    """features [B, T, E] that scores are made of; weights [B, T, S]: how much each step of the source was looked at;
    written [B, T]: the probability that the piece is written from the vocabulary and not copied (None: no copying).
    """

    features: Tensor
    weights: Tensor
    written: Tensor | None


class EncoderDecoder(nn.Module):
    """forward(source, before) -> `Decoded` of all steps [B, T], and the memory; before [B, T] are the pieces before.

    `loss` and `log_probabilities` are made of these two.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def remember(self, source: Source) -> Memory:
        values, padding, summary = self.encoder(source.steps, source.lengths)
        return Memory(values, self.decoder.attention.keys(values), padding, summary, source.copied)

    def forward(self, source: Source, before: Tensor) -> tuple[Decoded, Memory]:
        memory = self.remember(source)
        return self.decoder(before, memory)[0], memory

    def loss(self, decoded: Decoded, memory: Memory, target: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        """Nats per piece [N] of the N pieces of target [B, T] that are not padding (0), and which of them are the
        likeliest ones (in training, where nobody asks: those of the vocabulary alone). smoothing: this share of the
        loss is the mean over the whole vocabulary (Szegedy et al. 2016)."""
        there = target != 0
        scores = self.decoder.scores(decoded.features[there])
        wanted = target[there]
        known = wanted < scores.shape[-1]
        true = scores.gather(1, wanted.where(known, 0)[:, None])[:, 0]
        if decoded.written is not None and memory.copied is not None:
            written = decoded.written[there].clamp(LEAST, 1 - LEAST)
            copied = (decoded.weights * (memory.copied[:, None] == target[:, :, None])).sum(-1)[there]
            drawn = (true + written.log()).masked_fill(~known, -torch.inf)
            true = torch.logaddexp(drawn, ((1 - written) * copied).clamp_min(LEAST).log())
        likeliest = scores
        if decoded.written is not None and not self.training:
            likeliest = self.log_probabilities(decoded, memory)[there]
        losses = -(1 - smoothing) * true
        if smoothing:
            losses = losses - smoothing * scores.mean(-1)
        return losses, likeliest.argmax(-1) == wanted

    def looked_again(self, decoded: Decoded, target: Tensor) -> Tensor:
        """How much each step of a source was looked at that had been looked at before, per piece (See et al. 2017)."""
        before = decoded.weights.cumsum(1) - decoded.weights
        return torch.minimum(decoded.weights, before).sum(-1)[target != 0].mean()

    def log_probabilities(self, decoded: Decoded, memory: Memory) -> Tensor:
        """Of every piece at every step, [B, T, V]; with copying [B, T, V + X], X being how many unknown pieces the
        sources have: with probability `written` the piece is drawn from the vocabulary, else the source is copied
        where it was looked at (See et al. 2017)."""
        scores = self.decoder.scores(decoded.features)
        if decoded.written is None or memory.copied is None:
            return scores
        written = decoded.written[..., None]
        extra = max(0, int(memory.copied.max()) + 1 - scores.shape[-1])
        mixed = F.pad(written * scores.exp(), (0, extra))
        places = memory.copied[:, None].expand_as(decoded.weights)
        return mixed.scatter_add(-1, places, (1 - written) * decoded.weights).clamp_min(LEAST).log()


class Encoder(nn.Module):
    """A front, which makes [B, S, E] of what came, and recurrent layers over it.

    front(steps, lengths) -> (features [B, S', E], lengths [B] on the CPU): any module; S' may be shorter than S.
    Gives values [B, S', M], padding [B, S'] and the last output of every direction as summary [B, M].
    """

    def __init__(self, front: nn.Module, recurrent: Recurrent, dropout: float) -> None:
        super().__init__()
        self.front, self.recurrent, self.dropout = front, recurrent, dropout

    def forward(self, steps: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, lengths = self.front(steps, lengths)
        y, _ = self.recurrent(F.dropout(x, self.dropout, self.training), lengths=lengths)
        padding = torch.arange(y.shape[1], device=y.device) >= lengths.to(y.device)[:, None]
        return F.dropout(y, self.dropout, self.training), padding, self._summary(y, lengths)

    def _summary(self, y: Tensor, lengths: Tensor) -> Tensor:
        last = y[torch.arange(len(y), device=y.device), (lengths - 1).to(y.device)]
        if not self.recurrent.bidirectional:
            return last
        half = y.shape[-1] // 2
        return torch.cat([last[:, :half], y[:, 0, half:]], -1)


class Pieces(nn.Module):
    """The front for ids [B, S]: an embedding each. Those for values are in `everloop.tasks.fronts`."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.embedding(ids), lengths


class SharedPieces(nn.Module):
    """The same with the embedding of a decoder, whose parameter it stays: files of weights hold it once."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._of_decoder = (embedding,)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self._of_decoder[0](ids), lengths


class Attention(nn.Module):
    """Queries [B, T, H] and a memory -> contexts [B, T, M] and weights [B, T, S], all queries at once.

    general: q W m. dot: q m, which must be of one width (both Luong et al. 2015; what leaves tanh is small, so that
    these are not divided by the square root of the width as in Vaswani et al. 2017, which made them learn slowly).
    additive: v tanh(W q + U m) (Bahdanau et al. 2015); its sums are an array [B, T, S, H]. none: the weights are zero,
    and the context is the summary of the source (Cho et al. 2014).
    """

    def __init__(self, kind: AttentionKind, queries: int, memory: int) -> None:
        super().__init__()
        if kind == "dot" and queries != memory:
            raise ValueError(
                f"attention dot: queries of {queries} features and a memory of {memory} came; expected the same, or "
                "attention='general'"
            )
        self.kind = kind
        self.key = nn.Linear(memory, queries, bias=kind == "additive") if kind in ("general", "additive") else None
        self.query = nn.Linear(queries, queries, bias=False) if kind == "additive" else None
        self.sum = nn.Linear(queries, 1, bias=False) if kind == "additive" else None

    def keys(self, values: Tensor) -> Tensor:
        return values if self.key is None else self.key(values)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        if self.kind == "none":
            weights = queries.new_zeros(*queries.shape[:2], memory.values.shape[1])
            return memory.summary[:, None].expand(-1, queries.shape[1], -1), weights
        scores = self._scores(queries, memory.keys).masked_fill(memory.padding[:, None], -torch.inf)
        weights = scores.softmax(-1)
        return weights @ memory.values, weights

    def _scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        if self.query is not None and self.sum is not None:
            return self.sum(torch.tanh(self.query(queries)[:, :, None] + keys[:, None]))[..., 0]
        return queries @ keys.transpose(1, 2)


State = tuple[Any, Any] | None
"""Of the recurrence below and the one above attention, as `Recurrent` has them."""


class Decoder(nn.Module):
    """Pieces before, [B, T], and a memory -> `Decoded` for the pieces to come, and the state after.

    The state begins as the cell says; what the source was like is added to every embedding (Cho et al. 2014), so that
    any cell will do. Pieces before may be copied ones, V and more: they are read as unknown.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        below: Recurrent,
        above: Recurrent,
        attention: Attention,
        *,
        memory: int,
        copy: bool,
        tie: bool,
        dropout: float,
        unknown: int,
    ) -> None:
        super().__init__()
        pieces, features = embedding.num_embeddings, embedding.embedding_dim
        self.embedding, self.below, self.above, self.attention = embedding, below, above, attention
        self.dropout, self.unknown = dropout, unknown
        self.bridge = nn.Linear(memory, features)
        self.join = nn.Linear(above.output_size + memory, features)
        self.output = None if tie else nn.Linear(features, pieces, bias=False)
        self.bias = nn.Parameter(torch.zeros(pieces))
        self.gate = nn.Linear(above.output_size + memory + features, 1) if copy else None

    def forward(self, before: Tensor, memory: Memory, state: State = None) -> tuple[Decoded, State]:
        """All steps of B targets, before [B, T]."""
        return self._decode(before, memory, state, lambda layers, x, state: layers(x, state))

    def step(self, before: Tensor, memory: Memory, state: State = None) -> tuple[Decoded, State]:
        """One step of W targets of each of B sources, before [B, W]; the state is one of B * W sequences."""
        return self._decode(before, memory, state, _one_step)

    def scores(self, features: Tensor) -> Tensor:
        """Log-probabilities [..., V] of the pieces of the vocabulary."""
        weight = self.embedding.weight if self.output is None else self.output.weight
        return F.linear(features, weight, self.bias).log_softmax(-1)

    def _decode(self, before: Tensor, memory: Memory, state: State, run: Any) -> tuple[Decoded, State]:
        first, second = (None, None) if state is None else state
        known = before.masked_fill(before >= self.embedding.num_embeddings, self.unknown)
        x = self._drop(self.embedding(known) + torch.tanh(self.bridge(memory.summary))[:, None])
        below, first = run(self.below, x, first)
        context, weights = self.attention(below, memory)
        above, second = run(self.above, self._drop(torch.cat([below, context], -1)), second)
        both = torch.cat([above, context], -1)
        features = self._drop(torch.tanh(self.join(self._drop(both))))
        written = None if self.gate is None else torch.sigmoid(self.gate(torch.cat([both, x], -1)))[..., 0]
        return Decoded(features, weights, written), (first, second)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def _one_step(layers: Recurrent, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    y, after = layers(x.flatten(0, 1)[:, None], state)
    return y.view(*x.shape[:2], -1), after
