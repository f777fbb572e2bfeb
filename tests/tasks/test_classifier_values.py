"""`Classifier` on sequences of values: signals in lists, arrays and files, live ones, and without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from everloop import Classifier, load
from everloop.data import vectors
from everloop.tasks import running
from everloop.tasks.classifier.network import ValuesClassifier
from everloop.tasks.classifier.signal_baselines import resampled, signal_baselines, warped_distances
from everloop.testing import FLOAT32, SAME, assert_close

Signals = tuple[list[np.ndarray], list[int]]


def waves(number: int, seed: int = 0, lengths: tuple[int, int] = (8, 14)) -> Signals:
    """Two channels, of which the first goes up in class 1 and down in class 0; the second is noise far from 0."""
    rng = np.random.default_rng(seed)
    found, labels = [], [k % 2 for k in range(number)]
    for label in labels:
        n = int(rng.integers(*lengths))
        slope = np.linspace(-1, 1, n) * (1 if label else -1)
        found.append(np.stack([slope + 0.2 * rng.normal(size=n), 100 + rng.normal(size=n)], 1))
    return found, labels


def small(**options: Any) -> Classifier:
    chosen = {"hidden": 6, "embedding": 5, "batch": 8, "epochs": 3, "lr": 0.02, "averaging": 0.0, "dropout": 0.1}
    return Classifier(**{**chosen, **options})


@pytest.fixture(scope="module")
def signals() -> Signals:
    return waves(60)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, signals: Signals) -> Callable[..., Path]:
    """The run folder of a classifier with these options, trained for a moment."""
    folder = tmp_path_factory.mktemp("signals")

    def make(**options: Any) -> Path:
        place = folder / "-".join(["trained", *(f"{name}.{value}" for name, value in options.items())])
        if not place.exists():
            small(**{"bidirectional": False, **options}).fit(*signals, out=place, quiet=True)
        return place

    return make


def test_learns_what_a_slope_tells(signals: Signals) -> None:
    task = small(epochs=8).fit(*signals, quiet=True)
    fresh, labels = waves(40, seed=1)
    assert task.score(fresh, labels) == 1.0
    assert task.classes_ == [0, 1]
    assert task.predict(fresh) == labels
    names = [name for name, _ in task.results_]
    assert names[1:3] == ["majority class", "nearest neighbour, dynamic time warping"]
    assert names[3].startswith("ridge regression on 1,000 random convolutions")


def test_what_was_decided_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    small(epochs=1).fit(*waves(40, lengths=(9, 10)))
    said = capsys.readouterr().err
    assert "arrays of one shape are taken as [T, F], 9 steps of 2 channels" in said
    assert "2 classes; 32 / 4 / 4 inputs (vectors) for training / validation / test" in said
    assert "vectors of 2 channels, standardised by 32 sequences of 288 steps" in said


def test_lists_and_arrays_of_either_layout_train_to_the_same(same: Callable[[Any, Any], bool]) -> None:
    sequences, labels = waves(40, lengths=(9, 10))
    expected = small(epochs=1).fit(sequences, labels, quiet=True)
    cube = np.stack([x.T for x in sequences])
    for data, options in (
        (cube, {}),
        ([x.T for x in sequences], {"layout": "channels-first"}),
        (np.stack(sequences), {"layout": "time-first"}),
        ([x.reshape(-1).tolist() for x in sequences], {"channels": 2}),
    ):
        found = small(epochs=1, **options).fit(data, labels, quiet=True)
        assert same(found, expected)
        assert found.predict(data) == expected.predict(sequences)
        assert found.score(data, labels) == expected.score(sequences, labels)
    assert expected.predict(cube) == expected.predict(sequences)


@pytest.mark.parametrize("labels", [["b", "a"], [7, 3], [True, False], [0.5, 1.5]])
def test_labels_come_back_as_they_came(signals: Signals, labels: list[Any], tmp_path: Path) -> None:
    given = [labels[k] for k in signals[1]]
    task = small(epochs=1).fit(signals[0], np.array(given), out=tmp_path / "run", quiet=True)
    assert task.classes_ == sorted(labels)
    assert {type(name) for name in task.predict(signals[0])} <= {type(labels[0])}
    assert task.score(signals[0], given) == load(tmp_path / "run").score(signals[0], np.array(given))


def test_a_table_and_its_predictions(signals: Signals, tmp_path: Path, everloop_command: Callable[..., Any]) -> None:
    rows = [f"{label},{','.join(map(str, x.reshape(-1)[:16]))}" for x, label in zip(*signals, strict=True)]
    (tmp_path / "tracks.csv").write_text("\n".join(rows))
    task = small(epochs=1, channels=2, split="blocks", gap=1).fit(
        tmp_path / "tracks.csv", modality="vectors", out=tmp_path / "run", quiet=True
    )
    assert task.classes_ == ["0", "1"]
    examples = task.read(tmp_path / "tracks.csv", modality="vectors")
    rows = list(task.predictions(examples))
    assert rows[4].keys() == {"row", "label", "probability"}
    assert rows[4]["row"] == 5
    assert [row["label"] for row in rows] == task.predict(examples.inputs)
    assert task.evaluate_examples(examples)["accuracy"] == task.score(examples.inputs, examples.targets)
    assert list(running.load(tmp_path / "run").predictions(examples)) == rows


def test_missing_values_and_constant_channels(signals: Signals) -> None:
    sequences = [np.concatenate([x, np.full((len(x), 1), 3.0)], 1) for x in signals[0]]
    sequences[7][2, 1] = np.nan
    with pytest.raises(ValueError, match=r"row \d+, step 3, channel 2: a missing value \(NaN\)"):
        small().fit(sequences, signals[1], quiet=True)
    task = small(epochs=1, codec={"missing": "previous"}).fit(sequences, signals[1], quiet=True)
    assert "1 channel constant; 1 missing value filled by the previous" in task.codec_.describe()
    assert np.isfinite(task.predict_proba(sequences)).all()


def test_other_modalities_have_no_stream(signals: Signals) -> None:
    task = small(epochs=1, bidirectional=False).fit(*signals, quiet=True)
    task.modality_ = "image"
    with pytest.raises(ValueError, match="a classifier of image cannot be streamed; those of texts and vectors can"):
        task.stream()


def test_drift_is_one_change_all_along_a_sequence_in_training_only(signals: Signals) -> None:
    network = small(drift=0.3).fit(*signals, quiet=True).network_.double()
    assert isinstance(network, ValuesClassifier)
    read: list[torch.Tensor] = []
    network.front.register_forward_pre_hook(lambda front, given: read.append(given[0]))
    steps = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 7, 2)))
    for training in (True, False):
        network.train(training)(steps, torch.full((5,), 7))
    changed, same = read
    assert torch.equal(same, steps)
    factor = (changed[:, 1:] - changed[:, :-1]) / (steps[:, 1:] - steps[:, :-1])
    assert_close(factor, factor[:, :1].expand_as(factor), SAME)
    assert len(set(factor[:, 0].flatten().tolist())) == 10, "every feature of every sequence has its own"


class TestWithoutTorch:
    @pytest.mark.parametrize(
        "options",
        [{}, {"context": 1}, {"bidirectional": True, "layers": 2}, {"pooling": "last", "cell": "gru"}],
        ids=str,
    )
    def test_probabilities_are_those_of_torch(self, trained: Any, signals: Signals, options: dict[str, Any]) -> None:
        folder = trained(**options)
        found, task = running.load(folder), load(folder)
        assert found.classes_ == task.classes_ == [0, 1]
        assert_close(found.predict_proba(signals[0]), task.predict_proba(signals[0]), FLOAT32)
        assert found.predict(signals[0]) == task.predict(signals[0])
        assert found.predict_proba([]).shape == (0, 2)

    @pytest.mark.parametrize("window", [1, 5])
    def test_a_stream_is_the_signal_so_far(self, trained: Any, signals: Signals, window: int) -> None:
        task, x = load(trained(context=window)), signals[0][0]
        expected = task.predict_proba([x[: k + 1] for k in range(len(x))])
        assert_close(task.stream().push(x), expected, FLOAT32)
        singly, cut = task.stream(), running.load(trained(context=window)).stream()
        assert_close(np.array([singly.push(step) for step in x]), expected, FLOAT32)
        assert_close(np.concatenate([cut.push(x[:3]), cut.push(x[3:])]), expected, FLOAT32)
        kept, fork = cut.snapshot(), cut.fork()
        again = task.stream()
        again.restore(kept)
        later = cut.push(x)
        assert (again.push(x) == later).all()
        assert (fork.push(x) == later).all()
        cut.reset()
        assert_close(cut.push(x), expected, FLOAT32)
        with pytest.raises(ValueError, match=r"push: shape \(3,\) came; expected values \[2\]"):
            cut.push([1, 2, 3])

    def test_missing_values_of_a_stream(self, trained: Any, signals: Signals) -> None:
        task = load(trained(codec={"missing": "previous"}))
        x = signals[0][0].copy()
        x[2:4, 0], x[0, 1] = np.nan, np.nan
        expected = task.predict_proba([x[: k + 1] for k in range(len(x))])
        stream = task.stream()
        assert_close(np.array([stream.push(step) for step in x]), expected, FLOAT32)

    def test_narrow_weights(self, trained: Any, signals: Signals) -> None:
        stream = load(trained()).stream("bfloat16")
        found = stream.push(signals[0][0])
        assert found.shape == (len(signals[0][0]), 2)
        assert stream.accuracy(signals[0][0]).largest > 0


class TestBaselines:
    def test_warped_distances_are_the_best_path(self) -> None:
        rng = np.random.default_rng(0)
        some, others = ([rng.normal(size=(n, 2)) for n in sizes] for sizes in ((3, 1, 5), (2, 4)))

        def best(x: np.ndarray, y: np.ndarray, i: int, j: int) -> float:
            here = ((x[i] - y[j]) ** 2).sum()
            if not i and not j:
                return here
            ways = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
            return here + min(best(x, y, a, b) for a, b in ways if a >= 0 and b >= 0)

        expected = [[best(x, y, len(x) - 1, len(y) - 1) for y in others] for x in some]
        assert_close(warped_distances(some, others), expected, FLOAT32)

    def test_resampling(self) -> None:
        found = resampled([np.array([[0.0], [2.0]]), np.array([[5.0]])], 3)
        assert_close(found[..., 0], [[0, 1, 2], [5, 5, 5]], SAME)

    def test_they_see_a_slope(self) -> None:
        train, labels = waves(60)
        test, truth = waves(30, seed=1)
        codec = vectors.VectorsCodec.fit(train)
        train, test = codec.encode_batch(train), codec.encode_batch(test)
        found = {one.name: one.metrics["accuracy"] for one in signal_baselines(train, labels, test, truth)}
        assert found["majority class"] == 0.5
        assert found["nearest neighbour, dynamic time warping"] >= 0.9
        assert found["ridge regression on 1,000 random convolutions"] >= 0.9


def test_real_tracks(shared_data: Path) -> None:
    """A slice of the tracks, by blocks: better than the majority after a moment."""
    rows = (shared_data / "gesture" / "point_history.csv").read_text().splitlines()
    values = np.array([row.split(",") for row in rows[::5]], dtype=float)
    task = Classifier(cell="gru", hidden=16, channels=2, epochs=2, split="blocks", gap=4)
    task.fit(list(values[:, 1:]), values[:, 0].astype(int), quiet=True)
    assert task.codec_.features == 2
    assert task.results_[0][1]["accuracy"] > task.results_[1][1]["accuracy"]
    assert isinstance(task.codec_, vectors.VectorsCodec)
