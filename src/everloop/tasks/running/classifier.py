"""A trained classifier at work: the classes of texts and signals, and those of one while it is still coming in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from everloop.data import vectors
from everloop.data.examples import Examples
from everloop.stream import Engine, Part, Stream, joined
from everloop.tasks.run import Run
from everloop.tasks.running._classifier_streams import ClassifierStream, SignalStream
from everloop.tasks.running._learned import Learned, fitting, softmax, stored
from everloop.tasks.running._ngrams import Ngrams, places
from everloop.tasks.running._pooling import pooling


def load(run: Run) -> RunningClassifier:
    return fitting(running, run)


def running(learned: Learned) -> RunningClassifier:
    """The one that reads what the classifier was trained on."""
    return RunningTexts(learned) if learned.codec.modality == "text" else RunningValues(learned)


class RunningClassifier:
    """A fitted `Classifier` without torch."""

    name: ClassVar[str] = "classifier"

    def __init__(self, learned: Learned) -> None:
        self.codec_, self.layers = learned.codec, learned.layers
        self.classes_ = list(learned.fitted["classes"])
        self.temperature_ = float(learned.fitted.get("temperature", 1.0))
        self.threshold_, self.positive_ = learned.fitted.get("threshold"), learned.fitted.get("positive", 1)
        self._pooling = learned.options["pooling"].split("+")
        self._top = self._pooled(learned)
        self._narrow: dict[str, Engine] = {}
        self._last_engine  # noqa: B018 - what does not fit is found at once

    def _pooled(self, learned: Learned) -> Part:
        """Pooling over time and the linear layer on top of it, as one step."""
        classes, width = len(self.classes_), self.layers.output_size
        weight = learned.weight("linear.weight", classes, len(self._pooling) * width)
        stacks = {
            "V": np.concatenate(np.split(weight, len(self._pooling), 1)),
            "c": learned.weight("linear.bias", classes),
        }
        return Part(pooling(self._pooling).graph, {"input": width, "classes": classes}, stacks)

    @cached_property
    def engine(self) -> Engine:
        """Steps of E values in, scores of the classes so far out; ValueError for a model of both directions."""
        return self._whole.engine()

    @cached_property
    def _whole(self) -> Part:
        names = [*map(str, range(self.layers.num_layers)), "pooling"]
        return joined([*self.layers.one_step(), self._top], names)

    @cached_property
    def _last_engine(self) -> Engine:
        """What turns outputs of the layers into scores; of the whole model, where that goes step by step."""
        return self._top.engine() if self.layers.bidirectional else self.engine

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """[B, C]: the probability of every class, in the order of `classes_`."""
        scores = [self.scores(steps) for steps in self.encoded(inputs)]
        return self.probabilities(np.array(scores).reshape(len(scores), len(self.classes_)))

    def predict(self, inputs: Any) -> list[Any]:
        """The most probable class of every input; with a threshold, the positive one from that probability on."""
        return decided(self.predict_proba(inputs), self.classes_, self.threshold_, self.positive_)

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """A row of each input: the label and its probability."""
        return class_rows(self, examples)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Of scores [..., C]."""
        return softmax(scores / np.float32(self.temperature_))

    def encoded(self, inputs: Any) -> list[np.ndarray]:
        """Ids [T] or values [T, F] of every input."""
        raise NotImplementedError

    def scores(self, steps: np.ndarray) -> np.ndarray:
        """[C], of one input."""
        raise NotImplementedError

    def stream(self, weights: str | None = None) -> ClassifierStream | SignalStream:
        """A live text or signal: push what has come, get the probabilities of the classes so far.

        weights: what those of the layers are stored in, float32, bfloat16 or int8 (None: float32).
        """
        raise NotImplementedError

    def _engine_with(self, weights: str | None) -> Engine:
        return stored(self.engine, self._whole, weights, self._narrow)

    def _of_layers(self, x: np.ndarray) -> np.ndarray:
        """The scores [C] of steps [T, E]."""
        if self.layers.bidirectional:
            x = self.layers(x[None])[0]
        return Stream.of(self._last_engine).push(x)[-1]


class RunningTexts(RunningClassifier):
    """One that reads texts."""

    def __init__(self, learned: Learned) -> None:
        super().__init__(learned)
        self.length = learned.options["length"]
        features, pairs = self.layers.input_size, int(learned.fitted["pairs"])
        self.table = learned.weight("embedding.weight", len(self.codec_), features).astype(np.float32)
        self._pair_keys = learned.weight("pair_keys", pairs)
        # The last row stands for all pairs that have no embedding.
        self._pair_table = learned.weight("pair_embedding.weight", pairs + 1, features) if pairs else None
        self.ngrams = Ngrams(learned) if learned.fitted.get("ngrams") else None

    def encoded(self, inputs: Any) -> list[np.ndarray]:
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        return [row[: self.length] for row in self.codec_.encode_batch(texts)]

    def scores(self, steps: np.ndarray) -> np.ndarray:
        x = self.embedded(steps)
        x[:-1] += self.of_pairs(steps[:-1], steps[1:])
        scores = self._of_layers(x)
        if self.ngrams is not None:
            ends = self.ngrams.ending_at_each(steps, np.zeros(0, np.int64))
            scores = self.ngrams.mixed(scores, self.ngrams.scores(ends.sum(0), len(steps)))
        return scores

    def stream(self, weights: str | None = None) -> ClassifierStream:
        return ClassifierStream(self, self._engine_with(weights))

    def embedded(self, ids: np.ndarray) -> np.ndarray:
        """The embeddings [T, E] of pieces by themselves."""
        return self.table[ids]

    def of_pairs(self, ids: np.ndarray, following: np.ndarray) -> np.ndarray:
        """What pairs of neighbours add to the embedding of the first, [T, E]; pairs that are not known add nothing."""
        if self._pair_table is None:
            return np.zeros((len(ids), self.table.shape[1]), np.float32)
        return self._pair_table[places(ids * len(self.table) + following, self._pair_keys)]

    @property
    def has_pairs(self) -> bool:
        return self._pair_table is not None


class RunningValues(RunningClassifier):
    """One that reads sequences of values through a linear front."""

    def __init__(self, learned: Learned) -> None:
        if learned.codec.modality != "vectors" or "front.linear.weight" not in learned.weights:
            raise ModuleNotFoundError(
                f"a classifier of {learned.codec.modality} needs torch to run: pip install 'everloop[train]'",
                name="torch",
            )
        super().__init__(learned)
        options = learned.options
        self.layout, self.channels = options["layout"], options["channels"]
        features, self.window = self.codec_.features, int(learned.fitted["window"])
        self._front = learned.weight("front.linear.weight", self.layers.input_size, features * self.window)
        self._offset = learned.weight("front.linear.bias", self.layers.input_size)

    def encoded(self, inputs: Any) -> list[np.ndarray]:
        cube = isinstance(inputs, np.ndarray) and inputs.ndim == 3
        if not len(inputs):
            return []
        features = self.codec_.features
        arrays, _ = vectors.arranged(inputs, self.layout, self.channels, features=features, cube=cube)
        return self.codec_.encode_batch(arrays)

    def scores(self, steps: np.ndarray) -> np.ndarray:
        return self._of_layers(self.seen(steps, np.zeros((self.window - 1, steps.shape[1]), np.float32)))

    def seen(self, steps: np.ndarray, before: np.ndarray) -> np.ndarray:
        """What the front makes [T, E] of values [T, F], with those of the `window` - 1 steps before."""
        whole, k = np.concatenate([before, steps]), self.window
        wide = np.concatenate([whole[k - 1 - j : len(whole) - j] for j in range(k)], 1)
        x = wide @ self._front.T + self._offset
        return np.maximum(x, 0) if k > 1 else x

    def stream(self, weights: str | None = None) -> SignalStream:
        return SignalStream(self, self._engine_with(weights))


def class_rows(model: Any, examples: Examples) -> Iterator[dict[str, Any]]:
    """What any fitted classifier says of each input, in order: the text, the path or the row; the label; its
    probability."""
    for begin in range(0, len(examples), 256):
        some = examples.inputs[begin : begin + 256]
        found = model.predict_proba(some)
        labels = decided(found, range(len(model.classes_)), model.threshold_, model.positive_)
        for k, (given, probabilities, best) in enumerate(zip(some, found, labels, strict=True)):
            if isinstance(given, np.ndarray):
                shown = {"row": examples.rows[begin + k]}
            else:
                shown = {"text": given} if isinstance(given, str) else {"input": str(given)}
            yield shown | {"label": model.classes_[best], "probability": f"{probabilities[best]:.4f}"}


def decided(probabilities: np.ndarray, classes: Sequence[Any], threshold: float | None, positive: int) -> list[Any]:
    """The class of each row [C]: the most probable; with a threshold, of two classes the positive one from that
    probability on."""
    if threshold is None:
        return [classes[k] for k in probabilities.argmax(1)]
    return [classes[positive if p >= threshold else 1 - positive] for p in probabilities[:, positive]]
