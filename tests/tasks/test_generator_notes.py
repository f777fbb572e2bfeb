"""`Generator` of music: what its loss is a sum of, what it is trained on, and that it writes pieces."""

from __future__ import annotations

import math
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch

from everloop import Generator, load
from everloop.data import notes
from everloop.data.files import read_examples
from everloop.data.notes import KEYS, Notes
from everloop.tasks import running
from everloop.tasks.generator import notes as generator_notes
from everloop.tasks.generator.notes import Chord
from everloop.tasks.generator.notes_baselines import notes_baselines
from everloop.testing import FLOAT32, SAME, assert_close

ROUND = Notes.of("C3 G3 E4 | C3 A3 F4 | - | G2 G3 D4 B4 | " * 4 + "C3", tempo=80, per_beat=1)


def pieces() -> list[Notes]:
    return [ROUND.transposed(by - 6) for by in range(12)] + [Notes(ROUND.roll[k:], 80, 1) for k in range(1, 9)]


def small(**options: object) -> Generator:
    chosen = {"hidden": 6, "embedding": 5, "epochs": 2, "batch": 4, "dropout": 0.0, "embedding_dropout": 0.0}
    return Generator(**(chosen | {"lr": 0.02} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["joint", "independent"])
def fitted(request: pytest.FixtureRequest) -> Generator:
    return small(chords=request.param).fit(pieces(), quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notes") / "run"
    small().fit(pieces(), out=folder, quiet=True)
    return folder


class TestLoss:
    def test_nats_of_a_step_summed_over_keys_the_first_after_silence(self, fitted):
        """By hand, step for step."""
        sound = torch.from_numpy(ROUND.roll.astype(np.float32))
        network = fitted.network_.eval()
        total = 0.0
        for step in range(len(sound)):
            before = torch.cat([torch.zeros(1, KEYS), sound[:step]])[None]
            with torch.no_grad():
                scores = network(before, sound[None, : step + 1], torch.tensor([step + 1]))[0, -1]
            p = torch.sigmoid(scores.double())
            total -= torch.where(sound[step] > 0, p, 1 - p).log().sum().item()
        assert_close(fitted.evaluate([ROUND])["loss"], total / len(sound), FLOAT32)

    def test_of_pieces_of_unequal_length_by_steps(self, fitted):
        short, long = Notes(ROUND.roll[:3]), ROUND
        each = [fitted.evaluate([piece]) for piece in (short, long)]
        both = fitted.evaluate([short, long])
        assert both["steps"] == 3 + len(ROUND)
        assert_close(both["loss"], sum(one["loss"] * one["steps"] for one in each) / both["steps"], FLOAT32)
        assert fitted.score([short, long]) == -both["loss"]

    def test_a_stream_finds_the_same(self, fitted):
        assert_close(fitted.stream().nats(ROUND.roll).mean(), fitted.evaluate([ROUND])["loss"], FLOAT32)


class TestChord:
    def test_a_key_depends_on_those_below_it_only(self):
        torch.manual_seed(0)
        chord, y = Chord(3), torch.randn(3)
        with torch.no_grad():
            chord.D.normal_()
        sound = (torch.rand(KEYS) < 0.3).float()
        plain = chord(y, sound)
        for key in (0, 1, 40, KEYS - 1):
            other = sound.clone()
            other[key] = 1 - other[key]
            changed = (chord(y, other) != plain).nonzero()[:, 0]
            assert changed.numel() == KEYS - 1 - key, "all above hear it"
            assert (changed > key).all()

    def test_the_chances_of_all_chords_are_one(self):
        """Of all that differ in the three highest keys, given the others."""
        torch.manual_seed(0)
        chord, y, sound = Chord(3), torch.randn(3), torch.zeros(KEYS)
        total = 0.0
        for top in product((0.0, 1.0), repeat=3):
            sound[-3:] = torch.tensor(top)
            p = torch.sigmoid(chord(y, sound).double())
            total += torch.where(sound > 0, p, 1 - p)[-3:].prod().item()
        assert_close(total, 1.0)

    def test_keys_are_drawn_as_often_as_they_are_probable(self, fitted, limits):
        stream, random = fitted.stream(ROUND), np.random.default_rng(0)
        chord = stream.model.chord
        drawn = np.array([chord.draw(stream._y, random, 1.0) for _ in range(400)])
        found = [chord._walk(stream._y, lambda key, score, row=row: row[key])[1] for row in drawn]
        expected = (1 / (1 + np.exp(-np.array(found)))).mean(0)
        # Of 400 draws; five standard deviations of the share of a key.
        assert (abs(drawn.mean(0) - expected) < limits.frequency * math.sqrt(4_000 / 400)).all()


class TestLearning:
    def test_a_round_is_learned(self):
        task = small(hidden=24, embedding=16, epochs=8, transpose=0).fit(pieces(), quiet=True)
        (_, own), *others = task.results_
        assert [name for name, _ in others] == ["how often each key sounds", "each key by whether it sounded before"]
        assert own["loss"] < min(metrics["loss"] for _, metrics in others)

    def test_chorales(self, shared_data):
        pytest.importorskip("scipy.io")
        examples = read_examples(shared_data / "music" / "JSB_Chorales.mat")
        some = examples.inputs[:40]
        task = small(hidden=48, embedding=32, epochs=4, lr=0.02).fit(some, quiet=True)
        (_, own), (_, frequent), _ = task.results_
        assert own["loss"] < frequent["loss"]

    def test_the_split_of_the_data_is_kept(self, fitted):
        examples = read_examples(pieces())
        parts = ["train"] * 10 + ["valid"] * 4 + ["test"] * 6
        task = small()
        task.device_, task.progress_ = torch.device("cpu"), fitted.progress_
        task.prepare(type(examples)(**{**examples.__dict__, "parts": parts}), task.progress_)
        assert [len(rolls) for rolls in task._writing.rolls.values()] == [10, 4, 6]
        assert (task._writing.rolls["test"][0] == pieces()[14].roll).all()

    def test_every_step_of_long_pieces_is_trained_on_once_after_the_one_before(self, fitted, monkeypatch):
        monkeypatch.setattr(generator_notes, "LONGEST", 5)
        problem, seen = fitted.problem(), []
        monkeypatch.setattr(generator_notes, "nats", lambda *given: seen.append(given) or torch.zeros(()))
        rolls = fitted._writing.rolls["train"]
        for batch in problem.batches(1):
            _, steps, _ = problem.loss(fitted.network_, batch, None)
            _, sound, before, lengths = seen.pop()
            assert steps == lengths.sum()
            for row, (k, begin, by) in enumerate(batch):
                whole = np.roll(np.pad(rolls[k], ((1, 0), (0, 0))), by, 1)
                end = begin + int(lengths[row])
                assert (sound[row, : end - begin].numpy() == whole[begin + 1 : end + 1]).all()
                assert (before[row, : end - begin].numpy() == whole[begin:end]).all()
        covered = sorted((k, begin) for batch in problem.batches(1) for k, begin, _ in batch)
        assert covered == [(k, begin) for k, roll in enumerate(rolls) for begin in range(0, len(roll), 5)]

    def test_pieces_move_within_the_piano(self):
        low = Notes.of("A0 C4 | B0 C4 | C1 E4 | D1 F4")
        task = small(epochs=1, transpose=12).fit([low.transposed(k) for k in range(12)], quiet=True)
        problem = task.problem()
        moves = {(k, by) for epoch in range(40) for batch in problem.batches(epoch) for k, _, by in batch}
        assert problem.batches(3) == problem.batches(3)
        for k, roll in enumerate(problem.rolls):
            lowest = np.flatnonzero(roll.any(0))[0]
            assert {by for place, by in moves if place == k} <= set(range(-lowest, 13))
        assert {by for _, by in moves} >= {-1, 0, 12}


class TestWriting:
    def test_a_piece_begins_with_its_prompt(self, fitted):
        piece = fitted.generate("C3 G3 E4 | -", length=9, seed=1)
        assert isinstance(piece, Notes)
        assert str(piece).startswith("C3 G3 E4 | - | ")
        assert (len(piece), piece.tempo, piece.per_beat) == (11, 80.0, 1)
        again = fitted.generate(Notes.of("C3 G3 E4 | -"), length=9, seed=1)
        assert (again.roll == piece.roll).all()
        assert (fitted.generate("C3 G3 E4 | -", length=9, seed=2).roll != piece.roll).any()
        assert len(fitted.generate(length=3)) == 3

    def test_from_a_file_to_a_file(self, fitted, tmp_path):
        pytest.importorskip("mido")
        notes.save(ROUND, tmp_path / "first.mid")
        piece = fitted.generate(str(tmp_path / "first.mid"), length=5, seed=0)
        assert (piece.roll[: len(ROUND)] == ROUND.roll).all()
        notes.save(piece, tmp_path / "song.mid")
        sounding = piece.roll[: 1 + np.flatnonzero(piece.roll.any(1))[-1]]
        assert (notes.load(tmp_path / "song.mid", 1).roll == sounding).all()

    def test_step_by_step(self, fitted):
        stream = fitted.stream("C3", length=8, seed=3)
        rows = [*islice(stream, 5)]
        assert (np.array(rows) == fitted.generate("C3", length=5, seed=3).roll[1:]).all()
        stream.push(ROUND.roll)
        again = fitted.stream(np.concatenate([Notes.of("C3").roll, *(row[None] for row in rows), ROUND.roll]))
        assert_close(stream._y, again._y, FLOAT32)

    def test_snapshots_and_forks(self, fitted):
        stream, other = fitted.stream("C3 G3 E4", length=6, seed=1), fitted.stream(length=6, seed=1)
        other.restore(stream.snapshot())
        fork = stream.fork()
        written = [np.array([*one]) for one in (stream, other, fork)]
        assert (written[0] == written[1]).all()
        assert (written[0] == written[2]).all()
        stream.push("C4 | E4")
        fork.push(Notes.of("C4 | E4"))
        assert_close(stream._y, fork._y, FLOAT32)

    def test_without_chance(self, fitted):
        first, second = (fitted.generate("C3", length=20, temperature=0) for _ in range(2))
        assert (first.roll == second.roll).all()

    def test_several_at_once(self, fitted):
        prompts = ["C3 G3 E4", "", ROUND]
        together = fitted.generate_batch(prompts, length=7, seed=4)
        alone = [fitted.generate(prompt, length=7, seed=4 + k) for k, prompt in enumerate(prompts)]
        assert [str(piece) for piece in together] == [str(piece) for piece in alone]
        assert fitted.generate_batch([], length=7) == []

    def test_impossible_options(self, fitted):
        with pytest.raises(ValueError, match="length: -1 came"):
            fitted.generate(length=-1)
        with pytest.raises(ValueError, match="temperature: nan came"):
            fitted.generate(temperature=math.nan)
        with pytest.raises(TypeError, match="top_k"):
            fitted.generate(top_k=3)

    def test_after_loading_with_and_without_torch(self, run):
        task, alone = load(run), running.load(run)
        piece = task.generate("C3 G3", length=6, seed=5)
        assert str(alone.generate("C3 G3", length=6, seed=5)) == str(piece)
        assert task.evaluate_examples(read_examples([ROUND])) == task.evaluate([ROUND])
        (row,) = task.predictions(read_examples([ROUND]))
        assert row["text"].startswith(row["prompt"])
        report = (run / "report.html").read_text(encoding="utf-8")
        assert "<svg" in report
        assert "Generated from the first chord of a test piece" in report

    def test_other_sequences_are_refused(self):
        with pytest.raises(ValueError, match="a generator writes text or notes"):
            small().prepare(read_examples([np.zeros((5, 2))] * 4, modality="vectors"), None)  # type: ignore[arg-type]


class TestBaselines:
    def test_by_counting(self):
        train = [np.array([[1, 0], [1, 1], [0, 1]], float), np.array([[0, 0], [1, 0]], float)]
        test = [np.array([[1, 0], [1, 0], [0, 1]], float)]
        frequent, given = notes_baselines(train, test)
        p = np.array([3.5 / 6, 2.5 / 6])
        steps = np.where(test[0] == 1, p, 1 - p)
        assert_close(frequent.metrics["loss"], -np.log(steps).sum() / 3, SAME)
        # Key 0 sounded after silence in 2 of 3 steps, after itself in 1 of 2; key 1 in 1 of 4 and 1 of 1.
        after_silence, after_itself = np.array([2.5 / 4, 1.5 / 5]), np.array([1.5 / 3, 1.5 / 2])
        before = np.array([[0, 0], [1, 0], [1, 0]])
        p = np.where(before == 1, after_itself, after_silence)
        steps = np.where(test[0] == 1, p, 1 - p)
        assert_close(given.metrics["loss"], -np.log(steps).sum() / 3, SAME)
