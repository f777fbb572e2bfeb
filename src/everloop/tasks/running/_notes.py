"""A trained generator of music at work: the chord that comes next, and the piece made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from everloop.data.notes import KEYS, Notes, NotesCodec, piece_of
from everloop.stream import Engine, Stream, StreamPool, joined
from everloop.tasks.running._learned import Learned, stored


@dataclass(frozen=True)
class Drawing:
    """length: steps that are written. temperature: the scores of the keys are divided by it; 0 has every key sound that
    is more probable than not. seed: makes the result repeatable.
    """

    length: int = 64
    temperature: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"length: {self.length} came; expected 0 steps or more")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature} came; expected 0 (no chance) or more")


class RunningNotes:
    """A fitted `Generator` of music without torch: embedding, layers as one compiled step, and the chord."""

    name: ClassVar[str] = "generator"

    def __init__(self, learned: Learned) -> None:
        layers = learned.layers
        assert isinstance(learned.codec, NotesCodec)
        self.codec_: NotesCodec = learned.codec
        self.embedding = learned.weight("embedding.weight", layers.input_size, KEYS).T
        self.bias = learned.weight("embedding.bias", layers.input_size)
        self.chord = _chord(learned, layers.output_size)
        self._whole = joined(layers.one_step())
        self._narrow: dict[str, Engine] = {}
        self.engine  # noqa: B018 - what does not fit is found at once

    @cached_property
    def engine(self) -> Engine:
        """Embedded chords in, what a chord is drawn from out."""
        return self._whole.engine()

    def embedded(self, roll: np.ndarray) -> np.ndarray:
        return (roll.astype(np.float32) @ self.embedding + self.bias).astype(np.float32)

    def generate(self, prompt: Any = "", **how: Any) -> Notes:
        """The prompt and what the model makes of it. Options as `stream`."""
        given = self.given(prompt)
        made = [*self.stream(prompt, **how)]
        return self.codec_.decode(np.concatenate([given, *(row[None] for row in made)]))

    def generate_batch(
        self, prompts: Sequence[Any], *, weights: str | None = None, seed: int | None = None, **how: Any
    ) -> list[Notes]:
        """What `generate` makes of each prompt, stepped together; with a seed, piece k is drawn with seed + k."""
        drawing = Drawing(seed=seed, **how)
        pool = StreamPool.of(stored(self.engine, self._whole, weights, self._narrow))
        dice = [np.random.default_rng(None if seed is None else seed + k) for k in range(len(prompts))]
        rolls = [self.given(prompt) for prompt in prompts]
        ids = [pool.open() for _ in prompts]
        read = {id: self.embedded(np.pad(roll, ((1, 0), (0, 0)))) for id, roll in zip(ids, rolls, strict=True)}
        y = [out[-1] for out in pool.push(read).values()]
        written: list[list[np.ndarray]] = [[] for _ in prompts]
        for _ in range(drawing.length if prompts else 0):
            rows = np.array([self.chord.draw(*pair, drawing.temperature) for pair in zip(y, dice, strict=True)])
            for piece, row in zip(written, rows, strict=True):
                piece.append(row)
            y = [*pool.step(ids, self.embedded(rows))]
        return [
            self.codec_.decode(np.concatenate([roll, *(row[None] for row in piece)]))
            for roll, piece in zip(rolls, written, strict=True)
        ]

    def stream(self, prompt: Any = "", *, weights: str | None = None, **how: Any) -> NotesStream:
        """A live piece that has read the prompt: `Notes`, a MIDI file, or chords as `Notes.of` reads them.

        weights: what those of the layers are stored in, float32, bfloat16 or int8 (None: float32). Options, all by
        name: those of `Drawing`.
        """
        made = NotesStream(self, stored(self.engine, self._whole, weights, self._narrow), Drawing(**how))
        made.push(self.given(prompt))
        return made

    def given(self, prompt: Any) -> np.ndarray:
        """The roll of a prompt, bool [T, 88]."""
        if isinstance(prompt, str) and not prompt.strip():
            return np.zeros((0, KEYS), bool)
        if isinstance(prompt, str) and not prompt.lower().endswith((".mid", ".midi")):
            return Notes.of(prompt).roll
        return piece_of(prompt, self.codec_.per_beat).roll


class NotesStream:
    """A live piece, read by `push` and written on by iterating. One thread at a time."""

    def __init__(self, model: RunningNotes, engine: Engine, how: Drawing) -> None:
        self.model, self.how = model, how
        self._stream = Stream.of(engine)
        # Before the first step there is silence.
        self._y = self._stream.push(model.embedded(np.zeros(KEYS, bool)))

    def push(self, given: Any) -> None:
        """Read on: the keys of one step [88], or of several [T, 88]; or what a prompt may be."""
        roll = given if isinstance(given, np.ndarray) else self.model.given(given)
        rows = np.asarray(roll, bool).reshape(-1, KEYS)
        if len(rows):
            self._y = self._stream.push(self.model.embedded(rows))[-1]

    def nats(self, roll: np.ndarray) -> np.ndarray:
        """Read on, and say for each step of [T, 88] how surprising it was: [T]."""
        found = []
        for row in np.asarray(roll, bool).reshape(-1, KEYS):
            found.append(self.model.chord.nats(self._y, row))
            self.push(row)
        return np.array(found)

    def snapshot(self) -> bytes:
        """Everything that `restore` needs to go on from here, as bytes."""
        return self._stream.snapshot({"y": self._y})

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot of a stream of the same model."""
        self._y = self._stream.restore(snapshot)["y"]

    def fork(self) -> Self:
        """Another stream that goes on from here by itself."""
        other = type(self)(self.model, self._stream.engine, self.how)
        other._stream, other._y = self._stream.fork(), self._y
        return other

    def __iter__(self) -> Iterator[np.ndarray]:
        """The steps that follow, bool [88] each, as they are drawn: what has been given out has been read, too."""
        random = np.random.default_rng(self.how.seed)
        for _ in range(self.how.length):
            row = self.model.chord.draw(self._y, random, self.how.temperature)
            self.push(row)
            yield row


@dataclass(frozen=True, eq=False)
class RunningChord:
    """What `everloop.tasks.generator.notes.Chord` computes, key by key; without hidden units, each key by itself."""

    linear: np.ndarray  # [88, H + 1], the last column added as it is
    hidden: np.ndarray  # [88, U, H + 1]
    W: np.ndarray  # [88, U, 88]
    V: np.ndarray  # [88, 88 * U]
    D: np.ndarray  # [88, 88]

    def draw(self, y: np.ndarray, random: np.random.Generator, temperature: float) -> np.ndarray:
        """A chord, bool [88]."""
        # A logistic number is below a score as often as the sigmoid of the score says.
        edges = temperature * random.logistic(size=KEYS)
        return self._walk(y, lambda key, score: score > edges[key])[0]

    def nats(self, y: np.ndarray, row: np.ndarray) -> float:
        scores = self._walk(y, lambda key, score: row[key])[1]
        return float(np.logaddexp(0, np.where(row, -scores, scores)).sum())

    def _walk(self, y: np.ndarray, sounds: Any) -> tuple[np.ndarray, np.ndarray]:
        """From the lowest key up: the chord and the scores [88]."""
        y = np.append(y, 1.0)
        scores, first = self.linear @ y, self.hidden @ y
        row, units = np.zeros(KEYS), np.zeros(first.size)
        count = first.shape[1]
        for key in range(KEYS):
            if count:
                units[key * count : (key + 1) * count] = np.maximum(0, first[key] + self.W[key, :, :key] @ row[:key])
                heard = (key + 1) * count
                scores[key] += self.V[key, :heard] @ units[:heard] + self.D[key, :key] @ row[:key]
            row[key] = sounds(key, scores[key])
        return row.astype(bool), scores


def _chord(learned: Learned, width: int) -> RunningChord:
    def linear(name: str, rows: int) -> np.ndarray:
        weight, bias = learned.weight(f"{name}.weight", rows, width), learned.weight(f"{name}.bias", rows)
        return np.concatenate([weight, bias[:, None]], 1).astype(np.float64)

    if "linear.weight" in learned.weights:
        none = np.zeros((KEYS, 0))
        hidden, W = np.zeros((KEYS, 0, width + 1)), np.zeros((KEYS, 0, KEYS))
        return RunningChord(linear("linear", KEYS), hidden, W, none, none)
    units = len(learned.weights.get("chord.hidden.bias", ()))
    return RunningChord(
        linear("chord.linear", KEYS),
        linear("chord.hidden", units).reshape(KEYS, -1, width + 1),
        learned.weight("chord.W", units, KEYS).astype(np.float64).reshape(KEYS, -1, KEYS),
        learned.weight("chord.V", KEYS, units).astype(np.float64),
        learned.weight("chord.D", KEYS, KEYS).astype(np.float64),
    )
