"""`Classifier` under scikit-learn's tools: lists of unequal length, and arrays in aeon's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from everloop import Classifier, load
from everloop.tasks import running
from everloop.tasks.classifier.calibration import best_temperature
from everloop.tasks.running._learned import softmax
from everloop.testing import FLOAT32, assert_close

Form = Callable[[], tuple[Any, list[Any]]]


def _sequences() -> tuple[list[np.ndarray], list[int]]:
    rng = np.random.default_rng(0)
    labels = [k % 2 for k in range(48)]
    return [
        np.linspace(-1, 1, n)[:, None] * (2 * label - 1) + 0.1 * rng.normal(size=(n, 2))
        for label, n in zip(labels, rng.integers(5, 9, 48).tolist(), strict=True)
    ], labels


def ragged() -> tuple[Any, list[Any]]:
    return _sequences()


def aeon_lists() -> tuple[Any, list[Any]]:
    sequences, labels = _sequences()
    return [x.T for x in sequences], labels


def aeon_array() -> tuple[Any, list[Any]]:
    sequences, labels = _sequences()
    return np.stack([x[:5].T for x in sequences]), labels


def plain_lists() -> tuple[Any, list[Any]]:
    sequences, labels = _sequences()
    return [x[:, 0].tolist() for x in sequences], labels


def texts() -> tuple[Any, list[Any]]:
    return [f"{'good' if k % 2 else 'bad'} film {'so ' * (k % 3)}{k}" for k in range(48)], [
        "-+"[k % 2] for k in range(48)
    ]


FORMS = [ragged, aeon_lists, aeon_array, plain_lists, texts]


def small(**options: Any) -> Classifier:
    chosen = {"hidden": 4, "embedding": 4, "batch": 8, "epochs": 1, "min_count": 1, "lr": 0.02}
    return Classifier(**{**chosen, **options})


@pytest.mark.parametrize("form", FORMS)
def test_cross_validation(form: Form) -> None:
    X, y = form()
    scores = cross_val_score(small(), X, y, cv=2, error_score="raise", params={"quiet": True})
    assert scores.shape == (2,)
    predicted = cross_val_predict(small(), X, y, cv=2, params={"quiet": True})
    assert set(predicted.tolist()) <= set(y)


@pytest.mark.parametrize("form", [ragged, aeon_array])
def test_grid_search_of_a_pipeline(form: Form) -> None:
    X, y = form()
    halved = FunctionTransformer(lambda sequences: [x / 2 for x in sequences])
    pipeline = Pipeline([("halve", halved), ("classify", small())])
    search = GridSearchCV(pipeline, {"classify__hidden": [2, 3]}, cv=2, error_score="raise", scoring="f1_macro")
    search.fit(X, np.array(y), classify__quiet=True)
    assert search.best_params_["classify__hidden"] in (2, 3)
    best = search.best_estimator_
    assert best.named_steps["classify"].classes_ == [0, 1]
    assert best.predict_proba(X).shape == (48, 2)
    assert set(best.predict(X)) <= {0, 1}


def test_clones_have_the_options_and_nothing_fitted() -> None:
    X, y = ragged()
    task = small(class_weight={0: 2.0}, codec={"missing": "mean"}, cell="gru").fit(X, y, quiet=True)
    again = clone(task)
    assert again.get_params() == task.get_params()
    assert not hasattr(again, "codec_")
    assert is_classifier(task)


@pytest.fixture(scope="module")
def rare() -> tuple[list[np.ndarray], list[str]]:
    """One class in ten, and weak evidence."""
    rng = np.random.default_rng(0)
    labels = ["rare" if k % 10 == 0 else "usual" for k in range(300)]
    return [rng.normal(0.5 if label == "rare" else 0.0, 1, (6, 1)) for label in labels], labels


class TestUnbalanced:
    def make(self, **options: Any) -> Classifier:
        return small(epochs=6, valid=0.3, **options)

    def test_weights(self, rare: Any) -> None:
        plain, balanced = self.make().fit(*rare, quiet=True), self.make(class_weight="balanced").fit(*rare, quiet=True)
        assert Counter(plain.predict(rare[0]))["rare"] < 30
        assert Counter(balanced.predict(rare[0]))["rare"] > 30
        weights = balanced.loss_weights([0] * 10 + [1] * 90)
        assert weights is not None
        assert_close(weights, [100 / 20, 100 / 180], FLOAT32)
        by_name = self.make(class_weight={"rare": 3}).fit(*rare, quiet=True).loss_weights([0, 1])
        assert by_name is not None
        assert by_name.tolist() == [3, 1]
        with pytest.raises(ValueError, match="class_weight: 'seldom' is none of the classes rare, usual"):
            self.make(class_weight={"seldom": 2.0}).fit(*rare, quiet=True)

    def test_a_threshold_is_kept_and_used(self, rare: Any, tmp_path: Path) -> None:
        task = self.make(threshold="f1", calibrate=True, bidirectional=False)
        task.fit(*rare, out=tmp_path / "run", quiet=True)
        probability = task.predict_proba(rare[0])[:, 0]
        assert task.classes_[task.positive_] == "rare"
        assert task.predict(rare[0]) == ["rare" if p >= task.threshold_ else "usual" for p in probability]
        assert Counter(task.predict(rare[0]))["rare"] > 30
        for again in (load(tmp_path / "run"), running.load(tmp_path / "run")):
            assert again.predict(rare[0]) == task.predict(rare[0])
            assert_close(again.predict_proba(rare[0]), task.predict_proba(rare[0]), FLOAT32)
        live = task.stream().push(rare[0][0])
        assert_close(live[-1], task.predict_proba(rare[0][:1])[0], FLOAT32)
        report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
        assert "expected calibration error" in report
        assert "Every class" in report
        assert f"rare from {task.threshold_:.3f} on" in report

    def test_a_threshold_is_for_two_classes(self, rare: Any) -> None:
        with pytest.raises(ValueError, match="threshold='f1' is for two classes; 3 came"):
            self.make(threshold="f1").fit(rare[0], [k % 3 for k in range(300)], quiet=True)


def test_the_temperature_is_that_of_validation() -> None:
    X, y = ragged()
    plain, task = (small(calibrate=calibrate, valid=0.3).fit(X, y, quiet=True) for calibrate in (False, True))
    valid = plain._parts["valid"]
    scores = plain._scores(valid.ids)
    assert plain.temperature_ == 1.0
    assert task.temperature_ == best_temperature(scores, np.array(valid.labels))
    assert_close(task.predict_proba(X), softmax(plain._scores(plain._encoded(X)) / task.temperature_), FLOAT32)
    assert task.predict(X) == plain.predict(X)
