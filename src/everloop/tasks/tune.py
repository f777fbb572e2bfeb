"""Searching the options of a task, by how well training with them does on the validation split, within a time.

The search is Optuna's: trials after the first few are drawn where earlier ones did well (tree-structured Parzen
estimators, Bergstra et al. 2011), and one that does worse than half of the others did at the same epoch is given up.
The first trial has the task's own options, so that what comes out is never worse than these. The test split is not
looked at. A validation metric that is the best of many is flattered by that, as the test of the final training shows.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from torch import Tensor, nn

from everloop.data._say import count, names_of
from everloop.data.examples import Examples
from everloop.insight.metrics import figure, is_better, lower_is_better
from everloop.tasks.progress import Progress
from everloop.tasks.run import CELL
from everloop.tasks.task import Task
from everloop.tasks.training import Carry
from everloop.tasks.tune_space import Space, space_of

if TYPE_CHECKING:
    import optuna

TRIALS, CONFIG, TABLE = "trials.db", "config.toml", "trials.csv"


@dataclass(frozen=True)
class Tuned:
    """What a search came to. options: all of the best trial. value: its validation metric. trials: how many were
    trained to their end, or until the time was up."""

    folder: Path
    metric: str
    value: float
    options: dict[str, Any]
    trials: int


def tune(
    task: Task,
    data: Any,
    targets: Sequence[Any] | None = None,
    *,
    out: str | Path,
    minutes: float = 10.0,
    trials: int | None = None,
    search: Sequence[str] = (),
    fixed: Sequence[str] = (),
    resume: bool = False,
    quiet: bool = False,
    **how: Any,
) -> Tuned:
    """Search the options of a task. data, targets, how: as for `fit`.

    out: the folder to write: `trials.db`, all trials; `trials.csv`, the same to look at; `config.toml`, the best
    options, which `everloop train --config` takes. minutes: of this search; a trial that is running then is stopped,
    and counts as far as it came. trials: at most so many more. search: names of options (none: those that the task has
    of the learning rate, sizes, dropout, batch and the like). fixed: names that are left as the task has them. resume:
    go on with the search in `out`, with the same data and options.

    ValueError if no trial came to the end of an epoch in that time.
    """
    task.check_params()
    if not minutes > 0:
        raise ValueError(f"minutes={minutes} came; expected more than 0")
    search_ = _Search(task, space_of(task, search, fixed), Path(out), Progress(quiet=quiet), minutes)
    search_.open(resume)
    try:
        search_.go(data, targets, how, math.inf if trials is None else trials)
    finally:
        search_.close()
    return search_.finish()


class _Search:
    def __init__(
        self, task: Task, space: Mapping[str, Space], folder: Path, progress: Progress, minutes: float
    ) -> None:
        self.task, self.space, self.folder, self.progress = task, space, folder, progress
        self.metric = task.monitor  # until the data have been seen: see `judge_by`
        self.deadline = time.monotonic() + 60 * minutes
        self.minutes = minutes

    def open(self, resume: bool) -> None:
        optuna = _optuna()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        where = {"storage": f"sqlite:///{(self.folder / TRIALS).resolve()}", "study_name": "everloop"}
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        self.study = optuna.create_study(**where, pruner=pruner, load_if_exists=True)
        if not any(trial.state.name in ("COMPLETE", "PRUNED") for trial in self.study.get_trials(deepcopy=False)):
            if resume:
                self.progress.say(f"there is no search in {self.folder} yet: this one begins it")
            optuna.delete_study(**where)
            self.study = optuna.create_study(**where, pruner=pruner)
        elif not resume:
            raise FileExistsError(f"{self.folder} holds a search already; go on with --resume, or give another --out")
        # Another seed after each resume: with the same one, the same first trials would be drawn again.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=self.task.seed + len(self.study.trials), n_startup_trials=8
        )
        self._check_same()
        self._take_up()

    def judge_by(self, metric: str) -> None:
        """What the training loop watches, which may depend on the data."""
        self.metric = metric
        self.study.set_user_attr("metric", metric)

    def signed(self, value: float) -> float:
        """For Optuna, which is told to find the smallest, before the metric is known; and back."""
        return value if lower_is_better(self.metric) else -value

    def close(self) -> None:
        _optuna().logging.set_verbosity(self.verbosity)

    def _check_same(self) -> None:
        now = {"task": self.task.name, "options": json.dumps(self.task.get_params(), default=str)}
        for name, value in now.items():
            before = self.study.user_attrs.get(name, value)
            if before != value:
                raise ValueError(
                    f"the search in {self.folder} was begun with {name} {before}; {value} came. "
                    "A search that goes on keeps them; begin another with another --out"
                )
            self.study.set_user_attr(name, value)

    def _take_up(self) -> None:
        """The first trial, or those that a process that was killed has left behind."""
        states = _optuna().trial.TrialState
        for trial in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            self.study.tell(trial.number, state=states.FAIL)
            self.study.enqueue_trial(trial.params)
        if not self.study.trials:
            own = self.task.get_params()
            self.study.enqueue_trial({name: own[name] for name in self.space})
        else:
            self.progress.say(f"{count(len(self.study.trials), 'trial')} of this search came before")

    def go(self, data: Any, targets: Sequence[Any] | None, how: Mapping[str, Any], most: float) -> None:
        kind = _tried(type(self.task))
        self.progress.say(f"searching {names_of(list(self.space))} for {self.minutes:g} minutes")
        done = 0
        while done < most and time.monotonic() < self.deadline:
            trial = self.study.ask()
            chosen = {name: space.choose(trial, name) for name, space in self.space.items()}
            tried = kind(**self.task.get_params() | chosen)
            tried.watch = _Watch(self, trial)
            began = time.monotonic()
            try:
                state = self._train(tried, data, targets, how)
            except BaseException:
                self.study.tell(trial, state=_optuna().trial.TrialState.FAIL)
                raise
            self._tell(trial, tried, chosen, state, time.monotonic() - began)
            if tried.watch.interrupted:
                break
            done += 1

    def _train(self, tried: Any, data: Any, targets: Sequence[Any] | None, how: Mapping[str, Any]) -> str:
        try:
            tried.fit(data, targets, quiet=True, **how)
        except _GivenUp as stop:
            return str(stop)
        tried.watch.interrupted = tried.outcome_.status == "interrupted"
        return tried.outcome_.status

    def _tell(self, trial: optuna.Trial, tried: Any, chosen: Mapping[str, Any], state: str, seconds: float) -> None:
        states = _optuna().trial.TrialState
        watch: _Watch = tried.watch
        value = watch.best
        trial.set_user_attr("seconds", round(seconds, 1))
        trial.set_user_attr("state", state)
        if value is None or watch.interrupted:
            self.study.tell(trial, state=states.FAIL)
        elif state == "given up":
            self.study.tell(trial, state=states.PRUNED)
        else:
            trial.set_user_attr("config", json.dumps(tried.config()))
            trial.set_user_attr("cell", tried._cell_text or "")
            self.study.tell(trial, self.signed(value))
        told = "no epoch" if value is None else f"{self.metric} {figure(self.metric, value)}"
        options = "  ".join(f"{name} {_short(value)}" for name, value in chosen.items())
        self.progress.say(f"trial {trial.number + 1}: {told}, {seconds:.0f} s, {state}; {options}")

    def finish(self) -> Tuned:
        """Write what came out."""
        states = _optuna().trial.TrialState
        self.metric = self.study.user_attrs.get("metric", self.metric)
        complete = self.study.get_trials(deepcopy=False, states=(states.COMPLETE,))
        self._write_table()
        if not complete:
            raise ValueError(
                f"no training came to the end of its first epoch in {self.minutes:g} minutes; give it more time "
                "(--minutes), or less to do"
            )
        best = self.study.best_trial
        config = json.loads(best.user_attrs["config"])
        text = tomli_w.dumps(config)
        if best.user_attrs["cell"]:
            (self.folder / CELL).write_text(best.user_attrs["cell"], encoding="utf-8")
        (self.folder / CONFIG).write_text(text, encoding="utf-8")
        value = self.signed(float(best.value))  # type: ignore[arg-type]
        first = self.study.trials[0].value
        beside = "" if first is None else f"; the task's own options have {figure(self.metric, self.signed(first))}"
        self.progress.say(
            f"best of {count(len(complete), 'trial')}: {self.metric} {figure(self.metric, value)} on the validation "
            f"split (trial {best.number + 1}){beside}. The test split was not looked at"
        )
        return Tuned(self.folder, self.metric, value, config["options"], len(complete))

    def _write_table(self) -> None:
        with (self.folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("trial", "state", f"valid_{self.metric}", "seconds", *self.space))
            for trial in self.study.get_trials(deepcopy=False):
                last = max(trial.intermediate_values.items(), default=(0, None))[1]
                value = last if trial.value is None else trial.value
                shown = "" if value is None else self.signed(value)
                state = trial.user_attrs.get("state", trial.state.name.lower())
                options = (trial.params.get(name, "") for name in self.space)
                writer.writerow((trial.number + 1, state, shown, trial.user_attrs.get("seconds", ""), *options))


class _GivenUp(Exception):
    """Raised through the training loop: the trial is not worth going on with, or the time is up."""


class _Watch:
    """What a trial tells Optuna, and when it is to stop."""

    def __init__(self, search: _Search, trial: optuna.Trial) -> None:
        self.search, self.trial = search, trial
        self.best: float | None = None
        self.epochs = 0
        self.interrupted = False

    def update(self) -> None:
        if time.monotonic() > self.search.deadline:
            raise _GivenUp("stopped: the time is up")

    def epoch(self, metrics: Mapping[str, float]) -> None:
        value = metrics[self.search.metric]
        self.epochs += 1
        if not math.isfinite(value):
            return
        if self.best is None or is_better(self.search.metric, value, self.best):
            self.best = value
        self.trial.report(self.search.signed(value), self.epochs)
        if self.trial.should_prune():
            raise _GivenUp("given up")

    def data(self, examples: Examples) -> None:
        """The same in every trial, of every resume."""
        study, now = self.search.study, examples.digest()
        if study.user_attrs.get("examples", now) != now:
            raise ValueError(
                f"the search in {self.search.folder} was begun with other data than {examples.source} holds now; "
                "begin another with another --out"
            )
        study.set_user_attr("examples", now)


class _WatchedProblem:
    """The problem of a task; an exception ends the training where the watch says so."""

    def __init__(self, problem: Any, watch: _Watch) -> None:
        self._problem, self._watch = problem, watch
        watch.search.judge_by(problem.monitor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def loss(self, network: nn.Module, batch: Any, carry: Carry) -> tuple[Tensor, int, Carry]:
        self._watch.update()
        return self._problem.loss(network, batch, carry)

    def validate(self, network: nn.Module) -> dict[str, float]:
        metrics = self._problem.validate(network)
        self._watch.epoch(metrics)
        return metrics


def _tried(kind: type[Task]) -> Any:
    """The task, as it is trained in a trial: watched, and without a look at the test split."""

    class Tried(kind):  # type: ignore[misc, valid-type]
        watch: _Watch

        def prepare(self, examples: Examples, progress: Progress) -> None:
            self.watch.data(examples)
            super().prepare(examples, progress)

        def problem(self) -> Any:
            return _WatchedProblem(super().problem(), self.watch)

        def _evaluate(self) -> None:
            self.results_ = []

    return Tried


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ImportError("tuning needs the package optuna: pip install 'everloop[tune]'") from None
    return optuna


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
