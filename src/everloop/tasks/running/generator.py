"""A trained generator at work: what comes next in a text, and the text made of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from everloop.compiler.compose import readout
from everloop.stream import Accuracy, Engine, Part, Stream, joined
from everloop.tasks.run import Run
from everloop.tasks.running._learned import Learned, fitting, piece_ids, softmax, stored


def load(run: Run) -> RunningGenerator:
    return fitting(RunningGenerator, run)


@dataclass(frozen=True)
class Sampling:
    """length: pieces of text at most. temperature: scores are divided by it; 0 takes the most probable piece every
    time. top_k: draw from the k most probable only (0: all). top_p: draw from the fewest that have this probability
    together (Holtzman et al. 2020). seed: makes the result repeatable.
    """

    length: int = 500
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        length, temperature, top_k, top_p = self.length, self.temperature, self.top_k, self.top_p
        if length < 0:
            raise ValueError(f"length: {length} came; expected 0 or more pieces")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: {temperature} came; expected 0 (always the most probable) or more")
        if top_k < 0:
            raise ValueError(
                f"top_k: {top_k} came; expected 0 (all) or how many of the most probable pieces to draw from"
            )
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p: {top_p} came; expected more than 0 and at most 1 (all)")


class RunningGenerator:
    """A fitted `Generator` without torch: embedding, layers and the linear layer, one compiled step."""

    name: ClassVar[str] = "generator"

    def __init__(self, learned: Learned) -> None:
        layers = learned.layers
        self.codec_, self.ends_ = learned.codec, bool(learned.fitted["ends"])
        vocabulary, width = len(self.codec_), layers.output_size
        self.table = learned.weight("embedding.weight", vocabulary, layers.input_size).astype(np.float32)
        top = {
            "V": learned.weight("linear.weight", vocabulary, width),
            "c": learned.weight("linear.bias", vocabulary),
        }
        parts = [*layers.one_step(), Part(readout(), {"input": width, "output": vocabulary}, top)]
        self._whole = joined(parts, [*map(str, range(layers.num_layers)), "readout"])
        self._narrow: dict[str, Engine] = {}
        self.engine  # noqa: B018 - what does not fit is found at once

    @cached_property
    def engine(self) -> Engine:
        """Rows of `table` in, scores of the next piece out."""
        return self._whole.engine()

    def generate(self, prompt: str = "", **how: Any) -> str:
        """The prompt and what the model makes of it. Options as `stream`."""
        return prompt + "".join(self.stream(prompt, **how))

    def stream(self, prompt: str = "", *, weights: str | None = None, **how: Any) -> GeneratorStream:
        """A live text that has read the prompt: push more, or iterate over what the model writes next.

        weights: what those of the layers are stored in, float32, bfloat16 or int8 (None: float32). Options, all by
        name: those of `Sampling`.
        """
        made = GeneratorStream(self, stored(self.engine, self._whole, weights, self._narrow), Sampling(**how))
        if prompt:
            self._warn_of_unknown(prompt)
            made.push(prompt)
        return made

    def _warn_of_unknown(self, prompt: str) -> None:
        codec = self.codec_
        pairs = zip(codec.pieces(prompt), codec.encode(prompt), strict=False)
        unknown = dict.fromkeys(piece for piece, id in pairs if id == codec.unknown)
        if unknown:
            shown = ", ".join(map(repr, unknown))
            warnings.warn(f"the model never saw {shown}: it reads that as an unknown piece", stacklevel=4)

    @cached_property
    def first(self) -> np.ndarray:
        """What the model reads where there is no prompt: a line break, or the end of a text."""
        start = self.codec_.encode("\n") if not self.ends_ else np.array([self.codec_.end])
        return start if start[0] != self.codec_.unknown else np.array([self.codec_.end])


class GeneratorStream:
    """A live text, read by `push` and written on by iterating. One thread at a time."""

    def __init__(self, model: RunningGenerator, engine: Engine, how: Sampling) -> None:
        self.model, self.how = model, how
        self._stream = Stream.of(engine)
        self._scores: np.ndarray | None = None  # of the next piece
        self._last = -1

    def push(self, given: Any) -> np.ndarray:
        """Read on: a text, or ids [T], gives the probabilities of the piece after each of its pieces, [T, V]; one id
        gives [V]. A text is cut into pieces by itself: a word in two pushes is two words.
        """
        ids = piece_ids(given, self.model.codec_)
        scores = self._read(ids)
        return softmax(scores[0] if np.ndim(given) == 0 and not isinstance(given, str) else scores)

    def _read(self, ids: np.ndarray) -> np.ndarray:
        scores = self._stream.push(self.model.table[ids])
        if len(ids):
            self._scores, self._last = scores[-1], int(ids[-1])
        return scores

    @property
    def probabilities(self) -> np.ndarray:
        """Of the next piece, [V]."""
        return softmax(self._next())

    def _next(self) -> np.ndarray:
        if self._scores is None:
            self._read(self.model.first)
        assert self._scores is not None
        return self._scores

    def __iter__(self) -> Iterator[str]:
        """The text that follows, as it is produced: what has been given out has been read, too."""
        codec, how = self.model.codec_, self.how
        random, decoder = np.random.default_rng(how.seed), codec.stream_decoder()
        self._next()
        decoder.push(self._last)
        for _ in range(how.length):
            scores = self._next().astype(np.float64)
            scores[[codec.pad, codec.unknown]] = -np.inf
            if not self.model.ends_:
                scores[codec.end] = -np.inf
            id = draw(scores, random, how.temperature, how.top_k, how.top_p)
            if id == codec.end:
                break
            self._read(np.array([id]))
            yield decoder.push(id)
        yield decoder.finish()

    def accuracy(self, given: Any) -> Accuracy:
        """What it costs to store weights as they are here: how far the scores after each piece of a text, or of ids
        [T], are from those of weights in float32. The stream does not move.
        """
        x = self.model.table[piece_ids(given, self.model.codec_)]
        return self._stream.accuracy(x, Stream.of(self.model.engine))

    @property
    def state(self) -> dict[str, np.ndarray]:
        """A copy of the state of every layer by name, `0.h`."""
        return self._stream.state

    def snapshot(self) -> bytes:
        """Everything that `restore` needs to go on from here, as bytes."""
        scores = np.zeros(0, np.float32) if self._scores is None else self._scores
        return self._stream.snapshot({"scores": scores, "last": np.array([self._last])})

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot of a stream of the same model."""
        found = self._stream.restore(snapshot)
        self._scores, self._last = found["scores"] if len(found["scores"]) else None, int(found["last"][0])

    def fork(self) -> Self:
        """Another stream that goes on from here by itself."""
        other = type(self)(self.model, self._stream.engine, self.how)
        other._stream, other._scores, other._last = self._stream.fork(), self._scores, self._last
        return other

    def reset(self) -> None:
        """Back to a text of which nothing has been read."""
        self._stream.reset()
        self._scores, self._last = None, -1


def draw(scores: np.ndarray, random: np.random.Generator | None, temperature: float, top_k: int, top_p: float) -> int:
    """One piece of those that are left by top_k and then top_p, by its probability at that temperature. scores [V]"""
    if temperature == 0:
        return int(scores.argmax())
    with np.errstate(over="ignore"):
        scores = (scores - scores.max()) / temperature
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    if top_k:
        ranked[top_k:] = -np.inf
    probability = softmax(ranked)
    if top_p < 1:
        before = probability.cumsum() - probability
        probability[before >= top_p] = 0.0
    edges = probability.cumsum()
    # Below the last edge, so that it is in none of the pieces behind it, which have no probability.
    place = min((random or np.random.default_rng()).random() * edges[-1], np.nextafter(edges[-1], 0))
    return int(order[np.searchsorted(edges, place, side="right")])
