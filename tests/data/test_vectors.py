"""Vectors: sequences of numbers from lists, arrays, files and tables, and their codec."""

from __future__ import annotations

import json

import numpy as np
import pytest

from everloop.data import codecs
from everloop.data.files import read_examples
from everloop.data.vectors import VectorsCodec, arranged
from everloop.testing import FLOAT32, assert_close

TS = """#a comment
@problemName toy
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
1,2,3:4,5,6:up
1,?:0,1:down
"""


def shapes(arrays):
    return [array.shape for array in arrays]


class TestLists:
    def test_one_and_two_axes(self):
        examples = read_examples(([[1, 2, 3], [4.5, 5]], ["a", "b"]))
        assert examples.modality == "vectors"
        assert examples.targets == ["a", "b"]
        assert shapes(arranged(examples.inputs)[0]) == [(3, 1), (2, 1)]
        examples = read_examples(([np.zeros((3, 2)), np.ones((5, 2))], [0, 1]))
        assert shapes(arranged(examples.inputs)[0]) == [(3, 2), (5, 2)]

    def test_arrays_of_two_axes_are_univariate(self):
        examples = read_examples((np.arange(12.0).reshape(4, 3), list("abab")))
        assert shapes(arranged(examples.inputs)[0]) == [(3, 1)] * 4

    def test_what_is_no_sequence_is_named_or_skipped(self):
        data = ([[1.0, 2.0], [[1.0], [1.0, 2.0]], [3.0]], ["a", "b", "a"])
        with pytest.raises(ValueError, match="lists, row 2: a list came that is no array of numbers"):
            read_examples(data)
        examples = read_examples(data, bad_rows="skip")
        assert examples.targets == ["a", "a"]
        assert examples.rows == [1, 3]
        assert "1 unreadable row left out" in examples.notes[0]

    @pytest.mark.parametrize(
        ("value", "words"),
        [([], "an empty sequence"), (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"), (["x"], "a list came that is no")],
    )
    def test_refusals(self, value, words):
        with pytest.raises(ValueError, match=words):
            arranged([value])


class TestLayouts:
    def test_unequal_lengths_tell_which_axis_is_time(self):
        found, note = arranged([np.zeros((2, 5)), np.zeros((2, 7))])
        assert shapes(found) == [(5, 2), (7, 2)]
        assert note == "sequences of unequal length with 2 channels, as [C, T]"
        found, note = arranged([np.zeros((5, 2)), np.zeros((7, 2))])
        assert shapes(found) == [(5, 2), (7, 2)]
        assert note.endswith("as [T, F]")

    def test_equal_lengths_are_announced(self):
        equal = [np.arange(6.0).reshape(2, 3)] * 4
        found, note = arranged(equal)
        assert shapes(found) == [(2, 3)] * 4
        assert "taken as [T, F], 2 steps of 3 channels; if their last axis is time: layout='channels-first'" in note
        found, note = arranged(equal, cube=True)
        assert found[0].tolist() == [[0, 3], [1, 4], [2, 5]]
        assert "taken as [N, C, T], 2 channels and 3 steps; if its last axis holds the channels" in note
        assert shapes(arranged(equal, "channels-first")[0]) == [(3, 2)] * 4
        assert shapes(arranged(equal, "time-first", cube=True)[0]) == [(2, 3)] * 4

    def test_the_channels_of_a_model_decide(self):
        equal = [np.zeros((2, 3))] * 4
        assert shapes(arranged(equal, features=2)[0]) == [(3, 2)] * 4
        assert shapes(arranged(equal, features=3)[0]) == [(2, 3)] * 4
        with pytest.raises(ValueError, match="row 1: 3 channels came, expected 7, as the model was trained with"):
            arranged(equal, features=7)

    def test_flat_sequences_are_folded(self):
        found, _ = arranged([[1, 2, 3, 4], [5, 6]], channels=2)
        assert [array.tolist() for array in found] == [[[1, 2], [3, 4]], [[5, 6]]]
        with pytest.raises(ValueError, match="row 1: 3 numbers came; with channels=2 their number must be a multiple"):
            arranged([[1, 2, 3]], channels=2)
        with pytest.raises(ValueError, match=r"channels=2 came with arrays \[T, F\]"):
            arranged([np.zeros((3, 2))], channels=2)


class TestFiles:
    def test_ts(self, tmp_path):
        (tmp_path / "toy.ts").write_text(TS)
        examples = read_examples(tmp_path / "toy.ts")
        assert examples.targets == ["up", "down"]
        assert examples.rows == [9, 10]
        assert examples.inputs[0].tolist() == [[1, 4], [2, 5], [3, 6]]
        assert np.isnan(examples.inputs[1][1, 0])

    @pytest.mark.parametrize(
        ("before", "after", "words"),
        [
            ("@data\n", "", "'1,2,3:4,5,6:up' came before @data"),
            ("4,5,6:", "4,5:", "row 9: channels of 2 and 3 steps came"),
            ("1,2,3:", "", r"row 9: 1 channel came, expected 2 \(@dimensions\)"),
            ("4,5,6", "4,x,6", "row 9: channel 2: could not convert"),
            ("@timeStamps false", "@timeStamps true", "its values have time stamps"),
            ("@classLabel true up down", "@targetLabel true", "its targets are numbers to be estimated"),
        ],
    )
    def test_damaged_ts(self, tmp_path, before, after, words):
        (tmp_path / "toy.ts").write_text(TS.replace(before, after))
        with pytest.raises(ValueError, match=words):
            read_examples(tmp_path / "toy.ts")

    def test_a_pair_is_a_split(self, tmp_path):
        folder = tmp_path / "toy"
        folder.mkdir()
        for name in ("toy_TRAIN", "toy_TEST", "toy_eq_TRAIN", "toy_eq_TEST"):
            (folder / f"{name}.ts").write_text(TS)
        examples = read_examples(folder)
        assert examples.parts == ["train", "train", "test", "test"]
        assert examples.notes == (
            "split as it comes: toy_TRAIN.ts (train, 2), toy_TEST.ts (test, 2)",
            "2 other .ts files left out",
        )

    def test_npz(self, tmp_path):
        X, y = np.arange(24.0).reshape(4, 2, 3), np.array([0, 1, 0, 1])
        np.savez(tmp_path / "one.npz", X=X, y=y)
        examples = read_examples(tmp_path / "one.npz")
        assert examples.targets == ["0", "1", "0", "1"]
        assert examples.inputs[0].tolist() == [[0, 3], [1, 4], [2, 5]]
        np.savez(tmp_path / "parts.npz", x=X[:, 0], y=y, x_test=X[:1, 0], y_test=y[:1])
        examples = read_examples(tmp_path / "parts.npz")
        assert examples.parts == ["train"] * 4 + ["test"]
        assert examples.inputs[4].tolist() == [[0], [1], [2]]
        np.savez(tmp_path / "ragged.npz", X=np.arange(6.0).reshape(3, 2), lengths=np.array([1, 2]), y=y[:2])
        assert shapes(read_examples(tmp_path / "ragged.npz").inputs) == [(1, 2), (2, 2)]
        np.savez(tmp_path / "other.npz", a=X)
        with pytest.raises(ValueError, match='holds "a"; expected X and y'):
            read_examples(tmp_path / "other.npz")
        np.savez(tmp_path / "objects.npz", X=np.array([{}], dtype=object))
        with pytest.raises(ValueError, match=r"cannot be read as \.npz of plain arrays"):
            read_examples(tmp_path / "objects.npz")


class TestTables:
    def test_wide(self, tmp_path):
        rows = [f"{k % 3},{k},{k + 1},{k + 2}," + ("" if k % 2 else str(k + 3)) for k in range(12)]
        (tmp_path / "wide.csv").write_text("\n".join(rows))
        examples = read_examples(tmp_path / "wide.csv", modality="vectors")
        assert examples.modality == "vectors"
        assert examples.targets == [str(k % 3) for k in range(12)]
        assert examples.inputs[1].tolist() == [1, 2, 3]
        assert examples.inputs[2].tolist() == [2, 3, 4, 5]
        assert any('target column "1" (3 different values)' in note for note in examples.notes)
        assert any("one sequence a row, of 3 to 4 numbers" in note for note in examples.notes)

    def test_labels_are_no_values_where_none_are_wanted(self):
        table = {"v1": [1, 2, 3, 4], "v2": [5, 6, 7, 8], "label": ["a", "b", "a", "b"]}
        examples = read_examples(table, modality="vectors", want_target="no")
        assert examples.targets is None
        assert examples.inputs[3].tolist() == [4, 8]

    def test_long(self):
        table = {
            "id": ["a", "a", "b", "b", "b"],
            "time": [2, 1, 1, 2, 3],
            "x": [20.0, 10.0, 1.0, None, 3.0],
            "y": [2, 1, 4, 5, 6],
            "label": ["p", "p", "q", "q", "q"],
        }
        examples = read_examples(table, modality="vectors")
        assert examples.targets == ["p", "q"]
        assert examples.inputs[0].tolist() == [[10, 1], [20, 2]]
        assert np.isnan(examples.inputs[1][1, 0])
        assert examples.rows == [1, 3]
        assert read_examples(table, modality="vectors", input="y", target="label").inputs[0].tolist() == [[1], [2]]
        twice = table | {"time": [1, 1, 1, 2, 3]}
        with pytest.raises(ValueError, match=r"id 'a': column .time. holds 1\.0 twice"):
            read_examples(twice, modality="vectors")
        changing = table | {"label": ["p", "q", "q", "q", "q"]}
        with pytest.raises(ValueError, match="the rows of id 'a' have 2 different values in column \"label\""):
            read_examples(changing, modality="vectors")

    def test_parts_and_groups(self):
        table = {"v1": list(range(6)), "v2": list(range(6)), "label": list("ababab")}
        table |= {"p": ["train"] * 5 + ["test"], "g": list("xxyyzz")}
        examples = read_examples(table, modality="vectors", part="p", group="g")
        assert examples.parts == ["train"] * 5 + ["test"]
        assert examples.groups == list("xxyyzz")
        assert shapes(examples.inputs) == [(2,)] * 6

    def test_texts_are_refused_by_name(self):
        table = {"v1": [1, "x"], "v2": [3, 4], "label": ["a", "b"]}
        with pytest.raises(ValueError, match="row 2: column \"v1\" holds 'x'; expected a number"):
            read_examples(table, modality="vectors")


class TestCodec:
    def test_standardises_by_training(self):
        rng = np.random.default_rng(0)
        train = [rng.normal([5, -2], [2, 0.1], (n, 2)) for n in (3, 50, 200)]
        codec = VectorsCodec.fit(train)
        assert codec.features == 2
        steps = np.concatenate(codec.encode_batch(train))
        assert steps.dtype == np.float32
        assert_close(steps.mean(0), np.zeros(2), FLOAT32)
        assert_close(steps.std(0), np.ones(2), FLOAT32)
        assert codec.describe() == "vectors of 2 channels, standardised by 3 sequences of 253 steps"

    def test_constant_channels(self):
        codec = VectorsCodec.fit([[[1e6 + 0.1, 2], [1e6 + 0.1, 3]]])
        assert codec.describe().endswith("1 channel constant")
        assert codec.encode([[1e6 + 0.1, 2.5]])[0].tolist() == [0, 0]

    def test_missing_values(self):
        nan = float("nan")
        train = [[[1.0, nan], [3.0, 5.0], [nan, nan], [nan, 7.0]]]
        with pytest.raises(ValueError, match=r"row 1, step 1, channel 2: a missing value \(NaN\); expected numbers; "):
            VectorsCodec.fit(train)
        previous = VectorsCodec.fit(train, missing="previous")
        assert "4 missing values filled by the previous" in previous.describe()
        raw = previous.encode_batch(train)[0] * previous.scale + previous.mean
        assert_close(raw, [[1, 6], [3, 5], [3, 5], [3, 7]], FLOAT32)
        mean = VectorsCodec.fit(train, missing="mean")
        raw = mean.encode_batch(train)[0] * mean.scale + mean.mean
        assert_close(raw, [[1, 6], [3, 5], [2, 6], [2, 7]], FLOAT32)
        with pytest.raises(ValueError, match="row 2, step 1, channel 1: an infinite value"):
            VectorsCodec.fit([[1.0], [float("inf")]], missing="mean")

    def test_json(self):
        codec = VectorsCodec.fit([[[1.0, 2.0], [3.0, 5.0]]], missing="mean")
        again = codecs.from_json(codec.to_json())
        assert isinstance(again, VectorsCodec)
        assert again.describe() == codec.describe()
        assert (again.encode([[4, 4]]) == codec.encode([[4, 4]])).all()
        facts = json.loads(codec.to_json())
        for damaged in (facts | {"scale": [1.0]}, facts | {"scale": [0.0, 1.0]}, {"modality": "vectors"}):
            with pytest.raises(ValueError, match="this is no codec of vectors"):
                codecs.from_json(json.dumps(damaged))

    def test_other_channels_are_refused(self):
        with pytest.raises(ValueError, match="row 1: 1 channel came, expected 2, as the model was trained with"):
            VectorsCodec.fit([[[1.0, 2.0], [2.0, 1.0]]]).encode([1.0, 2.0])


def test_real_tracks(shared_data):
    examples = read_examples(shared_data / "gesture" / "point_history.csv", modality="vectors")
    assert len(examples) == 5_296
    assert sorted(set(examples.targets)) == ["0", "1", "2", "3"]
    assert shapes(arranged(examples.inputs[:2], channels=2)[0]) == [(16, 2)] * 2
