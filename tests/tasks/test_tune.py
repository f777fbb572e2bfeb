"""Searching options: what is tried, what is written, how a search goes on, and that the test split stays unseen."""

import csv
import random

import pytest

optuna = pytest.importorskip("optuna", reason="pip install 'everloop[tune]'")

from everloop import Classifier, Generator  # noqa: E402
from everloop.tasks import tune as tuning  # noqa: E402
from everloop.tasks.run import read_config  # noqa: E402
from everloop.tasks.tune import tune  # noqa: E402
from everloop.tasks.tune_space import FIXED, USUAL, Between, Choices, space_of  # noqa: E402

RNG = random.Random(0)
TEXTS = [" ".join(RNG.choices(["good", "fine", "nice"] if k % 2 else ["bad", "dull", "poor"], k=4)) for k in range(80)]
DATA = (TEXTS, ["pos" if k % 2 else "neg" for k in range(80)])
SMALL = {"epochs": 2, "hidden": 4, "embedding": 8, "ngrams": 0, "duplicates": "keep", "min_count": 1}


def small(**options) -> Classifier:
    return Classifier(**SMALL | options)


def search(out, trials=3, task=None, **how):
    return tune(task or small(), *DATA, out=out, trials=trials, minutes=5, quiet=True, **how)


def table(folder):
    with (folder / tuning.TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_writes_what_a_training_takes(tmp_path):
    found = search(tmp_path / "search", search=["lr", "hidden"])
    rows = table(tmp_path / "search")
    assert [row["trial"] for row in rows] == ["1", "2", "3"]
    # The task's own options come first: what comes out is never worse.
    assert (float(rows[0]["lr"]), int(rows[0]["hidden"])) == (small().lr, 4)
    assert found.value == max(float(row["valid_accuracy"]) for row in rows if row["state"] != "given up")
    config = read_config(tmp_path / "search")
    assert config["task"] == "classifier"
    assert config["options"] == found.options
    best = next(row for row in rows if float(row["valid_accuracy"]) == found.value)
    assert (found.options["lr"], found.options["hidden"]) == (float(best["lr"]), int(best["hidden"]))
    again = Classifier(**config["options"]).fit(*DATA, quiet=True)
    assert again.outcome_.best["valid_accuracy"] == found.value


def test_the_test_split_is_not_looked_at(tmp_path, monkeypatch):
    def fail(self):
        raise AssertionError("measured on the test split")

    monkeypatch.setattr(Classifier, "measure", fail)
    monkeypatch.setattr(Classifier, "baselines", fail)
    assert search(tmp_path / "search", trials=2).trials >= 1


def test_a_search_goes_on(tmp_path):
    search(tmp_path / "search", trials=2)
    before = table(tmp_path / "search")
    with pytest.raises(FileExistsError, match="holds a search already; go on with --resume"):
        search(tmp_path / "search")
    search(tmp_path / "search", trials=2, resume=True)
    after = table(tmp_path / "search")
    assert after[:2] == before
    assert len({row["lr"] for row in after}) == 4
    with pytest.raises(ValueError, match="was begun with options"):
        search(tmp_path / "search", task=small(epochs=3), resume=True)
    with pytest.raises(ValueError, match="was begun with other data"):
        tune(small(), TEXTS[:60], DATA[1][:60], out=tmp_path / "search", trials=1, quiet=True, resume=True)


def test_a_trial_that_was_killed_is_tried_again(tmp_path):
    search(tmp_path / "search", trials=1, search=["lr"])
    where = {"storage": f"sqlite:///{tmp_path / 'search' / tuning.TRIALS}", "study_name": "everloop"}
    study = optuna.load_study(**where)
    study.ask({"lr": optuna.distributions.FloatDistribution(small().lr / 8, small().lr * 4, log=True)})
    lost = study.trials[-1].params["lr"]
    search(tmp_path / "search", trials=1, search=["lr"], resume=True)
    rows = table(tmp_path / "search")
    assert [row["state"] for row in rows] == ["finished", "fail", "finished"]
    assert float(rows[2]["lr"]) == lost


def test_a_mistake_leaves_nothing_in_the_way(tmp_path):
    with pytest.raises(ValueError, match="one class only"):
        tune(small(), TEXTS, ["pos"] * len(TEXTS), out=tmp_path / "search", trials=1, quiet=True)
    assert search(tmp_path / "search", trials=1).trials == 1


def test_too_little_time(tmp_path):
    with pytest.raises(ValueError, match=r"no training came to the end of its first epoch in 1e-05 minutes"):
        tune(small(), *DATA, out=tmp_path / "search", minutes=1e-5, quiet=True)
    with pytest.raises(ValueError, match="minutes=0 came; expected more than 0"):
        tune(small(), *DATA, out=tmp_path / "search", minutes=0, quiet=True)


def test_a_trial_that_the_time_cuts_short_counts_as_far_as_it_came(tmp_path, monkeypatch):
    epochs = iter(range(10))
    seen = tuning._Watch.epoch

    def slow(self, metrics):
        seen(self, metrics)
        if next(epochs) == 1:
            self.search.deadline = 0.0

    monkeypatch.setattr(tuning._Watch, "epoch", slow)
    found = search(tmp_path / "search", task=small(epochs=5))
    assert found.trials == 1
    assert [row["state"] for row in table(tmp_path / "search")] == ["stopped: the time is up"]


def test_bad_epochs_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: self.number > 0)
    found = search(tmp_path / "search")
    assert found.trials == 1
    assert [row["state"] for row in table(tmp_path / "search")] == ["finished", "given up", "given up"]


def test_a_generator_is_judged_by_its_loss(tmp_path):
    text = "the cat sat on the mat. " * 100
    data = tmp_path / "text.txt"
    data.write_text(text)
    task = Generator(epochs=1, hidden=4, embedding=4, window=8, batch=4)
    found = tune(task, data, out=tmp_path / "search", trials=3, search=["lr"], quiet=True)
    assert found.metric == "loss"
    assert found.value == min(float(row["valid_loss"]) for row in table(tmp_path / "search"))
    assert read_config(tmp_path / "search")["data"]["source"] == str(data)


def test_it_is_judged_by_what_the_loop_watches(tmp_path):
    """Of unbalanced classes that is not the accuracy."""
    found = search(tmp_path / "search", task=small(class_weight="balanced"), search=["lr"])
    assert found.metric == "macro_f1"
    assert found.value == max(float(row["valid_macro_f1"]) for row in table(tmp_path / "search"))


class TestSpace:
    def test_the_usual_options_include_the_task_s_own(self):
        own = small(dropout=0.9).get_params()
        for name, space in space_of(small(dropout=0.9)).items():
            assert name in USUAL
            inside = own[name] in space.values if isinstance(space, Choices) else space.low <= own[name] <= space.high
            assert inside, (name, space)

    def test_options_by_their_types(self):
        found = space_of(small(), ["bidirectional", "schedule", "warmup", "clip", "length"])
        assert found["bidirectional"] == Choices((True, False))
        assert found["schedule"] == Choices(("cosine", "linear", "constant"))
        assert found["warmup"] == Between(0.0, 0.7)
        assert found["clip"] == Between(0.125, 8.0, log=True)
        assert found["length"] == Choices((200, 400, 800, 1600))

    def test_what_cannot_be_searched(self):
        with pytest.raises(ValueError, match=r"'hiden' is not an option of a classifier; .* did you mean \"hidden\""):
            space_of(small(), ["hiden"])
        for name in FIXED & small().get_params().keys():
            with pytest.raises(ValueError, match=f"{name} cannot be searched: it changes what is measured"):
                space_of(small(), [name])
        with pytest.raises(ValueError, match="says nothing about which values to try"):
            space_of(small(), ["codec"])
        with pytest.raises(ValueError, match="no option is left to search"):
            space_of(small(), ["lr"], fixed=["lr"])
