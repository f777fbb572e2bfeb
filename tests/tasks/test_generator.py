"""`Generator` as a Python class: that it learns, writes, and carries its state from window to window."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from everloop import Generator, load
from everloop.tasks import running
from everloop.tasks.generator.text import Rivals
from everloop.tasks.running.generator import draw
from everloop.testing import FLOAT32, assert_close

TEXTS = [f"the {a} {b}" for a in ("cat", "dog", "cow", "hen") for b in ("sat", "ran", "ate", "slept", "sang")]


@pytest.fixture(scope="module")
def learned(letters: str) -> Generator:
    task = Generator(hidden=16, embedding=8, batch=4, window=16, epochs=12, lr=0.05, dropout=0.0, embedding_dropout=0.0)
    return task.fit([letters], quiet=True)


@pytest.fixture(scope="module")
def writer() -> Generator:
    """One that ends its texts, trained for a moment: its probabilities are far from 0 and 1."""
    return Generator(hidden=4, embedding=4, batch=2, window=8, epochs=2, valid=0.1).fit(TEXTS, quiet=True)


class TestLearning:
    def test_a_text_that_repeats_itself(self, learned, limits):
        (_, own), (baseline, other) = learned.results_
        assert own["loss"] < limits.learned_loss
        assert own["perplexity"] == pytest.approx(math.exp(own["loss"]))
        assert baseline.endswith("-gram, Kneser-Ney")
        assert other["perplexity"] == pytest.approx(math.exp(other["loss"]))
        assert learned.generate("ab", length=7, temperature=0) == "abcabcabc"
        assert learned.generate("ca", length=60, seed=0) == "ca" + "bca" * 20
        assert learned.score("abcabc") == -learned.evaluate("abcabc")["loss"]

    def test_documents_end(self, writer):
        assert writer.ends_
        end = writer.codec_.end
        assert (writer._writing.ids["train"] == end).sum() == len(writer._writing.documents["train"]) == 16
        assert writer._writing.ids["test"][-1] == end
        longest = max(map(len, TEXTS))
        texts = [writer.generate(length=10 * longest, seed=seed) for seed in range(30)]
        assert any(len(text) < 10 * longest for text in texts), "some end by themselves"

    def test_one_text_does_not(self, learned):
        assert not learned.ends_
        assert learned.codec_.end not in learned._writing.ids["train"]
        assert len(learned.generate("a", length=100, temperature=3.0, seed=0)) == 101

    def test_a_table_of_texts_and_a_file(self, tmp_path, small_generator, letters, same):
        (tmp_path / "letters.txt").write_text(letters)
        assert same(
            small_generator(epochs=1).fit(tmp_path / "letters.txt", quiet=True),
            small_generator(epochs=1).fit([letters], quiet=True),
        )
        (tmp_path / "texts.csv").write_text("text,id\n" + "\n".join(f"{text},{k}" for k, text in enumerate(TEXTS)))
        task = Generator(hidden=2, embedding=2, window=8, epochs=1).fit(tmp_path / "texts.csv", quiet=True)
        assert task.ends_

    def test_the_splits_cover_the_text_once_and_the_end_is_the_test(self, learned, letters):
        documents = learned._writing.documents
        assert sum(len(text) for part in documents.values() for text in part) == len(letters)
        assert documents["test"] == [letters[-60:]]

    def test_too_little(self, small_generator):
        with pytest.raises(ValueError, match="lists is too short to train on"):
            small_generator().fit(["abcd"], quiet=True)
        with pytest.raises(ValueError, match="the text is too short to measure anything on"):
            small_generator(epochs=1).fit(["abc" * 200], quiet=True).evaluate("a")

    def test_layers_and_a_cell_that_projects(self, small_generator, letters):
        task = small_generator(layers=2, cell="projection_lstm", epochs=1).fit([letters], quiet=True)
        assert task.network_.linear.in_features == 2
        assert math.isfinite(task.results_[0][1]["loss"])


class TestCarriedState:
    @pytest.mark.parametrize("cell", ["lstm", "gru", "mingru"])
    def test_windows_with_a_carried_state_are_one_long_pass(self, small_generator, letters, cell, limits):
        task = small_generator(cell=cell, dropout=0.0, embedding_dropout=0.0, epochs=1).fit([letters], quiet=True)
        network, problem = task.network_.double().eval(), task.problem()
        batches = problem.batches(1)
        assert [first for _, first in batches] == [True] + [False] * (len(batches) - 1)
        assert len(batches) == 7
        total, count, carry = 0.0, 0, None
        with torch.no_grad():
            for batch in batches:
                loss, size, carry = problem.loss(network, batch, carry)
                total, count = total + loss.item() * size, count + size
            streams = np.concatenate([ids[:, :-1] for ids, _ in batches], 1)
            streams = torch.from_numpy(np.concatenate([streams, batches[-1][0][:, -1:]], 1))
            scores, _ = network(streams[:, :-1])
            whole = F.cross_entropy(scores.flatten(0, 1), streams[:, 1:].flatten()).item()
            alone = np.mean([problem.loss(network, batch, None)[0].item() for batch in batches])
        assert count == streams[:, 1:].numel()
        assert abs(total / count - whole) < limits.double
        assert abs(alone - whole) > limits.single, "a state that is not carried shows"

    def test_streams_are_the_text_in_order(self, small_generator, letters):
        task = small_generator(epochs=1).fit([letters], quiet=True)
        ids = task._writing.ids["train"]
        for epoch in (1, 2, 3):
            batches = task.problem().batches(epoch)
            for stream in range(4):
                joined = np.concatenate([window[stream, :-1] for window, _ in batches])
                places = [k for k in range(3) if (ids[k : k + len(joined)] == joined).all()]
                assert places, "a piece of the text, without a gap or a repeat"

    def test_a_state_carried_in_measuring_too(self, small_generator, letters, monkeypatch, limits):
        task = small_generator(epochs=1).fit([letters], quiet=True)
        whole = task.evaluate(letters)["loss"]
        monkeypatch.setattr("everloop.tasks.generator.text.CHUNK", 7)
        assert abs(task.evaluate(letters)["loss"] - whole) < limits.single


class TestWriting:
    def test_temperature_zero_repeats_without_a_seed(self, writer):
        first, second = (writer.generate("the", length=40, temperature=0) for _ in range(2))
        assert first == second

    def test_a_seed_repeats_and_another_differs(self, writer):
        first, second, other = (writer.generate("the", length=40, temperature=2.0, seed=s) for s in (1, 1, 2))
        assert first == second != other

    def test_the_one_most_probable_is_temperature_zero(self, writer):
        greedy = writer.generate("the", length=40, temperature=0)
        assert writer.generate("the", length=40, temperature=1.5, top_k=1, seed=5) == greedy
        assert writer.generate("the", length=40, temperature=1.5, top_p=1e-9, seed=5) == greedy

    def test_stream_and_generate_say_the_same(self, writer):
        pieces = list(writer.stream("the ", length=30, seed=4))
        assert "the " + "".join(pieces) == writer.generate("the ", length=30, seed=4)
        assert len(pieces) > 1

    def test_a_stream_comes_piece_by_piece(self, learned):
        stream = learned.stream("a", length=10**9, temperature=0)
        assert list(itertools.islice(stream, 4)) == ["b", "c", "a", "b"]

    @pytest.mark.parametrize("unit", ["chars", "words", "subwords"])
    def test_units(self, unit, tmp_path):
        text = "Wo ist der Bär? Da, im Wald!\n  Ja - dort.\n" * 40
        task = Generator(unit=unit, hidden=4, embedding=4, window=8, epochs=1, batch=2).fit([text], quiet=True)
        assert task.codec_.unit == unit
        assert task.codec_.decode(task.codec_.encode(text)) == text
        assert task.generate("Wo ist", length=0) == "Wo ist"
        for prompt in ("Wo ist", "Wo ist ", ""):
            written = task.generate(prompt, length=30, seed=1, temperature=1.0)
            assert written.startswith(prompt)
            new = written.removeprefix(prompt)
            assert new == "".join(task.stream(prompt, length=30, seed=1, temperature=1.0))
            if unit == "chars":
                assert len(new) == 30
        again = load(task.save(tmp_path / "run"))
        assert again.generate("Wo", seed=1, length=9) == task.generate("Wo", seed=1, length=9)

    def test_padding_and_unknown_are_never_written(self, learned):
        text = learned.generate("a", length=300, temperature=1e6, seed=0)
        assert set(text) == set("abc")

    def test_unknown_characters_in_a_prompt(self, learned):
        with pytest.warns(UserWarning, match="the model never saw 'X', 'ü': it reads that as an unknown piece"):
            text = learned.generate("abXüX", length=3, seed=0)
        assert text.startswith("abXüX")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            learned.generate("abc", length=1)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"length": -1}, "length: -1 came; expected 0 or more pieces"),
            ({"temperature": -1.0}, "temperature: -1.0 came; expected 0"),
            ({"temperature": math.nan}, "temperature: nan came; expected 0"),
            ({"temperature": math.inf}, "temperature: inf came; expected 0"),
            ({"top_k": -1}, "top_k: -1 came; expected 0"),
            ({"top_p": 0.0}, "top_p: 0.0 came; expected more than 0 and at most 1"),
            ({"top_p": 1.5}, "top_p: 1.5 came; expected more than 0 and at most 1"),
        ],
    )
    def test_impossible_options(self, learned, options, words):
        with pytest.raises(ValueError) as caught:
            learned.stream("a", **options)
        assert str(caught.value).startswith(words)

    def test_before_fitting(self):
        with pytest.raises(ValueError, match="this Generator is not fitted yet"):
            Generator().generate("a")


class TestSeveral:
    def test_each_is_what_generate_makes_of_it(self, writer):
        prompts = ["the ", "the cat s", "", "the "]
        together = writer.generate_batch(prompts, length=30, seed=7)
        assert together == [writer.generate(prompt, length=30, seed=7 + k) for k, prompt in enumerate(prompts)]
        assert writer.generate_batch(prompts, length=30, seed=7) == together
        assert together[0] != together[3]

    def test_of_a_text_without_ends_and_of_words(self, learned):
        assert learned.generate_batch(["ab", "c"], length=4, temperature=0) == ["abcabc", "cabca"]
        text = "Wo ist der Bär? Da, im Wald!\n  Ja - dort.\n" * 40
        words = Generator(unit="words", hidden=4, embedding=4, window=8, epochs=1, batch=2).fit([text], quiet=True)
        prompts = ["Wo ist", "Wo ist ", "Wo ist der Bär"]
        together = words.generate_batch(prompts, length=12, seed=3)
        assert together == [words.generate(prompt, length=12, seed=3 + k) for k, prompt in enumerate(prompts)]

    def test_none(self, writer):
        assert writer.generate_batch([], length=3) == []
        assert writer.generate_batch(["the"], length=0) == ["the"]

    def test_unknown_pieces_are_told(self, learned):
        with pytest.warns(UserWarning, match="the model never saw 'X'"):
            learned.generate_batch(["aX"], length=1)


class TestReading:
    def test_a_text_that_will_end_begins_where_another_ended(self, writer):
        codec = writer.codec_
        ids = torch.from_numpy(np.concatenate([[codec.end], codec.encode("the c")]))
        with torch.no_grad():
            scores = writer.network_.eval()(ids[None])[0][0, -1]
        assert_close(writer.stream("the c").probabilities, scores.softmax(-1), FLOAT32)

    @pytest.mark.parametrize("options", [{"tied": True}, {"weight_drop": 0.4}, {"tied": True, "layers": 2}], ids=str)
    def test_options_of_the_network_run_without_torch(self, small_generator, letters, tmp_path, options):
        task = small_generator(epochs=1, **options).fit([letters], quiet=True)
        ids = task.codec_.encode("abcab")
        with torch.no_grad():
            expected = task.network_.eval()(torch.from_numpy(ids)[None])[0][0].softmax(-1)
        again = load(task.save(tmp_path / "run"))
        for fitted in (task, again, running.load(tmp_path / "run")):
            assert_close(fitted.stream().push("abcab"), expected, FLOAT32)

    def test_tied_scores_are_products_with_the_embedding(self, small_generator, letters):
        task = small_generator(epochs=1, tied=True).fit([letters], quiet=True)
        assert task.network_.readout[0] is task.network_.embedding.weight
        names = [name for name, _ in task.network_.named_parameters()]
        assert "linear.weight" not in names
        assert sum(name == "embedding.weight" for name in names) == 1


class TestRivals:
    """Sampled softmax beside the whole one."""

    def case(self) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        y, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((7, 4), (30, 4), (30,)))
        return y, torch.randint(0, 30, (7,)), weight, bias

    def test_where_all_are_drawn_it_is_the_whole(self):
        y, wanted, weight, bias = self.case()
        ids = np.repeat(np.arange(30), 5)
        sampled = Rivals(ids, 30, 20_000).loss(y, wanted, weight, bias)
        whole = F.cross_entropy(F.linear(y, weight, bias), wanted)
        assert_close(sampled, whole, FLOAT32)
        for found, expected in zip(
            *(torch.autograd.grad(loss, (y, weight, bias)) for loss in (sampled, whole)), strict=True
        ):
            assert_close(found, expected, FLOAT32)

    def test_a_share_is_how_probably_a_piece_is_drawn(self, limits):
        rivals = Rivals(np.repeat(np.arange(30), np.arange(30) + 1), 30, 20)
        torch.manual_seed(0)
        drawn = torch.stack([torch.multinomial(rivals.share, 20, replacement=True) for _ in range(4_000)])
        often = torch.stack([(drawn == piece).any(1).double().mean() for piece in range(30)])
        assert (abs(often - rivals.offset.exp()) < limits.frequency).all()

    def test_only_where_there_are_many(self, small_generator, letters):
        task = small_generator(epochs=1, sampled=2).fit([letters], quiet=True)
        assert task.problem().rivals is not None
        assert math.isfinite(task.results_[0][1]["loss"])
        assert small_generator(epochs=1, sampled=0).fit([letters], quiet=True).problem().rivals is None
        assert small_generator(epochs=1).fit([letters], quiet=True).problem().rivals is None


class TestWords:
    TEXT = (
        "".join(f"the {a} {b} {c}.\n" for a in ("cat", "dog") for b in ("saw", "bit") for c in ("me", "you", "it")) * 9
    )

    def test_trigrams_stand_beside(self):
        task = Generator(unit="words", tied=True, hidden=4, embedding=4, window=8, epochs=1, batch=2)
        names = [name for name, _ in task.fit([self.TEXT], quiet=True).results_]
        assert "3-gram, Kneser-Ney" in names
        assert len(set(names)) == len(names)

    def test_what_was_seen_once_is_known_of_letters_and_unknown_of_words(self):
        text = self.TEXT + "once Ω\n" + self.TEXT
        for unit, known in (("chars", True), ("words", False)):
            task = Generator(unit=unit, hidden=2, embedding=2, window=8, epochs=1, batch=2).fit([text], quiet=True)
            assert (task.codec_.encode("Ω")[0] != task.codec_.unknown) == known


class TestDrawing:
    SCORES = np.array([0.3, 2.0, -1.0, 1.9, 0.0, 2.0])
    DRAWS = 4_000

    def shares(self, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
        random = np.random.default_rng(0)
        drawn = [draw(self.SCORES.copy(), random, temperature, top_k, top_p) for _ in range(self.DRAWS)]
        return np.bincount(drawn, minlength=6) / self.DRAWS

    def expected(self, temperature: float, kept: set[int]) -> np.ndarray:
        weights = [math.exp(s / temperature) if k in kept else 0.0 for k, s in enumerate(self.SCORES.tolist())]
        return np.array(weights) / sum(weights)

    def kept(self, top_k: int, top_p: float) -> set[int]:
        """By trying all sets: the smallest whose probability suffices, of those the most probable."""
        ranked = sorted(range(6), key=lambda k: (-self.SCORES[k].item(), k))[: top_k or 6]
        probability = self.expected(1.0, set(ranked))
        for size in range(1, len(ranked) + 1):
            best = max(itertools.combinations(ranked, size), key=lambda part: probability[list(part)].sum())
            if probability[list(best)].sum() >= top_p:
                return set(best)
        return set(ranked)

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_temperature(self, temperature, limits):
        assert abs(self.shares(temperature) - self.expected(temperature, set(range(6)))).max() < limits.frequency

    @pytest.mark.parametrize(
        ("top_k", "top_p"),
        [(0, 0.1), (0, 0.5), (0, 0.8), (0, 0.9), (0, 0.97), (1, 1.0), (2, 1.0), (3, 1.0), (3, 0.5), (9, 1.0)],
    )
    def test_the_pieces_left_and_their_shares(self, top_k, top_p, limits):
        kept, shares = self.kept(top_k, top_p), self.shares(1.0, top_k, top_p)
        assert set(np.flatnonzero(shares)) == kept
        assert abs(shares - self.expected(1.0, kept)).max() < limits.frequency

    def test_the_scores_are_left_alone(self):
        scores = self.SCORES.copy()
        draw(scores, None, 0.7, 2, 0.5)
        assert (scores == self.SCORES).all()

    @pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-300, 1e-9])
    def test_very_low_temperatures(self, temperature):
        scores = np.array([-1.0, -math.inf, 3.0, 2.0])
        assert draw(scores, None, temperature, 0, 1.0) == 2

    def test_a_very_high_temperature_draws_from_all_that_are_possible(self):
        scores = np.array([-5.0, -math.inf, 3.0])
        random = np.random.default_rng(0)
        assert {draw(scores, random, 1e300, 0, 1.0) for _ in range(100)} == {0, 2}
