"""Watch it think: a network reads one input, and every value of every step is there to be looked at."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from everloop.insight.recording import LayerRecord, Recording, record
from everloop.lab.arrays import number, packed
from everloop.lab.demos import Demos
from everloop.lab.equations import Equations
from everloop.lab.learning import CellText, Seed
from everloop.lab.opened import Opened, Opening
from everloop.lab.runs import Runs
from everloop.lab.session import Answer, Asked, Request, Session
from everloop.lab.texts import check_length, generator_ids, likeliest

# Bytes of values and gradients of one recording, and recordings that a tab keeps to ask more of.
ROOM = 48 * 2**20
KEPT = 3


class DemoSource(Asked):
    kind: Literal["demo"]
    demo: str
    cell: str | CellText = "lstm"
    hidden: Annotated[int, Field(ge=1, le=256)] = 32
    layers: Annotated[int, Field(ge=1, le=4)] = 1
    seed: Seed = 0


class RunSource(Asked):
    kind: Literal["run"]
    run: str


class Think(Asked):
    source: Annotated[DemoSource | RunSource, Field(discriminator="kind")]
    text: Annotated[str, Field(max_length=20_000)]
    target: str | None = None


class Numbers(Asked):
    """layer: place in the layers of the recording. step, unit: counted from 0."""

    recording: int
    layer: Annotated[int, Field(ge=0)]
    step: Annotated[int, Field(ge=0)]
    unit: Annotated[int, Field(ge=0)]


@dataclass
class Seen:
    """A recording and what the page was told of it."""

    recording: Recording
    loss_of: str
    answers: list[list[Any]]
    next: list[list[list[Any]]] | None = None
    equations: dict[int, Equations] = field(default_factory=dict)


class Thinking:
    """The panel."""

    def __init__(self, session: Session, demos: Demos, runs: Runs) -> None:
        self._session, self._demos = session, demos
        self._opening = Opening(runs, lambda opened: opened)
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._count = 0
        self.requests = {"think": Request(Think, self.think), "numbers": Request(Numbers, self.numbers)}

    def think(self, asked: Think) -> Answer:
        source = asked.source
        if isinstance(source, RunSource):
            opened = self._opening.open(source.run)
            seen, about = look(opened, asked.text, asked.target), opened.about
        else:
            cell = source.cell if isinstance(source.cell, str) else {"text": source.cell.text}
            trained = self._demos.trained(source.demo, cell, source.hidden, source.layers, source.seed, self._tell)
            with trained.lock:
                seen, about = look(Opened(trained.task), asked.text, asked.target), trained.about
        self._count += 1
        self._seen[self._count] = seen
        while len(self._seen) > KEPT:
            self._seen.popitem(last=False)
        return {"recording": {"id": self._count, "about": about, **_shown(seen)}}

    def _tell(self, share: float) -> None:
        self._session.emit("think.progress", share=share)

    def numbers(self, asked: Numbers) -> Answer:
        seen = self._seen.get(asked.recording)
        if seen is None:
            raise ValueError(f"recording: {asked.recording} came; kept are {', '.join(map(str, self._seen)) or 'none'}")
        layers = seen.recording.layers
        if asked.layer >= len(layers):
            raise ValueError(f"layer: {asked.layer} came; there are {len(layers)}, counted from 0")
        layer = layers[asked.layer]
        steps, units = layer.x.shape[1], _units(layer)
        if asked.step >= steps or asked.unit >= units:
            raise ValueError(
                f"step {asked.step}, unit {asked.unit} came; there are {steps} steps and {units} units, counted from 0"
            )
        if asked.layer not in seen.equations:
            seen.equations[asked.layer] = Equations(layer)
        return {"equations": seen.equations[asked.layer].with_numbers(asked.step, asked.unit)}


def look(opened: Opened, text: str, target: str | None) -> Seen:
    """What happens inside when the task reads this. Without a target the loss is of what the text itself goes on
    with, or, where nothing goes on, of the answer that the model gives.
    """
    if opened.task.name == "generator" and target is None:
        return _look_at_generator(opened.task, text)
    inside = opened.task.inside(opened.given(text), opened.target(target))
    check_length(len(inside.pieces))
    if inside.loss is not None:
        recording, loss_of = record(inside, most=ROOM), "target"
    else:
        recording = record(inside, loss=lambda output, _: -inside.score(output, None), most=ROOM)
        loss_of = "answer"
    # What reads the pieces; not what spells a word, or writes an answer, in steps of its own.
    reading = tuple(layer for layer in recording.layers if layer.name == inside.reads)
    recording = replace(recording, layers=reading)
    return Seen(recording, loss_of, [[str(label), number(p)] for label, p in inside.answers])


def _look_at_generator(task: Any, text: str) -> Seen:
    ids, pieces = generator_ids(task, text)
    given = torch.from_numpy(ids)[None]
    task.network_.eval()

    def loss(output: Any, wanted: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output[0][0, :-1], wanted[0, 1:])

    several = len(ids) > 1
    recording = record(task.network_, given, *([given] if several else []), loss=loss if several else None, most=ROOM)
    recording = replace(recording, steps=tuple(pieces))
    probabilities = torch.softmax(recording.output[0][0].double(), -1).numpy()
    following = [likeliest(row, task.codec_) for row in probabilities]
    return Seen(recording, "text" if several else "", following[-1], following)


def _units(layer: LayerRecord) -> int:
    return layer.values[next(iter(layer.cell.graph.states))].shape[-1]


def _shown(seen: Seen) -> dict[str, Any]:
    recording = seen.recording
    shown = {
        "steps": list(recording.steps),
        "layers": [_shown_layer(layer) for layer in recording.layers],
        "loss": None if recording.loss is None else number(recording.loss),
        "loss_of": seen.loss_of,
        "answers": seen.answers,
        "backend": recording.backend,
        "left_out": list(recording.left_out),
    }
    return shown if seen.next is None else {**shown, "next": seen.next}


def _shown_layer(layer: LayerRecord) -> dict[str, Any]:
    from everloop.export import formula

    graph = layer.cell.graph
    states = list(graph.states)
    same = any(graph.new[name] is graph.outputs["y"] for name in states)
    rest = [name for name in layer.values if name not in states and not (name == "y" and same)]
    names = [*(name for name in states if name in layer.values), *rest]
    return {
        "name": layer.name,
        "layer": layer.layer,
        "direction": layer.direction,
        "cell": layer.cell.name,
        "units": _units(layer),
        "names": names,
        "states": states,
        "gates": [name for name in names if _is_gate(layer, name)],
        "latex": "\n".join(formula.aligned(formula.forward(graph, formula.LATEX))),
        "values": {name: packed(np.asarray(layer.values[name][0])) for name in names},
        "gradients": {name: packed(np.asarray(layer.gradients[name][0])) for name in names if name in layer.gradients},
    }


def _is_gate(layer: LayerRecord, name: str) -> bool:
    """Whether it lies between 0 and 1 by what makes it, not by chance."""
    nodes = [node for node, called in layer.cell.graph.names.items() if called == name]
    return bool(nodes) and nodes[-1].op == "sigmoid"
