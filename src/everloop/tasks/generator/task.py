"""One to many: what comes next (letters, words, subwords, chords), and the text or music made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from everloop.data import codecs
from everloop.data.examples import Examples
from everloop.data.notes import Notes
from everloop.insight.inside import Inside
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.generator.inside import look
from everloop.tasks.generator.notes import NotesProblem, NotesWriting
from everloop.tasks.generator.text import TextProblem, TextWriting
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.running._learned import Learned, extra_sizes
from everloop.tasks.running._notes import NotesStream
from everloop.tasks.running.generator import GeneratorStream, running
from everloop.tasks.task import Positive, Share, Task, Whole


@dataclass(kw_only=True)
class Generator(Task):
    """A model of what comes next: embedding, recurrent layers, linear, trained to name the next piece of a text, or
    the next chord of a piece of music.

    fit(data): a text file, a table with one text per row, or a list of texts (see `Task.fit`); or music: a folder of
    MIDI files, a .mat of piano rolls, a list of `everloop.data.notes.Notes`. The end of a single text is the test, ten
    blocks spread over the rest the validation; many texts or pieces are dealt out whole.
    generate(prompt) -> a text; stream(prompt) -> a live text, to be read or written on piece by piece. Of music the
    prompt is notes (or a MIDI file), and so is what is generated: `everloop.data.notes.save` writes it.

    Text is trained on by truncated back-propagation through time (Williams and Peng 1990): it is read in `batch`
    parallel streams, `window` steps at a time, and the state is carried from one window to the next. Losses are nats
    per piece; perplexity is exp(loss). Pieces of music are trained on whole, up to 512 steps; the loss is nats per
    step, summed over the 88 keys, of all steps, the first of them after silence (Boulanger-Lewandowski et al. 2012).

    weight_drop: share of the entries of the recurrent matrices that are zero at each update (Merity et al. 2017).
    min_count: how often a piece must be seen to be known; 0: once for characters, twice for others. tied: scores use
    the matrix of the embedding, which suits words. sampled: so many pieces are drawn at each update to tell the right
    one from, where there are more than twice as many (the training loss is then of those, and smaller than the others);
    0: it is always told from all. Music only: chords, whether the keys of a chord depend on each other or are drawn
    each by itself; transpose: every time a piece is trained on, it is moved by up to so many semitones.
    """

    hidden: Whole = 256
    embedding: Whole = 64
    window: Whole = 64
    lr: Positive = 5e-3
    dropout: Share = 0.12
    embedding_dropout: Share = 0.05
    weight_drop: Share = 0.0
    valid: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    unit: Literal["auto", "chars", "words", "subwords"] = "auto"
    vocabulary: Annotated[int, Field(ge=4)] = 30_000
    min_count: Annotated[int, Field(ge=0)] = 0
    tied: bool = False
    sampled: Annotated[int, Field(ge=0)] = 2_000
    chords: Literal["joint", "independent"] = "joint"
    transpose: Annotated[int, Field(ge=0, le=12)] = 5

    name: ClassVar[str] = "generator"
    monitor: ClassVar[str] = "loss"
    judged_by: ClassVar[str] = "loss"
    needs_target: ClassVar[bool] = False

    def prepare(self, examples: Examples, progress: Progress) -> None:
        if examples.modality not in _WRITING:
            raise ValueError(
                f"{examples.source} holds {examples.modality}; a generator writes {' or '.join(_WRITING)}. "
                "For other sequences there is the forecaster"
            )
        self._writing = _WRITING[examples.modality](self)
        self._writing.prepare(examples, progress)

    def make_network(self) -> nn.Module:
        return self._writing.network()

    def recurrent_layers(self, width: int) -> Recurrent:
        """The layers between embedding and scores, for inputs of that width."""
        return Recurrent(
            self.cell,
            width,
            self.hidden,
            self.layers,
            dropout=self.dropout if self.layers > 1 else 0.0,
            weight_drop=self.weight_drop,
            sizes=extra_sizes(self.cell, self.hidden),
        )

    def natural_epochs(self) -> int:
        return self._writing.natural_epochs()

    def problem(self) -> TextProblem | NotesProblem:
        return self._writing.problem()

    def baselines(self) -> list[Baseline]:
        return self._writing.baselines()

    def measure(self) -> dict[str, float]:
        return self._writing.measure()

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device_)

    # Using a fitted one

    def evaluate(self, inputs: Sequence[Any] | str) -> dict[str, float]:
        """The loss on other texts, with perplexity and the number of pieces; or on other music, with that of steps."""
        self._check_fitted()
        return self._writing.evaluate([inputs] if isinstance(inputs, str | Notes) else list(inputs))

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        return self.evaluate(examples.inputs)

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """What is given, and what the model writes after it."""
        for prompt in examples.inputs:
            yield {"prompt": str(prompt), "text": str(self.generate(prompt, seed=self.seed))}

    def score(self, inputs: Sequence[Any] | str, targets: None = None) -> float:
        """Minus the loss: larger is better, as scikit-learn expects."""
        return -self.evaluate(inputs)["loss"]

    def generate(self, prompt: Any = "", **how: Any) -> Any:
        """The prompt and what the model makes of it: a text, or `Notes`. Options as `stream`."""
        return self._running().generate(prompt, **how)

    def generate_batch(self, prompts: Sequence[Any], **how: Any) -> list[Any]:
        """What `generate` makes of each prompt, stepped together; with a seed, text k is drawn with seed + k."""
        return self._running().generate_batch(prompts, **how)

    def stream(self, prompt: Any = "", **how: Any) -> GeneratorStream | NotesStream:
        """A live text that has read the prompt: iterate over it for what the model writes, as it is produced, or push
        more of it and get the probabilities of what comes next. It runs without torch.

        Options, all by name: length (500: pieces of text at most; of music, steps); temperature (0.8: scores are
        divided by it; 0 takes the most probable piece every time); top_k (0: draw from all, else from the k most
        probable); top_p (1: draw from all, else from the fewest that have this probability together, Holtzman et al.
        2020); seed (makes the result repeatable); weights (float32: what those of the layers are stored in; bfloat16
        and int8 are smaller). Of music there are length, temperature (1), seed and weights.
        """
        return self._running().stream(prompt, **how)

    def inside(self, given: Any, target: Any = None, *, at: int | None = None) -> Inside:
        self._check_fitted()
        return look(self, given, target, at)

    def _running(self) -> Any:
        self._check_fitted()
        return running(Learned.of(self))

    # Keeping

    def fitted(self) -> dict[str, Any]:
        return {"ends": self.ends_}

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        self.ends_ = bool(fitted["ends"])
        self.codec_ = codecs.from_json(run.read_text("codec.json"))
        self._writing = _WRITING[self.codec_.modality](self)

    def resolved(self) -> dict[str, Any]:
        return {"unit": self.codec_.unit} if self.codec_.modality == "text" else {}

    def facts(self) -> list[tuple[str, str]]:
        return [*super().facts(), (self.codec_.modality, self.codec_.describe())]

    def report(self, report: Report) -> Report:
        return replace(report, **self._writing.report(report)) if self.results_ else report


_WRITING = {"text": TextWriting, "notes": NotesWriting}
