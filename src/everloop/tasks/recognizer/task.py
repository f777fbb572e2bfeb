"""Many to many out of step, in order: what is said in a recording (speech recognition)."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from everloop.data.audio import HOP, WINDOW, AudioCodec, Waveform, told, usable
from everloop.data.examples import Examples
from everloop.data.text import TextCodec
from everloop.insight.inside import Inside
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.batching import pad
from everloop.tasks.decoding import ctc
from everloop.tasks.edits import character_error_rate, edits, word_error_rate
from everloop.tasks.progress import Progress
from everloop.tasks.recognizer.baselines import recognizer_baselines
from everloop.tasks.recognizer.inside import look
from everloop.tasks.recognizer.training import (
    BLANK,
    SpeechNetwork,
    SpeechPart,
    SpeechProblem,
    first_features,
    mean_loss,
)
from everloop.tasks.run import Run
from everloop.tasks.running._learned import extra_sizes
from everloop.tasks.task import Positive, Share, Task, Whole

FEW_WORDS, OFTEN = 100, 20
BASELINE_FRAMES = 150_000  # 25 minutes
STRIDES = {"words": 4, "chars": 2}


@dataclass(frozen=True)
class Spoken:
    """A piece of a text, and the seconds of the recording in which it is said."""

    text: str
    begin: float
    end: float


@dataclass(kw_only=True)
class Recognizer(Task):
    """The text that is said in a recording: log-mel features, convolution, recurrent layers, linear, and CTC.

    fit(data): a table with a column of sound files and one of texts, a folder of recordings each beside a .txt of the
    same name, a folder in the form of LibriSpeech (`*.trans.txt`), or lists of `Waveform`s or paths and texts.
    predict(sounds) -> texts; align(sound) -> when each piece was said; score(sounds, texts) -> 1 - word error rate.

    cell, hidden, layers, bidirectional: the recurrent layers; hidden is per direction. channels: features that the
    convolution gives. stride: steps of 10 ms that become one (0: 4 for words, 2 for characters). unit: what is
    recognised, characters or words; auto takes words if there are no more than 100 of them and each comes 20 times on
    average. spelling: "spoken" texts are lowercase and without punctuation, as nothing in a sound tells them; "written"
    leaves them as they come. rate, bands, deltas: of the features (0: the data decide).
    speed, warp, noise, gain, mask_bands, mask_steps: how training changes the sounds, see `AudioAugmentation`.
    flat_start: share of the epochs, at the beginning, in which the network learns where each unit lies as a hidden
    Markov model says (`Markov`), before it may decide that itself; CTC alone takes many updates to say anything at all.
    width: of the beam search (1: greedy). bonus: nats that each unit adds to the score of a text.

    Graves et al. 2006 (connectionist temporal classification), Amodei et al. 2016 (Deep Speech 2, the layers). There is
    no dictionary and no language model.
    """

    cell: str = "gru"
    hidden: Whole = 96
    bidirectional: bool = True
    channels: Whole = 96
    stride: Annotated[int, Field(ge=0)] = 0
    unit: Literal["auto", "chars", "words"] = "auto"
    spelling: Literal["spoken", "written"] = "spoken"
    rate: Annotated[int, Field(ge=0)] = 0
    bands: Annotated[int, Field(ge=0)] = 0
    deltas: bool = False
    speed: Share = 0.1
    warp: Share = 0.15
    noise: Share = 0.03
    gain: Annotated[float, Field(ge=0)] = 0.0
    mask_bands: Annotated[int, Field(ge=0)] = 4
    mask_steps: Annotated[int, Field(ge=0)] = 4
    flat_start: Share = 0.3
    width: Whole = 8
    bonus: float = 0.0
    batch: Whole = 8
    lr: Positive = 1.2e-2
    dropout: Share = 0.15
    warmup: Share = 0.1
    patience: Annotated[int, Field(ge=0)] = 0

    name: ClassVar[str] = "recognizer"
    monitor: ClassVar[str] = "loss"
    judged_by: ClassVar[str] = "wer"
    needs_target: ClassVar[bool] = True

    def prepare(self, examples: Examples, progress: Progress) -> None:
        if examples.modality != "audio":
            raise ValueError(
                f"{examples.source} holds {examples.modality}; a recognizer needs sounds: a column of paths of .wav, "
                ".flac, .ogg or .mp3 files, or Waveforms"
            )
        if examples.targets is None:
            raise ValueError(f"{examples.source} has no texts; a recognizer needs what is said in each recording")
        texts = [self._spelled(text) for text in examples.targets]
        examples, texts = self._without_unusable(examples, texts)
        split = self.make_split(examples)
        known = [texts[k] for k in split.train]
        self.unit_ = self._choose_unit(known)
        self.stride_ = self.stride or STRIDES[self.unit_]
        self.target_codec_ = TextCodec.fit(
            [self._as_pieces(text) for text in known], unit=self.unit_, reversible=True, min_count=1
        )
        self.codec_ = AudioCodec.fit(
            [examples.inputs[k] for k in split.train],
            rate=self.rate or None,
            bands=self.bands or None,
            centre=self.bidirectional,
            deltas=self.deltas,
        )
        self._parts = {
            part: SpeechPart([examples.inputs[k] for k in rows], [texts[k] for k in rows], self._labels(texts, rows))
            for part, rows in (("train", split.train), ("valid", split.valid), ("test", split.test))
        }
        self._check_room(examples, split.train + split.valid)
        sizes = " / ".join(f"{len(part.texts):,}" for part in self._parts.values())
        progress.say(f"{sizes} recordings for training / validation / test")

    def _spelled(self, text: str) -> str:
        return spoken(text) if self.spelling == "spoken" else " ".join(text.split())

    def _without_unusable(self, examples: Examples, texts: list[str]) -> tuple[Examples, list[str]]:
        """Stop at the first recording that cannot be used, or leave out all of them, as data.bad_rows says."""
        skip = self.data_.get("bad_rows") == "skip"
        kept, odd, left_out, self._seconds = [], {}, [], []
        for place, seconds, fault, good in usable(examples.inputs):
            row, sound = examples.rows[place], examples.inputs[place]
            named = f"row {row}" + ("" if isinstance(sound, Waveform) else f" ({sound})")
            if good and not texts[place]:
                good, fault = False, f"its text {examples.targets[place]!r} has no words"  # type: ignore[index]
            if not good:
                if not skip:
                    raise ValueError(f"{examples.source}, {named}: {fault}; leave it out, or --bad-rows skip")
                left_out.append(f"{named}: {fault}")
                continue
            if fault:
                odd.setdefault(fault, []).append(named)
            kept.append(place)
            self._seconds.append(seconds)
        for note in told({**odd, **({"left out": left_out} if left_out else {})}):
            self.progress_.say(note)
        return (examples.take(kept) if left_out else examples), [texts[place] for place in kept]

    def _choose_unit(self, texts: Sequence[str]) -> Literal["chars", "words"]:
        counts = Counter(word for text in texts for word in text.split())
        if self.unit != "auto":
            self.progress_.say(f"text as {'words' if self.unit == 'words' else 'characters'}, as asked")
            return self.unit
        few = len(counts) <= FEW_WORDS and counts.total() >= OFTEN * len(counts)
        said = f"{len(counts):,} different words, each {counts.total() / len(counts):.1f} times on average"
        self.progress_.say(f"text as {'words' if few else 'characters'}: {said}")
        return "words" if few else "chars"

    def _as_pieces(self, text: str) -> str:
        """Words carry the space before them, so that the first is as the others."""
        return f" {text}" if self.unit_ == "words" else text

    def _labels(self, texts: Sequence[str], rows: Sequence[int]) -> list[np.ndarray]:
        return self.target_codec_.encode_batch([self._as_pieces(texts[k]) for k in rows]) if rows else []

    def _check_room(self, examples: Examples, rows: Sequence[int]) -> None:
        """A recording with fewer steps than its text needs has no probability at all."""
        labels = self._parts["train"].labels + self._parts["valid"].labels
        for row, of in zip(rows, labels, strict=True):
            steps = math.ceil(frames_of(self._seconds[row]) / self.stride_)
            if steps < ctc.steps_needed(of.tolist()):
                raise ValueError(
                    f"{examples.source}, row {examples.rows[row]}: {self._seconds[row]:.2f} s of sound are {steps} "
                    f"steps, and its text of {len(of)} {self.unit_} needs {ctc.steps_needed(of.tolist())}; "
                    f"is it the right text? Else a smaller stride (--set stride=1; it was {self.stride_}) helps"
                )

    def make_network(self) -> nn.Module:
        return SpeechNetwork(
            Recurrent(
                self.cell,
                self.channels,
                self.hidden,
                self.layers,
                self.bidirectional,
                self.dropout if self.layers > 1 else 0.0,
                sizes=extra_sizes(self.cell, self.hidden),
            ),
            features=self.codec_.features,
            stride=self.stride_,
            labels=len(self.target_codec_),
            dropout=self.dropout,
        )

    def natural_epochs(self) -> int:
        """As many as make 4,000 updates, 10 at least and 100 at most."""
        return max(10, min(100, math.ceil(4_000 / len(self.problem().batches(1)))))

    def problem(self) -> SpeechProblem:
        return SpeechProblem(self)

    def baselines(self) -> list[Baseline]:
        train, test = self._parts["train"], self._parts["test"]
        values = first_features(self.codec_, train.sounds, BASELINE_FRAMES)
        return recognizer_baselines(
            values,
            [of.tolist() for of in train.labels[: len(values)]],
            self.codec_.encode_batch(test.sounds),
            test.texts,
            decode=self._text,
        )

    def measure(self) -> dict[str, float]:
        test = self._parts["test"]
        scores = list(self._scores(test.sounds))
        self._test_texts = [self._decode(of) for of in scores]
        return _metrics(self._test_texts, test.texts) | {
            "greedy_wer": word_error_rate([self._text(ctc.greedy(of, BLANK)) for of in scores], test.texts),
            "loss": mean_loss(scores, test.labels),
        }

    # Using a fitted one

    def predict(self, sounds: Any) -> list[str]:
        """What is said in each recording: paths or `Waveform`s, or one of them."""
        self._check_fitted()
        several: Sequence[Any] = [sounds] if isinstance(sounds, Waveform | str | Path) else list(sounds)
        return [self._decode(of) for of in self._scores(several)]

    def log_probabilities(self, sounds: Sequence[Any]) -> list[np.ndarray]:
        """For each recording, of every label at every step of `stride_` * 10 ms, float64 [T, C]; 0 is the blank."""
        self._check_fitted()
        return list(self._scores(sounds))

    def align(self, sound: Any, text: str | None = None) -> list[Spoken]:
        """When each character or word of a text is said, on the most probable path; of what is recognised, if no text
        comes. A network says a label at about the end of what it stands for, or a little later."""
        self._check_fitted()
        (scores,) = self._scores([sound])
        if text is None:
            labels: Sequence[int] = self._best(scores)
        else:
            labels = self.target_codec_.encode(self._as_pieces(self._spelled(text))).tolist()
        step = self.stride_ * HOP
        names = [self.target_codec_.piece(label).strip() or " " for label in labels]
        places = ctc.align(scores, labels, BLANK)
        return [
            Spoken(name, round(begin * step, 3), round(end * step, 3))
            for name, (begin, end) in zip(names, places, strict=True)
        ]

    def inside(self, given: Any, target: Any = None, *, at: int | None = None) -> Inside:
        self._check_fitted()
        return look(self, given, target, at)

    def evaluate(self, sounds: Sequence[Any], texts: Sequence[str]) -> dict[str, float]:
        """Word and character error rate on recordings with their texts."""
        self._check_fitted()
        if len(sounds) != len(texts) or not len(texts):
            raise ValueError(
                f"{len(sounds):,} recordings and {len(texts):,} texts came; expected one text each, and at least one"
            )
        return _metrics(self.predict(sounds), [self._spelled(text) for text in texts])

    def score(self, sounds: Sequence[Any], texts: Sequence[str]) -> float:
        """1 - word error rate: more is better."""
        return 1 - self.evaluate(sounds, texts)["wer"]

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        if examples.targets is None:
            raise ValueError(f"{examples.source} has no texts to compare with; expected a column of them")
        return self.evaluate(examples.inputs, examples.targets)

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """The file, where there is one, and what is said in it."""
        self._check_fitted()
        for sound, scores in zip(examples.inputs, self._scores(examples.inputs), strict=True):
            named = {} if isinstance(sound, Waveform) else {"input": str(sound)}
            yield {**named, "prediction": self._decode(scores)}

    def _scores(self, sounds: Sequence[Any]) -> Iterator[np.ndarray]:
        """Logarithms of the probabilities of every label at every step, one recording after another, in their order."""
        self.network_.eval()
        for begin in range(0, len(sounds), 32):
            values = self.codec_.encode_batch(sounds[begin : begin + 32])
            with torch.no_grad(), self.few_threads():
                scores, lengths = self.network_(*pad(values, self.device_))
            for row, steps in zip(scores.double().cpu().numpy(), lengths.tolist(), strict=True):
                yield row[:steps]

    def _best(self, scores: np.ndarray) -> tuple[int, ...]:
        return self._most_probable(scores)[0]

    def _most_probable(self, scores: np.ndarray) -> list[tuple[int, ...]]:
        """The labels of the texts that the search ends with, best first."""
        # What no text is made of cannot be said.
        allowed = scores.copy()
        allowed[:, [TextCodec.unknown, TextCodec.end]] = -np.inf
        if self.width == 1:
            return [ctc.greedy(allowed, BLANK)]
        return [one.labels for one in ctc.prefix_beam(allowed, self.width, blank=BLANK, bonus=self.bonus)]

    def _decode(self, scores: np.ndarray) -> str:
        return self._text(self._best(scores))

    def _text(self, labels: Sequence[int]) -> str:
        return " ".join(self.target_codec_.decode(list(labels)).split())

    # Keeping

    def save_codec(self, run: Run) -> None:
        super().save_codec(run)
        run.write_text("target_codec.json", self.target_codec_.to_json())

    def resolved(self) -> dict[str, Any]:
        return {"unit": self.unit_, "stride": self.stride_, "rate": self.codec_.rate, "bands": self.codec_.bands}

    def fitted(self) -> dict[str, Any]:
        return {"unit": self.unit_, "stride": self.stride_}

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        self.unit_, self.stride_ = fitted["unit"], int(fitted["stride"])
        self.codec_ = AudioCodec.from_json(run.read_text("codec.json"))
        self.target_codec_ = TextCodec.from_json(run.read_text("target_codec.json"))

    def facts(self) -> list[tuple[str, str]]:
        return [*super().facts(), ("sound", self.codec_.describe()), ("text", self.target_codec_.describe())]

    def report(self, report: Report) -> Report:
        if not self.results_:
            return report
        test = self._parts["test"]
        found = [edits(came.split(), text.split()) for came, text in zip(self._test_texts, test.texts, strict=True)]
        worst = sorted(range(len(found)), key=lambda k: -found[k].total)
        shown = dict.fromkeys([*worst[:6], *range(min(4, len(found)))])
        named = [(_short_name(test.sounds[k], k), test.texts[k], self._test_texts[k] or "(nothing)") for k in shown]
        kinds = [sum(getattr(one, kind) for one in found) for kind in ("substitutions", "insertions", "deletions")]
        words = f"{kinds[0]:,} taken for others, {kinds[1]:,} too many, {kinds[2]:,} missing"
        return replace(report, examples=named, facts=[*report.facts, ("wrong words on the test split", words)])


def spoken(text: str) -> str:
    """A text as it is said: lowercase, composed (NFC), and of punctuation only apostrophes inside words."""
    composed = unicodedata.normalize("NFC", text).lower().replace("’", "'")
    heard = "".join(letter if letter == "'" or unicodedata.category(letter)[0] in "LMN" else " " for letter in composed)
    return " ".join(word for word in (word.strip("'") for word in heard.split()) if word)


def frames_of(seconds: float) -> int:
    """How many windows of features a sound has, to within one."""
    return max(0, 1 + int((seconds - WINDOW) / HOP))


def _metrics(came: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    return {"wer": word_error_rate(came, expected), "cer": character_error_rate(came, expected)}


def _short_name(sound: Any, place: int) -> str:
    return f"recording {place + 1}" if isinstance(sound, Waveform) else str(sound).rsplit("/", 1)[-1]
