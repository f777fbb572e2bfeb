"""Small problems that the demonstrations are about: sequences, and an answer that needs memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FILLERS = ("today", "again", "loudly", "slowly", "here", "there", "once", "twice")
ADDING_TRIVIAL = 1 / 12
"""The squared error of one who knows the last number and says the mean of the first."""

WORDS = ("dog", "man", "bites", "the", *FILLERS)


@dataclass(frozen=True)
class Sentences:
    """words [B][T], x [B, T, len(WORDS)] one feature per word, target [B]: 1. where the dog comes first."""

    words: list[list[str]]
    x: Tensor
    target: Tensor


def sentences(count: int, generator: np.random.Generator) -> Sentences:
    """Who bites? "the dog bites the man", or the other way round, with some more words that say nothing."""
    made = []
    for dog_bites in generator.integers(0, 2, count):
        first, second = ("dog", "man") if dog_bites else ("man", "dog")
        said = ["the", first, "bites", "the", second]
        for filler in generator.choice(FILLERS, 3, replace=False):
            places = [k for k in range(len(said) + 1) if k == 0 or said[k - 1] != "the"]
            said.insert(generator.choice(places), str(filler))
        made.append(said)
    return as_sentences(made)


def shuffled(given: Sentences, generator: np.random.Generator) -> Sentences:
    """The same words of every sentence in another order."""
    return as_sentences([[said[k] for k in generator.permutation(len(said))] for said in given.words])


def as_sentences(words: list[list[str]]) -> Sentences:
    places = torch.tensor([[WORDS.index(word) for word in said] for said in words])
    target = torch.tensor([float(said.index("dog") < said.index("man")) for said in words])
    return Sentences(words, torch.eye(len(WORDS))[places], target)


def recall(count: int, steps: int, symbols: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Which symbol came first, asked after the last of `steps` of them: x [B, T, symbols], target [B]."""
    shown = torch.as_tensor(generator.integers(0, symbols, (count, steps)))
    return torch.eye(symbols)[shown], shown[:, 0]


def adding(count: int, delay: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The sum of two marked numbers: the first of a sequence, and the last, `delay` steps later. x [B, delay + 1, 2]:
    a number from 0 to 1 at each step, and a mark; target [B].

    Hochreiter, Schmidhuber 1997, with the marks at the ends, so that all of the delay has to be bridged.
    """
    x = torch.zeros(count, delay + 1, 2)
    x[..., 0] = torch.as_tensor(generator.random((count, delay + 1)))
    x[:, [0, -1], 1] = 1
    return x, x[:, 0, 0] + x[:, -1, 0]


def copying(
    count: int, delay: int, generator: np.random.Generator, *, length: int = 3, symbols: int = 4
) -> tuple[Tensor, Tensor]:
    """Some symbols, a delay, a signal, and the symbols again: x [B, 2 * length + delay, symbols + 2], target
    [B, length], the answers at the last steps. Between a symbol and its answer there are `length + delay` steps.

    Hochreiter, Schmidhuber 1997, in the form of Arjovsky, Shah, Bengio 2016, which has 10 symbols of 8.
    """
    shown = torch.as_tensor(generator.integers(0, symbols, (count, length)))
    blank, signal = symbols, symbols + 1
    written = torch.full((count, 2 * length + delay), blank)
    written[:, :length] = shown
    written[:, length + delay - 1 if delay else length] = signal
    return torch.eye(symbols + 2)[written], shown
