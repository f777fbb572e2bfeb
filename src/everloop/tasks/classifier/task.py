"""Many to one: which class a text, a signal, a picture ... belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data import codecs, vectors
from everloop.data.examples import Examples
from everloop.data.split import length_buckets
from everloop.data.stored import cut, encode_all, lengths_of, sample, spread, taken
from everloop.data.text import TextCodec
from everloop.insight.inside import Inside
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.batching import Batches, pad
from everloop.tasks.changes import PictureChanges
from everloop.tasks.classifier.baselines import classifier_baselines
from everloop.tasks.classifier.calibration import (
    best_mixture,
    best_temperature,
    best_threshold,
    calibration_error,
    reliability,
)
from everloop.tasks.classifier.data import (
    as_text,
    as_texts,
    check_classes,
    is_cube,
    labels_in,
    longest_run,
    name_of,
    names_of_numbers,
    rarest,
    several,
)
from everloop.tasks.classifier.inside import look
from everloop.tasks.classifier.network import (
    PooledLayers,
    SequenceClassifier,
    ValuesClassifier,
    WindowFront,
    class_ratios,
    frequent_ngrams,
    frequent_pairs,
)
from everloop.tasks.classifier.report import (
    calibration_section,
    class_section,
    confusion_of,
    metrics_of,
    shown,
    telling_rows,
)
from everloop.tasks.classifier.signal_baselines import signal_baselines
from everloop.tasks.fronts import Kind as FrontKind
from everloop.tasks.fronts import LinearFront, front_for
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.running._classifier_streams import ClassifierStream, SignalStream
from everloop.tasks.running._learned import Learned, extra_sizes, softmax
from everloop.tasks.running.classifier import class_rows, decided, running
from everloop.tasks.task import Positive, Share, Task, Whole
from everloop.tasks.training import Carry

Batch = tuple[list[np.ndarray], list[int]]
"""Token ids or values of each sequence, and its class."""

MOST_COUNTED = 5_000_000
"""Pieces, or characters, of texts larger than memory that runs are counted in and baselines are trained on."""

NGRAM_START = 0.1
"""What the weights of naive Bayes are multiplied by, as the first ones of the linear model on n-grams."""

Natural = Annotated[int, Field(ge=-1)]
"""A number, or -1: the data decide."""


@dataclass(kw_only=True)
class Classifier(Task):
    """One label for a whole sequence: embedding or front, recurrent layers, pooling over time, linear.

    fit(data): a file with a text and a label column, a folder with one subfolder per class, a table, or lists; of
    texts, or of any modality that `everloop.data.codecs` has (see `Task.fit`). predict(inputs) -> labels;
    predict_proba(inputs) -> [B, C] in the order of `classes_`; stream() -> a live text or signal, if
    bidirectional=False. Labels that came as numbers in lists are given back as these.

    cell, hidden, layers, bidirectional: the recurrent layers; hidden is per direction. embedding: features per
    step that the layers read (0: 300 for words and subwords, 128 for characters, 64 for values). pooling: how the
    outputs [T, H] of a sequence become one vector: their maximum and mean, one of them, or the last output. dropout:
    on embeddings and the pooled vector. class_weight: what an error costs by its class: `none`, all the same;
    `balanced`, in inverse proportion to how often the class comes (as in scikit-learn); or a number for each label.
    calibrate: divide scores by a temperature that validation chooses. threshold: `f1` chooses, on validation, from
    which probability on the rarer of two classes is predicted, so that its F1 is highest.

    For texts: pairs: most pairs of neighbouring pieces that have an embedding of their own, added to that of the first
    (-1: 30,000 for characters, none for words; 0: none). ngrams: most runs of pieces that a linear model beside the
    layers knows (-1: 200,000; 0: no such model), which starts at the weights of naive Bayes (after Wang and Manning
    2012); how much each of the two counts, validation decides. word_dropout:
    share of pieces replaced by `unknown` in training (-1: 0.2 for words, else 0.1). unit: characters, words or
    subwords; auto looks at the data. length: pieces of a text that are read at most.

    For values: codec: options of the modality's codec, as {"missing": "mean"} of vectors. front, shift: of pictures,
    see `everloop.tasks.fronts`. context: how many steps, the present one last, a linear front sees at once (-1: 5 for
    vectors, else 1). noise: standard deviation of what is added to values in training, which have a deviation of 1.
    drift: the same of what is added to each feature all along a sequence, and of the logarithm of what it is
    multiplied by: where speakers, microphones or sensors differ more than few examples show.
    layout, channels: of arrays, see `everloop.data.vectors.arranged`.

    The rest is the training loop's: see `everloop train --help`.
    """

    hidden: Whole = 64
    bidirectional: bool = True
    embedding: Annotated[int, Field(ge=0)] = 0
    pairs: Natural = -1
    ngrams: Natural = -1
    pooling: Literal["max+mean", "max", "mean", "last"] = "max+mean"
    batch: Whole = 64
    lr: Positive = 4e-3
    dropout: Share = 0.5
    word_dropout: Annotated[float, Field(ge=-1, lt=1)] = -1
    warmup: Share = 0.1
    averaging: Share = 0.99
    patience: Annotated[int, Field(ge=0)] = 10
    unit: Literal["auto", "chars", "words", "subwords"] = "auto"
    vocabulary: Annotated[int, Field(ge=4)] = 30_000
    length: Whole = 400
    min_count: Whole = 2
    codec: dict[str, Any] = field(default_factory=dict)
    front: FrontKind = "auto"
    shift: Share = 0.0
    context: Natural = -1
    noise: Annotated[float, Field(ge=0)] = 0.0
    drift: Annotated[float, Field(ge=0)] = 0.0
    layout: vectors.Layout = "auto"
    channels: Whole = 1
    class_weight: Literal["none", "balanced"] | dict[Any, float] = "none"
    calibrate: bool = False
    threshold: Literal["half", "f1"] = "half"

    name: ClassVar[str] = "classifier"
    monitor: ClassVar[str] = "accuracy"
    judged_by: ClassVar[str] = "accuracy"
    needs_target: ClassVar[bool] = True

    # Data

    def as_given(self, examples: Examples, data: Any) -> Examples:
        """Labels of lists that are numbers stay what they are."""
        self._cube = is_cube(data[0] if isinstance(data, tuple) and len(data) == 2 else data)
        if examples.kind == "lists" and examples.targets is not None:
            names = names_of_numbers(labels_in(data))
            examples = replace(examples, targets=[names.get(label, label) for label in examples.targets])
        return examples

    def prepare(self, examples: Examples, progress: Progress) -> None:
        targets = examples.targets
        if targets is None:
            raise ValueError(f"{examples.source} has no labels; a classifier needs one per text")
        self.modality_, self.classes_ = examples.modality, sorted(set(targets))
        check_classes(self.classes_, targets, examples)
        self.temperature_, self.threshold_, self.positive_ = 1.0, None, rarest(self.classes_, targets)
        self._mixture: list[float] | None = None
        if self.threshold == "f1" and len(self.classes_) != 2:
            raise ValueError(f"threshold='f1' is for two classes; {len(self.classes_)} came")
        split = self.make_split(examples, targets)
        inputs = self._arranged(examples, progress)
        self._fit_codec(taken(inputs, split.train))
        place = {name: k for k, name in enumerate(self.classes_)}
        whole = encode_all(self.codec_, as_texts(inputs) if self.is_text else inputs)
        ids = cut(whole, self.length) if self.is_text else whole
        self._parts = {
            part: _Part(taken(ids, rows), [place[targets[k]] for k in rows], taken(examples.inputs, rows))
            for part, rows in (("train", split.train), ("valid", split.valid), ("test", split.test))
        }
        self._say_what_is_read(whole, progress)

    def _arranged(self, examples: Examples, progress: Progress) -> Sequence[Any]:
        """Vectors as [T, F]; inputs of other modalities as they are."""
        if examples.modality != "vectors":
            return examples.inputs
        layout = self.layout if examples.kind == "lists" else "time-first"
        arrays, note = vectors.arranged(examples.inputs, layout, self.channels, cube=self._cube)
        if note:
            progress.say(note)
        return arrays

    def _fit_codec(self, inputs: Sequence[Any]) -> None:
        if not self.is_text:
            self.codec_ = codecs.get(self.modality_).fit(inputs, **self.codec)
            self.unit_, self.width_ = "", self.embedding or 64
            self.window_ = max(self.context, 1) if self.modality_ != "vectors" or self.context > 0 else 5
            return
        texts = as_texts(inputs)
        self.unit_ = self.choose_unit(texts, "classify", self.unit)
        self.codec_ = TextCodec.fit(
            texts, unit=self.unit_, reversible=False, min_count=self.min_count, vocabulary=self.vocabulary
        )
        self.width_ = self.embedding or (128 if self.unit_ == "chars" else 300)

    def _say_what_is_read(self, whole: Sequence[np.ndarray], progress: Progress) -> None:
        what = "texts" if self.is_text else f"inputs ({self.modality_})"
        sizes = " / ".join(f"{len(part.labels):,}" for part in self._parts.values())
        progress.say(f"{len(self.classes_)} classes; {sizes} {what} for training / validation / test")
        if not self.is_text:
            self.pair_count_ = self.ngram_count_ = self.longest_ = 0
            return
        ids = sample(self._parts["train"].ids, MOST_COUNTED)
        most = 30_000 if self.pairs < 0 and self.unit_ == "chars" else max(self.pairs, 0)
        self._pair_keys = frequent_pairs(ids, len(self.codec_), most)
        self.pair_count_ = len(self._pair_keys)
        if self.pair_count_:
            progress.say(
                f"{self.pair_count_:,} pairs of neighbouring {self.unit_} have embeddings, too (none: --set pairs=0)"
            )
        self.longest_ = longest_run(self.unit_, len(self.codec_))
        most = 200_000 if self.ngrams < 0 else self.ngrams
        self._ngram_keys = frequent_ngrams(ids, len(self.codec_), self.longest_, most)
        self.ngram_count_ = len(self._ngram_keys)
        if self.ngram_count_:
            progress.say(
                f"a linear model on {self.ngram_count_:,} runs of 1 to {self.longest_} {self.unit_} stands beside the "
                "layers (none: --set ngrams=0)"
            )
        longer = int((lengths_of(whole) > self.length).sum())
        if longer > len(whole) / 100:
            progress.say(
                f"{longer:,} texts are longer than {self.length} {self.unit_}: only that much of them is read "
                "(--length)"
            )

    @property
    def is_text(self) -> bool:
        """Whether ids are read, and not values."""
        return self.modality_ == "text"

    # The network

    def make_network(self) -> nn.Module:
        layers = Recurrent(
            self.cell,
            self.width_,
            self.hidden,
            self.layers,
            self.bidirectional,
            self.dropout if self.layers > 1 else 0.0,
            sizes=extra_sizes(self.cell, self.hidden),
        )
        common: dict[str, Any] = {
            "classes": len(self.classes_),
            "pooling": self.pooling,
            "dropout": self.dropout,
        }
        if not self.is_text:
            return ValuesClassifier(self._make_front(), layers, **common, noise=self.noise, drift=self.drift)
        network = SequenceClassifier(
            layers,
            **common,
            vocabulary=len(self.codec_),
            unknown=self.codec_.unknown,
            word_dropout=self._word_dropout,
            pairs=self.pair_count_,
            ngrams=self.ngram_count_,
            longest=self.longest_,
        )
        network.mixture = self._mixture or network.mixture
        return network

    def _make_front(self) -> nn.Module:
        if self.window_ > 1:
            return WindowFront(self.codec_.features, self.width_, self.window_, 0.0)
        return front_for(self.codec_, self.width_, 0.0, kind=self.front, changes=PictureChanges(shift=self.shift))

    @property
    def _word_dropout(self) -> float:
        if self.word_dropout < 0:
            return 0.2 if self.unit_ == "words" else 0.1
        return self.word_dropout

    def natural_epochs(self) -> int:
        """For texts four passes, or as many as make 500 updates; fewer where four would be more than 20,000 updates.
        For values eight passes, or as many as make 2,000 updates, 100 at most; fewer in the same way."""
        updates = len(self.problem().batches(1))
        passes, wanted, most = (4, 500, 60) if self.is_text else (8, 2_000, 100)
        return max(1, min(most, max(math.ceil(wanted / updates), min(passes, 20_000 // updates))))

    def start(self, network: nn.Module) -> None:
        if isinstance(network, SequenceClassifier):
            network.pair_keys.copy_(torch.from_numpy(self._pair_keys))
            if network.ngram_scores is not None:
                network.ngram_keys.copy_(torch.from_numpy(self._ngram_keys))
                ratios = NGRAM_START * torch.from_numpy(self._ngram_ratios())
                network.ngram_scores.weight.data[:-1].copy_(ratios)

    def _ngram_ratios(self) -> np.ndarray:
        train = self._parts["train"]
        labels = taken(train.labels, spread(train.ids, MOST_COUNTED))
        return class_ratios(
            sample(train.ids, MOST_COUNTED),
            labels,
            self._ngram_keys,
            len(self.codec_),
            self.longest_,
            len(self.classes_),
        )

    def problem(self) -> _Problem:
        return _Problem(self)

    def loss_weights(self, labels: Sequence[int]) -> Tensor | None:
        """[C], what an error costs by its class; labels: those of the training split."""
        if self.class_weight == "none":
            return None
        counts = np.bincount(labels, minlength=len(self.classes_))
        if self.class_weight == "balanced":
            found = len(labels) / (len(counts) * np.maximum(counts, 1))
        else:
            by_name = {str(name): weight for name, weight in dict(self.class_weight).items()}
            unknown = by_name.keys() - {str(name) for name in self.classes_}
            if unknown:
                raise ValueError(
                    f"class_weight: {min(unknown)!r} is none of the classes {', '.join(map(str, self.classes_[:12]))}"
                )
            found = np.array([by_name.get(str(name), 1.0) for name in self.classes_])
        return torch.tensor(found, dtype=torch.float32, device=self.device_)

    def baselines(self) -> list[Baseline]:
        train, test = self._parts["train"], self._parts["test"]
        if not self.is_text:
            return signal_baselines(train.ids, train.labels, test.ids, test.labels)
        names = np.array([str(name) for name in self.classes_])
        # Of data larger than memory a part, said in the name.
        places = [spread(part.inputs, MOST_COUNTED) for part in (train, test)]
        texts = [as_texts(taken(part.inputs, some)) for part, some in zip((train, test), places, strict=True)]
        labels = [list(names[taken(part.labels, some)]) for part, some in zip((train, test), places, strict=True)]
        unit: Any = self.unit_
        found = classifier_baselines(list(texts[0]), labels[0], list(texts[1]), labels[1], unit=unit)
        if places[0].step == 1:
            return found
        return [replace(one, name=f"{one.name}, {len(texts[0]):,} texts") for one in found]

    def measure(self) -> dict[str, float]:
        self._decide()
        test = self._parts["test"]
        self._test_scores = self._scores(test.ids) / self.temperature_
        labels = np.array(test.labels)
        predicted = self._predicted(softmax(self._test_scores))
        self.confusion_ = confusion_of(predicted, labels, len(self.classes_))
        return metrics_of(self._test_scores, labels, predicted)

    def _decide(self) -> None:
        """What validation decides after training: how much each model inside counts, the temperature, and from where
        on the rarer class is predicted."""
        assert isinstance(self.network_, PooledLayers)
        valid = self._parts["valid"]
        if len(self.network_.mixture) > 1:
            self.network_.mixture = best_mixture(self._experts(valid.ids), np.array(valid.labels))
        scores, labels = self._scores(valid.ids), np.array(valid.labels)
        if self.calibrate:
            self.temperature_ = best_temperature(scores, labels)
        if self.threshold == "f1":
            probability = softmax(scores / self.temperature_)[:, self.positive_]
            self.threshold_ = best_threshold(probability, labels == self.positive_)
        if self.run_ is not None:
            self.run_.update(fitted=self.fitted())

    def _predicted(self, probabilities: np.ndarray) -> np.ndarray:
        """The places of the predicted classes."""
        return np.array(decided(probabilities, range(len(self.classes_)), self.threshold_, self.positive_))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = True, True, True
        tags.input_tags.allow_nan = self.codec.get("missing", "refuse") != "refuse"
        return tags

    # Using a fitted one

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """[B, C]: the probability of every class, in the order of `classes_`. inputs: a list (or one text, or one
        path), or an array of sequences as `fit` took it."""
        self._check_fitted()
        if not len(inputs := several(inputs)):
            return np.zeros((0, len(self.classes_)))
        return softmax(self._scores(self._encoded(inputs)) / self.temperature_)

    def predict(self, inputs: Any) -> list[Any]:
        """The most probable class of every input; with threshold="f1", the rarer one from `threshold_` on."""
        return [self.classes_[k] for k in self._predicted(self.predict_proba(inputs))]

    def _encoded(self, inputs: Any) -> list[np.ndarray]:
        if self.is_text:
            for k, text in enumerate(inputs):
                if not isinstance(text, str | tuple):
                    raise TypeError(f"text {k}: a {type(text).__name__} came; expected a string")
            return [row[: self.length] for row in self.codec_.encode_batch([as_text(text) for text in inputs])]
        if self.modality_ == "vectors":
            features, cube = self.codec_.features, is_cube(inputs)
            inputs, _ = vectors.arranged(inputs, self.layout, self.channels, features=features, cube=cube)
        return self.codec_.encode_batch(inputs)

    def inside(self, given: Any, target: Any = None, *, at: int | None = None) -> Inside:
        self._check_fitted()
        return look(self, given, target, at)

    def stream(self, weights: str | None = None) -> ClassifierStream | SignalStream:
        """A live text or signal: push what has come, get the probabilities of the classes so far. It runs without
        torch.

        weights: what those of the layers are stored in, float32, bfloat16 or int8 (None: float32). ValueError for a
        model of both directions, which has to see the end first, and for one that reads neither texts nor vectors.
        """
        self._check_fitted()
        front = getattr(self.network_, "front", None)
        if self.modality_ not in ("text", "vectors") or not isinstance(front, LinearFront | WindowFront | None):
            raise ValueError(f"a classifier of {self.modality_} cannot be streamed; those of texts and vectors can")
        return running(Learned.of(self)).stream(weights)

    def score(self, inputs: Any, targets: Sequence[Any]) -> float:
        """Accuracy."""
        return self.evaluate(inputs, targets)["accuracy"]

    def evaluate(self, inputs: Any, targets: Sequence[Any]) -> dict[str, float]:
        """Accuracy, macro F1 and loss on labelled inputs."""
        self._check_fitted()
        if len(inputs) != len(targets) or not len(inputs):
            raise ValueError(
                f"{len(inputs):,} texts and {len(targets):,} labels came; expected one label per text, and at least one"
            )
        place = {name_of(name): k for k, name in enumerate(self.classes_)}
        unknown = sorted({name_of(t) for t in targets} - place.keys())
        if unknown:
            raise ValueError(
                f"label {unknown[0]!r} is not one of the {len(place)} the model knows: {', '.join(list(place)[:12])}"
            )
        probabilities = self.predict_proba(inputs)
        labels = np.array([place[name_of(t)] for t in targets])
        return metrics_of(np.log(np.maximum(probabilities, 1e-300)), labels, self._predicted(probabilities))

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        if examples.targets is None:
            raise ValueError(f"{examples.source} has no labels; measuring needs one per input")
        return self.evaluate(examples.inputs, examples.targets)

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        return class_rows(self, examples)

    def _scores(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        """[B, C] unnormalised log-probabilities."""
        assert isinstance(self.network_, PooledLayers)
        return np.tensordot(self.network_.mixture, self._experts(ids), 1)

    def _experts(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        """[K, B, C], those of each model inside, computed in batches of similar length."""
        assert isinstance(self.network_, PooledLayers)
        order = np.argsort(lengths_of(ids), kind="stable")
        scores = np.zeros((len(self.network_.mixture), len(ids), len(self.classes_)))
        self.network_.eval()
        with torch.no_grad(), self.few_threads():
            for begin in range(0, len(ids), 256):
                rows = order[begin : begin + 256]
                result = self.network_.experts(*pad([ids[k] for k in rows], self.device_, self._fill))
                scores[:, rows] = torch.stack(result).double().cpu().numpy()
        return scores

    @property
    def _fill(self) -> int:
        return self.codec_.pad if self.is_text else 0

    # Keeping

    def resolved(self) -> dict[str, Any]:
        return {"embedding": self.width_} | ({"unit": self.unit_} if self.is_text else {})

    def fitted(self) -> dict[str, Any]:
        return {
            "modality": self.modality_,
            "classes": self.classes_,
            "pairs": self.pair_count_,
            "ngrams": self.ngram_count_,
            "longest": self.longest_,
            "window": 1 if self.is_text else self.window_,
            "mixture": self.network_.mixture if isinstance(self.network_, PooledLayers) else [1.0],
            "temperature": self.temperature_,
            "threshold": self.threshold_,
            "positive": self.positive_,
        }

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        # Runs of the first version have texts, and none of what came later.
        self.modality_, self.classes_ = fitted.get("modality", "text"), list(fitted["classes"])
        self.pair_count_, self.ngram_count_ = int(fitted["pairs"]), int(fitted.get("ngrams", 0))
        self.longest_, self.window_ = int(fitted.get("longest", 0)), int(fitted.get("window", 1))
        self.temperature_, self.threshold_ = float(fitted.get("temperature", 1.0)), fitted.get("threshold")
        self._mixture = fitted.get("mixture")
        self.positive_ = int(fitted.get("positive", 1))
        self.codec_ = codecs.from_json(run.read_text("codec.json"))
        self.unit_, self.width_ = self.unit if self.is_text else "", self.embedding

    def facts(self) -> list[tuple[str, str]]:
        found = [*super().facts(), (self.modality_, self.codec_.describe()), ("classes", str(len(self.classes_)))]
        if self.ngram_count_:
            found.append(("n-grams", f"{self.ngram_count_:,} of 1 to {self.longest_} {self.unit_}"))
        if isinstance(self.network_, PooledLayers) and len(self.network_.mixture) > 1 and hasattr(self, "results_"):
            found.append(("weights of layers and n-grams", " and ".join(f"{w:.2f}" for w in self.network_.mixture)))
        if self.calibrate and hasattr(self, "results_"):
            found.append(("temperature", f"{self.temperature_:.2f}"))
        if self.threshold_ is not None:
            found.append(("threshold", f"{self.classes_[self.positive_]} from {self.threshold_:.3f} on"))
        return found

    def report(self, report: Report) -> Report:
        if not self.results_:
            return report
        test = self._parts["test"]
        names = [str(name) for name in self.classes_]
        labels, probabilities = np.array(test.labels), softmax(self._test_scores)
        predicted = self._predicted(probabilities)
        examples = [
            (shown(test.inputs[k], test.ids[k], k), names[labels[k]], names[predicted[k]])
            for k in telling_rows(self._test_scores, labels, predicted)
        ]
        table = reliability(probabilities, labels)
        more = [class_section(names, self.confusion_), calibration_section(table, calibration_error(table))]
        return replace(
            report, confusion=(names, self.confusion_.tolist()), examples=examples, more=[*report.more, *more]
        )


@dataclass(frozen=True)
class _Part:
    ids: Sequence[np.ndarray]
    """Token ids [T] of each text, or values [T, F]."""
    labels: list[int]
    inputs: Sequence[Any]


class _Problem:
    """The training and validation inputs as the training loop takes them."""

    def __init__(self, task: Classifier) -> None:
        self.task = task
        # Few values are all right soon, and their loss still tells epochs apart; where classes differ in weight or in
        # number, accuracy would be for the frequent ones.
        even = task.class_weight == "none" and task.threshold == "half"
        self.monitor = ("accuracy" if task.is_text else "loss") if even else "macro_f1"
        self.train, self.valid = task._parts["train"], task._parts["valid"]
        self.weights = task.loss_weights(self.train.labels)
        self.lengths = lengths_of(self.train.ids).tolist()

    def batches(self, epoch: int) -> Sequence[Batch]:
        rng = np.random.default_rng([self.task.seed, epoch])
        rows = length_buckets(self.lengths, self.task.batch, rng)
        return Batches(rows, lambda batch: ([self.train.ids[k] for k in batch], [self.train.labels[k] for k in batch]))

    def loss(self, network: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, int, Carry]:
        assert isinstance(network, PooledLayers)
        ids, labels = batch
        truth = torch.tensor(labels, device=self.task.device_)
        experts = network.experts(*pad(ids, self.task.device_, self.task._fill))
        losses = [F.cross_entropy(scores, truth, weight=self.weights) for scores in experts]
        return torch.stack(losses).mean(), len(labels), None

    def validate(self, network: nn.Module) -> dict[str, float]:
        scores = self.task._scores(self.valid.ids)
        metrics = metrics_of(scores, np.array(self.valid.labels), scores.argmax(1))
        return metrics if self.monitor in ("macro_f1",) else {name: metrics[name] for name in ("loss", "accuracy")}
