"""The training loop, the only one: a task gives it batches and a loss, and it gives back the best weights.

Every epoch draws its randomness from (seed, epoch) alone, so that a run repeats, and a resumed run goes on to
the same numbers as one that was never stopped.
"""

from __future__ import annotations

import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from everloop.insight.metrics import is_better
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run

CHECKPOINT_SECONDS = 60.0

Carry = tuple[Tensor, ...] | None
"""States handed from one batch to the next (truncated back-propagation), or None."""


class Problem(Protocol):
    """What a task gives to the loop."""

    @property
    def monitor(self) -> str:
        """The validation metric that decides which weights are best; `insight.metrics` knows which way."""
        ...

    def batches(self, epoch: int) -> Sequence[Any]:
        """The batches of an epoch: the same for the same epoch, as many in every epoch."""
        ...

    def loss(self, network: nn.Module, batch: Any, carry: Carry) -> tuple[Tensor, int, Carry]:
        """Mean loss of a batch (nats), how many predictions it is the mean of, and the state to carry on."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Metrics on the validation split; `loss` is one of them."""
        ...


@dataclass(frozen=True)
class Settings:
    """How to train. learning_rate is the highest of the schedule; clip the largest norm of a gradient (0: none)."""

    epochs: int
    learning_rate: float
    weight_decay: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup: float
    clip: float
    patience: int
    seed: int
    averaging: float = 0.0


@dataclass
class Outcome:
    """What training came to. status: finished, stopped early, interrupted, or diverged."""

    status: str = "finished"
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    message: str = ""


def train(
    network: nn.Module,
    problem: Problem,
    settings: Settings,
    progress: Progress,
    run: Run | None,
    *,
    resume: bool,
) -> Outcome:
    """Train the network in place; at the end it holds the best weights of the validation split."""
    loop = _Loop(network, problem, settings, progress, run)
    if resume:
        loop.restore()
    with _interruptible(progress) as interrupted:
        loop.go(interrupted)
    return loop.outcome


def seed_everything(*seeds: int) -> None:
    """Python's, NumPy's and torch's generators, from a few whole numbers."""
    value = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002
    torch.manual_seed(value)


class _Loop:
    def __init__(
        self, network: nn.Module, problem: Problem, settings: Settings, progress: Progress, run: Run | None
    ) -> None:
        self.network, self.problem, self.settings = network, problem, settings
        self.progress, self.run = progress, run
        groups = _groups(network, settings.weight_decay)
        # Updates of millions of weights take a fifth of the time in one pass.
        fused = all(p.device.type in ("cpu", "cuda") for p in network.parameters())
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=fused)
        self.outcome = Outcome()
        self.best_weights: dict[str, Tensor] | None = None
        self.sound_weights: dict[str, Tensor] | None = None
        self.sound_update, self.sound_at = 0, 0.0
        self.average = _copy(network) if settings.averaging else None
        self.updates = 0
        self.epoch = 1
        self.resume_at: _Middle | None = None
        self.saved_at = time.monotonic()
        self.began = time.perf_counter()

    # One training

    def go(self, interrupted: Callable[[], bool]) -> None:
        settings, outcome = self.settings, self.outcome
        if outcome.status != "interrupted":
            outcome.status = "finished"
        with self.progress.training(settings.epochs, self.epoch) as shown:
            while self.epoch <= settings.epochs and not self._out_of_patience():
                row = self._epoch(shown, interrupted)
                if row is None:
                    break
                outcome.history.append(row)
                self._judge(row)
                shown.epoch(row, best=outcome.best_epoch == self.epoch)
                self.epoch += 1
                if self.run is not None:
                    self.run.write_history(outcome.history)
                self._checkpoint(None)
        if outcome.status == "finished" and self._out_of_patience() and self.epoch <= settings.epochs:
            outcome.status = "stopped early"
            outcome.message = (
                f"stopped after epoch {self.epoch - 1}: {self.problem.monitor} on the validation split has not "
                f"improved for {settings.patience} epochs (best: epoch {outcome.best_epoch})"
            )
        self._take_best()
        outcome.seconds = self._seconds()

    def _seconds(self) -> float:
        """How long this training has taken, those before a resume with it."""
        return self.outcome.seconds + time.perf_counter() - self.began

    def _epoch(self, shown: Any, interrupted: Callable[[], bool]) -> dict[str, float] | None:
        """One pass over the training split; None if it was cut short."""
        middle, self.resume_at = self.resume_at or _Middle(), None
        batches = self.problem.batches(self.epoch)
        seed_everything(self.settings.seed, self.epoch)
        if middle.rng is not None:
            torch.set_rng_state(middle.rng)
        self.network.train()
        start = time.perf_counter() - middle.seconds
        for step in range(middle.step, len(batches)):
            middle.rate = self._rate(len(batches))
            problem = self._update(batches[step], middle)
            if problem:
                self.outcome.status = "diverged"
                self.outcome.message = problem
                return None
            middle.step, middle.seconds = step + 1, time.perf_counter() - start
            shown.step(self.epoch, middle.step, len(batches), middle.total / max(middle.count, 1))
            if interrupted():
                self._interrupt(middle)
                return None
            if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
                self._checkpoint(middle)
        with self._averaged():
            metrics = self._validate()
        if not math.isfinite(metrics["loss"]):
            self.outcome.status = "diverged"
            self.outcome.message = self._diverged(f"the loss on the validation split became {metrics['loss']}")
            return None
        return {
            "epoch": self.epoch,
            "train_loss": middle.total / max(middle.count, 1),
            **{f"valid_{name}": value for name, value in metrics.items()},
            "lr": middle.rate,
            "clipped": middle.clipped / max(middle.step, 1),
            "largest_norm": middle.largest_norm,
            "seconds": time.perf_counter() - start,
        }

    def _update(self, batch: Any, middle: _Middle) -> str:
        """One step of the optimizer; says why if it cannot be taken, and then leaves the weights as they are."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, count, carry = self.problem.loss(self.network, batch, middle.carry)
        if not torch.isfinite(loss):
            return self._diverged(f"the loss became {loss.item()}")
        loss.backward()
        clip = self.settings.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        if not torch.isfinite(norm):
            return self._diverged(f"a gradient became {norm.item()}")
        self._keep_sound()
        for group in self.optimizer.param_groups:
            group["lr"] = middle.rate
        self.optimizer.step()
        self.updates += 1
        self._average_in()
        middle.carry = None if carry is None else tuple(array.detach() for array in carry)
        middle.total += loss.item() * count
        middle.count += count
        middle.clipped += int(norm > clip)
        middle.largest_norm = max(middle.largest_norm, norm.item())
        return ""

    def _keep_sound(self) -> None:
        """Until an epoch has been judged: a copy of weights that gave a finite loss and gradient, at most once a
        minute. Those that an update leaves behind may be beyond use, and that shows at the next one only."""
        if self.best_weights is None and (
            self.sound_weights is None or time.monotonic() - self.sound_at > CHECKPOINT_SECONDS
        ):
            self.sound_weights, self.sound_update, self.sound_at = _copy(self.network), self.updates, time.monotonic()

    def _diverged(self, what: str) -> str:
        kept = f"the weights of epoch {self.outcome.best_epoch}"
        if self.best_weights is None:
            self.best_weights = self.sound_weights or _copy(self.network)
            self._write_model()
            kept = f"the weights after update {self.sound_update}" if self.sound_update else "the first weights"
        rate, clip = self.settings.learning_rate, self.settings.clip
        return (
            f"{what} in epoch {self.epoch}, update {self.updates + 1}; {kept} are kept. "
            f"Try a smaller --lr (it was {rate:g}) or --clip (it was {clip:g}), or look at the data"
        )

    def _rate(self, steps: int) -> float:
        """The learning rate: up from nothing over the first updates, then as the schedule says, to nothing."""
        settings = self.settings
        total = settings.epochs * steps
        warm = max(1, round(settings.warmup * total))
        if self.updates < warm:
            return settings.learning_rate * (self.updates + 1) / warm
        done = (self.updates - warm) / max(1, total - warm)
        shape = {
            "cosine": 0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)),
            "linear": 1.0 - min(done, 1.0),
            "constant": 1.0,
        }
        return settings.learning_rate * shape[settings.schedule]

    def _validate(self) -> dict[str, float]:
        self.network.eval()
        with torch.no_grad():
            return self.problem.validate(self.network)

    # The best weights

    def _judge(self, row: Mapping[str, float]) -> None:
        name = f"valid_{self.problem.monitor}"
        value, best = row[name], self.outcome.best
        # Of equals the one of smaller loss: a share of exact matches is 0 for long.
        better = (
            not best
            or is_better(self.problem.monitor, value, best[name])
            or (value == best[name] and row["valid_loss"] < best["valid_loss"])
        )
        if better and math.isfinite(value):
            self.outcome.best, self.outcome.best_epoch = dict(row), self.epoch
            with self._averaged():
                self.best_weights = _copy(self.network)
            self._write_model()

    def _out_of_patience(self) -> bool:
        """Whether the metric has not become better for so many epochs; equals of smaller loss do not count."""
        values = [row[f"valid_{self.problem.monitor}"] for row in self.outcome.history]
        best = 0
        for k, value in enumerate(values):
            best = k if is_better(self.problem.monitor, value, values[best]) else best
        waited = len(values) - 1 - best
        return bool(self.settings.patience and self.outcome.best_epoch and waited >= self.settings.patience)

    def _take_best(self) -> None:
        if self.best_weights is None:
            with self._averaged():
                self.best_weights = _copy(self.network)
            self._write_model()
        self.network.load_state_dict(self.best_weights)
        self.network.eval()

    def _write_model(self) -> None:
        if self.run is not None and self.best_weights is not None:
            self.run.write_tensors("model.safetensors", self.best_weights, {"epoch": self.outcome.best_epoch})

    # The average of the weights over the last updates

    def _average_in(self) -> None:
        if self.average is None:
            return
        keep = min(self.settings.averaging, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The network with the averaged weights, if they are averaged."""
        if self.average is None:
            yield
            return
        own = _copy(self.network)
        self.network.load_state_dict(self.average)
        yield
        self.network.load_state_dict(own)

    # Stopping and going on

    def _interrupt(self, middle: _Middle) -> None:
        self.outcome.status = "interrupted"
        self.outcome.message = f"stopped by you in epoch {self.epoch}, at update {self.updates}"
        self._checkpoint(middle)

    def _checkpoint(self, middle: _Middle | None) -> None:
        """Everything that going on needs, in one file."""
        if self.run is None:
            return
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "updates": self.updates,
            "history": self.outcome.history,
            "best": self.outcome.best,
            "best_epoch": self.outcome.best_epoch,
            "seconds": self._seconds(),
        }
        if middle is not None:
            tensors["rng"] = torch.get_rng_state()
            tensors |= {f"carry.{k}": array for k, array in enumerate(middle.carry or ())}
            facts["middle"] = {name: getattr(middle, name) for name in _Middle.COUNTS}
        self.run.write_tensors("checkpoint.safetensors", tensors, facts)
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """Take up the run where its checkpoint left it."""
        assert self.run is not None
        if not (self.run.folder / "checkpoint.safetensors").is_file():
            return
        tensors, facts = self.run.read_tensors("checkpoint.safetensors")
        self.network.load_state_dict(_under(tensors, "network"))
        self._restore_optimizer(_under(tensors, "optimizer"))
        if self.average is not None:
            self.average = _under(tensors, "average")
        self.epoch, self.updates = facts["epoch"], facts["updates"]
        self.outcome.history, self.outcome.seconds = facts["history"], facts["seconds"]
        self.outcome.best, self.outcome.best_epoch = facts["best"], facts["best_epoch"]
        if self.outcome.best_epoch:
            self.best_weights = self.run.read_tensors("model.safetensors")[0]
        if "middle" in facts:
            carry = tuple(_under(tensors, "carry").values())
            self.resume_at = _Middle(**facts["middle"], rng=tensors["rng"], carry=carry or None)

    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})


@dataclass
class _Middle:
    """Where an epoch is: after how many of its batches, at what learning rate, and what has come together."""

    step: int = 0
    total: float = 0.0
    count: int = 0
    clipped: int = 0
    largest_norm: float = 0.0
    seconds: float = 0.0
    rate: float = 0.0
    rng: Tensor | None = None
    carry: Carry = None

    COUNTS = ("step", "total", "count", "clipped", "largest_norm", "seconds", "rate")


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    found = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    return dict(sorted(found.items())) if prefix == "carry" else found


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, vectors (biases, scales) do not."""
    matrices = [p for p in network.parameters() if p.dim() >= 2]
    vectors = [p for p in network.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


@contextmanager
def _interruptible(progress: Progress) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks the loop to stop after this update; the second stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def on_signal(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        progress.say("stopping after this update; Ctrl-C once more stops at once")

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
