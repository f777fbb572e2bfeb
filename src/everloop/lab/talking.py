"""Talk to a model: a run that writes on, or says what it makes of a text as it is typed, with its state at every piece;
units of it may be held at a value.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from everloop.lab.arrays import number, packed
from everloop.lab.held import Held
from everloop.lab.learning import Nothing, Seed
from everloop.lab.opened import Opened, Opening
from everloop.lab.runs import Runs
from everloop.lab.session import Answer, Asked, Request, Session
from everloop.lab.texts import check_length, generator_ids, likeliest
from everloop.tasks.running.generator import Sampling

# What a task says of a text.
SAYS = {"generator": "pieces", "classifier": "label", "tagger": "tags"}

# Pieces up to which each beginning of a text is classified anew, by a model that has to see the end first.
BEGINNINGS = 200


class Open(Asked):
    run: str


class Generate(Asked):
    """pace: pieces a second at most; 0: as fast as they come."""

    prompt: Annotated[str, Field(max_length=20_000)] = ""
    length: Annotated[int, Field(ge=0, le=10_000)] = 300
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    seed: Seed | None = None
    pace: Annotated[float, Field(ge=0, le=1_000)] = 30.0


class Type(Asked):
    text: Annotated[str, Field(max_length=20_000)]


class Edit(Asked):
    """unit: of the state of the last layer; of two directions, those that read backwards come behind. null: freed."""

    unit: Annotated[int, Field(ge=0)]
    value: float | None = None


class Talking:
    """The panel."""

    def __init__(self, session: Session, runs: Runs) -> None:
        self._session = session
        self._opening = Opening(runs, Talk)
        self._talk: Talk | None = None
        self.requests = {
            "talk.open": Request(Open, self.open),
            "talk.generate": Request(Generate, self.generate),
            "talk.stop": Request(Nothing, self.stop),
            "talk.type": Request(Type, self.type),
            "talk.edit": Request(Edit, self.edit),
        }

    def open(self, asked: Open) -> Answer:
        self._session.end("talk")
        self._talk = talk = self._opening.open(asked.run)
        return {
            "task": talk.task.name,
            "facts": [list(pair) for pair in [*talk.task.facts(), *talk.opened.results]],
            "units": talk.held.units,
            "layers": talk.held.recurrent.num_layers,
            "says": SAYS[talk.task.name],
            "example": _example(talk.task),
            "held": talk.held.listed(),
        }

    def generate(self, asked: Generate) -> Answer:
        talk = self._known("generator")
        self._session.begin("talk", Writing(self._session, talk, asked))
        return {}

    def stop(self, _: Nothing) -> Answer:
        if self._session.end("talk"):
            self._session.emit("talk.done", stopped=True)
        return {}

    def type(self, asked: Type) -> Answer:
        talk = self._known()
        with talk.lock:
            return READERS[talk.task.name](talk, asked.text)

    def edit(self, asked: Edit) -> Answer:
        talk = self._known()
        with talk.lock:
            talk.held.set(asked.unit, asked.value)
        return {"held": talk.held.listed()}

    def _known(self, task: str = "") -> Talk:
        if self._talk is None:
            raise ValueError("no run is open; talk.open opens one")
        if task and self._talk.task.name != task:
            raise ValueError(f"this run is a {self._talk.task.name}; expected a {task}")
        return self._talk


class Talk:
    """A run that is talked to. lock: its network does one thing at a time."""

    def __init__(self, opened: Opened) -> None:
        self.opened, self.task = opened, opened.task
        if self.task.name not in SAYS:
            raise ValueError(f"run: {opened.name} is a {self.task.name}; to talk to there are {', '.join(SAYS)}")
        self.lock = threading.Lock()
        self.task.network_.eval()
        self.held = Held(self.task.network_)


class Writing:
    """What a generator writes, a piece a step. The network runs here as torch has it, so that units can be held."""

    def __init__(self, session: Session, talk: Talk, how: Generate) -> None:
        self._session, self._talk, self._how = session, talk, how
        self._sampling = Sampling(length=how.length, temperature=how.temperature, seed=how.seed)
        self._random = np.random.default_rng(how.seed)
        # What draws, of the generator that runs without torch: the same draws from the same scores.
        self._draw = talk.task.stream().model.draw
        self._decoder = talk.task.codec_.stream_decoder()
        self._state: Any = None
        self._waiting, _ = generator_ids(talk.task, how.prompt)
        self._decoder.push(int(self._waiting[-1]))
        self._done = 0
        self._pause = threading.Event()

    def step(self) -> bool:
        scores = self._read()
        codec = self._talk.task.codec_
        id = codec.end if self._done >= self._how.length else self._draw(scores, self._random, self._sampling)
        if id == codec.end:
            rest = self._decoder.finish()
            if rest:
                self._say(rest, scores)
            self._session.emit("talk.done", stopped=False)
            return False
        self._done += 1
        self._waiting = np.array([id])
        self._say(self._decoder.push(id), scores)
        if self._how.pace:
            self._pause.wait(1 / self._how.pace)
        return True

    def _read(self) -> np.ndarray:
        """The scores [V] of the next piece, after what is waiting has been read."""
        task = self._talk.task
        with self._talk.lock, torch.no_grad():
            scores, self._state = task.network_(task.tensor(self._waiting)[None], self._state)
        return scores[0, -1].numpy()

    def _say(self, piece: str, scores: np.ndarray) -> None:
        """state: as it was when the piece was chosen."""
        probabilities = torch.softmax(torch.from_numpy(scores).double(), -1).numpy()
        choices = likeliest(probabilities, self._talk.task.codec_)
        state = self._talk.held.of_state(self._state)
        self._session.emit("talk.piece", piece=piece, state=packed(state), choices=choices)


# What each task makes of a text


def _read_generator(talk: Talk, text: str) -> Answer:
    """What it expected in the place of each next piece."""
    ids, pieces = generator_ids(talk.task, text)
    network = talk.task.network_
    (scores, _), states = talk.held.states(lambda: network(talk.task.tensor(ids)[None]))
    following = torch.softmax(scores[0].double(), -1).numpy()
    return {
        "pieces": pieces,
        "states": packed(states),
        "next": [likeliest(row, talk.task.codec_) for row in following],
        "loss": number(float(F.cross_entropy(scores[0, :-1], torch.from_numpy(ids[1:])))) if len(ids) > 1 else None,
    }


def _read_classifier(talk: Talk, text: str) -> Answer:
    task = talk.task
    given = talk.opened.given(text)
    pieces = task.codec_.pieces(given)[: task.length]
    check_length(len(pieces))
    whole, states = talk.held.states(lambda: task.predict_proba([given]))
    shown = {"pieces": pieces, "states": packed(states[: len(pieces)]), "labels": [str(one) for one in task.classes_]}
    if len(pieces) > BEGINNINGS:
        note = f"of more than {BEGINNINGS} pieces only the whole is classified"
        return {**shown, "probabilities": packed(whole), "note": note}
    return {**shown, "probabilities": packed(task.predict_proba(beginnings(given, pieces)))}


def beginnings(text: str, pieces: list[str]) -> list[str]:
    """The text up to the end of each of its pieces; the last one is all of it."""
    found, end = [], 0
    for piece in pieces:
        end = max(end, text.find(piece, end) + len(piece))
        found.append(text[:end])
    return [*found[:-1], text]


def _read_tagger(talk: Talk, text: str) -> Answer:
    task, words = talk.task, talk.opened.given(text)
    check_length(len(words))
    (tags,) = task.predict([words])
    (shares,), states = talk.held.states(lambda: task.predict_proba([words]))
    places = {tag: k for k, tag in enumerate(task.tags_)}
    said = [[tag, number(row[places[tag]])] for tag, row in zip(tags, shares, strict=True)]
    return {"pieces": words, "states": packed(states), "tags": said}


READERS = {"generator": _read_generator, "classifier": _read_classifier, "tagger": _read_tagger}


def _example(task: Any) -> str:
    """Something to begin with: the pieces that its training text has most often."""
    if task.name == "generator":
        return ""
    if task.name == "tagger":
        return " ".join(task.codec_.vocabularies[0][:6])
    codec = task.codec_
    return codec.decode(range(codec.end + 1, min(len(codec), codec.end + 8)))
