"""`Seq2Seq` as a Python class: that it learns, copies, reads several texts and values, and is kept."""

from __future__ import annotations

import random
from html import escape
from typing import Any

import numpy as np
import pytest

from everloop import load
from everloop.data.text import TextCodec
from everloop.tasks.seq2seq import Seq2Seq
from everloop.tasks.seq2seq.baselines import seq2seq_baselines
from everloop.tasks.seq2seq.metrics import fitting_metric, signatures, text_scores
from everloop.tasks.seq2seq.pairs import PairCodec, fit_text, linked

SMALL: dict[str, Any] = {"hidden": 16, "embedding": 8, "batch": 16, "epochs": 1, "min_count": 1, "beam": 2}


def backwards(count: int) -> tuple[list[str], list[str]]:
    """Different words of two to four letters, and each of them backwards."""
    dice = random.Random(0)
    words = sorted({"".join(dice.choice("abcdef") for _ in range(dice.randint(2, 4))) for _ in range(3 * count)})
    dice.shuffle(words)
    return words[:count], [word[::-1] for word in words[:count]]


def packages(count: int) -> tuple[list[str], list[str]]:
    """Summaries whose one telling word comes nowhere else."""
    names = [f"zq{k:03}x" for k in range(count)]
    return [f"this is the tool {name} for people" for name in names], [f"the {name} tool" for name in names]


@pytest.fixture(scope="module")
def reverser() -> Seq2Seq:
    how = {"unit": "chars", "target_unit": "chars", "metric": "exact_match", "dropout": 0.0, "smoothing": 0.0}
    task = Seq2Seq(**SMALL | how | {"hidden": 48, "embedding": 24, "epochs": 12, "lr": 0.015})
    return task.fit(*backwards(400), quiet=True)


@pytest.fixture(scope="module")
def copier() -> Seq2Seq:
    task = Seq2Seq(**SMALL | {"copy": True, "epochs": 30, "lr": 0.02, "min_count": 3, "dropout": 0.0, "smoothing": 0.0})
    return task.fit(*packages(120), quiet=True)


class TestLearning:
    def test_words_backwards(self, reverser):
        (_, own), *baselines = reverser.results_
        assert own["exact_match"] > 0.5
        assert own["exact_match"] > max(metrics["exact_match"] for _, metrics in baselines)
        assert {"loss", "forced_accuracy", "free_accuracy"} <= own.keys()
        assert own["free_accuracy"] <= own["forced_accuracy"]
        assert reverser.beats_baseline()
        assert reverser.outcome_.history[-1]["valid_exact_match"] > 0.3

    def test_it_looks_where_the_letter_is(self, reverser):
        attended = reverser.attend("abc")
        assert attended.read == list("abc")
        assert attended.written == [*reverser.predict("abc")[0], "<end>"]
        assert attended.weights.shape == (len(attended.written), 3)
        assert attended.weights.sum(1) == pytest.approx(np.ones(len(attended.written)))
        assert attended.copied is None
        assert attended.copy_weights is None

    def test_candidates_come_best_first(self, reverser):
        ((best, *others),) = reverser.candidates("abcd", best=4)
        assert [best.text] == reverser.predict(["abcd"])
        assert len(others) == 3
        scores = [one.score for one in (best, *others)]
        assert scores == sorted(scores, reverse=True)

    def test_words_that_no_vocabulary_has_are_copied(self, copier):
        assert copier.predict(["this is the tool qwertz for people"]) == ["the qwertz tool"]
        attended = copier.attend("this is the tool qwertz for people")
        assert attended.written == [" the", " qwertz", " tool", "<end>"]
        assert attended.read[4] == " qwertz"
        assert attended.copied[1] > 0.9
        assert attended.copy_weights[1].argmax() == 4
        assert copier.results_[0][1]["exact_match"] == 1.0

    def test_measuring_other_pairs(self, reverser, tmp_path):
        assert reverser.evaluate(["ab", "abc"], ["ba", "never"])["exact_match"] in (0.0, 0.5)
        assert reverser.score(["ab"], ["no such word"]) == 0.0
        (tmp_path / "pairs.tsv").write_text("text\tlabel\nab\tba\nfa\taf\n")
        metrics = reverser.evaluate_examples(reverser.read(tmp_path / "pairs.tsv"))
        assert metrics["loss"] > 0

    def test_the_same_again(self, same):
        pairs = backwards(60)
        assert same(Seq2Seq(**SMALL).fit(*pairs, quiet=True), Seq2Seq(**SMALL).fit(*pairs, quiet=True))


class TestInputs:
    def test_several_texts(self, tmp_path):
        stories = [(f"mary went to {place}", f"where is {who}?") for place in "abcde" for who in ("mary", "tom")]
        answers = [story[-1] if "mary" in question else "nowhere" for story, question in stories]
        task = Seq2Seq(**SMALL | {"epochs": 2}).fit(stories * 5, answers * 5, quiet=True)
        assert task.metric_ == "exact_match"
        assert len(task.predict([("mary went to a", "where is tom?")])) == 1
        assert "<end>" in task.attend(("mary went to a", "where is tom?")).read
        (row,) = task.predictions(task.read([("mary went to a", "where is tom?")], ["a"]))
        assert list(row) == ["input 1", "input 2", "prediction", "score"]

    def test_columns_and_parts_and_groups(self, tmp_path):
        rows = [f"s{k % 9},q{k},{'yes' if k % 2 else 'no'},{'test' if k > 40 else 'train'},{k % 9}" for k in range(50)]
        (tmp_path / "t.csv").write_text("story,question,answer,part,story_number\n" + "\n".join(rows))
        how = {"input": "story,question", "target": "answer", "part": "part", "group": "story_number"}
        task = Seq2Seq(**SMALL).fit(tmp_path / "t.csv", quiet=True, **how)
        assert len(task._parts["test"].texts) == 9
        stories = [{story for story, _ in task._parts[part].inputs} for part in ("train", "valid")]
        assert not stories[0] & stories[1]

    def test_values(self, tmp_path):
        """Of any modality that has a codec: here a curve that says a word."""
        dice = np.random.default_rng(0)
        words = ["up", "down"] * 40
        curves = [np.linspace(0, 1 if word == "up" else -1, dice.integers(5, 9))[:, None] for word in words]
        curves = [curve + 0.01 * dice.normal(size=curve.shape) for curve in curves]
        task = Seq2Seq(**SMALL | {"epochs": 6, "lr": 0.02}).fit(curves, words, modality="vectors", quiet=True)
        assert task.results_[0][1]["exact_match"] == 1.0
        assert [name for name, _ in task.results_[1:]] == ["most frequent target", "nearest by mean"]
        task.save(tmp_path / "run")
        assert load(tmp_path / "run").predict(curves[:4]) == words[:4]

    def test_that_copying_would_help_is_said(self, capsys):
        Seq2Seq(**SMALL).fit(*packages(30))
        assert "100 % of the words of targets are words of their inputs" in capsys.readouterr().err
        Seq2Seq(**SMALL).fit(*backwards(30))
        assert "words of their inputs" not in capsys.readouterr().err

    def test_refusals(self):
        with pytest.raises(ValueError, match="copy=True came with inputs that are vectors; only pieces of text"):
            Seq2Seq(**SMALL, copy=True).fit([np.zeros((3, 1))] * 20, ["a", "b"] * 10, modality="vectors", quiet=True)
        with pytest.raises(ValueError, match="attention: 'some' came"):
            Seq2Seq(attention="some").fit(*backwards(20), quiet=True)
        with pytest.raises(ValueError, match="not fitted yet"):
            Seq2Seq().predict(["a"])

    def test_inputs_of_another_kind(self, reverser):
        with pytest.raises(TypeError, match="input 1: a int came; expected a string"):
            reverser.predict(["a", 3])


class TestKeeping:
    @pytest.mark.parametrize("which", ["reverser", "copier"])
    def test_a_run_folder(self, which, request, tmp_path):
        task = request.getfixturevalue(which)
        task.save(tmp_path / "run")
        again = load(tmp_path / "run")
        inputs = list(task._parts["test"].inputs[:5])
        assert again.predict(inputs) == task.predict(inputs)
        assert again.evaluate(inputs, inputs) == pytest.approx(task.evaluate(inputs, inputs))
        assert (tmp_path / "run" / "target_codec.json").exists() == (which == "reverser")
        page = (tmp_path / "run" / "report.html").read_text()
        assert "Test examples" in page
        assert "Attention" in page

    def test_pictures_stand_in_the_report_above_what_was_written(self, tmp_path):
        dice = np.random.default_rng(0)
        pictures = [dice.integers(0, 256, (8, 8, channels), dtype=np.uint8) for channels in (1, 3) * 20]
        texts = [f"grey: {k}" if picture.shape[-1] == 1 else f"colour: {k}" for k, picture in enumerate(pictures)]
        task = Seq2Seq(**SMALL).fit(pictures, texts, modality="image", out=tmp_path / "run", quiet=True)
        page = (tmp_path / "run" / "report.html").read_text()
        assert page.count('src="data:image/png;base64,') == len(task.outputs_)
        for text, output in zip(task._parts["test"].texts, task.outputs_, strict=True):
            assert escape(f"{output} | {text}") in page

    def test_a_text_of_the_data_is_shown_and_not_run(self, tmp_path):
        texts = [f"<script>{k}</script> word" for k in range(30)]
        Seq2Seq(**SMALL).fit(texts, [f"<b>{k}" for k in range(30)], out=tmp_path / "run", quiet=True)
        page = (tmp_path / "run" / "report.html").read_text()
        assert "<script>" not in page
        assert "&lt;script&gt;" in page

    def test_it_goes_on(self, tmp_path, same):
        pairs, options = backwards(60), SMALL | {"epochs": 3}
        Seq2Seq(**options).fit(*pairs, out=tmp_path / "run", quiet=True)
        again = Seq2Seq(**options).fit(*pairs, out=tmp_path / "run", resume=True, quiet=True)
        assert same(again, Seq2Seq(**options).fit(*pairs, quiet=True))


class TestPairs:
    def test_what_is_written_is_spelled_again(self):
        for unit in ("chars", "words", "subwords"):
            texts = ["It's a cat, isn't it?", "a dog (and a cat)"]
            codec = fit_text(texts, unit=unit, reversible=True, min_count=1, vocabulary=1_000)
            pairs = PairCodec(codec, codec, 100, copying=False)
            sources = pairs.encode_sources(texts)
            for text, source, ids in zip(texts, sources, pairs.encode_targets(texts, sources), strict=True):
                assert ids[-1] == TextCodec.end
                assert pairs.decode(ids[:-1].tolist(), source) == text

    def test_unknown_words_have_numbers_of_their_own(self):
        codec = fit_text(["a b c"], unit="words", reversible=True, min_count=1, vocabulary=100)
        pairs = PairCodec(codec, codec, 100, copying=True)
        (source,) = pairs.encode_sources([("a x b", "y x")])
        size = len(codec)
        a, b = (codec.encode(f" {letter}")[0] for letter in "ab")
        assert source.unseen == (" x", " y")
        assert source.copied.tolist() == [a, size, b, codec.unknown, size + 1, size]
        assert source.steps.tolist() == [a, codec.unknown, b, codec.end, codec.unknown, codec.unknown]
        (target,) = pairs.encode_targets(["y a z"], [source])
        assert target.tolist() == [size + 1, a, codec.unknown, codec.end]
        assert pairs.decode([size + 1, a, size], source) == "y a x"
        assert pairs.target_pieces([size + 1, a], source) == [" y", " a"]
        assert pairs.source_pieces(("a x b", "y x")) == [" a", " x", " b", "<end>", " y", " x"]

    def test_each_text_is_cut_at_the_length(self):
        codec = fit_text(["a b c"], unit="words", reversible=False, min_count=1, vocabulary=100)
        pairs = PairCodec(codec, codec, 2, copying=False)
        (source,) = pairs.encode_sources([("a b c", "c b a")])
        assert codec.decode(source.steps) == "a b c b"
        assert len(source.steps) == 5

    def test_pairs_with_a_common_source_or_target_are_linked(self):
        assert linked(list("aabcd"), list("vwxwy"), most=0.9) == ["0", "0", "1", "0", "2"]
        # Linked by targets, these would all be one group.
        assert linked(list("abcdab"), ["yes"] * 6, most=0.5) == ["0", "1", "2", "3", "0", "1"]


class TestMetrics:
    def test_against_known_figures(self):
        assert text_scores(["a b c d"], [["a b c d"]], answers=False) == {
            "bleu": pytest.approx(100.0),
            "chrf": pytest.approx(100.0),
            "rouge_l": 1.0,
            "exact_match": 1.0,
        }
        # Longest common subsequence "the cat sat": precision 3 / 4, recall 3 / 6.
        scores = text_scores(["the cat sat down"], [["the big cat sat over there"]], answers=False)
        assert scores["rouge_l"] == pytest.approx(2 * 0.75 * 0.5 / 1.25)
        assert text_scores([" yes"], [["no", "yes "]], answers=True) == {"exact_match": 1.0}

    def test_the_kinds_of_captions_are_compared_where_all_have_one(self):
        outputs, references = ["bird: owl", "fish: crab", "bird", "x"], [["bird: gull"], ["bug: ant", "fish: eel"]]
        known = [*references, ["bird: jay"], ["y: x"]]
        assert text_scores(outputs, known, answers=False)["kind_match"] == 0.75
        assert "kind_match" not in text_scores(outputs[:2], [["bird: gull"], ["eel"]], answers=False)

    def test_chinese_is_measured_by_characters(self):
        scores = text_scores(["我喜欢猫"], [["我喜欢狗"]], answers=False)
        assert scores["rouge_l"] == 0.75
        assert scores["bleu"] > 10
        (bleu, chrf) = signatures(["我喜欢猫"], [["我喜欢狗", "我爱猫"]])
        assert "tok:zh" in bleu
        assert "nrefs:2" in bleu
        assert chrf.startswith("chrF nrefs:2")

    def test_the_metric_that_fits(self):
        assert fitting_metric(["yes", "no"] * 10, False)[0] == "exact_match"
        assert fitting_metric([str(k) for k in range(20)], True)[0] == "rouge_l"
        assert fitting_metric([str(k) for k in range(20)], False)[0] == "bleu"


class TestBaselines:
    def test_of_texts(self):
        train = ["a red car", "a blue boat", "the green tree"], ["ein rotes Auto", "ein blaues Boot", "der grüne Baum"]
        found = seq2seq_baselines(
            (*train, []),
            (["a b c d e f", "g h i j k l"], ["a b c", "g h i"]),
            (["that red car", "green trees, a tree"], [["ein rotes Auto"], ["der Baum"]], []),
            metric="rouge_l",
            unit="words",
            same_language=True,
        )
        by_name = {one.name: one.metrics for one in found}
        assert list(by_name) == ["most frequent target", "phrase memory", "first 3 words", "copy of the input"]
        assert by_name["phrase memory"]["exact_match"] == 0.5
        assert by_name["copy of the input"]["exact_match"] == 0.0

    def test_of_answers(self):
        train = [("sun", "warm?"), ("snow", "warm?"), ("sun", "hot?"), ("ice", "hot?")] * 4, ["yes", "no"] * 8, []
        test = [("snow", "hot?"), ("sun", "warm?")], [["no"], ["yes"]], []
        found = seq2seq_baselines(
            train, (train[0], train[1]), test, metric="exact_match", unit="words", same_language=True
        )
        assert [(one.name, one.metrics["exact_match"]) for one in found] == [
            ("most frequent target", 0.5),
            ("logistic regression on words", 1.0),
        ]
