"""Watch it learn: one small model in training, with its loss, its answers and its gradients through time."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from everloop.insight.dynamics import gradient_norms
from everloop.insight.recording import record
from everloop.lab import problems
from everloop.lab.arrays import number, numbers
from everloop.lab.pace import EVENTS, Pace
from everloop.lab.session import Answer, Asked, Request, Session
from everloop.lab.training import Training, Update, chosen_cell

# A page that is left open does not train for ever.
MOST_UPDATES = 50_000

# How often a second the batch held out is looked at, and the gradients through time are.
LOOKS = 4.0

# Examples whose gradients through time are shown.
SHOWN = 8

Hidden = Annotated[int, Field(ge=1, le=256)]
Length = Annotated[int, Field(ge=1, le=1_000)]
Rate = Annotated[float, Field(gt=0, le=10)]
Clip = Annotated[float, Field(ge=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Steps = Annotated[int, Field(ge=0, le=1_000)]


class CellText(Asked):
    """A cell as it is typed."""

    text: str


def cell_of(given: str | CellText) -> Any:
    return chosen_cell(given if isinstance(given, str) else {"text": given.text})


class Start(Asked):
    """truncation, clip: 0 is none. forget_bias: null leaves what the cell says."""

    cell: str | CellText
    problem: str
    hidden: Hidden = 32
    length: Length | None = None
    truncation: Steps = 0
    clip: Clip = 1.0
    forget_bias: Annotated[float, Field(ge=-20, le=20)] | None = None
    lr: Rate = 0.01
    seed: Seed = 0


class Change(Asked):
    """What can change while it learns; null leaves it as it is."""

    lr: Rate | None = None
    clip: Clip | None = None
    truncation: Steps | None = None


class Nothing(Asked):
    """No fields."""


class Learning:
    """The panel."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._work: LearningWork | None = None
        self.requests = {
            "learn.start": Request(Start, self.start),
            "learn.set": Request(Change, self.set),
            "learn.pause": Request(Nothing, self.pause),
            "learn.resume": Request(Nothing, self.resume),
            "learn.stop": Request(Nothing, self.stop),
        }

    def start(self, asked: Start) -> Answer:
        problem = problems.get(asked.problem)
        length = asked.length or problem.length
        training = Training(
            cell_of(asked.cell), problem, length, asked.hidden, asked.lr, asked.seed, asked.clip, asked.truncation,
            asked.forget_bias,
        )  # fmt: skip
        self._work = LearningWork(self._session, training)
        self._session.begin("learn", self._work)
        facts = {"parameters": training.model.count, "steps": length}
        return {**facts, "chance": problem.chance(length), "chance_score": problem.chance_score}

    def set(self, asked: Change) -> Answer:
        work = self._known()
        work.changes.append(asked)
        return {"step": work.training.step}

    def pause(self, _: Nothing) -> Answer:
        work = self._known()
        self._session.pause("learn")
        return {"step": work.training.step}

    def resume(self, _: Nothing) -> Answer:
        work = self._known()
        self._session.go_on("learn")
        return {"step": work.training.step}

    def stop(self, _: Nothing) -> Answer:
        self._session.end("learn")
        self._work = None
        return {}

    def _known(self) -> LearningWork:
        if self._work is None:
            raise ValueError("nothing is learning; learn.start begins")
        return self._work


class LearningWork:
    """An update a step; now and then a look at what is held out."""

    def __init__(self, session: Session, training: Training) -> None:
        self._session, self.training = session, training
        self.changes: list[Change] = []
        self._pace, self._looks = Pace(EVENTS), Pace(LOOKS)
        self._points: list[list[float | bool | None]] = []
        self._seen: dict[str, Any] = {}

    def step(self) -> bool:
        training = self.training
        while self.changes:
            training.set(**self.changes.pop(0).model_dump())
        made = training.update()
        self._points.append([made.step, number(made.loss), number(made.norm), made.clipped])
        ended = self._ended(made)
        if self._looks.due() or ended:
            self._seen = self._look()
        if self._pace.due() or ended:
            self._tell(made)
        if ended:
            self._session.emit("learn.done", step=made.step, message=ended)
        return not ended

    def _ended(self, made: Update) -> str:
        """Why it does not go on."""
        if not math.isfinite(made.loss) or not math.isfinite(made.norm):
            return f"the loss is no longer a number after {made.step:,} updates: clip, or lower the learning rate"
        return f"{made.step:,} updates are done" if made.step >= MOST_UPDATES else ""

    def _tell(self, made: Update) -> None:
        training = self.training
        points, self._points = self._points, []
        self._session.emit(
            "learn.update", step=made.step, loss=number(made.loss), norm=number(made.norm), clipped=made.clipped,
            clips=training.clips, seconds=training.seconds, points=points, **self._seen,
        )  # fmt: skip

    def _look(self) -> dict[str, Any]:
        held_out, y = self.training.answers()
        seen = {"score": number(held_out.score(y)), "chance": held_out.problem.chance_score}
        seen |= {"held_out_loss": number(float(held_out.loss(y))), "sample": held_out.sample(y)}
        return {**seen, "gradients": numbers(gradients_through_time(self.training))}


def gradients_through_time(training: Training) -> np.ndarray:
    """The norm of dL/dh_t for every step t [T], h being all states of the cell side by side, of a few examples that are
    held out; zero where truncation cuts.
    """
    batch = training.problem.batch(SHOWN, training.length, np.random.default_rng(training.seed + 2))
    states = list(training.cell.graph.states)
    recording = record(training.model, batch.x, batch.target, loss=lambda y, _: batch.loss(y), names=states)
    (layer,) = recording.layers
    norms = np.stack([gradient_norms(layer)[name] for name in states]).astype(np.float64)
    return np.sqrt((norms**2).sum((0, 1)))
