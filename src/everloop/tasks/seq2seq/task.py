"""Many to many, out of step: a text, or pictures or signals, in; another text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from everloop.data import codecs
from everloop.data._asked import Asked
from everloop.data.examples import Examples
from everloop.data.text import TextCodec
from everloop.insight.inside import Inside
from everloop.insight.report import Report
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.changes import PictureChanges
from everloop.tasks.fronts import front_for
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.running._learned import extra_sizes
from everloop.tasks.seq2seq.baselines import seq2seq_baselines
from everloop.tasks.seq2seq.inside import look
from everloop.tasks.seq2seq.metrics import Metric, fitting_metric, signatures, text_scores
from everloop.tasks.seq2seq.network import (
    Attention,
    AttentionKind,
    Decoder,
    Encoder,
    EncoderDecoder,
    Pieces,
    SharedPieces,
)
from everloop.tasks.seq2seq.pairs import (
    PairCodec,
    are_tuples,
    fit_text,
    linked,
    named,
    shared_words,
    table_of,
    texts_within,
)
from everloop.tasks.seq2seq.problem import Pairs, Part
from everloop.tasks.seq2seq.report import Attended, seq2seq_report
from everloop.tasks.seq2seq.search import Writer, Written
from everloop.tasks.task import Positive, Share, Task, Whole


@dataclass(kw_only=True)
class Seq2Seq(Task):
    """A text for every input: translation, summaries, answers, captions. Encoder, attention, decoder.

    fit(data): a table with an input and a target column, or lists (see `Task.fit`). An input is a text, several texts
    (`input="story,question"`), or of any other modality that has a codec (pictures, frames, series). predict(inputs)
    -> texts; candidates(inputs) -> the best few of each with their scores; attend(input) -> what was looked at.

    Trained with the true pieces before each piece (teacher forcing). forced_accuracy is the share of pieces that are
    the likeliest after the true ones; free_accuracy is the share of the same pieces that the model, writing by itself
    and greedily, has at the same place: the gap between the two is what its own mistakes cost it, in pieces that are
    wrong or displaced.

    hidden: units of the decoder, and of the encoder, half for each direction if bidirectional. layers: of the encoder,
    and of the decoder above attention (below it is always one). attention: general, dot (Luong et al. 2015), additive
    (Bahdanau et al. 2015) or none. copy: pieces of the source can be copied, those too that the vocabulary lacks (See
    et al. 2017); source and target then have one vocabulary. Answers that are words of a story are learned by copying
    long before they are learned as names. coverage: weight of the loss for looking at the same
    place again (the same). tie: embedding and output of the decoder are one matrix (Press, Wolf 2017). smoothing: of
    labels (Szegedy et al. 2016). unit, target_unit: what a piece of a text is. length: steps of each input text (or of
    the whole of another modality) that are read. target_length: pieces that are learned, and written, at most. beam,
    length_penalty: see `everloop.tasks.decoding.beam`. metric: what the best epoch, and the verdict, go by; auto looks
    at the targets. filters: of the first convolution over pictures. shift, turn, zoom, mirror, colour: how training
    changes these, see `everloop.tasks.changes.PictureChanges`. Pairs that share their input, or their target, stay in
    one split.
    """

    cell: str = "gru"
    hidden: Whole = 256
    bidirectional: bool = True
    embedding: Whole = 256
    attention: AttentionKind = "general"
    copy: bool = False
    coverage: Annotated[float, Field(ge=0)] = 0.0
    tie: bool = True
    smoothing: Share = 0.1
    unit: Literal["auto", "chars", "words", "subwords"] = "auto"
    target_unit: Literal["auto", "chars", "words", "subwords"] = "auto"
    vocabulary: Annotated[int, Field(ge=4)] = 30_000
    min_count: Whole = 2
    length: Whole = 400
    target_length: Whole = 100
    beam: Whole = 5
    length_penalty: Annotated[float, Field(ge=0)] = 1.0
    metric: Literal["auto", "bleu", "chrf", "rouge_l", "exact_match"] = "auto"
    filters: Whole = 8
    shift: Share = 0.1
    turn: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Share = 0.0
    mirror: bool = False
    colour: Share = 0.0
    batch: Whole = 64
    lr: Positive = 3e-3
    warmup: Share = 0.1
    duplicates: Literal["drop", "keep"] = "keep"

    metric_: Metric = field(init=False, repr=False, compare=False)

    name: ClassVar[str] = "seq2seq"
    needs_target: ClassVar[bool] = True

    @property
    def judged_by(self) -> Metric:  # pyright: ignore[reportIncompatibleVariableOverride] - the data decide it
        return self.metric_

    @property
    def monitor(self) -> Metric:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.metric_

    # Data

    def read_given(self, data: Any, targets: Sequence[Any] | None, asked: Asked) -> Examples:
        """As every task; an input in a list may also be several texts, as a tuple."""
        if targets is not None and are_tuples(data):
            table, columns = table_of(data, targets)
            return super().read_given(table, None, replace(asked, input=columns, target="target"))
        return super().read_given(data, targets, asked)

    def prepare(self, examples: Examples, progress: Progress) -> None:
        if examples.targets is None:
            raise ValueError(f"{examples.source} has no targets; a seq2seq needs a text to write for each input")
        is_text = examples.modality == "text"
        if self.copy and not is_text:
            raise ValueError(
                f"copy=True came with inputs that are {examples.modality}; only pieces of text can be copied"
            )
        if is_text and examples.parts is None and examples.groups is None:
            examples = replace(examples, groups=linked(examples.inputs, examples.targets))
        split = self.make_split(examples)
        train = examples.take(split.train)
        self._fit_codec(train, progress)
        self._parts = {name: self._part(examples.take(getattr(split, name))) for name in ("train", "valid", "test")}
        self._say_sizes(progress)
        self.longest_ = min(self.target_length, max(len(ids) for ids in self._parts["train"].targets) + 5)
        found, why = fitting_metric(train.targets or (), self.copy)
        self.metric_, why = (found, why) if self.metric == "auto" else (self.metric, "as asked")
        self.answers_ = self.metric_ == "exact_match"
        progress.say(f"judged by {self.metric_} ({why})")
        shared = shared_words(train.inputs, train.targets or ()) if is_text and not self.copy else 0.0
        if shared > 0.5:
            progress.say(
                f"{100 * shared:.0f} % of the words of targets are words of their inputs: copying them is easier to "
                "learn (--set copy=true)"
            )

    def _fit_codec(self, train: Examples, progress: Progress) -> None:
        """From training examples: the codec of inputs, that of targets, or the one for both."""
        targets = list(train.targets or ())
        limits = {"min_count": self.min_count, "vocabulary": self.vocabulary}
        if train.modality != "text":
            source = codecs.get(train.modality).fit(train.inputs)
            progress.say(f"inputs as {source.describe()}")
        else:
            texts = texts_within(train.inputs)
            self.unit_ = self.choose_unit(texts, "classify", self.unit)
            source = fit_text(texts + targets * self.copy, unit=self.unit_, reversible=self.copy, **limits)
        if self.copy:
            self.codec_ = PairCodec(source, source, self.length, copying=True)
            return
        unit = self.choose_unit(targets, "classify", self.target_unit)
        target = fit_text(targets, unit=unit, reversible=True, **limits)
        self.codec_ = PairCodec(source, target, self.length, copying=False)

    def _part(self, examples: Examples) -> Part:
        sources = self.codec_.encode_sources(examples.inputs)
        texts = [str(text) for text in examples.targets or ()]
        ids = [row[: self.target_length] for row in self.codec_.encode_targets(texts, sources)]
        return Part(list(examples.inputs), texts, sources, ids)

    def _say_sizes(self, progress: Progress) -> None:
        sizes = " / ".join(f"{len(part.texts):,}" for part in self._parts.values())
        progress.say(f"{sizes} pairs for training / validation / test")
        end = self.codec_.target.end
        cut = sum(ids[-1] != end for ids in self._parts["train"].targets)
        if cut:
            progress.say(f"{cut:,} targets are longer than {self.target_length} pieces: learned so far (target_length)")

    # The network

    def make_network(self) -> EncoderDecoder:
        codec, target = self.codec_, self.codec_.target
        embedding = _embedding(len(target), self.embedding)
        if codec.reads_text:
            own = _embedding(len(codec.source), self.embedding)
            front: nn.Module = SharedPieces(embedding) if self.copy else Pieces(own)
        else:
            front = self.make_front(codec.source, self.embedding)
        width = self.hidden // (2 if self.bidirectional else 1)
        encoder = self._layers(self.embedding, width, self.bidirectional, beside=not codec.reads_text)
        memory = encoder.output_size
        below = Recurrent(self.cell, self.embedding, self.hidden, sizes=extra_sizes(self.cell, self.hidden))
        above = self._layers(below.output_size + memory, self.hidden, False)
        decoder = Decoder(
            embedding,
            below,
            above,
            Attention(self.attention, below.output_size, memory),
            memory=memory,
            copy=self.copy,
            tie=self.tie,
            dropout=self.dropout,
            unknown=target.unknown,
        )
        return EncoderDecoder(Encoder(front, encoder, self.dropout), decoder)

    def make_front(self, codec: Any, features_out: int) -> nn.Module:
        """What stands between values and the encoder: (values [B, S, F], lengths) -> (features [B, S', E], lengths)."""
        changes = PictureChanges(self.shift, self.turn, self.zoom, self.mirror, self.colour)
        return front_for(codec, features_out, changes=changes, filters=self.filters, whole=True)

    def _layers(self, features: int, hidden: int, bidirectional: bool, beside: bool = False) -> Recurrent:
        """beside: what a front saw goes past the layers, too, where it has their width: what is in a picture would
        else have to come through them together with when it was seen."""
        dropout = self.dropout if self.layers > 1 else 0.0
        sizes = extra_sizes(self.cell, hidden)
        skip = "residual" if beside and sizes is None and features == hidden * (2 if bidirectional else 1) else None
        return Recurrent(self.cell, features, hidden, self.layers, bidirectional, dropout, sizes=sizes, skip=skip)

    def natural_epochs(self) -> int:
        """About 4,000 updates."""
        return max(1, min(60, round(4_000 / len(self.problem().batches(1)))))

    def problem(self) -> Pairs:
        return Pairs(
            self._parts["train"],
            self._parts["valid"],
            self._writer,
            self.metric_,
            batch=self.batch,
            seed=self.seed,
            smoothing=self.smoothing,
            coverage=self.coverage,
        )

    @property
    def _writer(self) -> Writer:
        assert isinstance(self.network_, EncoderDecoder)
        return Writer(self.network_, self.codec_, self.device_, self.longest_, self.length_penalty)

    # Measuring

    def measure(self) -> dict[str, float]:
        part = self._parts["test"]
        self.outputs_, metrics = self._measured(part)
        rows, references = part.distinct()
        self.signatures_ = [] if self.answers_ else signatures([self.outputs_[k] for k in rows], references)
        return metrics

    def _measured(self, part: Part) -> tuple[list[str], dict[str, float]]:
        """What is written for every input of a part, and its metrics. An input that comes several times counts once,
        with all its targets as references."""
        writer = self._writer
        with self.few_threads():
            outputs = [found[0].text for found in writer.write(part.sources, self.beam, 1)]
            steps = writer.forced(part.sources, part.targets) | writer.free(part.sources, part.targets)
        rows, references = part.distinct()
        metrics = text_scores([outputs[k] for k in rows], references, answers=self.answers_)
        return outputs, {self.metric_: metrics[self.metric_], **metrics, **steps}

    def baselines(self) -> list[Baseline]:
        train, valid, test = (self._parts[name] for name in ("train", "valid", "test"))
        rows, references = test.distinct()
        return seq2seq_baselines(
            (train.inputs, train.texts, train.features),
            (valid.inputs, valid.texts),
            ([test.inputs[k] for k in rows], references, [test.features[k] for k in rows]),
            metric=self.metric_,
            unit=self.codec_.source.unit if self.codec_.reads_text else None,
            same_language=self.copy,
        )

    # Using a fitted one

    def predict(self, inputs: Sequence[Any] | str) -> list[str]:
        """The best text for every input."""
        return [found[0].text for found in self.candidates(inputs, 1)]

    def candidates(self, inputs: Sequence[Any] | str, best: int | None = None) -> list[list[Written]]:
        """The best few texts for every input (None: as many as the beam is wide), the best first."""
        self._check_fitted()
        sources = self.codec_.encode_sources(self._inputs(inputs))
        best = self.beam if best is None else best
        with self.few_threads():
            return self._writer.write(sources, max(self.beam, best), best)

    def attend(self, given: Any) -> Attended:
        """What the model looked at, and copied, while it wrote its best text for one input."""
        self._check_fitted()
        (source,) = self.codec_.encode_sources(self._inputs([given]))
        with torch.no_grad(), self.few_threads():
            ((best,),) = self._writer.search([source], self.beam, 1)
            ids = np.array([*best.pieces, self.codec_.target.end])
            decoded, _, _ = self._writer.decode(([source], [ids]))
        steps = decoded.weights.shape[-1]
        read = self.codec_.source_pieces(given) if self.codec_.reads_text else [str(k + 1) for k in range(steps)]
        written = [*self.codec_.target_pieces(best.pieces, source), "<end>"]
        weights = decoded.weights[0].double().cpu().numpy()
        share = None if decoded.written is None else 1 - decoded.written[0].double().cpu().numpy()
        return Attended(read, written, weights, share)

    def inside(self, given: Any, target: Any = None, *, at: int | None = None) -> Inside:
        self._check_fitted()
        (given,) = self._inputs([given])
        return look(self, given, target, at)

    def evaluate(self, inputs: Sequence[Any], targets: Sequence[str]) -> dict[str, float]:
        """The metrics on other pairs."""
        return self.evaluate_examples(self.read(list(inputs), list(targets)))

    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        self._check_fitted()
        if examples.targets is None:
            raise ValueError(f"{examples.source} has no targets to measure against; name the column with target=")
        return self._measured(self._part(examples))[1]

    def score(self, inputs: Sequence[Any], targets: Sequence[str]) -> float:
        """The metric that the model is judged by."""
        return self.evaluate(inputs, targets)[self.metric_]

    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """What came, what the model writes, and its score."""
        for begin in range(0, len(examples.inputs), 64):
            inputs = examples.inputs[begin : begin + 64]
            for given, (found,) in zip(inputs, self.candidates(inputs, 1), strict=True):
                yield {**named(given), "prediction": found.text, "score": found.score}

    def _inputs(self, inputs: Sequence[Any] | str) -> list[Any]:
        inputs = [inputs] if isinstance(inputs, str) else list(inputs)
        for k, given in enumerate(inputs):
            if self.codec_.reads_text and not (isinstance(given, str) or are_tuples([given])):
                raise TypeError(f"input {k}: a {type(given).__name__} came; expected a string, or several in a tuple")
        return inputs

    # Keeping

    def resolved(self) -> dict[str, Any]:
        units = {"unit": self.codec_.source.unit} if self.codec_.reads_text else {}
        return {**units, "target_unit": self.codec_.target.unit, "metric": self.metric_}

    def save_codec(self, run: Run) -> None:
        run.write_text("codec.json", self.codec_.source.to_json())
        if not self.copy:
            run.write_text("target_codec.json", self.codec_.target.to_json())

    def fitted(self) -> dict[str, Any]:
        return {"longest": self.longest_}

    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        source = codecs.from_json(run.read_text("codec.json"))
        target = TextCodec.from_json(run.read_text("codec.json" if self.copy else "target_codec.json"))
        self.codec_ = PairCodec(source, target, self.length, self.copy)
        self.longest_ = int(fitted["longest"])
        if self.metric == "auto":
            raise ValueError(f"{run.folder / 'config.toml'}: metric is 'auto'; expected the one that training chose")
        self.metric_ = self.metric
        self.answers_ = self.metric_ == "exact_match"

    def facts(self) -> list[tuple[str, str]]:
        both = [("input", self.codec_.source.describe()), ("output", self.codec_.target.describe())]
        return [*super().facts(), *(both[:1] if self.copy else both)]

    def report(self, report: Report) -> Report:
        if not self.results_ or not hasattr(self, "outputs_"):
            return report
        return seq2seq_report(self, report, self._parts["test"], self.outputs_, self.signatures_)


def _embedding(pieces: int, features: int) -> nn.Embedding:
    """As an output matrix, which it may be, it gives scores of variance one."""
    embedding = nn.Embedding(pieces, features)
    nn.init.normal_(embedding.weight, std=features**-0.5)
    return embedding
