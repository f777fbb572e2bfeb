"""A trained classifier at work: the classes of texts, and those of a text while it is still coming in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from everloop.data.examples import Examples
from everloop.lang.cell import Cell, cell
from everloop.lang.functions import maximum, sized
from everloop.stream import Accuracy, Engine, Part, Stream, joined
from everloop.tasks.run import Run
from everloop.tasks.running._learned import Learned, fitting, piece_ids, softmax, stored


def load(run: Run) -> RunningClassifier:
    return fitting(RunningClassifier, run)


class RunningClassifier:
    """A fitted `Classifier` without torch."""

    name: ClassVar[str] = "classifier"

    def __init__(self, learned: Learned) -> None:
        self.codec_, self.layers = learned.codec, learned.layers
        self.classes_, self.length = list(learned.fitted["classes"]), learned.options["length"]
        self._pooling = learned.options["pooling"].split("+")
        features, pairs = self.layers.input_size, int(learned.fitted["pairs"])
        self.table = learned.weight("embedding.weight", len(self.codec_), features).astype(np.float32)
        self._pair_keys = learned.weight("pair_keys", pairs)
        # The last row stands for all pairs that have no embedding.
        self._pair_table = learned.weight("pair_embedding.weight", pairs + 1, features) if pairs else None
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
        """Embeddings in, scores of the classes so far out; ValueError for a model of both directions."""
        return self._whole.engine()

    @cached_property
    def _whole(self) -> Part:
        names = [*map(str, range(self.layers.num_layers)), "pooling"]
        return joined([*self.layers.one_step(), self._top], names)

    @cached_property
    def _last_engine(self) -> Engine:
        """What turns outputs of the layers into scores; of the whole model, where that goes step by step."""
        return self._top.engine() if self.layers.bidirectional else self.engine

    def predict_proba(self, texts: Sequence[str] | str) -> np.ndarray:
        """[B, C]: the probability of every class, in the order of `classes_`."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = [row[: self.length] for row in self.codec_.encode_batch(texts)]
        return softmax(np.array([self._scores(row) for row in ids]).reshape(len(texts), len(self.classes_)))

    def predict(self, texts: Sequence[str] | str) -> list[str]:
        """The most probable class of every text."""
        return [self.classes_[k] for k in self.predict_proba(texts).argmax(1)]

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """A text, its label and the probability of that."""
        return class_rows(self, examples.inputs)

    def _scores(self, ids: np.ndarray) -> np.ndarray:
        x = self.embedded(ids)
        x[:-1] += self.of_pairs(ids[:-1], ids[1:])
        if self.layers.bidirectional:
            x = self.layers(x[None])[0]
        return Stream.of(self._last_engine).push(x)[-1]

    def stream(self, weights: str | None = None) -> ClassifierStream:
        """A live text: push what has come, get the probabilities of the classes so far.

        weights: what those of the layers are stored in, float32, bfloat16 or int8 (None: float32).
        """
        return ClassifierStream(self, stored(self.engine, self._whole, weights, self._narrow))

    def embedded(self, ids: np.ndarray) -> np.ndarray:
        """The embeddings [T, E] of pieces by themselves."""
        return self.table[ids]

    def of_pairs(self, ids: np.ndarray, following: np.ndarray) -> np.ndarray:
        """What pairs of neighbours add to the embedding of the first, [T, E]; pairs that are not known add nothing."""
        if self._pair_table is None:
            return np.zeros((len(ids), self.table.shape[1]), np.float32)
        keys = ids * len(self.table) + following
        places = np.searchsorted(self._pair_keys, keys).clip(max=len(self._pair_keys) - 1)
        return self._pair_table[np.where(self._pair_keys[places] == keys, places, len(self._pair_keys))]

    @property
    def has_pairs(self) -> bool:
        return self._pair_table is not None


class ClassifierStream:
    """A live text and what it looks like so far. However it is cut, the classes after its last piece are those that
    `predict_proba` gives for the whole (which reads no more of a text than `length` pieces; a stream reads on).

    One thread at a time.
    """

    def __init__(self, model: RunningClassifier, engine: Engine) -> None:
        self.model = model
        # A piece may look at the one after it. So it waits here, after the state, until that has come.
        self._stream = Stream.of(engine)
        self._waiting = np.zeros(0, np.int64)

    def push(self, given: Any) -> np.ndarray:
        """Read on: a text, or ids [T], gives the probabilities of the classes after each of its pieces, [T, C]; one id
        gives [C]. A text is cut into pieces by itself: a word in two pushes is two words.
        """
        model = self.model
        ids = piece_ids(given, model.codec_)
        if model.has_pairs:
            scores = np.array([self._looking_ahead(id) for id in ids], np.float32).reshape(-1, len(model.classes_))
        else:
            scores = self._stream.push(model.embedded(ids))
        return softmax(scores[0] if np.ndim(given) == 0 and not isinstance(given, str) else scores)

    def _looking_ahead(self, id: int) -> np.ndarray:
        """The scores after a piece of which nobody knows what follows; the state stays before it."""
        model, before, new = self.model, self._waiting, np.array([id])
        if len(before):
            self._stream.push(model.embedded(before) + model.of_pairs(before, new))
        self._waiting = new
        return self._stream.fork().push(model.embedded(new))[0]

    def accuracy(self, given: Any) -> Accuracy:
        """What it costs to store weights as they are here: how far the scores of a text, or of ids [T], are from those
        of weights in float32. The stream does not move.
        """
        model = self.model
        ids = piece_ids(given, model.codec_)
        x = model.embedded(ids)
        x[:-1] += model.of_pairs(ids[:-1], ids[1:])
        return self._stream.accuracy(x, Stream.of(model.engine))

    @property
    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state of every layer by name, `0.h`, and of the pooling over time."""
        return self._stream.state

    def snapshot(self) -> bytes:
        """Everything that `restore` needs to go on from here, as bytes."""
        return self._stream.snapshot({"waiting": self._waiting})

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot of a stream of the same model."""
        self._waiting = self._stream.restore(snapshot)["waiting"]

    def fork(self) -> Self:
        """Another stream that goes on from here by itself."""
        other = type(self)(self.model, self._stream.engine)
        other._stream, other._waiting = self._stream.fork(), self._waiting
        return other

    def reset(self) -> None:
        """Back to a text of which nothing has been read."""
        self._stream.reset()
        self._waiting = np.zeros(0, np.int64)


def class_rows(model: Any, inputs: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """What any fitted classifier says of each input, in order."""
    for begin in range(0, len(inputs), 256):
        some = inputs[begin : begin + 256]
        for one, probability in zip(some, model.predict_proba(some), strict=True):
            best = int(probability.argmax())
            yield {"text": one, "label": model.classes_[best], "probability": f"{probability[best]:.4f}"}


def pooling(kinds: Sequence[str]) -> Cell:
    """Outputs of the layers, one step after another, as scores of the classes of what has come so far: a linear layer
    on their maximum, their mean, the last one, or several of these.
    """

    @cell(states="largest:input sum:input steps:input", gates="max mean last y", start={"largest": -math.inf})
    def pooled(x, largest, sum, steps, V, c):
        largest, sum, steps = maximum(largest, x), sum + x, steps + 1
        found = {"max": largest, "mean": sum / steps, "last": x}
        y = c.y
        for kind in kinds:
            y = y + getattr(V, kind) @ found[kind]
        return sized(y, "classes"), largest, sum, steps

    return pooled
