"""The lab's protocol: what is asked, what comes back, and that every number is the network's own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch.nn import functional as F
from websockets.sync.client import connect

from everloop import __version__, load, read_cell
from everloop.compiler.cost import parameters
from everloop.export import formula
from everloop.insight.recording import record
from everloop.lab import lab, problems, serve_lab, thinking
from everloop.lab.arrays import unpacked
from everloop.lab.learning import gradients_through_time
from everloop.lab.pace import Pace
from everloop.lab.runs import Runs
from everloop.lab.server import ASSETS, listening, make_app
from everloop.lab.session import WAITING, Outbox, Worker
from everloop.lab.training import Training, chosen_cell
from everloop.testing import FLOAT32, SAME, assert_close

TYPED = """
@cell(states="h", gates="h")
def mine(x, h, W, U, b):
    return tanh(W.h @ x + U.h @ h + b.h)
"""

DEMO = {"kind": "demo", "demo": "counting", "cell": "gru", "hidden": 12, "seed": 3}


# -- the page and its socket ------------------------------------------------------------------------------------------


def test_the_page_is_served(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<title>the lab</title>")
    client = TestClient(make_app(tmp_path, 8000, assets=tmp_path), base_url="http://127.0.0.1:8000")
    assert client.get("/").text == "<title>the lab</title>"
    assert client.get("/index.html").headers["content-type"].startswith("text/html")
    assert client.get("/nothing").status_code == 404


def test_hello_says_what_there_is(tab: Any) -> None:
    hello = tab.hello
    assert hello["version"] == __version__
    by_name = {cell["name"]: cell for cell in hello["cells"]}
    assert by_name["lstm"]["kind"] == "recurrent"
    assert by_name["sru"]["kind"] == "diagonal"
    assert [by_name[name]["forget_bias"] for name in ("lstm", "gru")] == [True, False]
    assert [(run["name"], run["task"]) for run in hello["runs"]] == [
        ("play", "generator"),
        ("reviews", "classifier"),
        ("words", "tagger"),
    ]
    assert {problem["name"] for problem in hello["problems"]} == {"copy", "adding", "order", "sine", "brackets"}
    assert not hello["resumed"]
    assert hello["running"] == []


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("{", "the message is not JSON"),
        ("[1]", "no object; expected {id, do, ...}"),
        ('{"id": 1e400, "do": "hello"}', "id: inf came; expected a whole number or a text"),
        ('{"id": NaN}', "NaN is no number of JSON"),
        (b"{}", "bytes came; expected a JSON object as text"),
        ('{"id": 7, "do": "think"}', "'think' came first; expected hello"),
    ],
)
def test_what_is_no_request_is_refused_in_words(lab_server: Any, message: str | bytes, told: str) -> None:
    with lab_server.connect() as socket:
        socket.send(message)
        reply = json.loads(socket.recv())
        assert not reply["ok"]
        assert told in reply["error"]
        socket.send('{"id": 8, "do": "hello"}')
        assert json.loads(socket.recv())["ok"], "the socket goes on"


def test_wrong_fields_are_refused_by_name(tab: Any) -> None:
    assert "do: 'fly' came; expected think, numbers" in tab.refusal("fly")
    assert "do: None came" in tab.refusal(None)
    assert "do: ['think'] came" in tab.refusal(["think"])
    assert "hidden: 9000 came; expected less than or equal to 256" in tab.refusal(
        "learn.start", cell="lstm", problem="copy", hidden=9000
    )
    assert tab.refusal("learn.set", speed=2) == "speed: this request has no such field"
    assert tab.refusal("learn.start", cell="lstm") == "problem is missing"
    assert "problem: 'cop' came; expected copy, adding" in tab.refusal("learn.start", cell="lstm", problem="cop")
    typed = {"text": TYPED.replace("U.h", "U.q")}
    assert "U.q: no gate or state of that name" in tab.refusal("learn.start", cell=typed, problem="copy")
    assert "did you mean lstm" in tab.refusal("learn.start", cell="lstn", problem="copy")
    assert "hello came twice" in tab.refusal("hello")


def test_half_a_character_is_sent_back_as_it_came(tab: Any) -> None:
    assert "the character U+D83D is not possible" in tab.ask("cell.check", text="\ud83d")["message"]
    assert "'\\ud83d' came" in tab.refusal("\ud83d") or "\ud83d" in tab.refusal("\ud83d")


def test_a_run_that_cannot_be_read_is_listed_with_its_reason(tmp_path: Path) -> None:
    for name, state in (("damaged", "{"), ("newer", '{"format": 99}'), ("unfinished", '{"format": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(state)
    (tmp_path / "notes.txt").write_text("no run")
    damaged, newer = Runs(tmp_path).about()
    assert "is not JSON" in damaged["error"]
    assert "Upgrade it" in newer["error"]
    assert Runs(tmp_path / "nowhere").about() == []
    with pytest.raises(ValueError, match="there are none: train one with --out"):
        Runs(tmp_path / "nowhere").load("play")


# -- Watch it think ---------------------------------------------------------------------------------------------------


def assert_shows(shown: dict[str, Any], recording: Any) -> None:
    """What was sent is what was recorded: values, gradients, loss."""
    assert shown["steps"] == list(recording.steps)
    assert len(shown["layers"]) == len(recording.layers)
    assert_close(shown["loss"], recording.loss, SAME)
    for layer, kept in zip(shown["layers"], recording.layers, strict=True):
        assert layer["names"][: len(layer["states"])] == layer["states"] == list(kept.cell.graph.states)
        assert set(layer["names"]) >= set(kept.values) - {"y"}
        for name in layer["names"]:
            assert_close(unpacked(layer["values"][name]), kept.values[name][0], SAME, f"the values of {name}")
            assert_close(unpacked(layer["gradients"][name]), kept.gradients[name][0], SAME, f"the gradients of {name}")


def test_a_demo_thinks_as_its_network_does(tab: Any, lab_server: Any) -> None:
    shown = tab.ask("think", source=DEMO, text="aaabb")["recording"]
    trained = lab_server.lab.demos.trained("counting", "gru", 12, 1, 3, lambda _: None)
    task, ids = trained.task, trained.task.codec_.encode("aaabb")
    given = torch.from_numpy(ids)[None]
    recording = record(
        task.network_, given, given, loss=lambda output, read: F.cross_entropy(output[0][0, :-1], read[0, 1:])
    )
    assert shown["steps"] == list("aaabb")
    assert_shows(shown | {"steps": list(recording.steps)}, recording)
    assert shown["loss_of"] == "text"
    assert shown["layers"][0]["gates"] == ["z", "r"] or shown["layers"][0]["gates"] == ["r", "z"]
    expected = torch.softmax(recording.output[0][0].double(), -1)
    for row, said in zip(expected, shown["next"], strict=True):
        assert [piece for piece, _ in said] == [task.codec_.piece(int(k)) for k in row.topk(5).indices]
        assert_close([p for _, p in said], row.topk(5).values, SAME)
    assert shown["answers"] == shown["next"][-1]
    assert "trained on letters a, and then as many letters b: perplexity" in shown["about"]


def test_a_demo_says_how_far_its_training_is(tab: Any) -> None:
    tab.ask("think", source={**DEMO, "seed": 4}, text="ab")
    shares = [event["share"] for event in tab.events if event["event"] == "think.progress"]
    assert shares[0] == 0
    assert shares == sorted(set(shares))
    assert shares[-1] < 1
    tab.events.clear()
    tab.ask("think", source={**DEMO, "seed": 4}, text="aabb")
    assert tab.events == [], "it is trained once"


@pytest.mark.parametrize("run", ["play", "reviews", "words"])
def test_a_run_thinks_as_its_network_does(tab: Any, lab_runs: Path, run: str) -> None:
    text = "the good film"
    shown = tab.ask("think", source={"kind": "run", "run": run}, text=text)["recording"]
    task = load(lab_runs / run, device="cpu")
    if run == "play":
        given = torch.from_numpy(task.codec_.encode(text))[None]
        recording = record(
            task.network_, given, given, loss=lambda output, read: F.cross_entropy(output[0][0, :-1], read[0, 1:])
        )
        assert shown["steps"] == list(text)
        shown["steps"] = list(recording.steps)
    else:
        inside = task.inside(text.split() if run == "words" else text)
        recording = record(inside, loss=lambda output, _: -inside.score(output, None))
        reading = tuple(layer for layer in recording.layers if layer.name == "recurrent")
        assert len(reading) < len(recording.layers) or run == "reviews", "what spells the words is not shown"
        recording = replace(recording, layers=reading)
        assert shown["answers"] == [[str(label), p] for label, p in inside.answers]
    assert_shows(shown, recording)
    assert shown["loss_of"] == ("text" if run == "play" else "answer")
    assert any(unpacked(layer["gradients"]["h"]).any() for layer in shown["layers"])


def test_a_target_is_what_the_loss_is_taken_against(tab: Any, lab_runs: Path) -> None:
    shown = tab.ask("think", source={"kind": "run", "run": "reviews"}, text="good plot", target="negative")["recording"]
    task = load(lab_runs / "reviews", device="cpu")
    assert_shows(shown, record(task, "good plot", "negative"))
    assert shown["loss_of"] == "target"


def test_what_cannot_be_read_is_refused(tab: Any) -> None:
    run = {"kind": "run", "run": "reviews"}
    assert "nothing came" in tab.refusal("think", source=run, text="")
    assert "inside: 'maybe' came" in tab.refusal("think", source=run, text="good", target="maybe")
    assert "1,001 pieces came; expected 1,000 at most" in tab.refusal(
        "think", source={"kind": "run", "run": "play"}, text="t" * 1001
    )
    assert "demo: 'weather' came; expected brackets" in tab.refusal(
        "think", source={**DEMO, "demo": "weather"}, text="a"
    )


def test_values_that_there_is_no_room_for_are_named(tab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tab.ask("think", source=DEMO, text="aabb")["recording"]
    assert whole["left_out"] == []
    # For x [T, 16], and for four values and their gradients.
    monkeypatch.setattr(thinking, "ROOM", 4 * 4 * (16 + 4 * 2 * 12))
    shown = tab.ask("think", source=DEMO, text="aabb")["recording"]
    (layer,), (before,) = shown["layers"], whole["layers"]
    assert shown["left_out"]
    assert layer["names"][0] == "h"
    assert {*layer["names"], *shown["left_out"]} == {*before["names"]}
    asked = {"layer": 0, "step": 2, "unit": 5}
    equations = tab.ask("numbers", recording=shown["id"], **asked)["equations"]
    assert equations == tab.ask("numbers", recording=whole["id"], **asked)["equations"], "they are worked out again"
    monkeypatch.setattr(thinking, "ROOM", 100)
    assert "there is room for" in tab.refusal("think", source=DEMO, text="aabb")


def test_the_numbers_of_a_unit_are_the_recorded_ones(tab: Any) -> None:
    shown = tab.ask("think", source=DEMO, text="aabb")["recording"]
    values = {name: unpacked(array) for name, array in shown["layers"][0]["values"].items()}
    asked = {"recording": shown["id"], "layer": 0}
    for step, unit in ((0, 0), (3, 11)):
        equations = tab.ask("numbers", **asked, step=step, unit=unit)["equations"]
        assert {one["name"] for one in equations} == set(values)
        for one in equations:
            assert_close(one["value"], values[one["name"]][step, unit], FLOAT32, one["latex"])
    assert "step 4, unit 0 came; there are 4 steps and 12 units" in tab.refusal("numbers", **asked, step=4, unit=0)
    assert "layer: 1 came; there are 1" in tab.refusal("numbers", recording=shown["id"], layer=1, step=0, unit=0)
    assert "recording: 99 came" in tab.refusal("numbers", recording=99, layer=0, step=0, unit=0)


# -- Watch it learn ---------------------------------------------------------------------------------------------------


def test_what_is_seen_of_learning_is_the_training(tab: Any) -> None:
    """The same training, done here: the same losses, norms, answers and gradients, to the last digit."""
    how = {"hidden": 10, "length": 14, "lr": 0.02, "seed": 5, "clip": 0.5, "truncation": 6, "forget_bias": 2.0}
    reply = tab.ask("learn.start", cell="lstm", problem="copy", **how)
    event = tab.event("learn.update")
    tab.ask("learn.stop")
    training = Training(
        chosen_cell("lstm"), problems.get("copy"), 14, 10, 0.02, 5, clip=0.5, truncation=6, forget_bias=2.0
    )
    assert reply["parameters"] == training.model.count
    assert reply["steps"] == 14
    assert reply["chance"] == problems.get("copy").chance(14)
    made = training.update()
    assert event["points"] == [[1, made.loss, made.norm, made.clipped]]
    assert [event[name] for name in ("step", "loss", "norm", "clipped", "clips")] == [
        1, made.loss, made.norm, made.clipped, training.clips,
    ]  # fmt: skip
    held_out, y = training.answers()
    assert event["score"] == held_out.score(y)
    assert event["sample"] == held_out.sample(y)
    assert_close(event["gradients"], gradients_through_time(training), SAME)


def test_gradients_through_time_end_where_truncation_cuts() -> None:
    """Of the order problem only the last step is asked: what reaches further back than the last window is nothing."""
    how: dict[str, Any] = {"length": 20, "hidden": 6, "lr": 0.01}
    cell, problem = chosen_cell("elman"), problems.get("order")
    whole = gradients_through_time(Training(cell, problem, **how))
    cut = gradients_through_time(Training(cell, problem, truncation=7, **how))
    assert (whole > 0).all()
    assert (cut[:14] == 0).all()
    assert_close(cut[14:], whole[14:], FLOAT32)


def test_gradients_through_time_are_those_of_torch() -> None:
    """Beside the loop written out by hand, differentiated by torch."""
    training = Training(chosen_cell("elman"), problems.get("adding"), length=9, hidden=5, lr=0.01)
    batch = problems.get("adding").batch(8, 9, np.random.default_rng(2))
    layer: Any = training.model.recurrent.layers[0][0]  # type: ignore[index]
    h, history = torch.zeros(8, 5), []
    for step in range(9):
        h = torch.tanh(batch.x[:, step] @ layer.W.T + h @ layer.U.T + layer.b)
        h.retain_grad()
        history.append(h)
    batch.loss(training.model.linear(torch.stack(history, 1))).backward()
    assert_close(gradients_through_time(training), [float(h.grad.norm()) for h in history], FLOAT32)


def test_learning_can_be_paused_changed_and_taken_up(tab: Any) -> None:
    tab.ask("learn.start", cell={"text": TYPED}, problem="sine", hidden=4, length=16)
    tab.event("learn.update")
    paused = tab.ask("learn.pause")["step"]
    assert tab.ask("learn.set", lr=0.5, clip=0.25)["step"] == paused, "nothing goes on while it is paused"
    tab.events.clear()
    tab.ask("learn.resume")
    points = [point for point in tab.event("learn.update")["points"] if point[0] > paused]
    assert points
    assert [clipped for *_, clipped in points] == [norm > 0.25 for *_, norm, _ in points]
    tab.ask("learn.stop")
    assert "nothing is learning; learn.start begins" in tab.refusal("learn.set", lr=0.1)


def test_every_update_is_told_of_once(tab: Any) -> None:
    tab.ask("learn.start", cell="gru", problem="adding", hidden=4, length=6)
    steps: list[int] = []
    while len(steps) < 40:
        steps += [step for step, *_ in tab.event("learn.update")["points"]]
    tab.ask("learn.stop")
    assert steps == list(range(1, len(steps) + 1))


def test_a_loss_that_is_no_number_ends_learning(tab: Any) -> None:
    linear = TYPED.replace("tanh(W.h @ x + U.h @ h + b.h)", "exp(W.h @ x + U.h @ h + b.h)")
    tab.ask("learn.start", cell={"text": linear}, problem="adding", hidden=8, length=60, clip=0.0, lr=10.0)
    done = tab.event("learn.done")
    assert "no longer a number" in done["message"]
    tab.ask("learn.pause")
    tab.ask("learn.resume")
    assert not any(thread.name == "lab learn" for thread in threading.enumerate())


# -- Race -------------------------------------------------------------------------------------------------------------


def test_lanes_run_side_by_side_on_the_same_examples(tab: Any) -> None:
    reply = tab.ask("race.start", cells=["lstm", {"text": TYPED}], problem="order", length=12, hidden=6, seed=2)
    assert [lane["name"] for lane in reply["lanes"]] == ["lstm", "mine"]
    assert reply["score"] == "accuracy"
    assert reply["chance"] == {"loss": problems.get("order").chance(12), "score": 0.25}
    points: dict[int, list[Any]] = {0: [], 1: []}
    while min(map(len, points.values())) < 8:
        event = tab.event("race.update")
        points[event["lane"]] += event["points"]
    tab.ask("race.stop")
    for lane, cell in enumerate((chosen_cell("lstm"), read_cell(TYPED))):
        training = Training(cell, problems.get("order"), 12, 6, 0.01, 2, 1.0)
        assert points[lane][:8] == [[made.step, made.loss] for made in (training.update() for _ in range(8))]


def test_a_lane_forgets_when_the_task_outgrows_it(tab: Any) -> None:
    """A cell without memory is at chance all along; how long the task is grows as asked."""
    forgetful = TYPED.replace("W.h @ x + U.h @ h", "W.h @ x").replace(", U,", ",")
    tab.ask("race.start", cells=[{"text": forgetful}], problem="copy", length=10, hidden=4, grow=7)
    event = tab.event("race.update", lambda event: event["length"] == 24)
    tab.ask("race.stop")
    assert event["step"] > 200
    assert event["forgets"]
    assert event["score"] < 0.5


# -- Write a cell -----------------------------------------------------------------------------------------------------


def test_a_cell_that_is_typed_is_derived(tab: Any) -> None:
    reply, cell = tab.ask("cell.check", text=TYPED), read_cell(TYPED)
    assert reply["found"]
    assert reply["name"] == "mine"
    assert reply["latex"] == "\n".join(formula.aligned(formula.forward(cell.graph, formula.LATEX)))
    assert reply["backward_latex"] == "\n".join(formula.aligned(formula.backward(cell.graph, formula.LATEX)))
    assert reply["diagram"].startswith("<svg")
    assert "in the loop" in reply["plan"]
    assert reply["kind"] == "recurrent"
    assert reply["parameters"] == parameters(cell.graph, {"input": 64, "hidden": 64}) == 64 * 64 * 2 + 64


@pytest.mark.parametrize(
    ("before", "after", "line", "column", "told"),
    [
        ("tanh(", "tan(", 4, 11, "did you mean tanh?"),
        ("tanh(", "tanh((", 4, 15, "was never closed"),
        ("U.h", "U.q", 4, None, "U.q: no gate or state of that name"),
        ("b.h", "__import__('os').system('true')", 4, 36, "only a function of the language can be called"),
        (TYPED, "", 1, 0, "there is no cell here"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    tab: Any, before: str, after: str, line: int, column: int | None, told: str
) -> None:
    reply = tab.ask("cell.check", text=TYPED.replace(before, after))
    assert not reply["found"]
    assert told in reply["message"]
    assert reply["line"] == line
    assert reply["column"] == column or column is None


# -- Talk to a model --------------------------------------------------------------------------------------------------


def written(tab: Any) -> str:
    """What a generator writes until it is done."""
    pieces: list[str] = []
    while True:
        name = next((event["event"] for event in tab.events if event["event"].startswith("talk.")), None)
        if name == "talk.done":
            tab.event("talk.done")
            return "".join(pieces)
        event = tab.event("talk.piece")
        pieces.append(event["piece"])
        if not tab.events:
            tab.ask("talk.edit", unit=0, value=None)  # fetches what has come


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_generator_writes_what_it_writes_elsewhere(tab: Any, lab_runs: Path, temperature: float) -> None:
    opened = tab.ask("talk.open", run="play")
    assert [opened["task"], opened["says"], opened["units"], opened["layers"]] == ["generator", "pieces", 16, 1]
    how = {"length": 30, "temperature": temperature, "seed": 4}
    tab.ask("talk.generate", prompt="to be", pace=0, **how)
    tab.event("talk.done")
    tab.ask("talk.generate", prompt="to be", pace=0, **how)
    text = load(lab_runs / "play").generate("to be", **how)
    assert "to be" + written(tab) == text


def test_the_state_beside_a_piece_is_the_one_that_chose_it(tab: Any, lab_runs: Path) -> None:
    tab.ask("talk.open", run="play")
    tab.ask("talk.generate", prompt="to be", length=1, seed=0, pace=0)
    event = tab.event("talk.piece")
    stream = load(lab_runs / "play").stream("to be")
    assert_close(unpacked(event["state"]), stream.state["0.h"], FLOAT32)
    expected = stream.probabilities
    assert_close([p for _, p in event["choices"]], np.sort(expected)[::-1][:5].copy(), FLOAT32)


def test_writing_can_be_stopped(tab: Any) -> None:
    tab.ask("talk.open", run="play")
    tab.ask("talk.generate", length=10_000, pace=50)
    tab.event("talk.piece")
    tab.ask("talk.stop")
    assert tab.event("talk.done")["stopped"]
    tab.ask("talk.stop")
    assert [event for event in tab.events if event["event"] == "talk.done"] == []


def test_a_text_is_classified_as_it_is_typed(tab: Any, lab_runs: Path) -> None:
    tab.ask("talk.open", run="reviews")
    reply = tab.ask("talk.type", text="the good plot, bad")
    task = load(lab_runs / "reviews", device="cpu")
    assert reply["labels"] == ["negative", "positive"]
    assert reply["pieces"] == task.codec_.pieces("the good plot, bad")
    assert_close(unpacked(reply["probabilities"])[-1], task.predict_proba("the good plot, bad")[0], FLOAT32)
    assert_close(unpacked(reply["probabilities"])[1], task.predict_proba("the good")[0], FLOAT32)
    assert_close(unpacked(reply["probabilities"]), task.stream().push("the good plot, bad"), FLOAT32)
    recording = record(task, "the good plot, bad")
    assert_close(unpacked(reply["states"]), recording.layers[0].values["h"][0], FLOAT32)


def test_words_are_tagged_as_they_are_typed(tab: Any, lab_runs: Path) -> None:
    tab.ask("talk.open", run="words")
    reply = tab.ask("talk.type", text="the dog runs")
    task = load(lab_runs / "words", device="cpu")
    (tags,), (shares,) = task.predict(["the dog runs"]), task.predict_proba(["the dog runs"])
    assert reply["pieces"] == ["the", "dog", "runs"]
    assert [tag for tag, _ in reply["tags"]] == tags
    assert_close([p for _, p in reply["tags"]], shares.max(1), FLOAT32)
    recording = record(task, ["the", "dog", "runs"])
    both = [one.values["h"][0] for one in recording.layers if one.name == "recurrent"]
    assert_close(unpacked(reply["states"]), np.concatenate(both, -1), FLOAT32)


@pytest.mark.parametrize(("run", "unit"), [("reviews", 2), ("words", 11), ("play", 5)])
def test_a_unit_that_is_held_stays_and_matters(tab: Any, run: str, unit: int) -> None:
    tab.ask("talk.open", run=run)
    before = tab.ask("talk.type", text="the good dog")
    assert tab.ask("talk.edit", unit=unit, value=2.5)["held"] == [[unit, 2.5]]
    held = tab.ask("talk.type", text="the good dog")
    assert (unpacked(held["states"])[:, unit] == 2.5).all()
    assert held != before
    assert tab.ask("talk.open", run=run)["held"] == [[unit, 2.5]], "it stays with the run"
    assert tab.ask("talk.edit", unit=unit, value=None)["held"] == []
    assert tab.ask("talk.type", text="the good dog") == {**before, "id": tab.count}
    assert "unit: 99 came" in tab.refusal("talk.edit", unit=99, value=0.0)
    tab.socket.send(f'{{"id": {tab.count + 1}, "do": "talk.edit", "unit": 1, "value": 1e400}}')
    assert "value: inf came" in tab.refusal("talk.open", run="nobody")


def test_what_a_run_cannot_do_is_refused(tab: Any) -> None:
    assert "no run is open" in tab.refusal("talk.type", text="good")
    tab.ask("talk.open", run="words")
    assert "this run is a tagger; expected a generator" in tab.refusal("talk.generate")
    assert "run: 'nobody' came; there are play, reviews, words" in tab.refusal("talk.open", run="nobody")


# -- tabs and connections ---------------------------------------------------------------------------------------------


def test_two_tabs_share_nothing(lab_server: Any) -> None:
    with lab_server.tab() as one, lab_server.tab() as other:
        assert one.token != other.token
        id = one.ask("think", source=DEMO, text="ab")["recording"]["id"]
        assert "kept are none" in other.refusal("numbers", recording=id, layer=0, step=0, unit=0)
        one.ask("talk.open", run="reviews")
        one.ask("talk.edit", unit=0, value=3.0)
        assert "no run is open" in other.refusal("talk.type", text="good")
        assert other.ask("talk.open", run="reviews")["held"] == []
        assert one.ask("talk.type", text="good") != other.ask("talk.type", text="good")
        one.ask("learn.start", cell="gru", problem="copy", hidden=4)
        one.event("learn.update")
        assert "nothing is learning" in other.refusal("learn.set", lr=0.1)
        assert other.events == []


def test_a_session_is_found_again_and_goes_on(lab_server: Any) -> None:
    with lab_server.tab() as tab:
        id = tab.ask("think", source=DEMO, text="ab")["recording"]["id"]
        tab.ask("learn.start", cell="gru", problem="copy", hidden=4)
        before = tab.event("learn.update")["step"]
    with lab_server.tab(tab.token) as again:
        assert again.hello["resumed"]
        assert again.hello["running"] == ["learn"]
        assert again.token == tab.token
        steps = [step for step, *_ in again.event("learn.update", lambda event: event["step"] > before)["points"]]
        assert steps == list(range(steps[0], steps[-1] + 1))
        again.ask("numbers", recording=id, layer=0, step=0, unit=0)


def test_what_was_paused_stays_so_over_a_break(lab_server: Any) -> None:
    with lab_server.tab() as tab:
        tab.ask("learn.start", cell="gru", problem="copy", hidden=4)
        step = tab.ask("learn.pause")["step"]
    with lab_server.tab(tab.token) as again:
        assert again.hello["running"] == []
        assert again.ask("learn.set", lr=0.1)["step"] == step


def test_a_session_that_nobody_comes_back_for_ends(
    lab_server: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(lab_server.lab, "kept", 0.05)
    with lab_server.tab() as tab:
        tab.ask("think", source=DEMO, text="ab")
    eventually(lambda: tab.token not in lab_server.lab.tokens, "the session has ended")
    with lab_server.tab(tab.token) as again:
        assert not again.hello["resumed"]
        assert again.token != tab.token


def test_a_copied_tab_gets_a_session_of_its_own(lab_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "PARTING", 0.05)
    with lab_server.tab() as tab, lab_server.tab(tab.token) as copy:
        assert not copy.hello["resumed"]
        assert copy.token != tab.token
        tab.ask("cell.check", text=TYPED)


def test_there_is_an_end_to_tabs(lab_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "MOST", 2)
    with lab_server.tab() as left:
        pass
    with lab_server.tab(), lab_server.tab():
        assert left.token not in lab_server.lab.tokens, "whoever has left makes room"
        with pytest.raises(AssertionError, match="2 tabs are open; close one of them"), lab_server.tab():
            pass


# -- serving ----------------------------------------------------------------------------------------------------------


def test_serving_elsewhere_or_on_a_port_in_use_is_refused() -> None:
    with pytest.raises(ValueError, match=r"host: 0\.0\.0\.0 came; the lab is for this machine only"):
        serve_lab(0, "0.0.0.0", open_browser=False)
    with listening(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} cannot be used"):
            listening(port)


@pytest.mark.skipif(not (ASSETS / "index.html").is_file(), reason="the page is not built")
def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    code = "from everloop.lab import serve_lab; serve_lab(0, open_browser=False)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[4]
        reply = httpx.get(address)
        assert reply.status_code == 200
        assert reply.text == (ASSETS / "index.html").read_text(encoding="utf-8")
        with connect(f"{address.replace('http', 'ws')}ws", origin=address.rstrip("/"), proxy=None) as socket:  # type: ignore[arg-type]
            socket.send('{"id": 1, "do": "hello"}')
            assert json.loads(socket.recv())["runs"] == []
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert said == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.lab.find_spec", lambda name: None if name == "websockets" else object())
    with pytest.raises(ModuleNotFoundError, match=r"needs the package websockets.*pip install 'everloop\[lab\]'"):
        serve_lab(0, open_browser=False)


# -- pace -------------------------------------------------------------------------------------------------------------


def test_a_pace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("everloop.lab.pace.time.monotonic", lambda: now)
    pace, said = Pace(30.0), 0
    for tick in range(1_001):
        now = tick / 1_000
        said += pace.due()
    assert 29 <= said <= 31


def test_work_waits_for_a_page_that_reads_slowly(eventually: Any) -> None:
    class Endless:
        def step(self) -> bool:
            outbox.put({"event": "more"})
            return True

    outbox = Outbox()
    worker = Worker("endless", Endless(), outbox)
    worker.start()
    for _ in range(3):
        eventually(lambda: len(outbox) > WAITING, "the work has filled the box")
        threading.Event().wait(0.05)
        assert len(outbox) == WAITING + 1
        outbox.sent()
    worker.stop()
    assert not worker.running


def test_work_that_breaks_is_told_of(caplog: pytest.LogCaptureFixture, eventually: Any) -> None:
    class Broken:
        def step(self) -> bool:
            raise ZeroDivisionError("the end")

    outbox = Outbox()
    worker = Worker("learn", Broken(), outbox)
    worker.start()
    eventually(lambda: len(outbox) > 0, "the work has broken")
    assert json.loads(str(outbox.first())) == {
        "event": "learn.failed",
        "error": "unexpected ZeroDivisionError: the end",
    }
    assert worker.done
    assert "the end" in caplog.text
