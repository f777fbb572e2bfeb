"""A translator as it is usually written with torch.nn: bidirectional GRU, additive attention, a loop over a GRUCell.

Nothing here knows of Everloop.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

PAD, START, END = 0, 1, 2

Batch = tuple[Tensor, Tensor, Tensor]
"""Source [B, S], its lengths [B], target [B, T], which ends with END."""


class Encoder(nn.Module):
    def __init__(self, words: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(embedding, hidden, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(2 * hidden, hidden)

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.dropout(self.embedding(source))
        packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, last = self.gru(packed)
        memory, _ = pad_packed_sequence(packed, batch_first=True)
        return memory, torch.tanh(self.bridge(torch.cat([last[0], last[1]], 1)))


class Attention(nn.Module):
    """Bahdanau et al. 2015."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(2 * hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, state: Tensor, memory: Tensor, keys: Tensor, padding: Tensor) -> Tensor:
        scores = self.score(torch.tanh(self.query(state)[:, None] + keys))[..., 0]
        weights = scores.masked_fill(padding, float("-inf")).softmax(1)
        return (weights[:, None] @ memory)[:, 0]


class Decoder(nn.Module):
    def __init__(self, words: int, embedding: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, embedding, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(hidden)
        self.cell = nn.GRUCell(embedding + 2 * hidden, hidden)
        self.output = nn.Linear(3 * hidden + embedding, words)

    def forward(
        self, word: Tensor, state: Tensor, memory: Tensor, keys: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        embedded = self.dropout(self.embedding(word))
        context = self.attention(state, memory, keys, padding)
        state = self.cell(torch.cat([embedded, context], 1), state)
        return self.output(torch.cat([state, context, embedded], 1)), state


class Translator(nn.Module):
    def __init__(self, source: int, target: int, embedding: int = 256, hidden: int = 256, dropout: float = 0.3) -> None:
        super().__init__()
        self.encoder = Encoder(source, embedding, hidden, dropout)
        self.decoder = Decoder(target, embedding, hidden, dropout)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor, forcing: float = 0.5) -> Tensor:
        """Scores of every target word [B, T, words]; each follows the true word before it with the share `forcing`."""
        memory, state = self.encoder(source, lengths)
        keys, padding = self.decoder.attention.key(memory), source == PAD
        word, scores = torch.full_like(target[:, 0], START), []
        for t in range(target.shape[1]):
            found, state = self.decoder(word, state, memory, keys, padding)
            scores.append(found)
            word = target[:, t] if random.random() < forcing else found.argmax(1)
        return torch.stack(scores, 1)


def batches(count: int, size: int, words: int, longest: int, seed: int = 0) -> list[Batch]:
    """A language of as many words whose sentences run backwards."""
    draw = torch.Generator().manual_seed(seed)
    meaning = torch.randperm(words - 3, generator=draw) + 3
    found = []
    for _ in range(count):
        lengths = torch.randint(max(1, longest // 3), longest + 1, (size,), generator=draw)
        sources = [torch.randint(3, words, (int(n),), generator=draw) for n in lengths]
        targets = [torch.cat([meaning[source.flip(0) - 3], torch.tensor([END])]) for source in sources]
        padded = (pad_sequence(several, batch_first=True, padding_value=PAD) for several in (sources, targets))
        source, target = padded
        found.append((source, lengths, target))
    return found


def train(model: Translator, data: Iterable[Batch], rate: float = 1e-2) -> list[float]:
    """The loss of every batch, each seen once."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    return [update(model, optimizer, batch) for batch in data]


def update(model: Translator, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    source, lengths, target = batch
    optimizer.zero_grad()
    scores = model(source, lengths, target)
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=PAD)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@torch.no_grad()
def translate(model: Translator, batch: Batch) -> Tensor:
    """The likeliest words, each after the likeliest one before it: [B, T]."""
    model.eval()
    source, lengths, target = batch
    return model(source, lengths, target, forcing=0.0).argmax(-1)
