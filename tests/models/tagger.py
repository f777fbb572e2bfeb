"""A part-of-speech tagger as it is usually written with torch.nn: embedding, two-layer BiLSTM, linear.

Nothing here knows of Everloop.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

PAD = 0
IGNORED = -100

Batch = tuple[Tensor, Tensor, Tensor]
"""Words [B, T], lengths [B], tags [B, T]."""


class Tagger(nn.Module):
    def __init__(
        self, words: int, tags: int, embedding: int = 100, hidden: int = 256, layers: int = 2, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=PAD)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, dropout=dropout, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * hidden, tags)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(words))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, _ = self.lstm(packed)
        features, _ = pad_packed_sequence(packed, batch_first=True, total_length=words.shape[1])
        return self.classify(self.dropout(features))


def batches(count: int, size: int, words: int, tags: int, longest: int, seed: int = 0) -> list[Batch]:
    """Sentences whose tags follow from a word and its two neighbours, so that both directions have something to say."""
    draw = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, tags, (words,), generator=draw)
    found = []
    for _ in range(count):
        lengths = torch.randint(max(1, longest // 4), longest + 1, (size,), generator=draw)
        sentences = [torch.randint(1, words, (int(n),), generator=draw) for n in lengths]
        labels = [_tags(classes[sentence], tags) for sentence in sentences]
        padded = pad_sequence(sentences, batch_first=True, padding_value=PAD)
        found.append((padded, lengths, pad_sequence(labels, batch_first=True, padding_value=IGNORED)))
    return found


def _tags(classes: Tensor, tags: int) -> Tensor:
    before = torch.cat([classes.new_zeros(1), classes[:-1]])
    after = torch.cat([classes[1:], classes.new_zeros(1)])
    return torch.where(before == after, (classes + 1) % tags, classes)


def train(model: Tagger, data: Iterable[Batch], rate: float = 1e-2) -> list[float]:
    """The loss of every batch, each seen once."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    return [update(model, optimizer, batch) for batch in data]


def update(model: Tagger, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    words, lengths, tags = batch
    optimizer.zero_grad()
    scores = model(words, lengths)
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), tags.flatten(), ignore_index=IGNORED)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def predict(model: Tagger, batch: Batch) -> Tensor:
    model.eval()
    words, lengths, _ = batch
    return model(words, lengths).argmax(-1)
