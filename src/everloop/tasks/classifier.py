"""Many to one: which class a text belongs to (sentiment, topic, language, ...)."""

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
from everloop.data.split import length_buckets
from everloop.data.text import TextCodec
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baselines import Baseline, classifier_baselines
from everloop.tasks.batching import pad
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.running._learned import Learned, extra_sizes
from everloop.tasks.running.classifier import ClassifierStream, RunningClassifier, class_rows
from everloop.tasks.task import Positive, Share, Task, Whole
from everloop.tasks.training import Carry

Batch = tuple[list[np.ndarray], list[int]]
"""Token ids of each sequence, and its class."""


@dataclass(kw_only=True)
class Classifier(Task):
    """One label for a whole sequence: embedding, recurrent layers, pooling over time, linear.

    fit(data): a file with a text and a label column, a folder with one subfolder per class, a table, or lists
    (see `Task.fit`). predict(texts) -> labels; predict_proba(texts) -> [B, C] in the order of `classes_`; stream()
    -> a live text, if bidirectional=False.

    cell, hidden, layers, bidirectional: the recurrent layers; hidden is per direction. embedding: features per
    piece of text. pairs: most pairs of neighbouring pieces that have an embedding of their own, added to that of
    the first (-1: 30,000 for characters, none for words; 0: none). pooling: how the outputs [T, H] of a sequence
    become one vector: their maximum and mean, one of them, or the last output. dropout: on embeddings and the
    pooled vector. word_dropout: share of pieces replaced by `unknown` in training (-1: 0.2 for words, else 0.1).
    unit: characters, words or subwords; auto looks at the data. length: pieces of a text that are read at most.
    The rest is the training loop's: see `everloop train --help`.
    """

    hidden: Whole = 64
    bidirectional: bool = True
    embedding: Whole = 300
    pairs: Annotated[int, Field(ge=-1)] = -1
    pooling: Literal["max+mean", "max", "mean", "last"] = "max+mean"
    unit: Literal["auto", "chars", "words", "subwords"] = "auto"
    vocabulary: Annotated[int, Field(ge=4)] = 30_000
    batch: Whole = 64
    lr: Positive = 4e-3
    dropout: Share = 0.5
    word_dropout: Annotated[float, Field(ge=-1, lt=1)] = -1
    warmup: Share = 0.1
    length: Whole = 400
    min_count: Whole = 2

    name: ClassVar[str] = "classifier"
    monitor: ClassVar[str] = "accuracy"
    judged_by: ClassVar[str] = "accuracy"
    needs_target: ClassVar[bool] = True

    def prepare(self, examples: Examples, progress: Progress) -> None:
        targets = examples.targets
        if targets is None:
            raise ValueError(f"{examples.source} has no labels; a classifier needs one per text")
        self.classes_ = sorted(set(targets))
        _check_classes(self.classes_, targets, examples)
        split = self.make_split(examples, targets)
        train_texts = [examples.inputs[k] for k in split.train]
        unit = self.choose_unit(train_texts, "classify", self.unit)
        self.codec_ = TextCodec.fit(
            train_texts, unit=unit, reversible=False, min_count=self.min_count, vocabulary=self.vocabulary
        )
        place = {name: k for k, name in enumerate(self.classes_)}
        whole = self.codec_.encode_batch(examples.inputs)
        ids = [row[: self.length] for row in whole]
        self._parts = {
            part: _Part([ids[k] for k in rows], [place[targets[k]] for k in rows], [examples.inputs[k] for k in rows])
            for part, rows in (("train", split.train), ("valid", split.valid), ("test", split.test))
        }
        sizes = " / ".join(f"{len(part.labels):,}" for part in self._parts.values())
        progress.say(f"{len(self.classes_)} classes; {sizes} texts for training / validation / test")
        most = 30_000 if self.pairs < 0 and unit == "chars" else max(self.pairs, 0)
        self._pair_keys = frequent_pairs(self._parts["train"].ids, len(self.codec_), most)
        self.pair_count_ = len(self._pair_keys)
        if self.pair_count_:
            progress.say(
                f"{self.pair_count_:,} pairs of neighbouring {unit} have embeddings, too (none: --set pairs=0)"
            )
        cut = sum(len(row) > self.length for row in whole)
        if cut > len(ids) / 100:
            progress.say(
                f"{cut:,} texts are longer than {self.length} {unit}: only that much of them is read (--length)"
            )

    def make_network(self) -> nn.Module:
        return SequenceClassifier(
            Recurrent(
                self.cell,
                self.embedding,
                self.hidden,
                self.layers,
                self.bidirectional,
                self.dropout if self.layers > 1 else 0.0,
                sizes=extra_sizes(self.cell, self.hidden),
            ),
            vocabulary=len(self.codec_),
            classes=len(self.classes_),
            pooling=self.pooling,
            dropout=self.dropout,
            unknown=self.codec_.unknown,
            word_dropout=self._word_dropout,
            pairs=self.pair_count_,
        )

    @property
    def _word_dropout(self) -> float:
        if self.word_dropout < 0:
            return 0.2 if self.codec_.unit == "words" else 0.1
        return self.word_dropout

    def natural_epochs(self) -> int:
        """Four passes, or as many as make 500 updates; fewer where four would be more than 20,000 updates."""
        updates = len(self.problem().batches(1))
        return max(1, min(60, max(math.ceil(500 / updates), min(4, 20_000 // updates))))

    def start(self, network: nn.Module) -> None:
        assert isinstance(network, SequenceClassifier)
        network.pair_keys.copy_(torch.from_numpy(self._pair_keys))

    def problem(self) -> _Problem:
        return _Problem(self)

    def baselines(self) -> list[Baseline]:
        train, test = self._parts["train"], self._parts["test"]
        names = np.array(self.classes_)
        return classifier_baselines(
            train.texts,
            list(names[train.labels]),
            test.texts,
            list(names[test.labels]),
            unit=self.codec_.unit,
        )

    def measure(self) -> dict[str, float]:
        test = self._parts["test"]
        self._test_scores = self._scores(test.ids)
        self.confusion_ = _confusion(self._test_scores.argmax(1), np.array(test.labels), len(self.classes_))
        return _metrics(self._test_scores, np.array(test.labels))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        return tags

    # Using a fitted one

    def predict_proba(self, texts: Sequence[str] | str) -> np.ndarray:
        """[B, C]: the probability of every class, in the order of `classes_`."""
        self._check_fitted()
        texts = [texts] if isinstance(texts, str) else list(texts)
        for k, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text {k}: a {type(text).__name__} came; expected a string")
        if not texts:
            return np.zeros((0, len(self.classes_)))
        ids = [row[: self.length] for row in self.codec_.encode_batch(texts)]
        scores = self._scores(ids)
        return np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))

    def predict(self, texts: Sequence[str] | str) -> list[str]:
        """The most probable class of every text."""
        return [self.classes_[k] for k in self.predict_proba(texts).argmax(1)]

    def stream(self, weights: str | None = None) -> ClassifierStream:
        """A live text: push what has come, get the probabilities of the classes so far. It runs without torch.

        weights: what those of the layers are stored in, float32, bfloat16 or int8 (None: float32). ValueError for a
        model of both directions, which has to see the end of a text first.
        """
        self._check_fitted()
        return RunningClassifier(Learned.of(self)).stream(weights)

    def score(self, texts: Sequence[str], targets: Sequence[Any]) -> float:
        """Accuracy."""
        return self.evaluate(texts, targets)["accuracy"]

    def evaluate(self, texts: Sequence[str], targets: Sequence[Any]) -> dict[str, float]:
        """Accuracy, macro F1 and loss on labelled texts."""
        self._check_fitted()
        if len(texts) != len(targets) or not len(texts):
            raise ValueError(
                f"{len(texts):,} texts and {len(targets):,} labels came; expected one label per text, and at least one"
            )
        place = {name: k for k, name in enumerate(self.classes_)}
        unknown = sorted({str(t) for t in targets} - place.keys())
        if unknown:
            raise ValueError(
                f"label {unknown[0]!r} is not one of the {len(place)} the model knows: {', '.join(self.classes_[:12])}"
            )
        probabilities = self.predict_proba(texts)
        labels = np.array([place[str(t)] for t in targets])
        return _metrics(np.log(np.maximum(probabilities, 1e-300)), labels)

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        return self.evaluate(examples.inputs, examples.targets or [])

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """A text, its label and the probability of that."""
        return class_rows(self, examples.inputs)

    def _scores(self, ids: list[np.ndarray]) -> np.ndarray:
        """[B, C] unnormalised log-probabilities, computed in batches of similar length."""
        order = np.argsort([len(row) for row in ids], kind="stable")
        scores = np.zeros((len(ids), len(self.classes_)))
        self.network_.eval()
        with torch.no_grad(), self.few_threads():
            for begin in range(0, len(ids), 256):
                rows = order[begin : begin + 256]
                result = self.network_(*pad([ids[k] for k in rows], self.device_))
                scores[rows] = result.double().cpu().numpy()
        return scores

    # Keeping

    def fitted(self) -> dict[str, Any]:
        return {"classes": self.classes_, "pairs": self.pair_count_}

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        self.classes_ = list(fitted["classes"])
        self.pair_count_ = int(fitted["pairs"])
        self.codec_ = TextCodec.from_json(run.read_text("codec.json"))

    def resolved(self) -> dict[str, Any]:
        return {"unit": self.codec_.unit}

    def facts(self) -> list[tuple[str, str]]:
        return [*super().facts(), ("text", self.codec_.describe()), ("classes", str(len(self.classes_)))]

    def report(self, report: Report) -> Report:
        if not self.results_:
            return report
        test = self._parts["test"]
        shown = [
            (test.texts[k][:300], self.classes_[test.labels[k]], self.classes_[self._test_scores[k].argmax()])
            for k in self._telling_rows(np.array(test.labels))
        ]
        return replace(report, confusion=(self.classes_, self.confusion_.tolist()), examples=shown)

    def _telling_rows(self, labels: np.ndarray) -> list[int]:
        """Of the test split: the mistakes that the model is surest of, and as many of what it got right."""
        margin = self._test_scores.max(1) - self._test_scores[np.arange(len(labels)), labels]
        wrong = np.argsort(-margin, kind="stable")[: min(4, int((margin > 0).sum()))]
        return [*wrong.tolist(), *np.flatnonzero(margin == 0)[:4].tolist()]


class SequenceClassifier(nn.Module):
    """Token ids [B, T] and lengths [B] -> class scores [B, C]."""

    pair_keys: Tensor

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
    ) -> None:
        super().__init__()
        self.pooling, self.dropout, self.unknown, self.word_dropout = (
            pooling.split("+"),
            dropout,
            unknown,
            word_dropout,
        )
        self.embedding = nn.Embedding(vocabulary, recurrent.input_size, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.register_buffer("pair_keys", torch.zeros(pairs, dtype=torch.int64))
        self.pair_embedding = nn.Embedding(pairs + 1, recurrent.input_size, padding_idx=pairs) if pairs else None
        if self.pair_embedding is not None:
            nn.init.normal_(self.pair_embedding.weight, std=0.1)
            self.pair_embedding.weight.data[pairs].zero_()
        self.recurrent = recurrent
        self.linear = nn.Linear(len(self.pooling) * recurrent.output_size, classes)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        if self.training and self.word_dropout:
            ids = ids.masked_fill(torch.rand(ids.shape, device=ids.device) < self.word_dropout, self.unknown)
        x = F.dropout(self.embedding(ids) + self._pairs(ids), self.dropout, self.training)
        y, state = self.recurrent(x, lengths=lengths)
        inside = torch.arange(y.shape[1], device=y.device)[None, :] < lengths.to(y.device)[:, None]
        pooled = torch.cat([self._pool(name, y, state, inside) for name in self.pooling], -1)
        return self.linear(F.dropout(pooled, self.dropout, self.training))

    def _pairs(self, ids: Tensor) -> Tensor | float:
        """What each piece and the next one, as a pair, add to its embedding; pairs that are not known add nothing."""
        if self.pair_embedding is None:
            return 0.0
        following = F.pad(ids[:, 1:], (0, 1))
        keys = ids * self.embedding.num_embeddings + following
        places = torch.searchsorted(self.pair_keys, keys).clamp(max=len(self.pair_keys) - 1)
        unknown = torch.full_like(places, len(self.pair_keys))
        return self.pair_embedding(torch.where(self.pair_keys[places] == keys, places, unknown))

    def _pool(self, how: str, y: Tensor, state: Any, inside: Tensor) -> Tensor:
        if how == "max":
            return y.masked_fill(~inside[..., None], -torch.inf).amax(1)
        if how == "mean":
            return y.sum(1) / inside.sum(1)[:, None]
        last = inside.sum(1) - 1
        return y[torch.arange(len(y), device=y.device), last]


@dataclass(frozen=True)
class _Part:
    ids: list[np.ndarray]
    labels: list[int]
    texts: list[str]


def frequent_pairs(rows: Sequence[np.ndarray], vocabulary: int, most: int) -> np.ndarray:
    """The pairs of neighbouring ids seen 3 times or more, the `most` most frequent, as sorted keys
    first * vocabulary + second."""
    if not most:
        return np.zeros(0, dtype=np.int64)
    keys, counts = np.unique(np.concatenate([row[:-1] * vocabulary + row[1:] for row in rows]), return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:most]
    return np.sort(keys[kept[counts[kept] >= 3]]).astype(np.int64)


class _Problem:
    """The training and validation texts as the training loop takes them."""

    def __init__(self, task: Classifier) -> None:
        self.task, self.monitor = task, task.monitor
        self.train, self.valid = task._parts["train"], task._parts["valid"]
        self.lengths = [len(row) for row in self.train.ids]

    def batches(self, epoch: int) -> list[Batch]:
        rng = np.random.default_rng([self.task.seed, epoch])
        rows = length_buckets(self.lengths, self.task.batch, rng)
        return [([self.train.ids[k] for k in batch], [self.train.labels[k] for k in batch]) for batch in rows]

    def loss(self, network: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, int, Carry]:
        ids, labels = batch
        scores = network(*pad(ids, self.task.device_))
        return F.cross_entropy(scores, torch.tensor(labels, device=scores.device)), len(labels), None

    def validate(self, network: nn.Module) -> dict[str, float]:
        scores = self.task._scores(self.valid.ids)
        metrics = _metrics(scores, np.array(self.valid.labels))
        return {"loss": metrics["loss"], "accuracy": metrics["accuracy"]}


def _metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, macro F1 over the classes that occur, and loss in nats."""
    from sklearn.metrics import f1_score

    predicted = scores.argmax(1)
    log_probability = scores[np.arange(len(labels)), labels] - np.logaddexp.reduce(scores, axis=1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "loss": float(-log_probability.mean()),
    }


def _confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def _check_classes(classes: list[str], targets: Sequence[str], examples: Examples) -> None:
    column = f"column {examples.target_name!r} of {examples.source}" if examples.target_name else examples.source
    if len(classes) < 2:
        raise ValueError(
            f"{column} holds one class only ({classes[0]!r}, {len(targets):,} of them); a classifier needs two or more"
        )
    if len(classes) > max(2, len(targets) // 2):
        raise ValueError(
            f"{column} holds {len(classes):,} different values in {len(targets):,} rows: these are not classes. "
            "Name the label column with --target, or train a generator with --task generator"
        )
