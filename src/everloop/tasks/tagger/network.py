"""The network of a tagger: words as ids in, scores of the tags out, and what they lose against the true ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.words import PIECES, WordsCodec
from everloop.nn import Recurrent
from everloop.tasks.decoding.crf import CRF

OTHER = -1
"""The number of a tag that training had not."""


class TaggerNetwork(nn.Module):
    """Words as ids [B, T, 21] and lengths [B] -> scores of the tags [B, T, K]."""

    def __init__(
        self,
        recurrent: Recurrent,
        speller: Recurrent | None,
        *,
        sizes: Sequence[int],
        embedding: int,
        tags: int,
        crf: bool,
        dropout: float,
        embedding_dropout: float,
        word_dropout: float,
    ) -> None:
        super().__init__()
        self.dropout, self.embedding_dropout, self.word_dropout = dropout, embedding_dropout, word_dropout
        *pieces, characters = sizes
        self.recurrent = recurrent
        self.pieces = nn.ModuleList(nn.Embedding(size, embedding, padding_idx=0) for size in pieces)
        self.speller = speller
        self.letters = nn.Embedding(characters, speller.input_size, padding_idx=0) if speller is not None else None
        for table in (*self.pieces, *([self.letters] if self.letters is not None else [])):
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.1)
            table.weight.data[0].zero_()
        self.linear = nn.Linear(recurrent.output_size, tags)
        self.crf = CRF(tags) if crf else None

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self._embedded(ids[..., : len(PIECES)])
        if self.speller is not None:
            x = torch.cat([x, self._spelled(ids[..., len(PIECES) :])], -1)
        y, _ = self.recurrent(drop(x, self.embedding_dropout, self.training), lengths=lengths)
        return self.linear(drop(y, self.dropout, self.training))

    def loss(self, scores: Tensor, numbers: Tensor, lengths: Tensor) -> tuple[Tensor, int]:
        """The sum of nats of the tags [B, T], and over how many words. Tags that training had not (`OTHER`) count for
        nothing; with a CRF the whole sentence of one does."""
        if self.crf is None:
            each = F.cross_entropy(scores.flatten(0, 1), numbers.flatten(), ignore_index=OTHER, reduction="sum")
            return each, int((numbers != OTHER).sum())
        whole = (numbers != OTHER).sum(1).cpu() == lengths
        if not whole.any():
            return scores.sum() * 0, 0
        scores, numbers, lengths = scores[whole], numbers[whole].clamp(min=0), lengths[whole]
        return -self.crf.log_likelihood(scores, numbers, lengths).sum(), int(lengths.sum())

    def best(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """[B, T]: the most probable tags, one by one, or with a CRF the most probable sequence."""
        return scores.argmax(-1) if self.crf is None else self.crf.viterbi(scores, lengths)[0]

    def shares(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """[B, T, K]: the probabilities of the tags at each word."""
        return scores.double().softmax(-1) if self.crf is None else self.crf.marginals(scores, lengths)

    def _embedded(self, pieces: Tensor) -> Tensor:
        """[B, T, E]: the sum of what is known of a word."""
        words, *parts = pieces.unbind(-1)
        if self.training and self.word_dropout:
            hidden = (torch.rand(words.shape, device=words.device) < self.word_dropout) & (words > 0)
            words = words.masked_fill(hidden, WordsCodec.unknown)
        x = self.pieces[0](words)
        for table, part in zip(self.pieces[1:], parts, strict=True):
            x = x + table(part)
        return x

    def _spelled(self, characters: Tensor) -> Tensor:
        """[B, T, 2 H]: the last outputs of both directions over the characters [B, T, L] of each word, computed once
        for each different word."""
        assert self.speller is not None
        assert self.letters is not None
        each = characters.flatten(0, 1)
        different, place = torch.unique(each, dim=0, return_inverse=True)
        lengths = (different > 0).sum(1)
        spelled = different[:, : int(lengths.max())]
        # Padding is one of them, and a sequence has a step at least.
        y, _ = self.speller(self.letters(spelled), lengths=lengths.clamp(min=1).cpu())
        half = y.shape[2] // 2
        last = y[torch.arange(len(y), device=y.device), lengths.clamp(min=1) - 1, :half]
        return torch.cat([last, y[:, 0, half:]], -1)[place].view(*characters.shape[:2], -1)


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout [B, T, F] of the same features at all steps of a sequence."""
    if not training or not share:
        return x
    kept = torch.rand(x.shape[0], 1, x.shape[2], device=x.device, dtype=x.dtype) >= share
    return x * kept / (1 - share)
