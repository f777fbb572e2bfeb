"""`Recognizer`: what it takes, that it learns, what it refuses, that a run goes on where it stopped."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from everloop.data.audio import Waveform, save
from everloop.data.sets.spoken_digits import write_digit_strings
from everloop.nn import Recurrent
from everloop.tasks.edits import Edits, character_error_rate, edits, word_error_rate
from everloop.tasks.recognizer.baselines import recognizer_baselines
from everloop.tasks.recognizer.markov import Markov, cepstra
from everloop.tasks.recognizer.task import Recognizer, spoken
from everloop.tasks.recognizer.training import BLANK, SpeechNetwork
from everloop.tasks.run import Run
from everloop.testing import FLOAT32, SAME, assert_close

pytest.importorskip("soxr", reason="soxr is an extra")

PITCHES = {"low": 300, "middle": 800, "high": 2_000}
RATE = 8_000


def say(words: list[str], rng: np.random.Generator) -> Waveform:
    """Every word a tone of its own, with noise around and between."""
    parts = [np.zeros(400)]
    for word in words:
        steps = np.arange(int(rng.uniform(0.12, 0.2) * RATE)) / RATE
        parts += [0.3 * np.sin(2 * np.pi * PITCHES[word] * rng.uniform(0.95, 1.05) * steps), np.zeros(400)]
    samples = np.concatenate(parts)
    return Waveform((samples + 0.003 * rng.standard_normal(len(samples))).astype(np.float32), RATE)


@pytest.fixture(scope="module")
def sounds() -> tuple[list[Waveform], list[str]]:
    rng = np.random.default_rng(0)
    texts = [list(rng.choice(list(PITCHES), rng.integers(1, 5))) for _ in range(80)]
    return [say(words, rng) for words in texts], [" ".join(words) for words in texts]


@pytest.fixture
def small() -> Callable[..., Recognizer]:
    def make(**options: Any) -> Recognizer:
        return Recognizer(
            **{"hidden": 12, "channels": 12, "epochs": 2, "lr": 0.02, "bands": 16, "flat_start": 0.0} | options
        )

    return make


@pytest.fixture(scope="module")
def learned(sounds) -> Recognizer:
    options = {"hidden": 16, "channels": 16, "epochs": 14, "lr": 0.02, "bands": 16, "warp": 0.0, "flat_start": 0.4}
    return Recognizer(**options, dropout=0.1).fit(*sounds, quiet=True)


class TestLearns:
    def test_what_is_said(self, learned):
        wer = dict(learned.results_)["gru (recognizer)"]["wer"]
        assert wer < 0.05
        assert learned.unit_ == "words"
        rng = np.random.default_rng(7)
        said = [["high", "high", "low"], ["middle"]]
        assert learned.predict([say(words, rng) for words in said]) == [" ".join(words) for words in said]
        assert learned.predict(say(["low"], rng)) == ["low"]
        assert learned.predict([]) == []

    def test_when_it_is_said(self, learned):
        found = learned.align(say(["low", "high"], np.random.default_rng(1)))
        assert [one.text for one in found] == ["low", "high"]
        assert 0.03 < found[0].begin < found[0].end <= 0.3 < found[1].begin + 0.1
        given = learned.align(say(["low", "high"], np.random.default_rng(1)), "Low, high!")
        assert given == found

    def test_evaluate_and_score(self, learned):
        rng = np.random.default_rng(2)
        said = [say(["low"], rng), say(["high", "low"], rng)]
        found = learned.evaluate(said, ["low", "high middle"])
        assert_close(found["wer"], 1 / 3, SAME)
        assert_close(learned.score(said, ["low", "high middle"]), 2 / 3, SAME)
        with pytest.raises(ValueError, match="2 recordings and 1 texts came"):
            learned.evaluate(said, ["low"])

    def test_probabilities_are_some(self, learned):
        (scores,) = learned.log_probabilities([say(["low"], np.random.default_rng(3))])
        assert_close(np.exp(scores).sum(1), np.ones(len(scores)), FLOAT32)

    def test_keeps_and_loads(self, learned, tmp_path):
        run = learned.save(tmp_path / "run")
        found = Recognizer.from_run(Run.open(run))
        said = say(["middle", "low"], np.random.default_rng(4))
        assert found.predict([said]) == learned.predict([said])
        assert np.array_equal(found.log_probabilities([said])[0], learned.log_probabilities([said])[0])
        assert "hidden Markov model" in (run / "report.html").read_text()

    def test_letters_too(self, small, sounds):
        task = small(unit="chars", stride=1, epochs=1).fit(*sounds, quiet=True)
        assert task.unit_ == "chars"
        assert set(task.target_codec_.decode(range(3, len(task.target_codec_)))) == set("low middle high")


class TestData:
    def test_a_table_a_folder_and_lists_train_to_the_same(self, small, sounds, tmp_path, same):
        waveforms, texts = sounds[0][:40], sounds[1][:40]
        (tmp_path / "clips").mkdir()
        rows = []
        for number, (sound, text) in enumerate(zip(waveforms, texts, strict=True)):
            save(sound, tmp_path / "clips" / f"{number:02d}.wav")
            (tmp_path / "clips" / f"{number:02d}.txt").write_text(text)
            rows.append((f"clips/{number:02d}.wav", text))
        with (tmp_path / "table.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("audio", "text"), *rows])
        paths = [tmp_path / name for name, _ in rows]
        expected = small(epochs=1).fit(paths, texts, quiet=True)
        assert same(small(epochs=1).fit(tmp_path / "clips", quiet=True), expected)
        table = small(epochs=1).fit(tmp_path / "table.csv", input="audio", target="text", quiet=True)
        assert same(table, expected)
        examples = table.read(tmp_path / "table.csv", input="audio", target="text")
        assert [row["prediction"] for row in table.predictions(examples)] == table.predict(paths)
        assert table.evaluate_examples(examples) == table.evaluate(paths, texts)

    def test_parts_and_speakers(self, small, shared_data, tmp_path):
        recordings = shared_data / "fsdd" / "recordings"
        if not recordings.is_dir():
            pytest.skip(f"spoken digits are not here: {recordings} does not exist")
        table = write_digit_strings(recordings, tmp_path, unknown="theo", train=20, valid=5, test=4)
        task = small(epochs=1).fit(table, input="audio", target="text", part="part", group="speaker", quiet=True)
        assert [len(task._parts[part].texts) for part in ("train", "valid", "test")] == [20, 5, 4]
        assert all("-theo" in str(path) for path in task._parts["test"].sounds)
        assert not any("-theo" in str(path) for path in task._parts["train"].sounds)
        again = write_digit_strings(recordings, tmp_path / "again", unknown="theo", train=20, valid=5, test=4)
        assert again.read_text() == table.read_text()
        assert (tmp_path / "again/audio/test-00001-theo.wav").read_bytes() == task._parts["test"].sounds[1].read_bytes()
        with pytest.raises(ValueError, match=r"no speaker 'anna'.*george, jackson"):
            write_digit_strings(recordings, tmp_path, unknown="anna")

    def test_recordings_that_cannot_be_used_are_named_or_left_out(self, small, sounds, capsys):
        waveforms, texts = list(sounds[0][:30]), list(sounds[1][:30])
        waveforms[3], texts[5] = Waveform(np.zeros(0, np.float32), RATE), "?!"
        with pytest.raises(
            ValueError, match=r"row 4: empty; expected 0\.025 s or more; leave it out, or --bad-rows skip"
        ):
            small().fit(waveforms, texts, quiet=True)
        waveforms[7] = Waveform(np.zeros(4_000, np.float32), RATE)
        task = small(epochs=1).fit(waveforms, texts, bad_rows="skip")
        assert sum(len(part.texts) for part in task._parts.values()) == 28
        said = " ".join(capsys.readouterr().err.split())
        assert "2 sounds left out: row 4: empty" in said
        assert "1 sound silent: row 8" in said

    def test_a_text_too_long_for_its_recording_is_refused(self, small, sounds):
        texts = list(sounds[1])
        longest = small().fit(*sounds, quiet=True)._parts["train"]
        place = next(k for k, sound in enumerate(sounds[0]) if sound is longest.sounds[0])
        texts[place] = "low " * 60
        with pytest.raises(
            ValueError, match=rf"row {place + 1}: .* s of sound are \d+ steps, and its text of 60 words"
        ):
            small().fit(sounds[0], texts, quiet=True)

    def test_texts_as_they_are_said(self):
        assert spoken("Don’t  stop,\nMr. O'Neil -- at 9:30!") == "don't stop mr o'neil at 9 30"
        assert spoken("'Ça va?'") == "ça va"
        assert spoken("…") == ""


class TestTraining:
    def test_a_resumed_run_goes_on_to_the_same(self, small, sounds, tmp_path, at_update, same):
        whole = small(epochs=2).fit(*sounds, quiet=True)
        with at_update(Recognizer, 12, lambda: signal.raise_signal(signal.SIGINT)):
            stopped = small(epochs=2).fit(*sounds, out=tmp_path / "run", quiet=True)
        assert stopped.outcome_.status == "interrupted"
        assert same(small(epochs=2).fit(*sounds, out=tmp_path / "run", resume=True, quiet=True), whole)

    def test_the_loss_is_torchs_per_label(self, small, sounds):
        task = small(dropout=0.0, speed=0.0, warp=0.0, noise=0.0, mask_bands=0, mask_steps=0)
        task.fit(*sounds, quiet=True)
        problem = task.problem()
        loss, count, _ = problem.loss(task.network_, [(1, k) for k in range(4)], None)
        scores = task.log_probabilities(problem.train.sounds[:4])
        labels = [torch.from_numpy(of) for of in problem.train.labels[:4]]
        each = [
            F.ctc_loss(torch.from_numpy(of), text, torch.tensor(len(of)), torch.tensor(len(text)), BLANK, "sum")
            for of, text in zip(scores, labels, strict=True)
        ]
        assert count == sum(map(len, labels))
        assert_close(loss, sum(each) / count, FLOAT32)

    def test_padding_says_nothing(self):
        torch.manual_seed(0)
        network = SpeechNetwork(Recurrent("gru", 6, 5, bidirectional=True), features=9, stride=3, labels=4, dropout=0.0)
        short, long = torch.randn(1, 14, 9), torch.randn(1, 31, 9)
        both = torch.zeros(2, 31, 9)
        both[0, :14], both[1] = short[0], long[0]
        scores, steps = network(both, torch.tensor([14, 31]))
        assert steps.tolist() == [5, 11]
        alone, _ = network(short, torch.tensor([14]))
        assert_close(scores[0, :5], alone[0], FLOAT32)

    def test_any_cell_in_one_direction(self, small, sounds):
        task = small(cell="mingru", bidirectional=False, epochs=1).fit(*sounds, quiet=True)
        assert not task.codec_.centre
        assert len(task.predict(sounds[0][:3])) == 3


class TestEdits:
    def test_kinds_of_changes(self):
        assert edits("kitten", "sitting") == Edits(2, 0, 1, 7)
        assert edits("", "ab") == Edits(0, 0, 2, 2)
        assert edits("abc", "") == Edits(0, 3, 0, 0)

    def test_rates_are_jiwers(self):
        jiwer = pytest.importorskip("jiwer", reason="jiwer is an extra")
        rng = np.random.default_rng(0)
        for _ in range(50):
            came, expected = (
                [" ".join(rng.choice(["a", "bb", "c"], rng.integers(1, 8))) for _ in range(3)] for _ in range(2)
            )
            assert_close(word_error_rate(came, expected), jiwer.wer(expected, came), SAME)
            assert_close(character_error_rate(came, expected), jiwer.cer(expected, came), SAME)

    def test_nothing_expected_has_no_rate(self):
        with pytest.raises(ValueError, match="all empty"):
            word_error_rate(["a"], [""])


class TestMarkov:
    @pytest.fixture
    def values(self) -> tuple[list[np.ndarray], list[list[int]]]:
        """Features of texts of three labels: 20 frames for each, and 8 of silence before, between and after."""
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((4, 20))

        def record(labels: list[int]) -> np.ndarray:
            runs = [np.repeat(centres[[0]], 8, 0)]
            runs += [run for label in labels for run in (np.repeat(centres[[label]], 20, 0), runs[0])]
            whole = np.concatenate(runs)
            return (3 * whole + 0.3 * rng.standard_normal(whole.shape)).astype(np.float32)

        texts = [rng.integers(1, 4, rng.integers(1, 5)).tolist() for _ in range(60)]
        return [record(labels) for labels in texts], texts

    def test_knows_where_labels_lie(self, values):
        known, texts = [cepstra(of) for of in values[0]], values[1]
        model = Markov.fit(known, texts)
        for of, text in zip(known, texts, strict=True):
            starts = 8 + 28 * np.arange(len(text))
            expected = np.stack([starts, starts + 20], 1)
            # The slopes of neighbouring frames blur an edge by two.
            assert np.abs(model.spans(of, text) * len(of) - expected).max() <= 2
        assert_close(model.spans(known[0], [9, 1]), [[0, 0.5], [0.5, 1]])
        assert_close(model.spans(known[0][:3], [1, 2, 3]), [[0, 1 / 3], [1 / 3, 2 / 3], [2 / 3, 1]])

    def test_as_a_baseline(self, values):
        values, texts = values

        def decode(labels):
            return " ".join("xabc"[label] for label in labels)

        expected = [decode(labels) for labels in texts]
        counted, markov = recognizer_baselines(values[:40], texts[:40], values[40:], expected[40:], decode=decode)
        assert markov.metrics["wer"] < 0.05 < counted.metrics["wer"]
        assert counted.name == "most frequent label at each place"
