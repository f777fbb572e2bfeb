"""`Task.inside`: what every task hands to whoever looks inside, against what the task says by itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from everloop import Classifier, Forecaster, Generator, Recognizer, Seq2Seq, Tagger, record
from everloop.data.audio import Waveform
from everloop.data.notes import Notes
from everloop.insight import Inside
from everloop.tasks import names
from everloop.tasks.decoding import ctc
from everloop.tasks.task import Task
from everloop.testing import FINITE_DIFFERENCES, FINITE_STEP, FLOAT32, SAME, assert_close

TINY: dict[str, Any] = {"hidden": 3, "embedding": 4, "epochs": 1, "batch": 16}


@pytest.fixture(scope="session")
def texts(reviews) -> Classifier:
    # Without n-grams, which would tell everything.
    return Classifier(**TINY, min_count=1, ngrams=0, calibrate=True).fit(*reviews, quiet=True)


@pytest.fixture(scope="session")
def mixed(reviews) -> Classifier:
    return Classifier(**TINY, min_count=1, unit="chars").fit(*reviews, quiet=True)


@pytest.fixture(scope="session")
def signals() -> Classifier:
    rng = np.random.default_rng(0)
    return Classifier(**TINY).fit([rng.normal(size=(9, 2)) + k % 2 for k in range(30)], [0, 1] * 15, quiet=True)


@pytest.fixture(scope="session")
def pictures() -> Classifier:
    rng = np.random.default_rng(0)
    dots = [(rng.random((20, 18)) * 80 + 60 * (k % 2)).astype(np.uint8) for k in range(30)]
    return Classifier(**TINY, front="convolutions").fit((dots, ["dark", "light"] * 15), modality="image", quiet=True)


@pytest.fixture(scope="session")
def letters_model(letters) -> Generator:
    return Generator(hidden=4, embedding=3, epochs=2, window=16).fit([letters], quiet=True)


@pytest.fixture(scope="session")
def ending() -> Generator:
    return Generator(hidden=4, embedding=3, epochs=1, window=4).fit([f"go {k}!" for k in range(60)], quiet=True)


@pytest.fixture(scope="session")
def music() -> Generator:
    piece = Notes.of(" | ".join(["C3 G3 E4", "C3 A3 F4", "-"] * 6))
    return Generator(hidden=4, embedding=3, epochs=1).fit([piece.transposed(k % 3) for k in range(12)], quiet=True)


@pytest.fixture(scope="session")
def sentences() -> tuple[list[list[str]], list[list[str]]]:
    rows = [["the", "walk", str(k)] if k % 2 else ["to", "walk", str(k)] for k in range(60)]
    return rows, [["OTHER", "NOUN" if k % 2 else "VERB", "NUM"] for k in range(60)]


def small_tagger(sentences, **options) -> Tagger:
    return Tagger(**TINY, characters=3, lr=0.02, min_count=1, **options).fit(*sentences, quiet=True)


@pytest.fixture(scope="session")
def tagger(sentences) -> Tagger:
    return small_tagger(sentences)


@pytest.fixture(scope="session")
def chain(sentences) -> Tagger:
    return small_tagger(sentences, crf=True)


@pytest.fixture(scope="session")
def waves() -> dict[str, list[float]]:
    steps = np.arange(200)
    return {"high": (50 + 3 * np.sin(steps / 4)).tolist(), "low": (np.cos(steps / 3) - 4).tolist()}


@pytest.fixture(scope="session")
def forecaster(waves) -> Forecaster:
    how = {"horizon": 6, "lookback": 22, "segment": 4, "hidden": 4, "epochs": 1}
    return Forecaster(**how).fit({"time": list(range(200)), **waves}, target=["high", "low"], quiet=True)


def backwards() -> tuple[list[str], list[str]]:
    words = sorted({f"{a}{b}{c}" for a in "abcd" for b in "bcd" for c in "ade"})
    return words, [word[::-1] for word in words]


def small_seq2seq(**options) -> Seq2Seq:
    how = {"unit": "chars", "target_unit": "chars", "min_count": 1, "beam": 3, "metric": "exact_match"}
    return Seq2Seq(**TINY | {"hidden": 8}, **how, **options).fit(*backwards(), quiet=True)


@pytest.fixture(scope="session")
def reverser() -> Seq2Seq:
    return small_seq2seq()


@pytest.fixture(scope="session")
def copier() -> Seq2Seq:
    return small_seq2seq(copy=True)


def sound(seconds: float, pitch: int, seed: int = 0) -> Waveform:
    steps = np.arange(int(8_000 * seconds)) / 8_000
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(steps))
    return Waveform((0.3 * np.sin(2 * np.pi * pitch * steps) + noise).astype(np.float32), 8_000)


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    sounds = [sound(0.3 + k / 100, 300 + 900 * (k % 2), k) for k in range(24)]
    how = {"hidden": 4, "channels": 4, "bands": 8, "epochs": 2, "flat_start": 0.0, "unit": "chars"}
    return Recognizer(**how).fit(sounds, ["low", "high"] * 12, quiet=True)


GIVEN: dict[str, tuple[Any, Any]] = {
    "texts": ("a very good film", "positive"),
    "mixed": ("a very good film", "negative"),
    "signals": (np.random.default_rng(1).normal(size=(7, 2)), 1),
    "pictures": (np.full((20, 18), 90, np.uint8), "light"),
    "letters_model": ("abca", "bcab"),
    "ending": ("go ", "1!"),
    "music": (Notes.of("C3 G3 E4 | C3 A3 F4"), Notes.of("- | C3 G3")),
    "tagger": (["to", "walk", "7"], ["OTHER", "VERB", "NUM"]),
    "chain": (["the", "walk", "7"], ["OTHER", "NOUN", "NUM"]),
    "forecaster": (None, np.ones((6, 2))),
    "reverser": ("abca", "acba"),
    "copier": ("abca", "acba"),
    "recognizer": (sound(0.4, 300), "low"),
}

CASES = pytest.mark.parametrize("case", GIVEN)


@pytest.fixture
def inside(request) -> Callable[..., Inside]:
    def make(case: str, target: bool = False, **how: Any) -> Inside:
        given, true = GIVEN[case]
        return request.getfixturevalue(case).inside(given, true if target else None, **how)

    return make


def test_every_task_is_here(request) -> None:
    assert {request.getfixturevalue(case).name for case in GIVEN} == {*names()}


@CASES
def test_the_best_answer_has_the_score_of_the_best(inside, case) -> None:
    found = inside(case)
    output = found.run(found.network)
    best, value = found.answers[0]
    scored = found.score(output, None)
    assert scored.dim() == 0
    assert_close(found.score(output, best), scored, SAME)
    is_value = case == "forecaster"
    assert_close(scored, value if is_value else math.log(value), FLOAT32)
    for answer, share in found.answers[1:4]:
        assert_close(found.score(output, answer), share if is_value else math.log(share), FLOAT32)
    if case not in ("forecaster", "reverser", "copier", "recognizer"):
        # Texts are as a search ranks them, which looks at their lengths, too.
        assert [share for _, share in found.answers] == sorted((share for _, share in found.answers), reverse=True)


@CASES
def test_the_layers_that_are_named_read_the_pieces(inside, case) -> None:
    found = inside(case)
    recording = record(found)
    first = recording.layers[0]
    assert first.name == found.reads
    assert isinstance(found.network.get_submodule(found.reads), nn.Module)
    assert recording.lengths.tolist() == [len(found.pieces)] * len(first.x)
    assert recording.steps == tuple(found.pieces)
    assert first.gradients == {}
    assert recording.loss is None
    assert found.loss is None


@CASES
def test_a_target_gives_a_loss_and_its_gradients(inside, case) -> None:
    found = inside(case, target=True)
    assert found.loss is not None
    recording = record(found)
    assert recording.loss is not None
    assert math.isfinite(recording.loss)
    assert_close(recording.loss, found.loss(found.run(found.network)), FLOAT32)
    for layer in recording.layers:
        assert layer.gradients.keys() == layer.values.keys()
        assert max(np.abs(values).max() for values in layer.gradients.values()) > 0


@CASES
def test_the_loss_falls_along_its_gradient(inside, case) -> None:
    """In float64, against finite differences, in the direction of the gradient with respect to what is first read."""
    found = inside(case, target=True)
    assert found.loss is not None
    network = copy.deepcopy(found.network).double()
    read: list[Tensor] = []
    shift: Tensor | float = 0.0

    def moved(_: nn.Module, args: tuple[Any, ...]) -> Any:
        if read:
            return None
        read.append(args[0] + shift)
        return (read[0], *args[1:])

    network.get_submodule(found.reads).register_forward_pre_hook(moved)
    (gradient,) = torch.autograd.grad(found.loss(found.run(network)), read)
    losses = []
    for step in (FINITE_STEP, -FINITE_STEP):
        read.clear()
        shift = step * gradient / gradient.norm()
        losses.append(found.loss(found.run(network)).detach())
    assert_close((losses[0] - losses[1]) / (2 * FINITE_STEP), gradient.norm(), FINITE_DIFFERENCES)


@CASES
def test_without_some_pieces(inside, case) -> None:
    found = inside(case)
    last = len(found.pieces) - 1
    hidden = found.without([0]).without([last])
    assert hidden.pieces == found.pieces
    assert hidden.answers == found.without([0, last]).answers
    assert hidden.answers != found.answers
    assert found.without([]).answers == found.answers
    every = found.without(range(len(found.pieces)))
    assert all(math.isfinite(value) for _, value in every.answers)
    assert found.ablation
    with pytest.raises(ValueError, match=rf"{last + 1} came; expected the places of pieces, 0 to {last}"):
        found.without([last + 1])


@CASES
def test_an_answer_that_is_none(inside, case) -> None:
    found = inside(case)
    if case in ("reverser", "copier", "recognizer"):
        # Any text may be an answer.
        assert found.score(found.run(found.network), "lol").isfinite()
        return
    with pytest.raises(ValueError, match="'no such thing' came; expected a"):
        found.score(found.run(found.network), "no such thing")


@CASES
def test_a_task_that_is_not_fitted(case, request) -> None:
    fresh = type(request.getfixturevalue(case))()
    with pytest.raises(ValueError, match="is not fitted yet"):
        fresh.inside(GIVEN[case][0])


# -- what each says by itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["texts", "mixed", "signals", "pictures"])
def test_a_classifier_answers_as_it_predicts(inside, case, request) -> None:
    task, (given, target) = request.getfixturevalue(case), GIVEN[case]
    answers = dict(inside(case).answers)
    for name, share in zip(task.classes_, task.predict_proba([given])[0], strict=True):
        assert_close(answers[str(name)], share, FLOAT32)
    assert_close(record(task, given, target).loss, -math.log(answers[str(target)]), FLOAT32)
    with pytest.raises(ValueError, match="at=1 came; a classifier gives one answer"):
        task.inside(given, at=1)
    with pytest.raises(ValueError, match="'other' came; expected a class: "):
        task.inside(given, "other")


def test_the_ngrams_of_a_classifier_have_their_say(mixed) -> None:
    assert mixed.network_.ngram_scores is not None
    found = mixed.inside("a good film")
    alone = copy.deepcopy(mixed.network_)
    alone.mixture = [1.0, 0.0]
    assert not torch.equal(found.run(mixed.network_), found.run(alone))


def test_hidden_words_are_unknown_ones(texts) -> None:
    found = texts.inside("a very good film").without([2])
    assert found.ablation == "an unknown word"
    expected = dict(texts.inside("a very neverseen film").answers)
    for answer, share in found.answers:
        assert_close(share, expected[answer], SAME)


def test_hidden_steps_are_mean_ones(signals) -> None:
    given = GIVEN["signals"][0]
    changed = given.copy()
    changed[3] = signals.codec_.decode(np.zeros((1, 2))) if hasattr(signals.codec_, "decode") else signals.codec_.mean
    hidden, expected = signals.inside(given).without([3]), signals.inside(changed)
    for (answer, share), (other, wanted) in zip(hidden.answers, expected.answers, strict=True):
        assert answer == other
        assert_close(share, wanted, FLOAT32)


def test_places_of_a_picture(pictures) -> None:
    found = pictures.inside(GIVEN["pictures"][0])
    rows, columns = -(-20 // 8), -(-18 // 8)
    assert found.pieces == [f"row {r + 1}, column {c + 1}" for r in range(rows) for c in range(columns)]


@pytest.mark.parametrize("case", ["letters_model", "ending"])
def test_a_generator_answers_as_it_goes_on(inside, case, request) -> None:
    task, (prompt, goes_on) = request.getfixturevalue(case), GIVEN[case]
    stream = task.stream(prompt)
    expected = {task.codec_.piece(k): share for k, share in enumerate(stream.probabilities)}
    for piece, share in inside(case).answers:
        assert_close(share, expected[piece], FLOAT32)
    nats = []
    for piece in goes_on:
        (id,) = task.codec_.encode(piece)
        nats.append(-math.log(stream.probabilities[id]))
        stream.push(piece)
    found = record(task, prompt, goes_on)
    assert_close(found.loss, np.mean(nats), FLOAT32)
    assert found.steps == ("<end>",) * task.ends_ + tuple(prompt + goes_on[:-1])


def test_a_generator_is_asked_after_any_step(letters_model) -> None:
    asked = letters_model.inside("abca", "bc", at=1)
    assert asked.pieces == list("abcab")
    alone = dict(letters_model.inside("ab").answers)
    for piece, share in asked.answers:
        assert_close(share, alone[piece], FLOAT32)
    with pytest.raises(ValueError, match=r"at=5 came; expected the step after which .*, 0 to 4"):
        letters_model.inside("abca", "bc", at=5)
    with pytest.raises(ValueError, match="target='' came; expected the text that follows"):
        letters_model.inside("abca", "")


def test_music_to_come(music) -> None:
    prompt, goes_on = GIVEN["music"]
    found = music.inside(prompt)
    assert found.pieces == ["start", "1: C3 E4 G3".replace("E4 G3", "G3 E4"), "2: C3 A3 F4"]
    whole = Notes(np.concatenate([prompt.roll, goes_on.roll]))
    loss = music.evaluate([whole])["loss"] * 4 - music.evaluate([prompt])["loss"] * 2
    assert_close(record(music, prompt, goes_on).loss, loss / 2, FLOAT32)


@pytest.mark.parametrize("case", ["tagger", "chain"])
def test_a_tagger_answers_as_it_predicts(case, request) -> None:
    tagger, (words, tags) = request.getfixturevalue(case), GIVEN[case]
    shares = tagger.predict_proba([words])[0]
    for at in range(3):
        for tag, share in tagger.inside(words, at=at).answers:
            assert_close(share, shares[at, tagger.tags_.index(tag)], FLOAT32)
    assert tagger.inside(" ".join(words)).answers == tagger.inside(words, at=0).answers
    loss = record(tagger, words, tags).loss
    assert loss is not None
    if not tagger.crf:
        assert_close(
            loss, -np.mean(np.log([shares[k, tagger.tags_.index(tag)] for k, tag in enumerate(tags)])), FLOAT32
        )
    assert record(tagger, words, " ".join(tags)).loss == loss
    with pytest.raises(ValueError, match="2 tags came for 3 words"):
        tagger.inside(words, tags[1:])
    with pytest.raises(ValueError, match="at=3 came; expected the place of a word, 0 to 2"):
        tagger.inside(words, at=3)


def test_a_forecaster_answers_as_it_predicts(forecaster, waves) -> None:
    table = forecaster.predict()
    for at in (0, 5):
        answers = dict(forecaster.inside(None, at=at).answers)
        for column, forecast in zip(table["column"][2 * at :][:2], table["forecast"][2 * at :][:2], strict=True):
            assert_close(answers[column], forecast, FLOAT32)
    found = forecaster.inside({"time": list(range(200)), **waves})
    assert found.answers == forecaster.inside(None).answers
    assert found.pieces == ["178 to 179", *(f"{k} to {k + 3}" for k in range(180, 200, 4))]
    first = record(found).layers[0]
    assert first.x.shape[:2] == (2, 6), "a sequence for each column"


def test_a_forecast_against_what_came(forecaster, waves) -> None:
    cut = {"time": list(range(194)), **{name: values[:194] for name, values in waves.items()}}
    truth = np.array([waves["high"][194:], waves["low"][194:]]).T
    told = record(forecaster, cut, truth).loss
    windows = forecaster._windows
    problem = forecaster.problem()
    expected, *_ = problem.loss(forecaster.network_.eval(), np.array([windows.begins[0] + 194]), None)
    assert_close(told, expected, FLOAT32)
    truth[1:] = np.nan
    assert record(forecaster, cut, truth).loss == record(forecaster, cut, truth[:1]).loss
    with pytest.raises(ValueError, match=r"a target of shape \[6\] came; expected the values \[6, 2\] to come"):
        forecaster.inside(cut, np.zeros(6))


@pytest.mark.parametrize("case", ["reverser", "copier"])
def test_a_seq2seq_answers_as_it_writes(case, request) -> None:
    reverser = request.getfixturevalue(case)
    found = reverser.inside("abca")
    written = reverser.candidates(["abca"])[0]
    for (answer, share), one in zip(found.answers, written, strict=True):
        assert answer == one.text
        assert_close(share, math.exp(one.log_probability), FLOAT32)
    (source,) = reverser.codec_.encode_sources(["abca"])
    forced = reverser._writer.forced([source], reverser.codec_.encode_targets(["acba"], [source]))
    recording = record(reverser, "abca", "acba")
    assert_close(recording.loss, forced["loss"], FLOAT32)
    assert {layer.name for layer in recording.layers} == {"encoder.recurrent", "decoder.below", "decoder.above"}
    assert recording.layers[-1].x.shape[1] == 5, "four letters and the end are written"


@pytest.mark.parametrize("case", ["reverser", "copier"])
def test_a_seq2seq_is_asked_for_one_piece(case, request) -> None:
    reverser = request.getfixturevalue(case)
    output_of = reverser.inside("abca", "acba")
    whole = output_of.score(output_of.run(output_of.network), "acba")
    parts = [reverser.inside("abca", "acba", at=at) for at in range(5)]
    pieces = ["a", "c", "b", "a", "<end>"]
    each = [one.score(one.run(one.network), piece) for one, piece in zip(parts, pieces, strict=True)]
    assert_close(sum(each), whole, FLOAT32)
    with pytest.raises(ValueError, match="at=5 came; expected the place of a piece of the output, 0 to 4"):
        reverser.inside("abca", "acba", at=5)


def test_a_recognizer_answers_as_it_predicts(recognizer) -> None:
    given = GIVEN["recognizer"][0]
    found = recognizer.inside(given)
    assert found.answers[0][0] == recognizer.predict(given)[0]
    (scores,) = recognizer.log_probabilities([given])
    assert len(found.pieces) == len(scores)
    assert found.pieces[:2] == ["0.00 s", f"{recognizer.stride_ / 100:.2f} s"]
    expected = -ctc.log_likelihood(scores, recognizer.target_codec_.encode("low").tolist()) / 3
    assert_close(record(recognizer, given, "Low!").loss, expected, FLOAT32)
    step = dict(recognizer.inside(given, at=4).answers)
    assert_close(step["(nothing)"], math.exp(scores[4, 0]), FLOAT32)


def test_a_task_without_inside_says_so(monkeypatch) -> None:
    monkeypatch.delattr(Tagger, "inside")
    with pytest.raises(NotImplementedError, match="Tagger does not say what happens inside it"):
        Task.inside(Tagger(), "some words")
