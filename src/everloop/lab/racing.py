"""Race: several cells learn the same problem from the same examples, in turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from everloop.lab import problems
from everloop.lab.arrays import number
from everloop.lab.learning import MOST_UPDATES, CellText, Clip, Hidden, Length, Nothing, Rate, Seed, Steps, cell_of
from everloop.lab.pace import EVENTS, Pace
from everloop.lab.session import Answer, Asked, Request, Session
from everloop.lab.training import Training

# Updates of a lane before it is the next one's turn, and updates after which the task grows.
TURN, GROWS = 4, 100

# Steps up to which it does.
LONGEST = 1_000

# How often a second a lane is asked what it can.
LOOKS = 5.0


class Start(Asked):
    """grow: steps by which the length grows every 100 updates."""

    cells: Annotated[list[str | CellText], Field(min_length=1, max_length=6)]
    problem: str
    length: Length | None = None
    hidden: Hidden = 32
    seed: Seed = 0
    lr: Rate = 0.01
    clip: Clip = 1.0
    grow: Steps = 0


class Racing:
    """The panel."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.requests = {
            "race.start": Request(Start, self.start),
            "race.pause": Request(Nothing, self.pause),
            "race.resume": Request(Nothing, self.resume),
            "race.stop": Request(Nothing, self.stop),
        }

    def start(self, asked: Start) -> Answer:
        problem = problems.get(asked.problem)
        length = asked.length or problem.length
        lanes = [
            Lane(k, Training(cell_of(cell), problem, length, asked.hidden, asked.lr, asked.seed, asked.clip))
            for k, cell in enumerate(asked.cells)
        ]
        self._session.begin("race", RaceWork(self._session, lanes, asked.grow))
        return {
            "lanes": [{"name": one.training.cell.name, "parameters": one.training.model.count} for one in lanes],
            "chance": {"loss": problem.chance(length), "score": problem.chance_score},
            "score": "accuracy" if problem.names else "explained",
            "length": length,
        }

    def pause(self, _: Nothing) -> Answer:
        self._session.pause("race")
        return {}

    def resume(self, _: Nothing) -> Answer:
        self._session.go_on("race")
        return {}

    def stop(self, _: Nothing) -> Answer:
        self._session.end("race")
        return {}


class Lane:
    """One cell in the race."""

    def __init__(self, place: int, training: Training) -> None:
        self.place, self.training = place, training
        self.ended = ""
        self._points: list[list[float | None]] = []
        self._seen: dict[str, Any] = {}
        self._pace, self._looks = Pace(EVENTS), Pace(LOOKS)

    def turn(self) -> dict[str, Any] | None:
        """A few updates; what there is to say, if it is time to say something."""
        for _ in range(TURN):
            made = self.training.update()
            self._points.append([made.step, number(made.loss)])
            if not math.isfinite(made.loss) or not math.isfinite(made.norm):
                self.ended = f"the loss is no longer a number after {made.step:,} updates"
                break
        if not self._seen or self._looks.due() or self.ended:
            self._seen = self._look()
        if not (self._pace.due() or self.ended):
            return None
        points, self._points = self._points, []
        return {"lane": self.place, "step": self.training.step, "length": self.training.length,
                "loss": points[-1][1], "points": points, "seconds": self.training.seconds, **self._seen}  # fmt: skip

    def grow_to(self, length: int) -> None:
        self.training.grow_to(length)
        self._seen = {}

    def _look(self) -> dict[str, Any]:
        held_out, y = self.training.answers()
        score = held_out.score(y)
        return {"score": number(score), "forgets": not math.isfinite(score) or held_out.at_chance(score)}


class RaceWork:
    """The turn of a lane a step."""

    def __init__(self, session: Session, lanes: Sequence[Lane], grow: int) -> None:
        self._session, self._lanes, self._grow = session, lanes, grow
        self._length = lanes[0].training.length
        self._next = 0
        self._updates = 0

    def step(self) -> bool:
        lane = self._lanes[self._next]
        if not lane.ended:
            self._take_turn(lane)
        self._next = (self._next + 1) % len(self._lanes)
        return self._next > 0 or self._round()

    def _take_turn(self, lane: Lane) -> None:
        said = lane.turn()
        if said is not None:
            self._session.emit("race.update", **said)
        if lane.ended:
            self._session.emit("race.done", lane=lane.place, message=lane.ended)

    def _round(self) -> bool:
        """All have had their turn; whether there is another."""
        self._updates += TURN
        if self._grow and self._updates % GROWS == 0:
            self._length = min(self._length + self._grow, LONGEST)
            for lane in self._lanes:
                lane.grow_to(self._length)
        more = self._updates < MOST_UPDATES and not all(lane.ended for lane in self._lanes)
        if not more:
            self._session.emit("race.done", step=self._updates)
        return more
