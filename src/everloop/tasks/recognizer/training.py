"""How a recognizer learns: the network, its first alignment, and the batches of changed sounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from everloop.data.audio import AudioCodec, waveform_of
from everloop.data.augmentation import AudioAugmentation
from everloop.data.split import length_buckets
from everloop.data.text import TextCodec
from everloop.nn import Recurrent
from everloop.tasks.batching import pad
from everloop.tasks.decoding import ctc
from everloop.tasks.edits import character_error_rate, word_error_rate
from everloop.tasks.recognizer.markov import Markov, cepstra
from everloop.tasks.training import Carry

if TYPE_CHECKING:
    from everloop.tasks.recognizer.task import Recognizer

Batch = list[tuple[int, int]]
"""The epoch and the place in the training split of each recording."""

BLANK = TextCodec.pad
START_FRAMES = 30_000  # that the hidden Markov model of the first epochs is fitted to: 5 minutes


class SpeechNetwork(nn.Module):
    """Features [B, T, F] and lengths [B] -> log-probabilities [B, ceil(T / stride), C] and lengths.

    The convolution looks at 5 by 5 bands and steps at once, so that what is learned at one pitch or vocal tract length
    helps at others; then linear over all bands.
    """

    KERNELS = 16

    def __init__(self, recurrent: Recurrent, *, features: int, stride: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.stride, self.dropout = stride, dropout
        self.convolution = nn.Conv2d(1, self.KERNELS, 5, (stride, 2), 2)
        self.linear = nn.Linear(self.KERNELS * math.ceil(features / 2), recurrent.input_size)
        self.norm = nn.LayerNorm(recurrent.input_size)
        self.recurrent = recurrent
        self.output = nn.Linear(recurrent.output_size, labels)

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.convolution(values[:, None])).transpose(1, 2).flatten(2)
        y = F.dropout(F.relu(self.norm(self.linear(y))), self.dropout, self.training)
        steps = (lengths + self.stride - 1) // self.stride
        y, _ = self.recurrent(y, lengths=steps)
        y = self.output(F.dropout(y, self.dropout, self.training))
        return y.log_softmax(-1), steps


@dataclass(frozen=True)
class SpeechPart:
    sounds: list[Any]
    texts: list[str]
    labels: list[np.ndarray]


class SpeechProblem:
    """The training and validation recordings as the training loop takes them."""

    def __init__(self, task: Recognizer) -> None:
        self.task, self.monitor = task, task.monitor
        self.train, self.valid = task._parts["train"], task._parts["valid"]
        self.lengths = [int(100 * waveform_of(sound).seconds) for sound in self.train.sounds]
        self.augmentation = AudioAugmentation(
            task.speed, task.warp, task.noise, task.gain, task.mask_bands, task.mask_steps
        )

    @cached_property
    def spans(self) -> list[np.ndarray]:
        """Where each label lies in its recording, as a hidden Markov model says that was fitted to some of them."""
        codec, labels = self.task.codec_, [of.tolist() for of in self.train.labels]
        some = [cepstra(values) for values in first_features(codec, self.train.sounds, START_FRAMES)]
        model = Markov.fit(some, labels[: len(some)])
        return [
            model.spans(cepstra(codec.encode(sound)), text)
            for sound, text in zip(self.train.sounds, labels, strict=True)
        ]

    def batches(self, epoch: int) -> list[Batch]:
        rng = np.random.default_rng([self.task.seed, epoch])
        return [[(epoch, k) for k in rows] for rows in length_buckets(self.lengths, self.task.batch, rng)]

    def loss(self, network: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, int, Carry]:
        labels = [self.train.labels[k] for _, k in batch]
        values = [self._encode(epoch, k) for epoch, k in batch]
        scores, steps = network(*pad(values, self.task.device_))
        lengths = torch.tensor([len(of) for of in labels])
        together = torch.from_numpy(np.concatenate(labels))
        losses = F.ctc_loss(scores.transpose(0, 1), together.to(scores.device), steps, lengths, BLANK, "sum")
        count = int(lengths.sum())
        loss = losses / count
        if batch[0][0] <= math.ceil(self.task.flat_start * self.task.epochs_):
            loss = aligned_loss(scores, steps, labels, [self.spans[k] for _, k in batch])
        return loss, count, None

    def _encode(self, epoch: int, k: int) -> np.ndarray:
        """The features of a changed sound; of the sound as it is where the change leaves too few steps for its text."""
        rng = np.random.default_rng([self.task.seed, epoch, k])
        values = self.augmentation.encode(self.task.codec_, self.train.sounds[k], rng)
        if math.ceil(len(values) / self.task.stride_) < ctc.steps_needed(self.train.labels[k].tolist()):
            return self.task.codec_.encode(self.train.sounds[k])
        return values

    def validate(self, network: nn.Module) -> dict[str, float]:
        scores = list(self.task._scores(self.valid.sounds))
        texts = [self.task._text(ctc.greedy(of, BLANK)) for of in scores]
        return {
            "loss": mean_loss(scores, self.valid.labels),
            "wer": word_error_rate(texts, self.valid.texts),
            "cer": character_error_rate(texts, self.valid.texts),
        }


def first_features(codec: AudioCodec, sounds: Sequence[Any], frames: int) -> list[np.ndarray]:
    """The features of the first recordings, up to so many frames in all."""
    found: list[np.ndarray] = []
    for sound in sounds:
        found.append(codec.encode(sound))
        frames -= len(found[-1])
        if frames < 0:
            break
    return found


def mean_loss(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
    """Nats per label, over the texts that their recordings have the steps for."""
    found = [(ctc.log_likelihood(of, text.tolist(), BLANK), len(text)) for of, text in zip(scores, labels, strict=True)]
    finite = [(value, length) for value, length in found if value > -math.inf]
    return -sum(value for value, _ in finite) / max(1, sum(length for _, length in finite))


def aligned_loss(scores: Tensor, steps: Tensor, labels: Sequence[np.ndarray], spans: Sequence[np.ndarray]) -> Tensor:
    """Mean cross-entropy of the steps: each label has the middle half of its span, the blank has the rest."""
    targets = np.full(scores.shape[:2], -100)
    for row, length, of, where in zip(targets, steps.tolist(), labels, spans, strict=True):
        row[:length] = BLANK
        quarter = (where[:, 1] - where[:, 0]) / 4
        begins, ends = (where[:, 0] + quarter) * length, (where[:, 1] - quarter) * length
        for label, begin, end in zip(of, begins.astype(int), ends, strict=True):
            row[begin : max(begin + 1, math.ceil(end))] = label
    return F.nll_loss(scores.transpose(1, 2), torch.from_numpy(targets).to(scores.device))
