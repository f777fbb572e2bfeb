"""Music for a `Generator`: at every step, which keys sound next, given all steps before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.examples import Examples
from everloop.data.notes import KEYS, Notes, NotesCodec
from everloop.data.split import length_buckets
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.batching import pad
from everloop.tasks.generator.notes_baselines import notes_baselines
from everloop.tasks.progress import Progress
from everloop.tasks.training import Carry

if TYPE_CHECKING:
    from everloop.tasks.generator.task import Generator

LONGEST = 512  # steps back-propagated through: longer pieces are trained on in parts
UPDATES = 40  # an epoch has so many at least, with smaller batches if need be
UNITS = 4  # hidden ones of each key of a chord
PARTS = ("train", "valid", "test")

Part = tuple[int, int, int]
"""A piece by its place, the step where the part of it begins, and semitones to move it by."""


class NotesWriting:
    """What a `Generator` does where it writes music. rolls: float [T, 88] by part of the split."""

    def __init__(self, task: Generator) -> None:
        self.task = task
        self.rolls: dict[str, list[np.ndarray]] = {}

    def prepare(self, examples: Examples, progress: Progress) -> None:
        task = self.task
        task.ends_ = False
        split = task.make_split(examples)
        pieces = {name: [examples.inputs[k] for k in getattr(split, name)] for name in PARTS}
        task.codec_ = NotesCodec.fit(pieces["train"])
        self.rolls = {name: task.codec_.encode_batch(inputs) for name, inputs in pieces.items()}
        sizes = " / ".join(f"{len(rolls):,}" for rolls in self.rolls.values())
        steps = " / ".join(f"{sum(map(len, rolls)):,}" for rolls in self.rolls.values())
        progress.say(f"{sizes} pieces of {steps} steps for training / validation / test")

    def network(self) -> nn.Module:
        task = self.task
        return NotesModel(
            task.recurrent_layers(task.embedding),
            dropout=task.dropout,
            embedding_dropout=task.embedding_dropout,
            chords=task.chords,
        )

    def natural_epochs(self) -> int:
        """About 1,300 updates; between 8 and 60 passes."""
        return max(8, min(60, round(1_300 / len(self.problem().batches(1)))))

    def problem(self) -> NotesProblem:
        return NotesProblem(self.task, self)

    def baselines(self) -> list[Baseline]:
        return notes_baselines(self.rolls["train"], self.rolls["test"])

    def measure(self) -> dict[str, float]:
        return {"loss": self.loss(self.rolls["test"])}

    def evaluate(self, pieces: Sequence[Any]) -> dict[str, float]:
        rolls = self.task.codec_.encode_batch(pieces)
        return {"loss": self.loss(rolls), "steps": sum(map(len, rolls))}

    def loss(self, rolls: Sequence[np.ndarray]) -> float:
        """Mean nats per step, summed over the keys, of all steps of all pieces; before the first there is silence."""
        task, total = self.task, 0.0
        task.network_.eval()
        with torch.no_grad(), task.few_threads():
            for begin in range(0, len(rolls), task.batch):
                sound, lengths = pad(rolls[begin : begin + task.batch], task.device_)
                total += nats(task.network_, sound, _before(sound), lengths).item()
        return total / sum(map(len, rolls))

    def report(self, report: Report) -> dict[str, Any]:
        task = self.task
        first = Notes(self.rolls["test"][0][:1])
        pieces = [task.generate(first, length=64, temperature=t, seed=task.seed) for t in (0.8, 1.0)]
        captions = ("temperature 0.8", "temperature 1")
        shown = "".join(_picture(piece, caption) for piece, caption in zip(pieces, captions, strict=True))
        return {"more": [*report.more, ("Generated from the first chord of a test piece", shown)]}


class NotesModel(nn.Module):
    """Steps before [B, T, 88] and what follows each [B, T, 88] -> scores of its keys [B, T, 88].

    A chord is read as the sum of the embeddings of its keys. chords: "joint", where the scores of a key depend on the
    keys below it in the same chord as well (`Chord`), or "independent", a linear layer.
    """

    def __init__(self, recurrent: Recurrent, *, dropout: float, embedding_dropout: float, chords: str) -> None:
        super().__init__()
        self.dropout, self.embedding_dropout = dropout, embedding_dropout
        self.embedding = nn.Linear(KEYS, recurrent.input_size)
        self.recurrent = recurrent
        self.chord = Chord(recurrent.output_size) if chords == "joint" else None
        self.linear = nn.Linear(recurrent.output_size, KEYS) if self.chord is None else None

    def forward(self, before: Tensor, sound: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(F.dropout(before, self.embedding_dropout, self.training))
        y, _ = self.recurrent(x, lengths=lengths)
        y = F.dropout(y, self.dropout, self.training)
        if self.chord is not None:
            return self.chord(y, sound)
        assert self.linear is not None
        return self.linear(y)


class Chord(nn.Module):
    """y [..., H] and a chord [..., 88] -> the score of each key given y and the keys below it: with a sigmoid and
    multiplied, the probability of the chord. A masked autoencoder (Germain et al. 2015) conditioned on y; RNN-NADE
    (Boulanger-Lewandowski et al. 2012) is alike but shares hidden units between keys.

    Every key has `UNITS` hidden units that see y and the keys below; its score sees y, those keys, and the hidden
    units of its own and of all keys below.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = KEYS * UNITS
        self.hidden, self.linear = nn.Linear(width, hidden), nn.Linear(width, KEYS)
        self.W = nn.Parameter(torch.randn(hidden, KEYS) * 0.05)
        self.V = nn.Parameter(torch.randn(KEYS, hidden) * 0.02)
        self.D = nn.Parameter(torch.zeros(KEYS, KEYS))
        key, owner = torch.arange(KEYS), torch.arange(KEYS).repeat_interleave(UNITS)
        self.register_buffer("sees", (key[None] < owner[:, None]).float(), persistent=False)
        self.register_buffer("heard", (owner[None] <= key[:, None]).float(), persistent=False)
        self.register_buffer("below", torch.ones(KEYS, KEYS).tril(-1), persistent=False)

    def forward(self, y: Tensor, chord: Tensor) -> Tensor:
        units = torch.relu(self.hidden(y) + F.linear(chord, self.W * self.get_buffer("sees")))
        scores = self.linear(y) + F.linear(units, self.V * self.get_buffer("heard"))
        return scores + F.linear(chord, self.D * self.get_buffer("below"))


class NotesProblem:
    """Pieces of like length together, each moved by some semitones every time it comes (`transpose`)."""

    def __init__(self, task: Generator, writing: NotesWriting) -> None:
        self.task, self.monitor, self.writing, self.rolls = task, task.monitor, writing, writing.rolls["train"]
        self.parts = [(k, begin) for k, roll in enumerate(self.rolls) for begin in range(0, len(roll), LONGEST)]
        self.batch = max(1, min(task.batch, len(self.parts) // UPDATES))
        self.reach = [_reach(roll, task.transpose) for roll in self.rolls]

    def batches(self, epoch: int) -> list[list[Part]]:
        random = np.random.default_rng([self.task.seed, epoch])
        lengths = [min(LONGEST, len(self.rolls[k]) - begin) for k, begin in self.parts]
        moves = [int(random.integers(low, high + 1)) for low, high in self.reach]
        groups = length_buckets(lengths, self.batch, random)
        return [[(*self.parts[i], moves[self.parts[i][0]]) for i in group] for group in groups]

    def loss(self, network: nn.Module, batch: list[Part], carry: Carry) -> tuple[Tensor, int, Carry]:
        # A part in the middle is told the chord before it, though not what came before that.
        rows = [np.roll(self.rolls[k][max(begin - 1, 0) : begin + LONGEST], by, 1) for k, begin, by in batch]
        rows = [row if begin else np.pad(row, ((1, 0), (0, 0))) for row, (_, begin, _) in zip(rows, batch, strict=True)]
        sound, lengths = pad(rows, self.task.device_)
        lengths = lengths - 1
        steps = int(lengths.sum())
        return nats(network, sound[:, 1:], sound[:, :-1], lengths) / steps, steps, None

    def validate(self, network: nn.Module) -> dict[str, float]:
        return {"loss": self.writing.loss(self.writing.rolls["valid"])}


def nats(network: nn.Module, sound: Tensor, before: Tensor, lengths: Tensor) -> Tensor:
    """The sum over all keys of all steps."""
    scores = network(before, sound, lengths)
    inside = torch.arange(sound.shape[1])[None] < lengths[:, None]
    each = F.binary_cross_entropy_with_logits(scores, sound, reduction="none").sum(-1)
    return (each * inside.to(each.device)).sum()


def _before(sound: Tensor) -> Tensor:
    return F.pad(sound, (0, 0, 1, 0))[:, :-1]


def _reach(roll: np.ndarray, most: int) -> tuple[int, int]:
    """The semitones down and up, `most` at most, that keep a piece on the piano."""
    used = np.flatnonzero(roll.any(0))
    if not len(used):
        return 0, 0
    return max(-most, -int(used[0])), min(most, KEYS - 1 - int(used[-1]))


def _picture(piece: Notes, caption: str) -> str:
    """The roll as a picture, low keys below."""
    bars = "".join(
        f'<rect x="{8 * on}" y="{4 * (KEYS - 1 - key)}" width="{8 * (off - on) - 1}" height="4"/>'
        for on, off, key in piece.sounding()
    )
    size = f'viewBox="0 0 {8 * len(piece)} {4 * KEYS}" width="100%" fill="currentColor"'
    return (
        f'<figure><svg {size} role="img" aria-label="{caption}">{bars}</svg><figcaption>{caption}</figcaption></figure>'
    )
