"""The training loop: repeatable, resumable to the last bit, honest about what went wrong."""

from __future__ import annotations

import csv
import itertools
import json
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from everloop import Classifier, Generator, load
from everloop.tasks import training
from everloop.tasks.progress import Progress
from everloop.tasks.run import Run
from everloop.tasks.training import Outcome, Settings, train


class Killed(BaseException):
    """Stands for a process that is gone at once, without a chance to write anything."""


def kill() -> None:
    raise Killed


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


class TestRepeating:
    def test_one_seed_one_result(self, small, reviews, same):
        first, second, other = (small(seed=seed).fit(*reviews, quiet=True) for seed in (1, 1, 2))
        assert same(first, second)
        assert not same(first, other)

    def test_a_generator_repeats_too(self, small_generator, letters, same):
        first, second, other = (small_generator(seed=seed).fit([letters], quiet=True) for seed in (1, 1, 2))
        assert same(first, second)
        assert not same(first, other)

    def test_what_happened_before_does_not_matter(self, small, reviews, same):
        first = small().fit(*reviews, quiet=True)
        torch.rand(7)
        assert same(first, small().fit(*reviews, quiet=True))


class TestResuming:
    """An interrupted run that goes on ends with the numbers of one that was never stopped."""

    @pytest.fixture(params=["classifier", "averaging classifier", "generator"])
    def case(self, request, small, small_generator, reviews, letters) -> tuple[Callable[[], Any], tuple[Any, ...]]:
        """How to make the task, with dropout everywhere, and its data."""
        if request.param == "generator":
            return lambda: small_generator(dropout=0.4, embedding_dropout=0.3, layers=2), ([letters],)
        averaging = 0.9 if request.param.startswith("averaging") else 0.0
        return lambda: small(dropout=0.5, word_dropout=0.2, layers=2, averaging=averaging), reviews

    def test_after_ctrl_c_in_the_middle_of_an_epoch(self, case, at_update, tmp_path, same):
        make, data = case
        whole = make().fit(*data, out=tmp_path / "whole", quiet=True)
        with at_update(type(whole), 10, press_ctrl_c):
            stopped = make().fit(*data, out=tmp_path / "stopped", quiet=True)
        assert stopped.outcome_.status == "interrupted"
        assert (len(stopped.outcome_.history), stopped.results_) == (1, [])
        tensors, facts = Run.open(tmp_path / "stopped").read_tensors("checkpoint.safetensors")
        assert 0 < facts["middle"]["step"] < len(whole.problem().batches(1))
        assert ("carry.0" in tensors) == isinstance(whole, Generator)

        gone_on = make().fit(*data, out=tmp_path / "stopped", resume=True, quiet=True)
        assert gone_on.outcome_.status == "finished"
        assert same(whole, gone_on)
        for name in ("model.safetensors", "results.json", "config.toml", "codec.json"):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
        assert metrics_of(tmp_path / "whole") == metrics_of(tmp_path / "stopped")

    def test_after_a_kill_some_updates_past_a_checkpoint(self, case, at_update, tmp_path, same, monkeypatch):
        make, data = case
        whole = make().fit(*data, quiet=True)
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
        checkpoint, count = training._Loop._checkpoint, itertools.count(1)

        def every_third(loop: Any, middle: Any) -> None:
            if next(count) % 3 == 0:
                checkpoint(loop, middle)

        monkeypatch.setattr(training._Loop, "_checkpoint", every_third)
        with at_update(type(whole), 11, kill), pytest.raises(Killed):
            make().fit(*data, out=tmp_path / "run", quiet=True)
        facts = Run.open(tmp_path / "run").read_tensors("checkpoint.safetensors")[1]
        assert facts["updates"] < 10
        assert same(whole, make().fit(*data, out=tmp_path / "run", resume=True, quiet=True))

    def test_after_a_kill_before_any_checkpoint(self, small, reviews, at_update, tmp_path, same):
        with at_update(Classifier, 2, kill), pytest.raises(Killed):
            small().fit(*reviews, out=tmp_path / "run", quiet=True)
        gone_on = small().fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
        assert same(gone_on, small().fit(*reviews, quiet=True))

    def test_stopped_and_gone_on_with_many_times(self, small, reviews, at_update, tmp_path, same):
        for _ in range(4):
            with at_update(Classifier, 4, press_ctrl_c):
                stopped = small().fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
            assert stopped.outcome_.status == "interrupted"
        gone_on = small().fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
        assert same(gone_on, small().fit(*reviews, quiet=True))

    def test_a_finished_run_is_only_measured_again(self, small, reviews, at_update, tmp_path, same):
        finished = small().fit(*reviews, out=tmp_path / "run", quiet=True)
        with at_update(Classifier, 1, kill):
            again = small().fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
        assert same(finished, again)
        assert again.outcome_.status == "finished"
        assert again.outcome_.seconds >= sum(row["seconds"] for row in finished.outcome_.history)

    def test_a_run_that_stopped_early_stays_stopped(self, small, reviews, tmp_path, same):
        early = {"lr": 1e-9, "patience": 1, "epochs": 9}
        stopped = small(**early).fit(*reviews, out=tmp_path / "run", quiet=True)
        again = small(**early).fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
        assert stopped.outcome_.status == again.outcome_.status == "stopped early"
        assert len(stopped.outcome_.history) == 2
        assert same(stopped, again)

    def test_other_options_are_refused_by_name(self, small, reviews, tmp_path):
        small().fit(*reviews, out=tmp_path / "run", quiet=True)
        with pytest.raises(ValueError, match=r"run was begun with hidden = 3; 5 came. A resumed run keeps its options"):
            small(hidden=5).fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)

    def test_other_data_are_refused_and_the_model_stays(self, small, reviews, tmp_path):
        texts, labels = reviews
        small().fit(texts, labels, out=tmp_path / "run", quiet=True)
        before = load(tmp_path / "run").predict_proba(texts)
        with pytest.raises(ValueError, match="run was begun with other data than lists holds now"):
            small().fit([*texts[:-1], "quite another text"], labels, out=tmp_path / "run", resume=True, quiet=True)
        assert (load(tmp_path / "run").predict_proba(texts) == before).all()

    def test_where_no_run_is_one_begins_and_it_is_said(self, small, reviews, tmp_path, capsys):
        small(epochs=1).fit(*reviews, out=tmp_path / "new", resume=True)
        assert "there is no run in" in capsys.readouterr().err
        assert load(tmp_path / "new").predict("good")

    def test_without_a_folder(self, small, reviews):
        with pytest.raises(ValueError, match="resume=True needs out="):
            small().fit(*reviews, resume=True, quiet=True)


class TestCtrlC:
    def test_what_was_learned_stays_usable(self, small, reviews, at_update, tmp_path):
        with at_update(Classifier, 8, press_ctrl_c):
            stopped = small().fit(*reviews, out=tmp_path / "run", quiet=True)
        assert "stopped by you in epoch 2, at update 8" in stopped.outcome_.message
        run = Run.open(tmp_path / "run")
        assert run.state["status"] == "interrupted"
        assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert load(tmp_path / "run").predict(reviews[0]) == stopped.predict(reviews[0])

    def test_before_the_first_epoch_is_over(self, small, reviews, at_update, tmp_path):
        with at_update(Classifier, 2, press_ctrl_c):
            stopped = small().fit(*reviews, out=tmp_path / "run", quiet=True)
        assert stopped.outcome_.best_epoch == 0
        assert load(tmp_path / "run").predict(reviews[0]) == stopped.predict(reviews[0])

    def test_the_second_one_stops_at_once(self, small, reviews, at_update, tmp_path):
        def twice() -> None:
            press_ctrl_c()
            press_ctrl_c()

        with at_update(Classifier, 8, twice), pytest.raises(KeyboardInterrupt):
            small().fit(*reviews, out=tmp_path / "run", quiet=True)
        assert load(tmp_path / "run").predict("good")[0] in ("negative", "positive")
        assert small().fit(*reviews, out=tmp_path / "run", resume=True, quiet=True).outcome_.status == "finished"

    def test_the_handler_of_others_is_put_back(self, small, reviews):
        before = signal.getsignal(signal.SIGINT)
        small(epochs=1).fit(*reviews, quiet=True)
        assert signal.getsignal(signal.SIGINT) is before


class Scripted:
    """A problem on one number w: each update's loss is slope * w, and validation says what it is told to."""

    monitor = "loss"

    def __init__(self, slopes: Sequence[float], validation: Sequence[float] = ()) -> None:
        self.slopes, self.validation = slopes, iter(validation)
        self.weights: list[Tensor] = []  # at the begin of every update
        self.validated: list[Tensor] = []

    def batches(self, epoch: int) -> Sequence[float]:
        return self.slopes

    def loss(self, network: nn.Module, batch: float, carry: Any) -> tuple[Tensor, int, None]:
        (w,) = network.parameters()
        self.weights.append(w.detach().clone())
        return (batch * w).sum(), 1, None

    def validate(self, network: nn.Module) -> dict[str, float]:
        (w,) = network.parameters()
        self.validated.append(w.detach().clone())
        return {"loss": next(self.validation, 1.0)}


class One(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))


PLAIN = Settings(
    epochs=4,
    learning_rate=0.1,
    weight_decay=0.0,
    schedule="constant",
    warmup=0.0,
    clip=1.0,
    patience=0,
    seed=0,
)


def run(problem: Scripted, network: nn.Module | None = None, **changes: Any) -> Outcome:
    settings = replace(PLAIN, **changes)
    return train(network or One(), problem, settings, Progress(quiet=True), None, resume=False)


class TestTheBestWeights:
    def test_early_stopping_keeps_the_best(self):
        problem, network = Scripted([1.0, 1.0], [3.0, 1.0, 2.0, 1.0, 0.5]), One()
        outcome = run(problem, network, epochs=9, patience=2)
        assert outcome.status == "stopped early"
        assert (outcome.best_epoch, outcome.best["valid_loss"], len(outcome.history)) == (2, 1.0, 4)
        assert torch.equal(network.w.detach(), problem.validated[1])
        assert not torch.equal(network.w.detach(), problem.validated[3])
        assert "after epoch 4: loss on the validation split has not improved for 2 epochs (best: epoch 2)" in (
            outcome.message
        )

    def test_patience_zero_never_stops(self):
        outcome = run(Scripted([1.0], [1.0, 2.0, 3.0, 4.0]), patience=0)
        assert (outcome.status, len(outcome.history), outcome.best_epoch) == ("finished", 4, 1)

    def test_other_metrics_are_better_when_higher(self):
        problem = Scripted([1.0], [1.0, 3.0, 2.0, 3.0])
        problem.monitor = "accuracy"
        problem.validate = lambda network: {"loss": 1.0, "accuracy": next(problem.validation)}
        assert run(problem).best_epoch == 2

    def test_the_test_split_is_not_looked_at_while_training(self, small, reviews, monkeypatch):
        seen: list[str] = []
        scores = Classifier._scores

        def watched(self: Classifier, ids: Any) -> Any:
            seen.extend(name for name, part in self._parts.items() if part.ids is ids)
            return scores(self, ids)

        monkeypatch.setattr(Classifier, "_scores", watched)
        small(epochs=3).fit(*reviews, quiet=True)
        assert seen[:3] == ["valid", "valid", "valid"]
        assert (seen.count("test"), seen[-1]) == (1, "test")


class TestUpdates:
    def test_clipping_is_counted(self):
        outcome = run(Scripted([0.5, 2.0, -3.0, 0.1]), clip=1.0, epochs=1)
        assert outcome.history[0]["clipped"] == 0.5

    def test_no_clipping(self):
        assert run(Scripted([1e6]), clip=0.0).history[0]["clipped"] == 0.0

    @pytest.mark.parametrize(
        ("schedule", "after_warming"),
        [
            ("constant", [1.0] * 8),
            ("linear", [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ],
    )
    def test_schedules(self, schedule, after_warming):
        outcome = run(Scripted([1.0]), epochs=12, learning_rate=1.0, schedule=schedule, warmup=4 / 12)
        assert [row["lr"] for row in outcome.history] == [0.25, 0.5, 0.75, 1.0, *after_warming]

    def test_cosine(self):
        outcome = run(Scripted([1.0]), epochs=12, learning_rate=1.0, schedule="cosine", warmup=4 / 12)
        rates = [row["lr"] for row in outcome.history]
        assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
        assert rates[8] == 0.5
        assert rates[4:] == sorted(rates[4:], reverse=True)
        # Slow, fast, slow: the steps around the middle are the largest.
        steps = [a - b for a, b in itertools.pairwise(rates[4:])]
        assert max(steps) in steps[3:5]
        assert 0 < rates[-1] < steps[3]

    def test_matrices_decay_and_vectors_do_not(self):
        network = nn.Linear(2, 2)
        groups = training._groups(network, 0.3)
        assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
        assert groups[0]["params"] == [network.weight]
        assert groups[1]["params"][0] is network.bias

    def test_averaged_weights_are_judged_and_the_plain_ones_train_on(self):
        problem, network = Scripted([1.0, -2.0, 0.5], [2.0, 1.0]), One()
        run(problem, network, epochs=2, averaging=0.6)
        plain = [*problem.weights[1:]]  # after each update but the last
        average = torch.ones(1)
        for update, w in enumerate(plain, start=1):
            average.lerp_(w, 1 - min(0.6, (1 + update) / (10 + update)))
            if update == 3:
                assert torch.equal(problem.validated[0], average)
        assert not torch.equal(problem.validated[0], plain[2])
        assert torch.equal(network.w.detach(), problem.validated[1])

    def test_averaging_a_network_with_whole_numbers_in_it(self, small, reviews):
        task = small(averaging=0.9, unit="chars", pairs=50).fit(*reviews, quiet=True)
        assert task.pair_count_ == 50
        assert not task.network_.pair_keys.is_floating_point()
        assert task.outcome_.status == "finished"

    def test_a_carried_state_is_cut_from_its_gradient(self):
        problem, carried = Scripted([1.0, 1.0]), []
        loss = problem.loss

        def carrying(network: Any, batch: float, carry: Any) -> Any:
            carried.append(carry)
            return *loss(network, batch, None)[:2], (network.w * 2,)

        problem.loss = carrying
        run(problem, epochs=2)
        assert carried[0] is None
        assert not carried[1][0].requires_grad
        assert carried[2] is None, "every epoch begins without a state"


class TestDivergence:
    def test_a_loss_that_is_no_number(self):
        problem, network = Scripted([1.0, 1.0], [1.0]), One()
        loss, count = problem.loss, itertools.count(1)

        def breaking(*args: Any) -> Any:
            value, size, carry = loss(*args)
            return value * (math.nan if next(count) == 4 else 1.0), size, carry

        problem.loss = breaking
        outcome = run(problem, network)
        assert outcome.status == "diverged"
        assert outcome.message == (
            "the loss became nan in epoch 2, update 4; the weights of epoch 1 are kept. "
            "Try a smaller --lr (it was 0.1) or --clip (it was 1), or look at the data"
        )
        assert torch.equal(network.w.detach(), problem.validated[0])

    def test_a_gradient_that_is_no_number(self):
        outcome = run(Scripted([1.0, math.inf]), epochs=1)
        assert outcome.status == "diverged"
        assert outcome.message.startswith("the loss became inf in epoch 1")
        problem = Scripted([1.0])
        problem.loss = lambda network, batch, carry: (network.w.sum().sub(1).abs().sqrt(), 1, None)
        outcome = run(problem)
        assert outcome.message.startswith("a gradient became nan in epoch 1, update 1; the first weights are kept")

    def test_a_validation_loss_that_is_no_number_is_never_the_best(self):
        problem, network = Scripted([1.0], [1.0, math.nan]), One()
        problem.monitor = "accuracy"
        problem.validate = lambda network, plain=problem.validate: plain(network) | {"accuracy": 1.0}
        outcome = run(problem, network)
        assert outcome.status == "diverged"
        assert outcome.message.startswith("the loss on the validation split became nan in epoch 2")
        assert torch.equal(network.w.detach(), problem.validated[0])

    @pytest.mark.parametrize("epochs", [1, 3])
    def test_an_enormous_learning_rate(self, small, reviews, tmp_path, epochs, limits):
        """The update that breaks the weights shows at the next one only: what is kept is from before it."""
        task = small(lr=1e30, warmup=0.0, epochs=epochs).fit(*reviews, out=tmp_path / "run", quiet=True)
        assert task.outcome_.status == "diverged"
        assert "Try a smaller --lr (it was 1e+30)" in task.outcome_.message
        assert all(torch.isfinite(value).all() for value in task.network_.state_dict().values())
        again = load(tmp_path / "run")
        assert abs(again.predict_proba(reviews[0]).sum(1) - 1).max() < limits.single
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "diverged"
        assert all(math.isfinite(v) for _, metrics in task.results_ for v in metrics.values())


def metrics_of(folder: Any) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row.pop("seconds")) >= 0 for row in rows)
    return rows
