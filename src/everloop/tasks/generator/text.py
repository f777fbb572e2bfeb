"""Text for a `Generator`: a language model, trained on windows of parallel streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.files import Examples
from everloop.data.split import split_blocks
from everloop.data.stored import StoredIds, encode_joined, is_stored, taken
from everloop.data.text import TextCodec
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.batching import Batches
from everloop.tasks.generator.baselines import ngram_baseline
from everloop.tasks.progress import Progress
from everloop.tasks.training import Carry

if TYPE_CHECKING:
    from everloop.tasks.generator.task import Generator

CHUNK = 512
STREAM = 20_000
MOST_SCORES = 8_000_000
MOST_COUNTED = 5_000_000
"""Pieces of a text larger than memory that are counted."""
PARTS = ("train", "valid", "test")


class TextWriting:
    """What a `Generator` does where it writes text. documents, ids: by part of the split."""

    def __init__(self, task: Generator) -> None:
        self.task = task
        self.documents: dict[str, Sequence[str]] = {}
        self.ids: dict[str, np.ndarray | StoredIds] = {}

    def prepare(self, examples: Examples, progress: Progress) -> None:
        task = self.task
        self._split(examples)
        unit = task.choose_unit(self.documents["train"], "generate", task.unit)
        task.codec_ = TextCodec.fit(
            self.documents["train"],
            unit=unit,
            reversible=True,
            min_count=task.min_count or None,
            vocabulary=task.vocabulary,
        )
        self.ids = {part: self.encode(documents) for part, documents in self.documents.items()}
        sizes = " / ".join(f"{len(ids):,}" for ids in self.ids.values())
        progress.say(f"{sizes} {unit} for training / validation / test")
        self._check_size(examples)

    def _split(self, examples: Examples) -> None:
        """One long text is cut; many texts are dealt out whole."""
        task = self.task
        pieces = examples.inputs if examples.kind == "text" and is_stored(examples.inputs) else None
        task.ends_ = len(examples) > 1 and pieces is None
        if task.ends_:
            split = task.make_split(examples)
            self.documents = {name: taken(examples.inputs, getattr(split, name)) for name in PARTS}
            return
        if pieces is not None:  # one text, too long for memory
            parts = split_blocks(len(pieces), task.valid, task.test)
            places = [[k for span in spans for k in range(span.start, span.stop)] for spans in parts]
            self.documents = {name: taken(pieces, some) for name, some in zip(PARTS, places, strict=True)}
            return
        (text,) = examples.inputs
        parts = split_blocks(len(text), task.valid, task.test)
        self.documents = {name: [text[s] for s in spans] for name, spans in zip(PARTS, parts, strict=True)}

    def encode(self, documents: Sequence[str]) -> np.ndarray | StoredIds:
        """All documents as one row of ids, each with its end where documents end."""
        codec = self.task.codec_
        return encode_joined(codec, documents, codec.end if self.task.ends_ else None)

    def _check_size(self, examples: Examples) -> None:
        shortest = min(len(ids) for ids in self.ids.values())
        if shortest < 2 or len(self.ids["train"]) < 2 * self.streams:
            raise ValueError(
                f"{examples.source} is too short to train on: {len(self.ids['train']):,} pieces of text for training, "
                f"{shortest:,} in the smallest split; expected at least {2 * self.streams:,} and 2"
            )

    @property
    def streams(self) -> int:
        """Parallel streams of training: fewer than asked where the text is short."""
        return max(1, min(self.task.batch, len(self.ids["train"]) // (2 * self.task.window)))

    def network(self) -> nn.Module:
        task = self.task
        return LanguageModel(
            task.recurrent_layers(task.embedding),
            vocabulary=len(task.codec_),
            dropout=task.dropout,
            embedding_dropout=task.embedding_dropout,
            tied=task.tied,
        )

    def natural_epochs(self) -> int:
        """About 6,500 updates, in which a letter model of a megabyte of text converges; one pass at least."""
        return max(1, min(60, round(6_500 / len(self.problem().batches(1)))))

    def problem(self) -> TextProblem:
        return TextProblem(self.task, self.ids["train"], self.streams, self)

    def baselines(self) -> list[Baseline]:
        """The n-gram model of the best order; beside one of words also the trigrams that papers compare with."""
        train, test, vocabulary = self.ids["train"], self.ids["test"], len(self.task.codec_)
        if isinstance(train, StoredIds) or isinstance(test, StoredIds):
            best = ngram_baseline(train[:MOST_COUNTED], test[:MOST_COUNTED], vocabulary=vocabulary)
            return [replace(best, name=f"{best.name}, the first of the text")]
        best = ngram_baseline(train, test, vocabulary=vocabulary)
        if self.task.codec_.unit != "words" or best.name.startswith("3-gram"):
            return [best]
        return [ngram_baseline(train, test, vocabulary=vocabulary, order=3), best]

    def measure(self) -> dict[str, float]:
        return metrics(self.loss(self.ids["test"]))

    def evaluate(self, documents: Sequence[str]) -> dict[str, float]:
        ids = self.encode(documents)
        if len(ids) < 2:
            raise ValueError("the text is too short to measure anything on: it needs two pieces or more")
        return {**metrics(self.loss(ids)), "pieces": len(ids)}

    def loss(self, ids: np.ndarray | StoredIds) -> float:
        """Mean nats per piece, the first apart, the state carried along a few long streams."""
        task = self.task
        streams = max(1, len(ids) // STREAM)
        steps = (len(ids) - 1) // streams
        chunk = max(1, min(CHUNK, MOST_SCORES // (streams * len(task.codec_))))
        read = ids[: streams * steps].reshape(streams, steps)
        wanted = ids[1 : streams * steps + 1].reshape(streams, steps)
        total, state = 0.0, None
        task.network_.eval()
        with torch.no_grad(), task.few_threads():
            for begin in range(0, steps, chunk):
                piece = slice(begin, begin + chunk)
                scores, state = task.network_(task.tensor(read[:, piece]), state)
                loss = F.cross_entropy(scores.flatten(0, 1), task.tensor(wanted[:, piece]).flatten(), reduction="sum")
                total += loss.item()
        return total / wanted.size

    def report(self, report: Report) -> dict[str, Any]:
        task = self.task
        samples = [task.generate(length=400, temperature=t, seed=task.seed) for t in (0.5, 0.8, 1.0)]
        return {"samples": samples}


def metrics(loss: float) -> dict[str, float]:
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}


class LanguageModel(nn.Module):
    """Token ids [B, T] and a state -> scores of the next token [B, T, V] and the state after.

    tied: the matrix of the scores is that of the embedding (Press and Wolf 2017; Inan et al. 2017); where the layers
    are not as wide as it, a linear map stands between.
    """

    def __init__(
        self, recurrent: Recurrent, *, vocabulary: int, dropout: float, embedding_dropout: float, tied: bool = False
    ) -> None:
        super().__init__()
        self.dropout, self.embedding_dropout, self.tied = dropout, embedding_dropout, tied
        width = recurrent.input_size
        self.embedding = nn.Embedding(vocabulary, width)
        # Scores are products with tied embeddings: they must not begin large.
        nn.init.normal_(self.embedding.weight, std=0.1 if tied else 0.3)
        self.recurrent = recurrent
        if tied:
            self.projection = nn.Linear(recurrent.output_size, width)
            self.bias = nn.Parameter(torch.zeros(vocabulary))
        else:
            self.linear = nn.Linear(recurrent.output_size, vocabulary)

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.read(ids, state)
        return F.linear(y, *self.readout), state

    def read(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What the scores are a linear map of, [B, T, E or H], and the state after."""
        x = F.dropout(self.embedding(ids), self.embedding_dropout, self.training)
        y, state = self.recurrent(x, state)
        y = F.dropout(y, self.dropout, self.training)
        return self.projection(y) if self.tied else y, state

    @property
    def readout(self) -> tuple[Tensor, Tensor]:
        """That map: [V, E or H] and [V]."""
        return (self.embedding.weight, self.bias) if self.tied else (self.linear.weight, self.linear.bias)


class TextProblem:
    """The text in parallel streams, a window at a time, the state carried along."""

    def __init__(self, task: Generator, ids: np.ndarray | StoredIds, streams: int, writing: TextWriting) -> None:
        self.task, self.monitor, self.ids, self.streams, self.writing = task, task.monitor, ids, streams, writing
        self.window = min(task.window, (len(ids) - 1) // streams)
        self.windows = max(1, (len(ids) - self.window) // (streams * self.window))
        vocabulary = len(task.codec_)
        self.rivals = Rivals(ids, vocabulary, task.sampled) if 0 < 2 * task.sampled < vocabulary else None

    def batches(self, epoch: int) -> Sequence[tuple[np.ndarray, bool]]:
        """Windows [B, T + 1], and whether one is the first; each epoch starts at another place of the text."""
        ids, steps = self.ids, self.windows * self.window
        slack = len(ids) - 1 - self.streams * steps
        offset = int(np.random.default_rng([self.task.seed, epoch]).integers(0, max(slack, 0) + 1))
        starts = offset + steps * np.arange(self.streams)
        return Batches(
            range(0, steps, self.window),
            lambda begin: (np.stack([ids[s + begin : s + begin + self.window + 1] for s in starts]), begin == 0),
        )

    def loss(self, network: nn.Module, batch: tuple[np.ndarray, bool], carry: Carry) -> tuple[Tensor, int, Carry]:
        assert isinstance(network, LanguageModel)
        ids, first = batch
        window = self.task.tensor(ids)
        y, state = network.read(window[:, :-1], None if first else carry)
        y, wanted = y.flatten(0, 1), window[:, 1:].flatten()
        if self.rivals is None:
            loss = F.cross_entropy(F.linear(y, *network.readout), wanted)
        else:
            loss = self.rivals.loss(y, wanted, *network.readout)
        return loss, ids.shape[0] * (ids.shape[1] - 1), tuple(state)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"loss": self.writing.loss(self.writing.ids["valid"])}


class Rivals:
    """Sampled softmax (Bengio and Senecal 2008; Jean et al. 2015): in training, the right piece is told from a few
    drawn ones in place of all, each score less the logarithm of how often its piece is expected among the drawn. What
    is learned are the scores of the whole softmax, which measuring and generating use.

    Drawn for a batch together, by count to the power 0.75 (flatter than the text, so that rare pieces learn, too).
    """

    def __init__(self, ids: np.ndarray | StoredIds, vocabulary: int, draws: int) -> None:
        some = ids[:MOST_COUNTED] if isinstance(ids, StoredIds) else ids
        counts = torch.from_numpy(np.bincount(some, minlength=vocabulary) + 1.0)
        self.share, self.draws = counts**0.75 / (counts**0.75).sum(), draws
        # Of each piece, how probably it is among the drawn.
        self.offset = torch.log(-torch.expm1(draws * torch.log1p(-self.share))).float()

    def loss(self, y: Tensor, wanted: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Mean nats: y [N, E], wanted [N], weight [V, E], bias [V]."""
        drawn = torch.multinomial(self.share, self.draws, replacement=True).unique().to(y.device)
        shift = bias - self.offset.to(y.device)
        right = (y * F.embedding(wanted, weight)).sum(-1) + shift[wanted]
        others = F.linear(y, F.embedding(drawn, weight), shift[drawn])
        others = others.masked_fill(drawn == wanted[:, None], -torch.inf)
        return (torch.logsumexp(torch.cat([right[:, None], others], 1), 1) - right).mean()
