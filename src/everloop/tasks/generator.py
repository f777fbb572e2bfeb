"""One to many: what comes next (letters, words, subwords), and text made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.files import Examples
from everloop.data.split import split_blocks
from everloop.data.text import TextCodec
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baselines import Baseline, ngram_baseline
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.running._learned import Learned, extra_sizes
from everloop.tasks.running.generator import GeneratorStream, RunningGenerator
from everloop.tasks.task import Positive, Share, Task, Whole
from everloop.tasks.training import Carry

CHUNK = 1024
STREAM = 20_000


@dataclass(kw_only=True)
class Generator(Task):
    """A language model: embedding, recurrent layers, linear, trained to name the next piece of text.

    fit(data): a text file, a table with one text per row, or a list of texts (see `Task.fit`). The end of a
    single text is the test, ten blocks spread over the rest the validation; many texts are dealt out whole.
    generate(prompt) -> text; stream(prompt) -> a live text, to be read or written on piece by piece.

    Trained by truncated back-propagation through time (Williams and Peng 1990): the text is read in `batch`
    parallel streams, `window` steps at a time, and the state is carried from one window to the next.
    Losses are nats per piece; perplexity is exp(loss).
    """

    hidden: Whole = 256
    embedding: Whole = 64
    window: Whole = 64
    lr: Positive = 5e-3
    dropout: Share = 0.12
    embedding_dropout: Share = 0.05
    valid: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    min_count: Whole = 1
    unit: Literal["auto", "chars", "words", "subwords"] = "auto"
    vocabulary: Annotated[int, Field(ge=4)] = 30_000

    name: ClassVar[str] = "generator"
    monitor: ClassVar[str] = "loss"
    judged_by: ClassVar[str] = "loss"
    needs_target: ClassVar[bool] = False

    def prepare(self, examples: Examples, progress: Progress) -> None:
        self._split(examples)
        unit = self.choose_unit(self._documents["train"], "generate", self.unit)
        self.codec_ = TextCodec.fit(
            self._documents["train"],
            unit=unit,
            reversible=True,
            min_count=self.min_count,
            vocabulary=self.vocabulary,
        )
        self._ids = {part: self._encode(documents) for part, documents in self._documents.items()}
        sizes = " / ".join(f"{len(ids):,}" for ids in self._ids.values())
        progress.say(f"{sizes} {unit} for training / validation / test")
        self._check_size(examples)

    def _split(self, examples: Examples) -> None:
        """One long text is cut; many texts are dealt out whole."""
        if len(examples.inputs) == 1:
            (text,) = examples.inputs
            parts = split_blocks(len(text), self.valid, self.test)
            self._documents = {name: [text[s] for s in spans] for name, spans in zip(_PARTS, parts, strict=True)}
            self.ends_ = False
        else:
            split = self.make_split(examples)
            self._documents = {name: [examples.inputs[k] for k in getattr(split, name)] for name in _PARTS}
            self.ends_ = True

    def _encode(self, documents: Sequence[str]) -> np.ndarray:
        end = [np.array([self.codec_.end])] if self.ends_ else []
        return np.concatenate([part for ids in self.codec_.encode_batch(documents) for part in (ids, *end)])

    def _check_size(self, examples: Examples) -> None:
        shortest = min(len(ids) for ids in self._ids.values())
        if shortest < 2 or len(self._ids["train"]) < 2 * self._streams:
            raise ValueError(
                f"{examples.source} is too short to train on: {len(self._ids['train']):,} pieces of text for training, "
                f"{shortest:,} in the smallest split; expected at least {2 * self._streams:,} and 2"
            )

    @property
    def _streams(self) -> int:
        """Parallel streams of training: fewer than asked where the text is short."""
        return max(1, min(self.batch, len(self._ids["train"]) // (2 * self.window)))

    def make_network(self) -> nn.Module:
        recurrent = Recurrent(
            self.cell,
            self.embedding,
            self.hidden,
            self.layers,
            dropout=self.dropout if self.layers > 1 else 0.0,
            sizes=extra_sizes(self.cell, self.hidden),
        )
        return LanguageModel(
            recurrent, vocabulary=len(self.codec_), dropout=self.dropout, embedding_dropout=self.embedding_dropout
        )

    def natural_epochs(self) -> int:
        """About 6,500 updates, in which a letter model of a megabyte of text converges; one pass at least."""
        return max(1, min(60, round(6_500 / len(self.problem().batches(1)))))

    def problem(self) -> _Problem:
        return _Problem(self)

    def baselines(self) -> list[Baseline]:
        return [ngram_baseline(self._ids["train"], self._ids["test"], vocabulary=len(self.codec_))]

    def measure(self) -> dict[str, float]:
        loss = self._loss(self._ids["test"])
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

    def _loss(self, ids: np.ndarray) -> float:
        """Mean nats per piece, the first apart, the state carried along a few long streams."""
        streams = max(1, len(ids) // STREAM)
        steps = (len(ids) - 1) // streams
        read = ids[: streams * steps].reshape(streams, steps)
        wanted = ids[1 : streams * steps + 1].reshape(streams, steps)
        total, state = 0.0, None
        self.network_.eval()
        with torch.no_grad(), self.few_threads():
            for begin in range(0, steps, CHUNK):
                piece = slice(begin, begin + CHUNK)
                scores, state = self.network_(self._tensor(read[:, piece]), state)
                loss = F.cross_entropy(scores.flatten(0, 1), self._tensor(wanted[:, piece]).flatten(), reduction="sum")
                total += loss.item()
        return total / wanted.size

    def _tensor(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(ids)).to(self.device_)

    # Using a fitted one

    def evaluate(self, texts: Sequence[str] | str) -> dict[str, float]:
        """Loss in nats per piece, perplexity, and pieces, on other texts."""
        self._check_fitted()
        documents = [texts] if isinstance(texts, str) else list(texts)
        ids = self._encode(documents)
        if len(ids) < 2:
            raise ValueError("the text is too short to measure anything on: it needs two pieces or more")
        loss = self._loss(ids)
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "pieces": len(ids)}

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        return self.evaluate(examples.inputs)

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """A text, and what the model writes after it."""
        for prompt in examples.inputs:
            yield {"prompt": prompt, "text": self.generate(prompt, seed=self.seed)}

    def score(self, texts: Sequence[str] | str, targets: None = None) -> float:
        """Minus the loss: larger is better, as scikit-learn expects."""
        return -self.evaluate(texts)["loss"]

    def generate(self, prompt: str = "", **how: Any) -> str:
        """The prompt and what the model makes of it. Options as `stream`."""
        return self._running().generate(prompt, **how)

    def stream(self, prompt: str = "", **how: Any) -> GeneratorStream:
        """A live text that has read the prompt: iterate over it for what the model writes, as it is produced, or push
        more of it and get the probabilities of what comes next. It runs without torch.

        Options, all by name: length (500: pieces of text at most); temperature (0.8: scores are divided by it; 0 takes
        the most probable piece every time); top_k (0: draw from all, else from the k most probable); top_p (1: draw
        from all, else from the fewest that have this probability together, Holtzman et al. 2020); seed (makes the
        result repeatable); weights (float32: what those of the layers are stored in; bfloat16 and int8 are smaller).
        """
        return self._running().stream(prompt, **how)

    def _running(self) -> RunningGenerator:
        self._check_fitted()
        return RunningGenerator(Learned.of(self))

    # Keeping

    def fitted(self) -> dict[str, Any]:
        return {"ends": self.ends_}

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        self.ends_ = bool(fitted["ends"])
        self.codec_ = TextCodec.from_json(run.read_text("codec.json"))

    def resolved(self) -> dict[str, Any]:
        return {"unit": self.codec_.unit}

    def facts(self) -> list[tuple[str, str]]:
        return [*super().facts(), ("text", self.codec_.describe())]

    def report(self, report: Report) -> Report:
        if not self.results_:
            return report
        samples = [self.generate(length=400, temperature=t, seed=self.seed) for t in (0.5, 0.8, 1.0)]
        return replace(report, samples=samples)


_PARTS = ("train", "valid", "test")


class LanguageModel(nn.Module):
    """Token ids [B, T] and a state -> scores of the next token [B, T, V] and the state after."""

    def __init__(self, recurrent: Recurrent, *, vocabulary: int, dropout: float, embedding_dropout: float) -> None:
        super().__init__()
        self.dropout, self.embedding_dropout = dropout, embedding_dropout
        self.embedding = nn.Embedding(vocabulary, recurrent.input_size)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.recurrent = recurrent
        self.linear = nn.Linear(recurrent.output_size, vocabulary)

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        x = F.dropout(self.embedding(ids), self.embedding_dropout, self.training)
        y, state = self.recurrent(x, state)
        return self.linear(F.dropout(y, self.dropout, self.training)), state


class _Problem:
    """The text in parallel streams, a window at a time, the state carried along."""

    def __init__(self, task: Generator) -> None:
        self.task, self.monitor = task, task.monitor
        self.streams = task._streams
        ids = task._ids["train"]
        self.window = min(task.window, (len(ids) - 1) // self.streams)
        self.windows = max(1, (len(ids) - self.window) // (self.streams * self.window))

    def batches(self, epoch: int) -> list[tuple[np.ndarray, bool]]:
        """Windows [B, T + 1], and whether one is the first; each epoch starts at another place of the text."""
        ids, steps = self.task._ids["train"], self.windows * self.window
        slack = len(ids) - 1 - self.streams * steps
        offset = int(np.random.default_rng([self.task.seed, epoch]).integers(0, max(slack, 0) + 1))
        starts = offset + steps * np.arange(self.streams)
        return [
            (np.stack([ids[s + begin : s + begin + self.window + 1] for s in starts]), begin == 0)
            for begin in range(0, steps, self.window)
        ]

    def loss(self, network: nn.Module, batch: tuple[np.ndarray, bool], carry: Carry) -> tuple[Tensor, int, Carry]:
        ids, first = batch
        window = self.task._tensor(ids)
        scores, state = network(window[:, :-1], None if first else carry)
        loss = F.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        return loss, ids.shape[0] * (ids.shape[1] - 1), tuple(state)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"loss": self.task._loss(self.task._ids["valid"])}
