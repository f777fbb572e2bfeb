"""Many to many, in step: a tag for every word of a sentence (part of speech, names, chunks, ...)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from everloop.data.examples import Examples
from everloop.data.split import length_buckets
from everloop.data.tagged import Asked, from_lists, read_tagged
from everloop.data.words import WordsCodec, check_sentences
from everloop.insight.inside import Inside
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.batching import pad
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.running._learned import extra_sizes
from everloop.tasks.tagger.baselines import tagger_baselines
from everloop.tasks.tagger.inside import look
from everloop.tasks.tagger.metrics import tag_metrics
from everloop.tasks.tagger.network import OTHER, TaggerNetwork
from everloop.tasks.task import Positive, Share, Task, Whole
from everloop.tasks.training import Carry

Batch = tuple[list[np.ndarray], list[np.ndarray]]
"""Of each sentence, its words as rows of ids [T, 21], and the numbers of its tags [T]."""

Sentences = Sequence[Sequence[str] | str] | str
"""Sentences as lists of words, or as texts with spaces between the words; a single text is one sentence."""

_TABLES = (".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".pq")
_WORDS_AT_ONCE = 8_000
_WORDS_PER_UPDATE = 500


@dataclass(kw_only=True)
class Tagger(Task):
    """A tag for each word: embeddings of the word and of its parts, recurrent layers, linear; a CRF on request.

    fit(data): a CoNLL-U file, a word and a tag per line, lines of word/tag items (我/nn 吃/v 苹果/nn), a folder with a
    train and a test file of these, or lists (`everloop.data.tagged` says which). Words must be apart already: Chinese
    text is not cut into words here. predict(sentences) -> a list of tags for each; tag(text) -> word/tag items.

    cell, hidden, layers, bidirectional: the recurrent layers over the words; hidden is per direction. embedding:
    features per word, the sum of the embeddings of the word, its shape, its first and last characters (see
    `everloop.data.words`). characters: units per direction of a recurrent layer that spells the word (0: none).
    crf: tags are scored as a chain (a score for every pair of neighbouring tags) instead of one by one. dropout: on
    what the linear layer reads; embedding_dropout: on what the recurrent layers read; both leave out the same
    features all along a sentence (Gal and Ghahramani 2016). word_dropout: share of words of which training sees the
    parts only, as it will be with unknown words. min_count: words, parts and characters seen less often are unknown.
    batch: sentences per update (0: as many as have 500 words on average). The rest is the training loop's: see
    `everloop train --help`.
    """

    hidden: Whole = 150
    bidirectional: bool = True
    embedding: Whole = 160
    characters: Annotated[int, Field(ge=0)] = 40
    crf: bool = False
    vocabulary: Annotated[int, Field(ge=4)] = 50_000
    min_count: Whole = 2
    batch: Annotated[int, Field(ge=0)] = 0
    lr: Positive = 3e-3
    dropout: Share = 0.5
    embedding_dropout: Share = 0.3
    word_dropout: Share = 0.2
    averaging: Share = 0.998

    name: ClassVar[str] = "tagger"
    monitor: ClassVar[str] = "accuracy"
    judged_by: ClassVar[str] = "accuracy"
    needs_target: ClassVar[bool] = True

    def read_given(self, data: Any, targets: Sequence[Any] | None, asked: Asked) -> Examples:
        """Sentences and tags (see `everloop.data.tagged`). target: the column of the tags."""
        asked = replace(asked, modality="words")
        if isinstance(data, str | Path):
            path = Path(data).expanduser()
            if path.is_dir() or (path.is_file() and not path.name.lower().removesuffix(".gz").endswith(_TABLES)):
                return read_tagged(path, str(data), asked)
        elif isinstance(data, list | tuple) and not (data and isinstance(data[0], dict)):
            return from_lists(data if targets is None else (data, targets), asked)
        return super().read_given(data, targets, asked)

    def prepare(self, examples: Examples, progress: Progress) -> None:
        if examples.targets is None:
            raise ValueError(f"{examples.source} has no tags; a tagger needs one per word")
        split = self.make_split(examples)
        rows = {"train": split.train, "valid": split.valid, "test": split.test}
        self.tags_ = sorted({tag for k in split.train for tag in examples.targets[k]})
        if len(self.tags_) < 2:
            raise ValueError(f"{examples.source} has one tag only ({self.tags_[0]!r}); a tagger needs two or more")
        self.codec_ = WordsCodec.fit(
            [examples.inputs[k] for k in split.train], min_count=self.min_count, vocabulary=self.vocabulary
        )
        self._parts = {
            name: self._part_of([examples.inputs[k] for k in places], [examples.targets[k] for k in places])
            for name, places in rows.items()
        }
        words = sum(map(len, self._parts["train"].ids)) / len(split.train)
        self.batch_ = self.batch or max(1, round(_WORDS_PER_UPDATE / words))
        sizes = " / ".join(f"{sum(map(len, part.ids)):,}" for part in self._parts.values())
        progress.say(f"{len(self.tags_)} tags; {sizes} words for training / validation / test")

    def _part_of(self, sentences: list[list[str]], tags: list[list[str]]) -> _Part:
        place = {tag: k for k, tag in enumerate(self.tags_)}
        numbers = [np.array([place.get(tag, OTHER) for tag in row]) for row in tags]
        return _Part(sentences, tags, self.codec_.encode_batch(sentences), numbers)

    def make_network(self) -> nn.Module:
        spelled = 0
        speller = None
        if self.characters:
            speller = Recurrent(
                self.cell, 32, self.characters, bidirectional=True, sizes=extra_sizes(self.cell, self.characters)
            )
            spelled = speller.output_size
        recurrent = Recurrent(
            self.cell,
            self.embedding + spelled,
            self.hidden,
            self.layers,
            self.bidirectional,
            self.dropout if self.layers > 1 else 0.0,
            sizes=extra_sizes(self.cell, self.hidden),
        )
        return TaggerNetwork(
            recurrent,
            speller,
            sizes=self.codec_.sizes,
            embedding=self.embedding,
            tags=len(self.tags_),
            crf=self.crf,
            dropout=self.dropout,
            embedding_dropout=self.embedding_dropout,
            word_dropout=self.word_dropout,
        )

    def natural_epochs(self) -> int:
        """So many that some 1.6 million words are read, but 5 to 60."""
        words = sum(map(len, self._parts["train"].ids))
        return max(5, min(60, round(1_600_000 / words)))

    def problem(self) -> _Problem:
        return _Problem(self)

    def baselines(self) -> list[Baseline]:
        train, test = self._parts["train"], self._parts["test"]
        return tagger_baselines((train.sentences, train.tags), (test.sentences, test.tags), self._known(test.sentences))

    def measure(self) -> dict[str, float]:
        test = self._parts["test"]
        self._test_tags = self._decode(test.ids)
        return tag_metrics(self._test_tags, test.tags, self._known(test.sentences))

    # Using a fitted one

    def predict(self, sentences: Sentences) -> list[list[str]]:
        """The tags of every sentence: one by one the most probable ones, or with a CRF the most probable sequence."""
        return self._decode(self._encode(sentences))

    def predict_proba(self, sentences: Sentences) -> list[np.ndarray]:
        """Of every sentence [T, K]: the probability of each tag, in the order of `tags_`, at each word."""
        ids = self._encode(sentences)
        found: list[np.ndarray] = [np.zeros((0, len(self.tags_)))] * len(ids)
        for rows, scores, lengths in self._scored(ids):
            with torch.no_grad():
                shares = self._network.shares(scores, lengths)
            for k, row in enumerate(rows):
                found[row] = shares[k, : lengths[k]].double().cpu().numpy()
        return found

    def tag(self, text: str) -> str:
        """word/tag items of a text with spaces between the words, line by line."""
        lines = [line.split() for line in text.split("\n")]
        return "\n".join(
            " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
            for words, tags in zip(lines, self.predict(lines), strict=True)
        )

    def score(self, sentences: Sentences, tags: Sequence[Sequence[str]]) -> float:
        """Accuracy over the words."""
        return self.evaluate(sentences, tags)["accuracy"]

    def evaluate(self, sentences: Sentences, tags: Sequence[Sequence[str]]) -> dict[str, float]:
        """The metrics of `measure` on other sentences. A tag that the model does not know counts as a mistake."""
        words = _sentences(sentences)
        if len(words) != len(tags) or not len(words):
            raise ValueError(
                f"{len(words):,} sentences and {len(tags):,} lists of tags came; expected as many, and at least one"
            )
        for k, (sentence, row) in enumerate(zip(words, tags, strict=True), start=1):
            if len(sentence) != len(row):
                raise ValueError(f"sentence {k}: {len(sentence)} words and {len(row)} tags came; expected as many")
        return tag_metrics(self.predict(words), tags, self._known(words))

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        if examples.targets is None:
            raise ValueError(f"{examples.source} has no tags to compare with; expected word/tag, or a column of tags")
        return self.evaluate(examples.inputs, examples.targets)

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """A sentence and its tags, both with spaces between."""
        for begin in range(0, len(examples), 256):
            part = examples.inputs[begin : begin + 256]
            for words, tags in zip(part, self.predict(part), strict=True):
                yield {"sentence": " ".join(words), "tags": " ".join(tags)}

    def inside(self, given: Any, target: Any = None, *, at: int | None = None) -> Inside:
        self._check_fitted()
        (words,) = _sentences([given])
        return look(self, words, target, at)

    def _encode(self, sentences: Sentences) -> list[np.ndarray]:
        self._check_fitted()
        return self.codec_.encode_batch(_sentences(sentences))

    def _known(self, sentences: Sequence[Sequence[str]]) -> list[list[bool]]:
        return [[self.codec_.knows(word) for word in words] for words in sentences]

    @property
    def _network(self) -> TaggerNetwork:
        assert isinstance(self.network_, TaggerNetwork)
        return self.network_

    def _decode(self, ids: Sequence[np.ndarray]) -> list[list[str]]:
        found: list[list[str]] = [[] for _ in ids]
        for rows, scores, lengths in self._scored(ids):
            best = self._network.best(scores, lengths)
            for row, path, length in zip(rows, best.tolist(), lengths.tolist(), strict=True):
                found[row] = [self.tags_[k] for k in path[:length]]
        return found

    def _scored(self, ids: Sequence[np.ndarray]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Batches of sentences of similar length: which, their scores [B, T, K] and their lengths [B]. Those without
        words are left out."""
        self.network_.eval()
        for rows in _batches([len(row) for row in ids]):
            with torch.no_grad(), self.few_threads():
                batch, lengths = pad([ids[k] for k in rows], self.device_)
                scores = self.network_(batch, lengths)
            yield rows, scores, lengths

    # Keeping

    def resolved(self) -> dict[str, Any]:
        return {"batch": self.batch_}

    def fitted(self) -> dict[str, Any]:
        return {"tags": self.tags_}

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        self.tags_ = list(fitted["tags"])
        self.batch_ = self.batch
        self.codec_ = WordsCodec.from_json(run.read_text("codec.json"))

    def facts(self) -> list[tuple[str, str]]:
        chain = "a chain (CRF)" if self.crf else "one by one"
        return [*super().facts(), ("words", self.codec_.describe()), ("tags", f"{len(self.tags_)}, {chain}")]

    def report(self, report: Report) -> Report:
        if not self.results_:
            return report
        test = self._parts["test"]
        names = sorted({*self.tags_, *(tag for row in test.tags for tag in row)})
        place = {tag: k for k, tag in enumerate(names)}
        counts = np.zeros((len(names), len(names)), dtype=int)
        for guess, true in zip(self._test_tags, test.tags, strict=True):
            np.add.at(counts, ([place[tag] for tag in true], [place[tag] for tag in guess]), 1)
        return replace(report, confusion=(names, counts.tolist()), examples=self._telling_words(test))

    def _telling_words(self, test: _Part) -> list[tuple[str, str, str]]:
        """The eight most frequent mistakes (true tag, predicted tag), and the first word of each in its sentence."""
        mistakes = [
            (true, guess, sentence, at)
            for sentence, (trues, guesses) in enumerate(zip(test.tags, self._test_tags, strict=True))
            for at, (true, guess) in enumerate(zip(trues, guesses, strict=True))
            if true != guess
        ]
        counts = Counter((true, guess) for true, guess, *_ in mistakes)
        first = {(true, guess): (sentence, at) for true, guess, sentence, at in reversed(mistakes)}
        shown = []
        for (true, guess), times in counts.most_common(8):
            sentence, at = first[true, guess]
            shown.append((_among_neighbours(test.sentences[sentence], at), true, f"{guess} ({times:,} times)"))
        return shown


@dataclass(frozen=True)
class _Part:
    sentences: list[list[str]]
    tags: list[list[str]]
    ids: list[np.ndarray]
    numbers: list[np.ndarray]


class _Problem:
    """The training and validation sentences as the training loop takes them. Losses are nats per word."""

    def __init__(self, task: Tagger) -> None:
        self.task, self.monitor = task, task.monitor
        self.train, self.valid = task._parts["train"], task._parts["valid"]
        self.lengths = [len(row) for row in self.train.ids]

    def batches(self, epoch: int) -> list[Batch]:
        rng = np.random.default_rng([self.task.seed, epoch])
        rows = length_buckets(self.lengths, self.task.batch_, rng)
        return [([self.train.ids[k] for k in batch], [self.train.numbers[k] for k in batch]) for batch in rows]

    def loss(self, network: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, int, Carry]:
        ids, lengths = pad(batch[0], self.task.device_)
        numbers, _ = pad(batch[1], self.task.device_, fill=OTHER)
        assert isinstance(network, TaggerNetwork)
        loss, words = network.loss(network(ids, lengths), numbers, lengths)
        return loss / words, words, None

    def validate(self, network: nn.Module) -> dict[str, float]:
        task = self.task
        loss, counted, right, words = 0.0, 0, 0, 0
        for rows, scores, lengths in task._scored(self.valid.ids):
            numbers, _ = pad([self.valid.numbers[k] for k in rows], task.device_, fill=OTHER)
            part, of = task._network.loss(scores, numbers, lengths)
            best = task._network.best(scores, lengths)
            inside = torch.arange(best.shape[1], device=best.device) < lengths.to(best.device)[:, None]
            loss, counted = loss + part.item(), counted + of
            right, words = right + int(((best == numbers) & inside).sum()), words + int(lengths.sum())
        return {"loss": loss / max(counted, 1), "accuracy": right / words}


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Sequences of similar length, so many at once as their padded words allow; those of no length are left out."""
    batch: list[int] = []
    for k in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not lengths[k]:
            continue
        if batch and (len(batch) + 1) * lengths[k] > _WORDS_AT_ONCE:
            yield batch
            batch = []
        batch.append(k)
    if batch:
        yield batch


def _sentences(sentences: Sentences) -> list[list[str]]:
    """Lists of words."""
    if isinstance(sentences, str):
        sentences = [sentences]
    found = [words.split() if isinstance(words, str) else words for words in sentences]
    check_sentences(found)
    return [list(words) for words in found]


def _among_neighbours(words: Sequence[str], at: int) -> str:
    begin, end = max(0, at - 6), at + 7
    shown = [*words[begin:at], f"[{words[at]}]", *words[at + 1 : end]]
    return " ".join(["…"] * (begin > 0) + shown + ["…"] * (end < len(words)))
