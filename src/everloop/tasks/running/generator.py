"""A trained generator at work: what comes next in a text, and the text made of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from everloop.compiler.compose import readout
from everloop.stream import Accuracy, Engine, Part, Stream, StreamPool, joined
from everloop.tasks.run import Run
from everloop.tasks.running._learned import Learned, fitting, piece_ids, softmax, stored
from everloop.tasks.running._notes import RunningNotes


def load(run: Run) -> RunningGenerator | RunningNotes:
    return fitting(running, run)


def running(learned: Learned) -> RunningGenerator | RunningNotes:
    """What runs: of text or of music, as its codec says."""
    return RunningNotes(learned) if learned.codec.modality == "notes" else RunningGenerator(learned)


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
        top = _tied(learned, self.table, width) if learned.options.get("tied") else _linear(learned, vocabulary, width)
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

    def generate_batch(
        self, prompts: Sequence[str], *, weights: str | None = None, seed: int | None = None, **how: Any
    ) -> list[str]:
        """What `generate` makes of each prompt, stepped together; with a seed, text k is drawn with seed + k."""
        sampling, pool = Sampling(**how), StreamPool.of(stored(self.engine, self._whole, weights, self._narrow))
        dice = [np.random.default_rng(None if seed is None else seed + k) for k in range(len(prompts))]
        for prompt in filter(None, dict.fromkeys(prompts)):
            self._warn_of_unknown(prompt)
        ids = [pool.open() for _ in prompts]
        read = {id: self.table[self.given(prompt)] for id, prompt in zip(ids, prompts, strict=True)}
        scores = [out[-1] for out in pool.push(read).values()]
        written: list[list[int]] = [[] for _ in prompts]
        live = list(range(len(prompts)))
        for _ in range(sampling.length):
            drawn = {k: self.draw(scores[k], dice[k], sampling) for k in live}
            live = [k for k in live if drawn[k] != self.codec_.end]
            if not live:
                break
            for k in live:
                written[k].append(drawn[k])
            outs = pool.step([ids[k] for k in live], self.table[[drawn[k] for k in live]])
            for k, out in zip(live, outs, strict=True):
                scores[k] = out
        return [prompt + self._spelled(prompt, row) for prompt, row in zip(prompts, written, strict=True)]

    def _spelled(self, prompt: str, written: Sequence[int]) -> str:
        """What was written after a prompt."""
        decoder = self.codec_.stream_decoder()
        decoder.push(int(self.given(prompt)[-1]))
        return "".join([*map(decoder.push, written), decoder.finish()])

    def draw(self, scores: np.ndarray, random: np.random.Generator, how: Sampling) -> int:
        """The next piece by its scores [V]: never padding or an unknown one, and no end where texts have none."""
        codec, scores = self.codec_, scores.astype(np.float64)
        scores[[codec.pad, codec.unknown]] = -np.inf
        if not self.ends_:
            scores[codec.end] = -np.inf
        return draw(scores, random, how.temperature, how.top_k, how.top_p)

    def stream(self, prompt: str = "", *, weights: str | None = None, **how: Any) -> GeneratorStream:
        """A live text that has read the prompt: push more, or iterate over what the model writes next.

        weights: what those of the layers are stored in, float32, bfloat16 or int8 (None: float32). Options, all by
        name: those of `Sampling`.
        """
        made = GeneratorStream(self, stored(self.engine, self._whole, weights, self._narrow), Sampling(**how))
        if prompt:
            self._warn_of_unknown(prompt)
            made.push(self.given(prompt))
        return made

    def given(self, prompt: str) -> np.ndarray:
        """The ids of a prompt as it is read: a text that will end begins where another ended."""
        if not prompt:
            return self.first
        ids = self.codec_.encode(prompt)
        return np.concatenate([self.first, ids]) if self.ends_ else ids

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
            id = self.model.draw(self._next(), random, how)
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


def _linear(learned: Learned, vocabulary: int, width: int) -> dict[str, np.ndarray]:
    weight = learned.weight("linear.weight", vocabulary, width)
    return {"V": weight, "c": learned.weight("linear.bias", vocabulary)}


def _tied(learned: Learned, table: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """The projection and the embedding [V, E] after it, as one linear map."""
    vocabulary, narrow = table.shape
    bias = learned.weight("bias", vocabulary) + table @ learned.weight("projection.bias", narrow)
    return {"V": table @ learned.weight("projection.weight", narrow, width), "c": bias}


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
