"""`Classifier` as a Python class: what it takes, what it gives, that it learns."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.base
import torch
from sklearn.model_selection import GridSearchCV

import everloop
from everloop import Classifier, cell, load, relu, tanh
from everloop.cells.elman import elman
from everloop.tasks.classifier.network import class_ratios, frequent_ngrams, frequent_pairs
from everloop.testing import FLOAT32, assert_close


@cell(states="h", gates="a b")
def blend(x, h, W, b):
    a = W @ x + b
    return 0.5 * h + 0.5 * tanh(a.a) * a.b


class TestData:
    def test_every_form_trains_to_the_same(self, small, reviews, tmp_path, same):
        texts, labels = reviews
        table = pd.DataFrame({"text": texts, "label": labels})
        table.to_csv(tmp_path / "reviews.csv", index=False)
        table.to_parquet(tmp_path / "reviews.parquet")
        expected = small(epochs=1).fit(texts, labels, quiet=True)
        for data in (
            list(zip(texts, labels, strict=True)),
            (np.array(texts), np.array(labels)),
            table,
            pl.DataFrame({"text": texts, "label": labels}),
            str(tmp_path / "reviews.csv"),
            tmp_path / "reviews.parquet",
        ):
            assert same(small(epochs=1).fit(data, quiet=True), expected), type(data)
        assert same(small(epochs=1).fit(table["text"], table["label"], quiet=True), expected)

    def test_a_folder_with_a_subfolder_per_class(self, small, reviews, tmp_path):
        for row, (text, label) in enumerate(zip(*reviews, strict=True)):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{row}.txt").write_text(text)
        task = small(epochs=1).fit(tmp_path, quiet=True)
        assert task.classes_ == ["negative", "positive"]

    def test_columns_by_name(self, small, reviews):
        texts, labels = reviews
        table = pd.DataFrame({"a": labels, "b": texts, "label": range(len(texts))})
        task = small(epochs=1).fit(table, input="b", target="a", quiet=True)
        assert task.classes_ == ["negative", "positive"]
        assert task.data_ == {"input": "b", "target": "a"}

    def test_duplicates_are_dropped_before_the_split_unless_kept(self, small, reviews):
        texts, labels = reviews
        twice = ([*texts, *texts], [*labels, *labels])
        parts = small(epochs=1).fit(*twice, quiet=True)._parts
        assert sum(len(part.inputs) for part in parts.values()) == 60
        assert not set(parts["train"].inputs) & set(parts["test"].inputs)
        parts = small(epochs=1, duplicates="keep").fit(*twice, quiet=True)._parts
        assert sum(len(part.inputs) for part in parts.values()) == 120

    def test_what_was_guessed_is_said(self, small, reviews, capsys):
        texts, labels = reviews
        small(epochs=1, length=5).fit(pd.DataFrame({"text": texts, "label": labels}))
        said = capsys.readouterr()
        assert 'input column "text" (a usual name), target column "label" (2 different values)' in said.err
        assert "2 classes; 48 / 6 / 6 texts for training / validation / test" in said.err
        assert "texts are longer than 5 words: only that much of them is read (--length)" in said.err
        assert said.out == ""
        small(epochs=1).fit(texts, labels, quiet=True)
        assert capsys.readouterr() == ("", "")

    def test_targets_beside_what_has_its_own(self, small, reviews):
        texts, labels = reviews
        for data in ("reviews.csv", pd.DataFrame({"text": texts}), {"text": texts}):
            with pytest.raises(TypeError, match=f"targets came with a {type(data).__name__}; expected a list of input"):
                small().fit(data, labels, quiet=True)

    def test_without_labels(self, small, reviews):
        with pytest.raises(ValueError, match="60 texts came without labels"):
            small().fit(reviews[0], quiet=True)


class TestLearning:
    @pytest.mark.parametrize("unit", ["words", "chars", "subwords"])
    def test_what_one_word_gives_away(self, many_reviews, limits, unit):
        texts, labels = many_reviews
        task = Classifier(
            hidden=8, embedding=12, epochs=10, batch=16, lr=0.02, unit=unit, dropout=0.1, word_dropout=0.0
        )
        task.fit(texts, labels, quiet=True)
        assert task.codec_.unit == unit
        assert task.score(texts, labels) >= limits.learned_accuracy
        (_, own), (name, majority), _ = task.results_
        assert name == "majority class"
        assert own["accuracy"] > majority["accuracy"]
        assert own["loss"] < majority["loss"]
        assert task.predict(["a very good film", "so bad a film"]) == ["positive", "negative"]

    # One of each kind, with delays, several states, states of a size of their own, complex ones, time gaps.
    @pytest.mark.parametrize("name", ["gru", "mingru", "qrnn", "slstm", "lmu", "lru", "cfc", "indrnn", "rhn"])
    def test_cells_of_every_kind(self, small, reviews, name):
        task = small(cell=name, epochs=1).fit(*reviews, quiet=True)
        assert task.outcome_.status == "finished"
        assert np.isfinite(task.predict_proba(reviews[0])).all()
        weights = task.network_.recurrent.state_dict()
        fresh = task.make_network().recurrent.state_dict()
        assert all(not weights[stack].equal(fresh[stack]) for stack in weights), "every parameter has moved"

    @pytest.mark.parametrize("pooling", ["max+mean", "max", "mean", "last"])
    @pytest.mark.parametrize("bidirectional", [True, False])
    def test_poolings(self, small, reviews, pooling, bidirectional):
        task = small(pooling=pooling, bidirectional=bidirectional, epochs=1).fit(*reviews, quiet=True)
        assert task.network_.linear.in_features == 3 * (1 + bidirectional) * (1 + ("+" in pooling))

    def test_more_than_two_classes_and_labels_that_are_numbers(self, small, reviews):
        texts, _ = reviews
        task = small(epochs=1).fit(texts, [row % 3 for row in range(60)], quiet=True)
        assert task.classes_ == [0, 1, 2]
        assert task.confusion_.sum() == 6
        assert task.score(texts[:3], [0, 1, 2]) in (0.0, 1 / 3, 2 / 3, 1.0)

    def test_a_model_that_does_not_beat_its_baseline_is_said_not_to(self, small, reviews):
        task = small(lr=1e-9, epochs=1).fit(*reviews, quiet=True)
        assert task.beats_baseline() is False
        assert task.better_baseline[0].startswith("logistic regression")
        assert task.verdict().endswith(": the model does not beat its baseline.")

    def test_pairs_are_the_frequent_ones(self):
        rows = [np.array([3, 4, 3, 4, 3, 4, 5]), np.array([7]), np.array([4, 5, 4, 5])]
        assert frequent_pairs(rows, 10, 9).tolist() == [34, 45]  # 3 4 and 4 5 three times; 4 3 and 5 4 less often
        assert frequent_pairs(rows, 10, 1).tolist() == [34]
        assert frequent_pairs(rows, 10, 0).tolist() == []

    def test_a_known_pair_changes_what_is_read_and_others_do_not(self, small, reviews):
        task = small(unit="chars", pairs=20, epochs=1).fit(*reviews, quiet=True)
        network = task.network_.eval()
        before = task.predict_proba(["good", "xyzxy"])
        network.pair_embedding.weight.data[:-1] += 1.0
        after = task.predict_proba(["good", "xyzxy"])
        assert (before[0] != after[0]).any()
        assert (before[1] == after[1]).all()

    def test_ngrams_are_the_frequent_runs(self):
        rows = [np.array([3, 4, 5]), np.array([3, 4]), np.array([8]), np.array([], dtype=np.int64)]
        base = 11
        three, four = 4, 5  # ids and 1
        assert frequent_ngrams(rows, 10, 2, 99).tolist() == [three, four, three * base + four]
        assert frequent_ngrams(rows, 10, 1, 99).tolist() == [three, four]
        assert frequent_ngrams(rows, 10, 3, 1).tolist() == [three]
        assert frequent_ngrams(rows, 10, 0, 99).tolist() == []

    def test_the_ratios_of_ngrams_are_those_of_naive_bayes(self):
        rows, labels = [np.array(row, np.int64) for row in ([3, 4, 3], [4, 5], [3], [])], [0, 1, 0, 2]
        known = frequent_ngrams(rows, 10, 2, 99)
        found = class_ratios(rows, labels, known, 10, 2, 3)
        texts = [[*row + 1, *(row[:-1] + 1) * 11 + row[1:] + 1] for row in rows]

        def log_share(key, own):
            of_own = [text for text, label in zip(texts, labels, strict=True) if label in own]
            # One of each run in each class, and the texts of the class that have it.
            counts = {run: len(own) + sum(run in text for text in of_own) for run in known.tolist()}
            return math.log(counts[key] / sum(counts.values()))

        others = {0: [1, 2], 1: [0, 2], 2: [0, 1]}
        expected = [
            [log_share(key, [k]) - log_share(key, rest) for k, rest in others.items()] for key in known.tolist()
        ]
        assert_close(found, np.array(expected), FLOAT32)

    def test_the_model_of_ngrams_starts_at_naive_bayes(self, small, reviews):
        task = small(epochs=1).fit(*reviews, quiet=True)
        network = task.make_network()
        task.start(network)
        network.mixture = [0.0, 1.0]
        inputs, labels = reviews
        ids = [torch.tensor(task.codec_.encode(text))[None] for text in inputs]
        with torch.no_grad():
            guesses = [int(network.eval()(one, torch.tensor([one.shape[1]])).argmax()) for one in ids]
        right = np.mean([task.classes_[guess] == label for guess, label in zip(guesses, labels, strict=True)])
        assert right > max(Counter(labels).values()) / len(labels)

    def test_the_model_of_ngrams_adds_what_it_knows_of_a_text(self, small, reviews):
        task = small(epochs=1).fit(*reviews, quiet=True)
        network = task.network_.eval()
        assert task.ngram_count_ > 0
        network.mixture = [0.0, 1.0]
        network.ngram_scores.weight.data.zero_()
        network.ngram_bias.data.zero_()
        (place,) = np.flatnonzero(task._ngram_keys == task.codec_.encode("good")[0] + 1)
        network.ngram_scores.weight.data[place] = torch.tensor([0.0, 1.0])
        found = task._scores(task._encoded(["good", "good good film a", "film"]))
        assert found[:, 1].tolist() == [5.0, 2 * 5.0 / 2, 0.0]

    def test_without_ngrams_the_layers_are_alone(self, small, reviews):
        task = small(epochs=1, ngrams=0).fit(*reviews, quiet=True)
        assert task.ngram_count_ == 0
        assert task.network_.mixture == [1.0]

    def test_validation_decides_what_each_counts(self, small, reviews, tmp_path):
        task = small().fit(*reviews, out=tmp_path / "run", quiet=True)
        assert task.network_.mixture != [0.5, 0.5]
        again = load(tmp_path / "run")
        assert again.network_.mixture == task.network_.mixture
        assert (again.predict_proba(reviews[0]) == task.predict_proba(reviews[0])).all()

    def test_several_columns_are_one_text(self, small, reviews):
        texts, labels = reviews
        task = small(epochs=1).fit([(text[:4], text[4:]) for text in texts], labels, quiet=True)
        assert task.predict([(texts[0][:4], texts[0][4:])]) == task.predict([f"{texts[0][:4]}\n{texts[0][4:]}"])


class TestPredicting:
    @pytest.fixture
    def model(self, classifier_run):
        return load(classifier_run)

    def test_probabilities(self, model, reviews, limits):
        found = model.predict_proba(reviews[0])
        assert found.shape == (60, 2)
        assert abs(found.sum(1) - 1).max() < limits.double
        assert model.predict(reviews[0]) == [model.classes_[best] for best in found.argmax(1)]

    def test_do_not_depend_on_what_stands_beside(self, model, reviews, limits):
        texts = [*reviews[0], " ".join(reviews[0]), "film"]
        together = model.predict_proba(texts)
        alone = np.concatenate([model.predict_proba([text]) for text in texts])
        assert abs(together - alone).max() < limits.single
        backwards = model.predict_proba(texts[::-1])[::-1]
        assert abs(together - backwards).max() < limits.single

    def test_odd_inputs(self, model):
        assert model.predict([]) == []
        assert model.predict_proba([]).shape == (0, 2)
        assert len(model.predict("one text")) == 1
        assert len(model.predict(("a", "b"))) == 2
        assert len(model.predict(["", " ", "未知", "🙂", "\n"])) == 5
        with pytest.raises(TypeError, match="text 1: a int came; expected a string"):
            model.predict(["a", 5])

    def test_score_and_evaluate(self, model, reviews):
        texts, labels = reviews
        metrics = model.evaluate(texts, labels)
        assert metrics.keys() == {"accuracy", "macro_f1", "loss"}
        right = np.array(model.predict(texts)) == np.array(labels)
        assert model.score(texts, labels) == metrics["accuracy"] == right.mean()
        with pytest.raises(ValueError, match="label 'neutral' is not one of the 2 the model knows: negative, positive"):
            model.evaluate(["a"], ["neutral"])
        with pytest.raises(ValueError, match="2 texts and 1 labels came; expected one label per text"):
            model.evaluate(["a", "b"], ["negative"])
        with pytest.raises(ValueError, match="0 texts and 0 labels came"):
            model.score([], [])

    def test_before_fitting(self):
        for use in (lambda task: task.predict("a"), lambda task: task.score(["a"], ["b"])):
            with pytest.raises(ValueError, match="this Classifier is not fitted yet; call fit first"):
                use(Classifier())


class TestOptions:
    def test_get_and_set(self):
        task = Classifier(hidden=7)
        assert task.get_params()["hidden"] == 7
        assert task.set_params(hidden=8, cell="gru") is task
        assert (task.hidden, task.cell) == (8, "gru")
        with pytest.raises(ValueError, match="Classifier has no option 'hiden'; it has cell, hidden, "):
            task.set_params(hiden=1)

    def test_clones(self, small, reviews):
        task = small(cell=blend).fit(*reviews, quiet=True)
        clone = sklearn.base.clone(task)
        assert clone.get_params() == task.get_params()
        assert not hasattr(clone, "network_")

    def test_grid_search(self, small, reviews):
        texts, labels = reviews
        search = GridSearchCV(small(epochs=1), {"hidden": [2, 4]}, cv=2, error_score="raise")
        search.fit(texts, labels, quiet=True)
        assert search.best_params_["hidden"] in (2, 4)
        assert search.best_estimator_.predict(texts[:2])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"hidden": 0}, "hidden: 0 came; expected greater than or equal to 1"),
            ({"hidden": 2.5}, "hidden: 2.5 came; expected a valid integer"),
            ({"dropout": 1.5}, "dropout: 1.5 came; expected less than 1"),
            ({"dropout": float("nan")}, "dropout: nan came; expected"),
            ({"lr": -1.0}, "lr: -1.0 came; expected greater than 0"),
            ({"lr": float("inf")}, "lr: inf came; expected a finite number"),
            ({"pooling": "median"}, "pooling: 'median' came; expected 'max+mean', 'max', 'mean' or 'last'"),
            ({"bidirectional": "yes"}, "bidirectional: 'yes' came; expected a valid boolean"),
            ({"cell": "lsmt"}, "no cell is named 'lsmt'; did you mean lstm, slstm, t_lstm?"),
            ({"cell": 3}, "cell: 3 came; expected a valid string"),
            ({"device": "gpu"}, "device: 'gpu' came; it cannot be used here: "),
        ],
    )
    def test_impossible_values_are_found_before_anything_is_read(self, options, words):
        with pytest.raises(ValueError) as caught:
            Classifier(**options).fit("no such file", quiet=True)
        assert str(caught.value).startswith(words)


class TestOwnCells:
    def test_trains_but_cannot_be_kept(self, small, reviews, tmp_path):
        task = small(cell=blend).fit(*reviews, quiet=True)
        assert task.model_name == "blend (classifier)"
        assert task.predict("good")
        with pytest.raises(
            ValueError, match="cell blend is not in the catalogue as it is here, so a run folder cannot"
        ):
            task.save(tmp_path / "run")
        with pytest.raises(ValueError, match="cell blend is not in the catalogue as it is here"):
            small(cell=blend).fit(*reviews, out=tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()

    def test_one_that_only_has_a_name_of_the_catalogue(self, small, reviews, tmp_path):
        """By name it would be loaded as another cell, to wrong numbers."""

        @cell(states="h", gates="h")
        def gru(x, h, W, b):
            return 0.5 * h + tanh(W.h @ x + b.h)

        for other in (gru, elman(act=relu)):
            with pytest.raises(ValueError, match=f"cell {other.name} is not in the catalogue as it is here"):
                small(cell=other).fit(*reviews, out=tmp_path / "run", quiet=True)

    def test_one_of_the_catalogue_as_an_object(self, small, reviews, tmp_path):
        task = small(cell=elman).fit(*reviews, out=tmp_path / "run", quiet=True)
        again = load(tmp_path / "run")
        assert again.cell == "elman"
        assert again.predict(reviews[0]) == task.predict(reviews[0])


def test_the_names_of_the_package():
    assert everloop.Classifier is Classifier
    assert everloop.load is load


def test_results_do_not_depend_on_the_threads_of_the_process():
    """Even the start values do: an orthogonal matrix made by two threads differs in its last digits."""
    texts = [f"{word} film number {k}" for k in range(40) for word in ("great", "dull")]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = Classifier(hidden=64, epochs=1).fit(texts, ["p", "n"] * 40, quiet=True)
            found.append(model.network_.state_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
