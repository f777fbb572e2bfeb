"""What all tasks share: options as scikit-learn has them, reading data, training, the run folder, the report."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_type_hints

import tomli_w
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import nn

import everloop
from everloop import cells
from everloop.data._asked import Asked, BadRowPolicy, WantTarget
from everloop.data.datasets import datasets
from everloop.data.datasets import get as get_dataset
from everloop.data.examples import Examples, drop_duplicates
from everloop.data.files import read_asked
from everloop.data.split import Split, split_examples
from everloop.data.text import Purpose, Unit, choose_unit
from everloop.insight.inside import Inside
from everloop.insight.metrics import figure, is_better, lower_is_better
from everloop.insight.report import Report, render
from everloop.lang.cell import Cell
from everloop.lang.read import ReadStep, read_cell
from everloop.nn import Recurrent
from everloop.tasks.baseline import Baseline
from everloop.tasks.progress import Progress
from everloop.tasks.run import CELL, Run, check_free
from everloop.tasks.training import Problem, Settings, seed_everything, train

Share = Annotated[float, Field(ge=0, lt=1)]
Whole = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]


@dataclass(kw_only=True)
class Task(ABC):
    """A kind of recurrent problem on a kind of data. The constructor stores options; `fit` uses them.

    epochs: 0 lets the data decide. threads: of torch while it trains and predicts; one is fastest unless layers
    are wide (512 units or more), and results repeat exactly only for the same number. split: rows at random, or
    contiguous blocks of them where neighbours resemble each other, with `gap` rows left out between; data that bring
    their own parts or groups are split by those.

    As in scikit-learn: `fit` returns self, names that `fit` makes end in `_`, `get_params` and `set_params`
    read and write the options, and making another object of them is a clone.
    """

    cell: str = "lstm"
    hidden: Whole = 128
    layers: Whole = 1
    dropout: Share = 0.3
    epochs: Annotated[int, Field(ge=0)] = 0
    batch: Whole = 32
    lr: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Share = 0.05
    clip: Annotated[float, Field(ge=0)] = 1.0
    averaging: Share = 0.0
    patience: Annotated[int, Field(ge=0)] = 5
    valid: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    test: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    split: Literal["random", "blocks"] = "random"
    gap: Annotated[int, Field(ge=0)] = 0
    duplicates: Literal["drop", "keep"] = "drop"
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Whole = 1
    device: str = "auto"

    codec_: Any = field(init=False, repr=False, compare=False)

    name: ClassVar[str]
    monitor: ClassVar[str]
    needs_target: ClassVar[bool]
    loss_unit: ClassVar[str] = "nats"
    judged_by: ClassVar[str]

    # What a task defines

    @abstractmethod
    def prepare(self, examples: Examples, progress: Progress) -> None:
        """Look at the data: split it, fit the codec, set the fitted names that `make_network` needs."""

    @abstractmethod
    def make_network(self) -> nn.Module:
        """The network, with fresh weights."""

    def start(self, network: nn.Module) -> None:  # noqa: B027
        """Set what of the network comes from the data, before training."""

    @abstractmethod
    def natural_epochs(self) -> int:
        """How many epochs to train when nobody says."""

    @abstractmethod
    def problem(self) -> Problem:
        """The training and validation splits as the training loop takes them."""

    @abstractmethod
    def baselines(self) -> list[Baseline]:
        """Honest baselines on the test split."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """The model's metrics on the test split."""

    @abstractmethod
    def evaluate_examples(self, examples: Examples) -> dict[str, float]:
        """The model's metrics on other data, read by `read`."""

    @abstractmethod
    def predictions(self, examples: Examples) -> Iterator[dict[str, Any]]:
        """What the model makes of each example, in order: a row of a table each."""

    @abstractmethod
    def fitted(self) -> dict[str, Any]:
        """What loading needs beside options, weights and codec; plain JSON."""

    @abstractmethod
    def restore(self, fitted: Mapping[str, Any], run: Run) -> None:
        """Take up what `fitted` gave and what `save_codec` wrote."""

    @abstractmethod
    def report(self, report: Report) -> Report:
        """Add to the report what is particular to the task."""

    def inside(self, given: Any, target: Any = None, *, at: int | None = None) -> Inside:
        """One input of the fitted model, as `everloop.record` and all that shows what happens inside takes it.

        target: what is right, for the loss and its gradients. at: whose answer is asked, where there are several: of a
        tagger the place of a word, of a generator the piece after which, of a forecaster the step ahead, of a seq2seq
        the piece of its output, of a recognizer the step of the recording.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what happens inside it: it has no `inside`")

    # Data

    def read(
        self,
        data: Any,
        targets: Sequence[Any] | None = None,
        *,
        input: str | None = None,
        target: str | None = None,
        part: str | None = None,
        group: str | None = None,
        modality: str = "auto",
        encoding: str | None = None,
        bad_rows: BadRowPolicy = "stop",
        want_target: WantTarget | None = None,
    ) -> Examples:
        """The examples of whatever a user may call data; the arguments are those of `everloop.data.read_examples`.

        targets: beside a list of inputs. want_target: None asks for what training needs.
        """
        want = want_target or ("yes" if self.needs_target else "no")
        asked = Asked(input, target, encoding, bad_rows, want, part, group, modality)
        found = get_dataset(data).read() if is_dataset(data) else self.read_given(data, targets, asked)
        return self.as_given(found, data if targets is None else (data, targets))

    def read_given(self, data: Any, targets: Sequence[Any] | None, asked: Asked) -> Examples:
        """The examples of data that are no dataset by name; tasks with data of a form of their own begin here."""
        if targets is not None:
            if isinstance(data, str | Path | dict) or hasattr(data, "columns"):
                raise TypeError(
                    f"targets came with a {type(data).__name__}; expected a list of inputs beside them. "
                    "To take both from a file or table, leave targets out; target= names the column"
                )
            data = (data if hasattr(data, "ndim") else list(data), list(targets))
        return read_asked(data, asked)

    def as_given(self, examples: Examples, data: Any) -> Examples:
        """The examples that were read from the data, with what a task takes from these besides."""
        return examples

    def make_split(self, examples: Examples, targets: Sequence[Any] | None = None) -> Split:
        """The rows for training, validation and test, as the options say. targets: labels to stratify by."""
        return split_examples(
            examples,
            seed=self.seed,
            valid=self.valid,
            test=self.test,
            targets=targets,
            blocks=self.split == "blocks",
            gap=self.gap,
        )

    def choose_unit(self, texts: Sequence[str], purpose: Purpose, asked: str) -> Unit:
        """The unit that was asked for, or the one that fits the training texts; says which, and why."""
        unit, why = asked, f"{asked}, as asked"
        if asked == "auto":
            unit, why = choose_unit(texts, purpose=purpose)
        self.progress_.say(f"text as {why}")
        return unit  # pyright: ignore[reportReturnType] - an option that was checked

    def save_codec(self, run: Run) -> None:
        """Write what turns input into numbers."""
        run.write_text("codec.json", self.codec_.to_json())

    # Options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    def set_params(self, **params: Any) -> Self:
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no option {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know of an estimator that it searches a grid with."""
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=self.needs_target))

    def check_params(self) -> None:
        """Raise ValueError naming the first option whose value is not possible."""
        hints = get_type_hints(type(self), include_extras=True)
        for name, value in self.get_params().items():
            if name == "cell" and isinstance(value, Cell):
                continue
            try:
                TypeAdapter(hints[name], config=ConfigDict(strict=True)).validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].replace("Input should be", "expected")
                raise ValueError(f"{name}: {value!r} came; {reason}") from None
        cells.get(self.cell)

    # Training

    def fit(
        self,
        data: Any,
        targets: Sequence[Any] | None = None,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        quiet: bool = False,
        **how: Any,
    ) -> Self:
        """Train on data: a path, the name of a dataset (`everloop datasets`), a table, or lists.

        targets: the labels, when data is a list of inputs. out: the run folder to write (none: nothing is written;
        `save` does it later). resume: go on with the run in `out`. how: how the data are read, the arguments of `read`
        (which columns, what to do with a bad row ...).
        """
        self.check_params()
        self._check_out(out, resume)
        self.progress_ = Progress(quiet=quiet)
        self.device_ = _device(self.device)
        self._check_how(how)
        self.data_ = {k: v for k, v in how.items() if v is not None}
        if isinstance(data, str | Path):
            self.data_["source"] = str(data)
        examples = self.read(data, targets, **how)
        for note in examples.notes:
            self.progress_.say(note)
        if self.duplicates == "drop" and examples.kind != "text":
            before = len(examples.notes)
            examples = drop_duplicates(examples)
            for note in examples.notes[before:]:
                self.progress_.say(note)
        self.source_, self._digest = examples.source, examples.digest()
        self.prepare(examples, self.progress_)
        seed_everything(self.seed)
        with self.few_threads():
            self.network_ = self.make_network().to(self.device_)
        self.start(self.network_)
        self.epochs_ = self.epochs or self.natural_epochs()
        self.progress_.say(self.describe())
        self.run_ = self._open_run(out, resume)
        with self.few_threads():
            self._train(resume)
        self._evaluate()
        return self

    def _check_how(self, how: Mapping[str, Any]) -> None:
        known = [name for name in inspect.signature(self.read).parameters if name not in ("data", "targets")]
        for name in how:
            if name not in known:
                raise TypeError(f"{name}= says nothing about the data of a {self.name}; it has {', '.join(known)}")

    @contextmanager
    def few_threads(self) -> Iterator[None]:
        """torch with `threads` threads: on small arrays, more of them cost more than they bring."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _train(self, resume: bool) -> None:
        options = self.get_params() | {"epochs": self.epochs_, "learning_rate": self.lr}
        settings = Settings(**{field.name: options[field.name] for field in dataclasses.fields(Settings)})
        self.outcome_ = train(
            self.network_,
            self.problem(),
            settings,
            self.progress_,
            self.run_,
            resume=resume and self.run_ is not None,
        )
        if self.outcome_.message:
            self.progress_.say(self.outcome_.message)

    def _check_out(self, out: str | Path | None, resume: bool) -> None:
        """Refuse a run folder that could not be written or loaded before anything is computed for it."""
        if out is None:
            if resume:
                raise ValueError("resume=True needs out=, the run folder to go on with")
            return
        self._check_cell_can_be_kept()
        if not (resume and (Path(out) / "run.json").is_file()):
            check_free(Path(out))

    def _check_cell_can_be_kept(self) -> None:
        """A run folder holds the name of its cell, or the text that it was read from."""
        if not isinstance(self.cell, Cell):
            return
        if isinstance(self.cell.step, ReadStep) and not self.cell.options and not self.cell.rewrites:
            return
        known = cells.get(self.cell.name) if self.cell.name in cells.names() else None
        if known is None or known.step is not self.cell.step or known.options != self.cell.options:
            raise ValueError(
                f"cell {self.cell.name} is not in the catalogue as it is here, so a run folder cannot name it. "
                "Fit without out=, or give it as the entry point everloop.cells of a package"
            )

    def _open_run(self, out: str | Path | None, resume: bool) -> Run | None:
        if out is None:
            return None
        if resume and (Path(out) / "run.json").is_file():
            run = Run.open(out)
            self._check_same(run)
        else:
            if resume:
                self.progress_.say(f"there is no run in {out} yet: this one begins it")
            run = Run.create(Path(out), self.config())
        run.update(task=self.name, fitted=self.fitted(), examples=self._digest)
        self.save_codec(run)
        self._save_cell(run)
        return run

    def _check_same(self, run: Run) -> None:
        """A run goes on only with the options and the data it began with."""
        before, now = run.config.get("options", {}), self.config()["options"]
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{run.folder} was begun with {name} = {before.get(name)!r}; {now[name]!r} came. "
                "A resumed run keeps its options; start a new one with another --out"
            )
        if self._cell_text is not None and run.read_text(CELL) != self._cell_text:
            raise ValueError(
                f"{run.folder} was begun with another cell than {self.cell} is now. "
                "A resumed run keeps its cell; start a new one with another --out"
            )
        if run.state.get("examples", self._digest) != self._digest:
            raise ValueError(
                f"{run.folder} was begun with other data than {self.source_} holds now. "
                "A resumed run needs the same; start a new one with another --out"
            )

    def _evaluate(self) -> None:
        """Measure the test split beside the baselines, and write down what came out."""
        self.results_: list[tuple[str, dict[str, float]]] = []
        if self.outcome_.status != "interrupted":
            with self.progress_.working("measuring on the test split, and the baselines"):
                self.results_ = [(self.model_name, self.measure())]
                self.results_ += [(baseline.name, baseline.metrics) for baseline in self.baselines()]
        if self.run_ is not None:
            self._finish(self.run_)

    def _finish(self, run: Run) -> None:
        outcome = self.outcome_
        run.write_history(outcome.history)
        run.write_json("results.json", dict(self.results_))
        run.update(status=outcome.status, message=outcome.message, seconds=round(outcome.seconds, 1))
        run.write_text("report.html", render(self.report(self._plain_report())))

    def _plain_report(self) -> Report:
        outcome = self.outcome_
        return Report(
            title=f"{type(self).__name__} on {Path(self.source_).name}",
            summary=self.verdict(),
            results=self.results_,
            history=outcome.history,
            baseline_loss=min((m["loss"] for _, m in self.results_[1:] if "loss" in m), default=None),
            best_epoch=outcome.best_epoch or None,
            confusion=None,
            examples=[],
            samples=[],
            facts=[
                *self.facts(),
                ("trained", f"{outcome.seconds:.0f} s on {self.device_}, {outcome.status}"),
            ],
            config_toml=tomli_w.dumps(self.config()),
            loss_unit=self.loss_unit,
        )

    # What came out

    @property
    def model_name(self) -> str:
        return f"{self._cell_name} ({self.name})"

    @property
    def better_baseline(self) -> tuple[str, dict[str, float]] | None:
        """The strongest baseline, by the metric that the task is judged by."""
        rivals = [row for row in self.results_[1:] if self.judged_by in row[1]]
        if not rivals:
            return None
        best = min if lower_is_better(self.judged_by) else max
        return best(rivals, key=lambda row: row[1][self.judged_by])

    def beats_baseline(self) -> bool | None:
        """Whether the model is better than the strongest baseline on the test split; None if not measured."""
        rival = self.better_baseline
        if rival is None:
            return None
        own, other = self.results_[0][1][self.judged_by], rival[1][self.judged_by]
        return is_better(self.judged_by, own, other)

    def verdict(self) -> str:
        """One sentence: how the model did, and beside what."""
        if not self.results_:
            return f"Training was {self.outcome_.status}; the test split has not been looked at."
        own, rival = self.results_[0][1][self.judged_by], self.better_baseline
        text = f"On the test split the model reaches {self.judged_by} {figure(self.judged_by, own)}"
        if rival is None:
            return text + "."
        beaten = "" if self.beats_baseline() else ": the model does not beat its baseline"
        return f"{text}; {rival[0]} reaches {figure(self.judged_by, rival[1][self.judged_by])}{beaten}."

    @property
    def _cell_name(self) -> str:
        return self._recurrent.cell.name

    @property
    def _cell_text(self) -> str | None:
        """The text of a cell that was read; the others have a name in the catalogue."""
        step = self._recurrent.cell.step
        return step.text if isinstance(step, ReadStep) else None

    @property
    def _recurrent(self) -> Recurrent:
        return next(m for m in self.network_.modules() if isinstance(m, Recurrent))

    def describe(self) -> str:
        return "; ".join(f"{name}: {value}" for name, value in self.facts())

    def facts(self) -> list[tuple[str, str]]:
        parameters = sum(p.numel() for p in self.network_.parameters())
        recurrent = self._recurrent
        layers = (
            f"{recurrent.num_layers} layer{'s' if recurrent.num_layers > 1 else ''} of {recurrent.hidden_size} units"
        )
        both = ", both directions" if recurrent.bidirectional else ""
        return [("cell", f"{self._cell_name}, {layers}{both}"), ("parameters", f"{parameters:,}")]

    def config(self) -> dict[str, Any]:
        """Every option and where the data came from, as config.toml holds them."""
        options = {name: value for name, value in self.get_params().items() if value is not None}
        cell = self._cell_name if self._cell_text is None else CELL
        options |= {"cell": cell, "epochs": self.epochs_, **self.resolved()}
        return {"everloop": everloop.__version__, "task": self.name, "options": options, "data": self.data_}

    def resolved(self) -> dict[str, Any]:
        """The options that the data decided."""
        return {}

    # Keeping

    def _save_cell(self, run: Run) -> None:
        if self._cell_text is not None:
            run.write_text(CELL, self._cell_text)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder of a fitted task, for `load`."""
        self._check_fitted()
        if self.run_ is not None and self.run_.folder.resolve() == Path(folder).resolve():
            return self.run_.folder
        self._check_cell_can_be_kept()
        if self.run_ is not None:
            check_free(Path(folder))
            return Path(shutil.copytree(self.run_.folder, folder, dirs_exist_ok=True))
        run = Run.create(Path(folder), self.config())
        run.update(task=self.name, fitted=self.fitted())
        self.save_codec(run)
        self._save_cell(run)
        run.write_tensors("model.safetensors", self.network_.state_dict(), {"epoch": self.outcome_.best_epoch})
        self._finish(run)
        return run.folder

    @classmethod
    def from_run(cls, run: Run, device: str = "auto") -> Self:
        """A fitted task from a run folder."""
        options = run.config.get("options", {})
        known = {field.name for field in dataclasses.fields(cls) if field.init}
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ValueError(f"{run.folder / 'config.toml'}: {cls.__name__} has no option {unknown[0]!r}")
        if options.get("cell") == CELL:
            options["cell"] = read_cell(run.read_text(CELL), str(run.folder / CELL))
        task = cls(**options)
        task.check_params()
        fitted = run.fitted
        task.epochs_ = task.epochs
        task.data_, task.run_, task.device_ = run.config.get("data", {}), run, _device(device)
        task.progress_ = Progress(quiet=True)
        try:
            task.restore(fitted, run)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{run.folder / 'run.json'}: the entry 'fitted' is damaged ({error!r})") from None
        task.network_ = task.make_network()
        weights, _ = run.read_tensors("model.safetensors")
        try:
            task.network_.load_state_dict(weights)
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise ValueError(
                f"{run.folder / 'model.safetensors'} does not fit config.toml: {first[0].strip()}"
            ) from None
        task.network_.to(task.device_).eval()
        return task

    def _check_fitted(self) -> None:
        if not hasattr(self, "network_"):
            raise ValueError(f"this {type(self).__name__} is not fitted yet; call fit first, or load a run folder")


def is_dataset(data: Any) -> bool:
    """Whether it is the name of a dataset and not of a file."""
    return isinstance(data, str) and not Path(data).exists() and data in {d.name for d in datasets()}


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {device!r} came; it cannot be used here: {str(error).splitlines()[0]}") from None
    return found
