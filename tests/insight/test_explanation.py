"""`explain_answer` on a model that was trained: what it says is what the parts say, and what is true of the data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop import Classifier, Generator, load
from everloop.insight.explanation import explain_answer
from everloop.insight.interventions import Hold, edit_state, intervene
from everloop.insight.neighbours import collect, nearest, top_outputs
from everloop.insight.recording import record
from everloop.insight.saliency import deletion_test, integrated_gradients, occlusion
from everloop.insight.units import find_units
from everloop.inspecting import inspect_run
from everloop.testing import FLOAT32, assert_close

TEXT = "the story of a film with some music and quite the plot a scene of clever music and a warm film some plot"


@pytest.fixture(scope="module")
def model(trained: Path) -> Any:
    return load(trained)


def test_everything_is_what_the_parts_say(model: Classifier) -> None:
    others = ["a dull film", "great story", "slow and boring plot"]
    answer = explain_answer(model, TEXT, others=others, labels=["n", "p", "n"], steps=16, orders=19)
    inside = model.inside(TEXT)
    assert answer.pieces == inside.pieces == TEXT.split()
    assert answer.answers == inside.answers
    assert dict(answer.answers)[answer.asked] == model.predict_proba([TEXT])[0].max()
    assert (answer.model, answer.facts, answer.target) == ("Classifier", model.facts(), None)
    gradients, occluded = answer.saliency
    assert_close(gradients.values, integrated_gradients(inside, steps=16).values, FLOAT32)
    assert_close(occluded.values, occlusion(inside).values, FLOAT32)
    for found, test in zip(answer.saliency, answer.tests, strict=True):
        again = deletion_test(inside, found, orders=19)
        assert_close(test.most_first, again.most_first, FLOAT32)
        assert_close(test.random, again.random, FLOAT32)
        assert test.chance == again.chance
    recording = record(inside, loss=lambda output, _: -inside.score(output, answer.asked))
    for one, other in zip(answer.recording.layers, recording.layers, strict=True):
        for name in other.values:
            assert_close(one.values[name], other.values[name], FLOAT32)
            assert_close(one.gradients[name], other.gradients[name], FLOAT32)
    assert answer.layers == list(answer.recording.layers)
    assert answer.elsewhere is not None
    places = collect(model.inside(text) for text in others)
    assert answer.elsewhere.nearest == nearest(places, top_outputs(answer.layers))
    assert answer.elsewhere.labels == ["n", "p", "n"]
    assert answer.followers == {"line": find_units(model, others, "line", count=1)[0]}, "there are no quotes in these"


def test_words_that_decide_are_found_and_the_test_says_so(model: Classifier) -> None:
    answer = explain_answer(model, TEXT)
    assert answer.asked == "positive"
    for found, test in zip(answer.saliency, answer.tests, strict=True):
        first = sorted(answer.pieces[k] for k in np.argsort(-found.values)[:2])
        assert first == ["clever", "warm"], found.method
        assert test.convinces, found.method


def test_another_answer_and_the_truth(model: Classifier) -> None:
    answer = explain_answer(model, TEXT, answer="negative")
    assert answer.asked == "negative"
    assert all(answer.pieces[found.values.argmin()] in ("clever", "warm") for found in answer.saliency)
    told = explain_answer(model, TEXT, "negative")
    assert (told.asked, told.target) == ("positive", "negative")
    assert_close(told.recording.loss, -np.log(dict(told.answers)["negative"]), FLOAT32)


def test_an_input_is_no_neighbour_of_itself(model: Classifier) -> None:
    answer = explain_answer(model, TEXT, others=[TEXT, "great story"], labels=["same", "other"])
    assert answer.elsewhere is not None
    assert (answer.elsewhere.inputs, answer.elsewhere.labels) == (1, ["other"])
    assert explain_answer(model, TEXT, others=[TEXT]).elsewhere is None
    with pytest.raises(ValueError, match="labels: 1 came for 2 other inputs"):
        explain_answer(model, TEXT, others=["a", "b"], labels=["x"])


def test_interventions_reach_the_answer_of_a_task(model: Classifier) -> None:
    """With every unit of both directions held at 0, nothing of the text is left."""
    everything = [Hold(range(6), direction=direction) for direction in (0, 1)]
    with intervene(model.network_, *everything):
        silent = model.predict_proba([TEXT, "dull and boring"])
    assert_close(silent[0], silent[1], FLOAT32)
    assert model.predict([TEXT, "dull and boring"]) == ["positive", "negative"]


def test_streams_of_trained_models_can_be_edited() -> None:
    model = Generator(hidden=4, embedding=3, epochs=1, window=16).fit(["abc" * 200], quiet=True)
    stream = model.stream("ab", length=5, seed=0)
    other = stream.fork()
    edit_state(stream, {"0.h": np.zeros(4)})
    assert (stream.state["0.h"] == 0).all()
    assert (other.state["0.h"] != 0).any()
    edit_state(stream, {"0.h": other.state["0.h"]})
    assert "".join(stream) == "".join(other)


# The command.


def test_inspect_writes_a_page(trained: Path, tmp_path: Path) -> None:
    told: list[str] = []
    page = inspect_run(trained, TEXT, out=tmp_path / "page.html", say=told.append)
    text = page.read_text(encoding="utf-8")
    assert "Why this answer: positive" in text
    assert "other inputs at which the network was most alike" in text
    assert not told


def test_inspect_reads_a_file_and_takes_its_truth(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text("text,label\na clever film,negative\na dull film,negative\n", encoding="utf-8")
    told: list[str] = []
    page = inspect_run(trained, str(file), out=tmp_path / "page.html", language="zh", say=told.append)
    assert "正确答案是 “negative”" in page.read_text(encoding="utf-8")
    assert told == [f"{file} holds 2 inputs: this is about the first"]


def test_inspect_says_what_it_does_not_have(tmp_path: Path) -> None:
    texts = [f"{word} film {k}" for k in range(30) for word in ("good", "bad")]
    task = Classifier(hidden=3, embedding=4, epochs=1, ngrams=0).fit(texts, ["p", "n"] * 30, quiet=True)
    run = task.save(tmp_path / "run")
    told: list[str] = []
    page = inspect_run(run, "a good film", say=told.append)
    assert page == run / "inspect.html"
    assert "most alike" not in page.read_text(encoding="utf-8")
    assert told == ["the data that the model was trained on are not there any more: like states elsewhere are left out"]
    with pytest.raises(FileNotFoundError, match=r"there is no file gone\.csv to look into"):
        inspect_run(run, "gone.csv")
    with pytest.raises(ValueError, match="'de' came; expected 'en' or 'zh'"):
        inspect_run(run, "a good film", language="de")  # type: ignore[arg-type]


def test_reviews(shared_data: Path, tmp_path: Path) -> None:
    """A real model, trained on a part of real reviews: what its words say is what a reader would say."""
    lines = (shared_data / "reviews_mr.csv").read_text(encoding="utf-8").splitlines()
    few = tmp_path / "few.csv"
    few.write_text("\n".join([lines[0], *lines[1::3]]), encoding="utf-8")
    model = Classifier(embedding=32, hidden=16, epochs=4, ngrams=0, unit="words").fit(few, quiet=True)
    text = "a moving and enjoyable film with the best performances of the year , although it is a little long"
    answer = explain_answer(model, text, others=[row[0] for row in list(csv.reader(lines[1:40]))])
    assert answer.asked == "positive"
    assert {answer.pieces[k] for k in np.argsort(-answer.saliency[0].values)[:4]} & {"moving", "enjoyable", "best"}
    assert answer.saliency[0].error < 0.01 * abs(answer.saliency[0].score - answer.saliency[0].empty)
    assert answer.tests[0].convinces
