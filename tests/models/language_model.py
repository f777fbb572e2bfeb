"""A word language model as it is usually written with torch.nn: tied weights, truncated back-propagation through time.

Nothing here knows of Everloop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class LanguageModel(nn.Module):
    def __init__(
        self, kind: str, words: int, size: int = 256, layers: int = 2, dropout: float = 0.5, tied: bool = True
    ) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(words, size)
        self.rnn = getattr(nn, kind)(size, size, layers, dropout=dropout)
        self.decoder = nn.Linear(size, words)
        if tied:
            self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, text: Tensor, hidden: Any) -> tuple[Tensor, Any]:
        embedded = self.drop(self.encoder(text))
        output, hidden = self.rnn(embedded, hidden)
        return self.decoder(self.drop(output)), hidden

    def init_hidden(self, batch: int) -> Any:
        zeros = self.encoder.weight.new_zeros(self.rnn.num_layers, batch, self.rnn.hidden_size)
        return (zeros, zeros.clone()) if self.rnn.mode == "LSTM" else zeros


def repackage(hidden: Any) -> Any:
    """The same states without their history."""
    return hidden.detach() if isinstance(hidden, Tensor) else tuple(repackage(part) for part in hidden)


def columns(tokens: Tensor, batch: int) -> Tensor:
    """A text [N] as `batch` texts side by side [N // batch, batch]; what is left over is left out."""
    steps = tokens.shape[0] // batch
    return tokens[: steps * batch].view(batch, steps).t().contiguous()


def tokens_of(text: str) -> tuple[Tensor, int]:
    """The words of a text as numbers, and how many different ones there are."""
    words = text.split()
    numbers = {word: number for number, word in enumerate(sorted(set(words)))}
    return torch.tensor([numbers[word] for word in words]), len(numbers)


def train(model: LanguageModel, text: Tensor, steps: int, rate: float = 1e-2, epochs: int = 1) -> list[float]:
    """The loss of every chunk of `steps` words of the text [N, B], the state carried from chunk to chunk."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for _ in range(epochs):
        hidden = model.init_hidden(text.shape[1])
        for begin in range(0, text.shape[0] - 1, steps):
            end = min(begin + steps, text.shape[0] - 1)
            hidden = repackage(hidden)
            loss, hidden = update(model, optimizer, text[begin:end], text[begin + 1 : end + 1], hidden)
            losses.append(loss)
    return losses


def update(
    model: LanguageModel, optimizer: torch.optim.Optimizer, words: Tensor, following: Tensor, hidden: Any
) -> tuple[float, Any]:
    optimizer.zero_grad()
    scores, hidden = model(words, hidden)
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    optimizer.step()
    return loss.item(), hidden


@torch.no_grad()
def generate(model: LanguageModel, first: Tensor, count: int) -> Tensor:
    """The likeliest words after `first` [B], one at a time: [count, B]."""
    model.eval()
    word, hidden, found = first[None], model.init_hidden(first.shape[0]), []
    for _ in range(count):
        scores, hidden = model(word, hidden)
        word = scores.argmax(-1)
        found.append(word)
    return torch.cat(found)
