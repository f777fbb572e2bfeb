"""`Tagger` as a Python class: what it takes, what it gives, that it learns."""

from __future__ import annotations

import os
import random
import re
import signal

import numpy as np
import pytest
import sklearn.base
import torch

from everloop import load
from everloop.data import codecs
from everloop.data.words import CHARACTERS, PIECES, WordsCodec
from everloop.tasks.tagger import Tagger
from everloop.tasks.tagger.network import drop
from everloop.testing import FLOAT32, assert_close

NOUNS, VERBS = ["walk", "run", "talk", "look"], ["sings", "eats", "reads", "writes"]


def toy(rows: int) -> tuple[list[list[str]], list[list[str]]]:
    """`the walk sings 17`: walk is a noun after `the` and a verb after `to`, so the neighbour has to be seen."""
    dice = random.Random(0)
    sentences, tags = [], []
    for row in range(rows):
        words, its = [], []
        for _ in range(dice.randint(1, 3)):
            first, tag = dice.choice([("the", "NOUN"), ("to", "VERB")])
            words += [first, dice.choice(NOUNS), dice.choice(VERBS)]
            its += ["OTHER", tag, "VERB"]
        sentences.append([*words, str(row)])
        tags.append([*its, "NUM"])
    return sentences, tags


@pytest.fixture(scope="module")
def tagged() -> tuple[list[list[str]], list[list[str]]]:
    return toy(120)


def small(**options) -> Tagger:
    chosen = {"hidden": 4, "embedding": 6, "characters": 3, "batch": 16, "epochs": 2, "lr": 0.02, "min_count": 1}
    return Tagger(**chosen | options)


class TestLearning:
    @pytest.mark.parametrize("crf", [False, True])
    def test_what_the_neighbour_gives_away(self, tagged, limits, crf):
        task = small(epochs=15, crf=crf, hidden=12, embedding=16, dropout=0.1, averaging=0.9).fit(*tagged, quiet=True)
        assert task.tags_ == ["NOUN", "NUM", "OTHER", "VERB"]
        assert task.score(*tagged) >= limits.learned_accuracy
        (_, own), (_, plain), (_, by_endings) = task.results_
        assert own["accuracy"] > max(plain["accuracy"], by_endings["accuracy"])
        assert own["unknown_accuracy"] >= limits.learned_accuracy, "numbers are known by their shape"
        assert task.predict([["the", "walk", "sings", "999"], "to walk"]) == [
            ["OTHER", "NOUN", "VERB", "NUM"],
            ["OTHER", "VERB"],
        ]
        assert task.tag("the walk sings 7\nto run") == "the/OTHER walk/NOUN sings/VERB 7/NUM\nto/OTHER run/VERB"

    @pytest.mark.parametrize("name", ["gru", "mingru", "slstm", "projection_lstm"])
    def test_cells_of_every_kind(self, tagged, name):
        task = small(cell=name, epochs=1, averaging=0.0).fit(*tagged, quiet=True)
        assert task.outcome_.status == "finished"
        weights, fresh = task.network_.state_dict(), task.make_network().state_dict()
        for part in ("recurrent", "speller", "pieces", "letters", "linear"):
            assert any(not weights[name].equal(fresh[name]) for name in weights if name.startswith(part)), part

    def test_layers_directions_and_no_characters(self, tagged):
        task = small(layers=2, bidirectional=False, characters=0, epochs=1).fit(*tagged, quiet=True)
        assert task.network_.recurrent.output_size == 4
        assert task.network_.speller is None

    def test_it_repeats(self, tagged, same):
        first, again, other = (small(seed=seed).fit(*tagged, quiet=True) for seed in (1, 1, 2))
        assert same(first, again)
        assert not same(first, other)


class TestData:
    def test_every_form_trains_to_the_same(self, tagged, tmp_path, same):
        pairs = [list(zip(*pair, strict=True)) for pair in zip(*tagged, strict=True)]
        slashes = "\n".join(" ".join(f"{word}/{tag}" for word, tag in sentence) for sentence in pairs)
        (tmp_path / "slashes.txt").write_text(slashes)
        columns = "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in sentence) for sentence in pairs)
        (tmp_path / "columns.tsv").write_text(columns + "\n")
        expected = small(epochs=1).fit(*tagged, quiet=True)
        for data in (pairs, tmp_path / "slashes.txt", str(tmp_path / "columns.tsv")):
            assert same(small(epochs=1).fit(data, quiet=True), expected), type(data)

    def test_parts_that_the_data_bring(self, tagged, tmp_path):
        sentences, tags = tagged
        for name, rows in (("train", slice(0, 80)), ("dev", slice(80, 100)), ("test", slice(100, 120))):
            lines = [" ".join(map("/".join, zip(*pair, strict=True))) for pair in zip(sentences, tags, strict=True)]
            (tmp_path / f"{name}.txt").write_text("\n".join(lines[rows]))
        task = small(epochs=1).fit(tmp_path, quiet=True)
        assert task._parts["test"].sentences == sentences[100:]
        assert task._parts["train"].sentences == sentences[:80]

    def test_a_tag_that_training_has_not(self, tagged):
        for crf in (False, True):
            task = small(epochs=1, crf=crf).fit(*tagged, quiet=True)
            found = task.evaluate([["the", "walk"]], [["OTHER", "NOVEL"]])
            assert found["accuracy"] in (0.0, 0.5)
            sentences, tags = task._parts["valid"].sentences, task._parts["valid"].tags
            task._parts["valid"] = task._part_of(sentences, [["NOVEL", *row[1:]] for row in tags])
            assert np.isfinite(task.problem().validate(task.network_)["loss"])

    def test_long_sentences_come_fewer_at_once(self, tagged):
        sentences, tags = tagged
        long = [[word for k in range(20) for word in sentences[(row + k) % 120]] for row in range(120)]
        its = [[tag for k in range(20) for tag in tags[(row + k) % 120]] for row in range(120)]
        whole = small(batch=0, epochs=1).fit(sentences, tags, quiet=True)
        fewer = small(batch=0, epochs=1).fit(long, its, quiet=True)
        assert whole.batch_ > 10 * fewer.batch_
        assert fewer.config()["options"]["batch"] == fewer.batch_

    def test_one_tag_or_none(self, tagged):
        with pytest.raises(ValueError, match=re.escape("has one tag only ('X'); a tagger needs two or more")):
            small().fit(tagged[0], [["X"] * len(row) for row in tagged[0]], quiet=True)
        with pytest.raises(ValueError, match="row 1: a sentence without tags came"):
            small().fit(tagged[0], quiet=True)

    def test_duplicates_are_dropped(self, tagged):
        twice = [*tagged[0], *tagged[0]], [*tagged[1], *tagged[1]]
        task = small(epochs=1).fit(*twice, quiet=True)
        assert sum(len(part.sentences) for part in task._parts.values()) == 120


class TestUse:
    @pytest.mark.parametrize("crf", [False, True])
    def test_probabilities(self, tagged, crf):
        task = small(crf=crf).fit(*tagged, quiet=True)
        shares = task.predict_proba(tagged[0][:20])
        for words, row in zip(tagged[0], shares, strict=False):
            assert row.shape == (len(words), 4)
            assert_close(row.sum(1), np.ones(len(words)), FLOAT32)
        alone = task.predict_proba([tagged[0][3]])[0]
        assert_close(alone, shares[3], FLOAT32, "sentences do not see each other")

    def test_sentences_without_words(self, tagged):
        task = small(epochs=1).fit(*tagged, quiet=True)
        assert task.predict([[], ["the"], ""])[0] == []
        assert task.predict([]) == []
        assert task.tag("") == ""
        assert task.predict_proba([[]])[0].shape == (0, 4)

    def test_what_is_no_sentence(self, tagged):
        task = small(epochs=1).fit(*tagged, quiet=True)
        with pytest.raises(TypeError, match="sentence 1: a int came; expected a list of words"):
            task.predict([3])
        with pytest.raises(TypeError, match="sentence 2: a word is a float"):
            task.predict([["a"], ["b", 0.5]])
        with pytest.raises(ValueError, match="sentence 1: 2 words and 1 tags came"):
            task.evaluate([["the", "walk"]], [["OTHER"]])
        with pytest.raises(ValueError, match="2 sentences and 1 lists of tags came"):
            task.evaluate([["the"], ["walk"]], [["OTHER"]])
        with pytest.raises(ValueError, match="not fitted yet"):
            small().predict("the walk")

    def test_predictions_and_evaluation_of_a_file(self, tagged, tmp_path):
        task = small().fit(*tagged, quiet=True)
        path = tmp_path / "some.txt"
        path.write_text("the/OTHER walk/NOUN\nto/OTHER run/VERB\n")
        examples = task.read(path, want_target="no")
        rows = list(task.predictions(examples))
        assert [row["sentence"] for row in rows] == ["the walk", "to run"]
        assert [row["tags"].split() for row in rows] == task.predict(["the walk", "to run"])
        found = task.evaluate_examples(task.read(path))
        assert found == task.evaluate(["the walk", "to run"], [["OTHER", "NOUN"], ["OTHER", "VERB"]])
        with pytest.raises(ValueError, match="has no tags to compare with"):
            task.evaluate_examples(examples)

    def test_conventions(self):
        task = small(crf=True)
        clone = sklearn.base.clone(task)
        assert clone.get_params() == task.get_params()
        with pytest.raises(ValueError, match="characters: -1 came"):
            small(characters=-1).fit([["a"]], [["b"]], quiet=True)


class TestRuns:
    @pytest.mark.parametrize("crf", [False, True])
    def test_a_run_folder(self, tagged, tmp_path, crf):
        task = small(crf=crf).fit(*tagged, out=tmp_path / "run", quiet=True)
        loaded = load(tmp_path / "run")
        assert loaded.predict(tagged[0]) == task.predict(tagged[0])
        assert loaded.evaluate(*tagged) == task.evaluate(*tagged), "which words are known is kept, too"
        report = (tmp_path / "run" / "report.html").read_text()
        assert "every word its most frequent tag" in report
        assert "What is taken for what" in report
        assert loaded.config()["options"]["crf"] is crf

    def test_a_resumed_run_is_the_same(self, tagged, tmp_path, same, at_update):
        whole = small(epochs=3).fit(*tagged, quiet=True)
        with at_update(Tagger, 9, lambda: os.kill(os.getpid(), signal.SIGINT)):
            cut = small(epochs=3).fit(*tagged, out=tmp_path / "run", quiet=True)
        assert cut.outcome_.status == "interrupted"
        assert same(small(epochs=3).fit(*tagged, out=tmp_path / "run", resume=True, quiet=True), whole)


class TestCodec:
    def test_pieces(self):
        codec = WordsCodec.fit([["Walking", "1998-2001", "苹果"]], min_count=1)
        assert codec.vocabularies[0] == ("1998-2001", "walking", "苹果")
        assert set(codec.vocabularies[PIECES.index("shape")]) == {"Xxx", "00-00", "cc"}
        assert set(codec.vocabularies[PIECES.index("last 3")]) == {"ing", "000"}
        assert set(codec.vocabularies[PIECES.index("first 2")]) == {"wa", "00"}, "a whole word is no beginning"
        (row,) = codec.encode_batch([["苹果"]])[0]
        assert row[PIECES.index("last 4")] == codec.pad
        assert (row[len(PIECES) :] > 0).sum() == 2
        assert codec.encode_batch([["x" * 40, "a"]])[0].shape == (2, len(PIECES) + CHARACTERS)

    def test_unknown_words_are_known_by_their_parts(self):
        codec = WordsCodec.fit([["walking", "talking", "walking"], ["talks"]], min_count=2)
        known, new = codec.encode_batch([["walking", "Baking"]])[0]
        assert new[0] == codec.unknown
        assert new[PIECES.index("last 3")] == known[PIECES.index("last 3")]
        assert codec.knows("Talking")
        assert codec.knows("talks"), "seen once"
        assert not codec.knows("baking")

    def test_json(self):
        codec = WordsCodec.fit([["Straße", "“x”", "１９９８年", "x"]], min_count=1)
        again = codecs.from_json(codec.to_json())
        assert isinstance(again, WordsCodec)
        assert again.vocabularies == codec.vocabularies
        assert again.rare == codec.rare
        with pytest.raises(ValueError, match="this is not a codec of words"):
            WordsCodec.from_json('{"modality": "words"}')


def test_dropout_leaves_out_the_same_features_all_along():
    torch.manual_seed(0)
    found = drop(torch.ones(3, 5, 40), 0.5, True)
    assert (found == found[:, :1]).all()
    assert set(found.unique().tolist()) == {0.0, 2.0}
    assert not found[0].equal(found[1])
    assert drop(found, 0.5, False) is found
