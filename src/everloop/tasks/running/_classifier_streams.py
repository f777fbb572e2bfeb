"""Live texts and live signals, and what a classifier makes of them so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from everloop.stream import Accuracy, Engine, Stream
from everloop.tasks.running._learned import piece_ids
from everloop.tasks.running._ngrams import Ngrams

if TYPE_CHECKING:
    from everloop.tasks.running.classifier import RunningTexts, RunningValues


class ClassifierStream:
    """A live text and what it looks like so far. However it is cut, the classes after its last piece are those that
    `predict_proba` gives for the whole (which reads no more of a text than `length` pieces; a stream reads on).

    One thread at a time.
    """

    def __init__(self, model: RunningTexts, engine: Engine) -> None:
        self.model = model
        # A piece may look at the one after it. So it waits here, after the state, until that has come.
        self._stream = Stream.of(engine)
        self._waiting = np.zeros(0, np.int64)
        # The last pieces, what all n-grams so far have come to, and of how many pieces.
        self._recent = np.zeros(0, np.int64)
        self._total = np.zeros(len(model.classes_), np.float32)
        self._read = 0

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
        if model.ngrams is not None:
            scores = model.ngrams.mixed(scores, self._of_ngrams(model.ngrams, ids))
        return model.probabilities(scores[0] if np.ndim(given) == 0 and not isinstance(given, str) else scores)

    def _of_ngrams(self, ngrams: Ngrams, ids: np.ndarray) -> np.ndarray:
        """The scores [T, C] after each of these pieces."""
        totals = self._total + ngrams.ending_at_each(ids, self._recent).cumsum(0, dtype=np.float32)
        scores = [ngrams.scores(total, self._read + k) for k, total in enumerate(totals, start=1)]
        if len(ids):
            self._total = totals[-1]
        whole = np.concatenate([self._recent, ids])
        self._recent = whole[max(0, len(whole) - ngrams.longest + 1) :]
        self._read += len(ids)
        return np.array(scores, np.float32).reshape(-1, len(self._total))

    def _looking_ahead(self, id: int) -> np.ndarray:
        """The scores after a piece of which nobody knows what follows; the state stays before it."""
        model, before, new = self.model, self._waiting, np.array([id])
        if len(before):
            self._stream.push(model.embedded(before) + model.of_pairs(before, new))
        self._waiting = new
        return self._stream.fork().push(model.embedded(new))[0]

    def accuracy(self, given: Any) -> Accuracy:
        """What it costs to store weights as they are here: how far the scores that the layers give a text, or ids [T],
        are from those of weights in float32. The stream does not move.
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
        kept = {"waiting": self._waiting}
        if self.model.ngrams is not None:
            kept |= {"recent": self._recent, "total": self._total, "read": np.array([self._read])}
        return self._stream.snapshot(kept)

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot of a stream of the same model."""
        found = self._stream.restore(snapshot)
        self._waiting = found["waiting"]
        if self.model.ngrams is not None:
            self._recent, self._total, self._read = found["recent"], found["total"], int(found["read"][0])

    def fork(self) -> Self:
        """Another stream that goes on from here by itself."""
        other = type(self)(self.model, self._stream.engine)
        other._stream, other._waiting = self._stream.fork(), self._waiting
        other._recent, other._total, other._read = self._recent, self._total, self._read
        return other

    def reset(self) -> None:
        """Back to a text of which nothing has been read."""
        self._stream.reset()
        self._waiting = self._recent = np.zeros(0, np.int64)
        self._total, self._read = np.zeros_like(self._total), 0


class SignalStream:
    """A live signal and what it looks like so far: after its last step, what `predict_proba` gives for the whole.

    One thread at a time.
    """

    def __init__(self, model: RunningValues, engine: Engine) -> None:
        self.model = model
        self._stream = Stream.of(engine)
        self._begin()

    def _begin(self) -> None:
        features = self.model.codec_.features
        # Of the last steps, what the front still sees; and the last one as it came, for values that are missing.
        self._before = np.zeros((self.model.window - 1, features), np.float32)
        self._last = np.full((1, features), np.nan, np.float32)

    def push(self, given: Any) -> np.ndarray:
        """Read on: values [F] give the probabilities of the classes after that step, [C]; values [T, F], as they were
        before they were standardised, those after each of them, [T, C]."""
        x = self._encoded(given)
        if self.model.codec_.missing == "previous":
            self._last = (x[-1:] * self.model.codec_.scale + self.model.codec_.mean).astype(np.float32)
        seen = self.model.seen(x, self._before)
        self._before = np.concatenate([self._before, x])[len(x) :]
        scores = self._stream.push(seen)
        return self.model.probabilities(scores[0] if np.ndim(given) < 2 else scores)

    def _encoded(self, given: Any) -> np.ndarray:
        codec = self.model.codec_
        array = np.asarray(given, dtype=np.float32)
        if array.shape[-1:] != (codec.features,) or array.ndim > 2 or not array.size:
            raise ValueError(f"push: shape {array.shape} came; expected values [{codec.features}], or [T, same]")
        array = array.reshape(-1, codec.features)
        if codec.missing != "previous":
            return codec.encode(array)
        return codec.encode(np.concatenate([self._last, array]))[1:]

    def accuracy(self, given: Any) -> Accuracy:
        """What it costs to store weights as they are here: how far the scores of a signal [T, F] are from those of
        weights in float32. The stream does not move."""
        x = self.model.seen(self._encoded(given), self._before)
        return self._stream.accuracy(x, Stream.of(self.model.engine))

    @property
    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state of every layer by name, `0.h`, and of the pooling over time."""
        return self._stream.state

    def snapshot(self) -> bytes:
        """Everything that `restore` needs to go on from here, as bytes."""
        return self._stream.snapshot({"before": self._before, "last": self._last})

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot of a stream of the same model."""
        found = self._stream.restore(snapshot)
        self._before, self._last = found["before"], found["last"]

    def fork(self) -> Self:
        """Another stream that goes on from here by itself."""
        other = type(self)(self.model, self._stream.engine)
        other._stream, other._before, other._last = self._stream.fork(), self._before, self._last
        return other

    def reset(self) -> None:
        """Back to a signal of which nothing has been read."""
        self._stream.reset()
        self._begin()
