"""The command: every verb on small data, and that its options are those of the tasks."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import everloop
from everloop import cells, tasks
from everloop.cli._flags import DATA_FLAGS
from everloop.cli.learning import TASK_FLAGS, _model
from everloop.cli.learning import train as train_command
from everloop.tasks import load

Command = Callable[..., Any]


def reviews(rows: int) -> str:
    words = ("film", "story", "plot", "actor", "scene", "music")
    lines = [
        f"{words[row % 6]} {['bad', 'good'][row % 2]} {words[row // 6 % 6]} {row},{['neg', 'pos'][row % 2]}"
        for row in range(rows)
    ]
    return "\n".join(["text,label", *lines]) + "\n"


@pytest.fixture
def reviews_csv(tmp_path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text(reviews(60))
    return path


SMALL = ("--hidden", 3, "--embedding", 4, "--batch", 16, "--epochs", 2)


@pytest.fixture(scope="module")
def classifier_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "reviews.csv").write_text(reviews(60))
    task = everloop.Classifier(hidden=4, embedding=8, batch=8, epochs=8, lr=0.05, word_dropout=0.0)
    return task.fit(str(folder / "reviews.csv"), out=folder / "run", quiet=True).run_.folder


@pytest.fixture(scope="module")
def generator_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generator")
    task = everloop.Generator(hidden=16, embedding=8, batch=4, window=16, epochs=10, lr=0.05, dropout=0.0)
    return task.fit(["abc" * 200], out=folder / "run", quiet=True).run_.folder


class TestTrain:
    def test_a_csv(self, everloop_command, reviews_csv):
        done = everloop_command("train", "reviews.csv", *SMALL)
        assert done.code == 0
        assert done.err.startswith("task: classifier (every text has a label); --task chooses another\n")
        for news in (
            'input column "text" (a usual name), target column "label" (2 different values)',
            "2 classes; 48 / 6 / 6 texts for training / validation / test",
            "epoch   1  train loss",
            "epoch   2  train loss",
            "run folder: runs/reviews-classifier-1\n",
            "report:     runs/reviews-classifier-1/report.html\n",
            "to use it:  everloop predict runs/reviews-classifier-1 TEXT\n",
        ):
            assert news in done.err
        rows = done.out.splitlines()
        assert rows[0].split() == ["test", "split", "accuracy", "macro", "f1", "loss"]
        assert [row.strip().split("  ")[0] for row in rows[1:4]] == [
            "lstm (classifier)",
            "majority class",
            "logistic regression on word unigrams and bigrams",
        ]
        assert load("runs/reviews-classifier-1").classes_ == ["neg", "pos"]

    def test_the_next_free_folder(self, everloop_command, reviews_csv):
        for _ in range(2):
            done = everloop_command("train", "reviews.csv", *SMALL)
        assert "run folder: runs/reviews-classifier-2\n" in done.err

    def test_a_text(self, everloop_command, tmp_path):
        (tmp_path / "letters.txt").write_text("abc" * 100)
        done = everloop_command("train", "letters.txt", "--out", "run", "--epochs", 1, "--hidden", 3, "--window", 8)
        assert done.code == 0
        assert done.err.startswith("task: generator (it is one text, without labels); --task chooses another\n")
        assert "to use it:  everloop generate run --prompt TEXT" in done.err
        assert re.search(r"^ lstm \(generator\) +[\d.]+ +[\d.]+ $", done.out, re.MULTILINE)
        assert "-gram, Kneser-Ney" in done.out

    def test_texts_without_labels(self, everloop_command, tmp_path):
        (tmp_path / "texts.csv").write_text("text\n" + "".join(f"the cat {k} sat\n" for k in range(40)))
        done = everloop_command("train", "texts.csv", "--out", "run", "--epochs", 1, "--hidden", 3, "--window", 8)
        assert done.err.startswith("task: generator (there is no label column)")
        assert load("run").ends_

    def test_the_task_that_is_asked_for(self, everloop_command, reviews_csv):
        done = everloop_command(
            "train", "reviews.csv", "--task", "generator", "--epochs", 1, "--hidden", 3, "--window", 8, "--out", "run"
        )
        assert (done.code, load("run").name) == (0, "generator")
        assert "--task chooses" not in done.err

    def test_a_model_that_does_not_beat_its_baseline(self, everloop_command, reviews_csv):
        done = everloop_command("train", "reviews.csv", *SMALL, "--lr", 1e-9)
        assert done.out.endswith(
            "The model does not beat its baseline (logistic regression on word unigrams and bigrams).\n"
        )

    def test_one_that_does(self, everloop_command, reviews_csv, monkeypatch):
        monkeypatch.setattr(everloop.Classifier, "beats_baseline", lambda self: True)
        assert "does not beat" not in everloop_command("train", "reviews.csv", *SMALL).out

    def test_quiet(self, everloop_command, reviews_csv):
        done = everloop_command("train", "reviews.csv", *SMALL, "--quiet", "--out", "run")
        assert (done.code, done.err) == (0, "")
        assert "lstm (classifier)" in done.out

    def test_bad_rows(self, everloop_command, reviews_csv):
        with reviews_csv.open("a") as file:
            file.write("a row, with, too many fields\nanother,\n")
        done = everloop_command("train", "reviews.csv", *SMALL, "--bad-rows", "skip", "--out", "run")
        assert done.code == 0
        assert "2 unreadable rows left out: row 62 (3 fields came, the header has 2" in done.err
        assert load("run").data_["bad_rows"] == "skip"

    def test_every_flag_of_a_task_arrives(self, everloop_command, reviews_csv):
        flags = {
            "cell": "gru", "hidden": 3, "layers": 2, "embedding": 5, "pooling": "mean", "dropout": 0.1, "epochs": 1,
            "batch": 7, "lr": 0.01, "weight_decay": 0.1, "schedule": "linear", "warmup": 0.2, "clip": 2.0,
            "averaging": 0.5, "patience": 3, "seed": 4, "device": "cpu", "duplicates": "keep", "unit": "chars",
            "vocabulary": 50, "length": 20, "valid": 0.2, "test": 0.15, "bidirectional": False, "split": "blocks",
        }  # fmt: skip
        words = [word for name, value in flags.items() for word in flag(name, value)]
        done = everloop_command("train", "reviews.csv", *words, "--set", "word_dropout=0.25", "--out", "run")
        assert done.code == 0
        options = load("run").get_params()
        assert {name: options[name] for name in flags} == flags
        assert options["word_dropout"] == 0.25
        assert set(flags) | {"window"} == TASK_FLAGS

    def test_set_comes_after_flags_and_a_configuration(self, everloop_command, reviews_csv):
        everloop_command("train", "reviews.csv", *SMALL, "--out", "first")
        done = everloop_command(
            "train", "--config", "first", "--hidden", 5, "--set", "hidden=4", "--set", 'unit="chars"', "--out", "second"
        )
        assert done.code == 0
        assert (load("second").hidden, load("second").unit, load("second").epochs) == (4, "chars", 2)

    def test_a_configuration_repeats_a_run(self, everloop_command, reviews_csv):
        first = everloop_command("train", "reviews.csv", *SMALL, "--seed", 3, "--cell", "gru", "--out", "first")
        second = everloop_command("train", "--config", "first/config.toml", "--out", "second")
        assert second.out == first.out
        assert Path("first/config.toml").read_bytes() == Path("second/config.toml").read_bytes()
        one, other = (load_file(f"{run}/model.safetensors") for run in ("first", "second"))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())

    def test_a_generator_is_repeated_too(self, everloop_command, tmp_path):
        (tmp_path / "letters.txt").write_text("abc" * 100)
        everloop_command("train", "letters.txt", "--out", "first", "--epochs", 2, "--hidden", 3, "--window", 8)
        everloop_command("train", "--config", "first/config.toml", "--out", "second")
        assert Path("first/model.safetensors").read_bytes() == Path("second/model.safetensors").read_bytes()

    def test_resume_needs_the_folder_only(self, everloop_command, reviews_csv, monkeypatch):
        whole = everloop_command("train", "reviews.csv", *SMALL, "--out", "whole")
        with monkeypatch.context() as patch:
            stop_at_update(patch, 4)
            stopped = everloop_command("train", "reviews.csv", *SMALL, "--out", "run")
        assert (stopped.code, stopped.out) == (130, "")
        assert "stopped by you in epoch 2, at update 4\n" in stopped.err
        assert stopped.err.endswith("to go on:   everloop train --out run --resume\n")
        gone_on = everloop_command("train", "--out", "run", "--resume")
        assert (gone_on.code, gone_on.out) == (0, whole.out)
        assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()

    def test_a_loss_that_is_no_number(self, everloop_command, reviews_csv):
        done = everloop_command("train", "reviews.csv", *SMALL, "--lr", 1e30, "--out", "run")
        assert done.code == 1
        assert done.err.count("\nerror: ") == 1
        (message,) = re.findall(r"^error: (.*)", done.err, re.MULTILINE)
        assert re.fullmatch(
            r"the loss became nan in epoch 1, update \d; the first weights are kept\. "
            r"Try a smaller --lr \(it was 1e\+30\) or --clip \(it was 1\), or look at the data",
            message,
        )
        assert done.err.endswith("The run folder is run\n")
        assert everloop_command("predict", "run", "good").code == 0

    @pytest.mark.parametrize("source", [".", "./.hidden.csv"])
    def test_folders_for_sources_without_a_plain_name(self, everloop_command, tmp_path, source):
        place = tmp_path / "my reviews"
        for row, line in enumerate(reviews(40).splitlines()[1:]):
            text, label = line.split(",")
            (place / label).mkdir(exist_ok=True, parents=True)
            (place / label / f"{row}.txt").write_text(text)
        (place / ".hidden.csv").write_text(reviews(40))
        os.chdir(place)
        done = everloop_command("train", source, *SMALL)
        name = "my reviews" if source == "." else "hidden"
        assert f"run folder: runs/{name}-classifier-1\n" in done.err


def flag(name: str, value: Any) -> list[str]:
    if name == "bidirectional":
        return ["--bidirectional" if value else "--one-way"]
    return [f"--{name.replace('_', '-')}", str(value)]


def stop_at_update(patch: pytest.MonkeyPatch, k: int) -> None:
    from everloop.tasks.classifier.task import _Problem

    plain, updates = _Problem.loss, iter(range(1, 1_000))

    def loss(self: Any, *args: Any) -> Any:
        if next(updates) == k:
            signal.raise_signal(signal.SIGINT)
        return plain(self, *args)

    patch.setattr(_Problem, "loss", loss)


class TestAgreement:
    """The flags of `train` and the options of the tasks are the same, but for these."""

    NOT_OPTIONS = frozenset({"file", "task", "out", "resume", "config", "quiet", "settings", *DATA_FLAGS})
    BY_SET_ONLY = frozenset(
        {
            *("attention", "bands", "beam", "bonus", "calendar", "calibrate", "channels", "characters", "chords"),
            *("class_weight", "codec", "colour", "context", "copy", "counts", "coverage", "crf", "deltas", "drift"),
            *("embedding_dropout", "filters"),
            *("flat_start", "front", "gain", "gap", "horizon", "layout", "length_penalty", "linear", "lookback"),
            *("loss", "mask_bands", "mask_steps", "metric", "min_count", "mirror", "ngrams", "noise", "norm", "pairs"),
            *("quantiles", "rate", "sampled", "segment", "shift", "smoothing", "speed", "spelling", "stride"),
            *("target_length", "target_unit", "threads", "threshold", "tie", "tied", "transpose", "turn", "warp"),
            *("weight_drop", "width", "word_dropout", "zoom"),
        }
    )

    def options(self) -> dict[str, set[str]]:
        return {
            name: {field.name for field in dataclasses.fields(tasks.get(name)) if field.init} for name in tasks.names()
        }

    def test_every_flag_is_an_option_of_some_task(self):
        flags = set(inspect.signature(train_command).parameters) - self.NOT_OPTIONS
        assert flags == TASK_FLAGS
        assert flags <= set().union(*self.options().values())

    def test_every_option_has_a_flag_or_is_set(self):
        assert set().union(*self.options().values()) - TASK_FLAGS == self.BY_SET_ONLY

    def test_every_option_can_be_set(self):
        for name, options in self.options().items():
            defaults = tasks.get(name)().get_params()
            for option in options:
                text = json.dumps(defaults[option])
                task = _model(name, {}, {}, [f"{option}={text}"])
                assert json.loads(json.dumps(task.get_params())) == json.loads(json.dumps(defaults))

    def test_every_data_flag_is_read_by_some_task(self):
        read = {name for task in tasks.names() for name in inspect.signature(tasks.get(task).read).parameters}
        assert set(DATA_FLAGS) <= read


class TestTune:
    def test_the_best_options_train(self, everloop_command, reviews_csv):
        done = everloop_command(
            "tune", "reviews.csv", "--minutes", 5, "--trials", 2, "--search", "lr", "--set", "epochs=1",
            "--set", "hidden=3", "--set", "embedding=4", "--out", "tuned",
        )  # fmt: skip
        assert done.code == 0, done.err
        assert "lr = " in done.out
        assert "to train with them: everloop train --config tuned" in done.err
        assert everloop_command("train", "--config", "tuned", "--out", "run").code == 0
        assert load("run").hidden == 3

    def test_resuming_needs_a_folder(self, everloop_command, reviews_csv):
        assert "--resume needs --out" in everloop_command("tune", "reviews.csv", "--resume").err


class TestEvaluate:
    def test_a_table(self, everloop_command, classifier_run, reviews_csv):
        done = everloop_command("evaluate", classifier_run, reviews_csv)
        assert done.code == 0
        assert done.out.splitlines()[0].split() == ["accuracy", "macro", "f1", "loss"]
        assert f"{classifier_run} on {reviews_csv}" in done.out
        assert "input column" in done.err

    def test_json(self, everloop_command, classifier_run, reviews_csv):
        done = everloop_command("evaluate", classifier_run, reviews_csv, "--json")
        metrics = json.loads(done.out)
        texts, labels = zip(*list(csv.reader(reviews_csv.open()))[1:], strict=True)
        assert metrics == load(classifier_run).evaluate(texts, labels)

    def test_a_generator(self, everloop_command, generator_run, tmp_path):
        (tmp_path / "more.txt").write_text("abc" * 400 + "\n")
        done = everloop_command("evaluate", generator_run, "more.txt")
        assert done.out.splitlines()[0].split() == ["loss", "perplexity", "pieces"]
        assert done.out.rstrip().endswith("1,201")


class TestPredict:
    def test_texts(self, everloop_command, classifier_run):
        done = everloop_command("predict", classifier_run, "a good film", "a bad, bad film")
        assert (done.code, done.err) == (0, "")
        header, *rows = csv.reader(io.StringIO(done.out))
        assert header == ["text", "label", "probability"]
        assert [row[:2] for row in rows] == [["a good film", "pos"], ["a bad, bad film", "neg"]]
        assert all(0.5 <= float(row[2]) <= 1 for row in rows)

    def test_a_table_to_a_file(self, everloop_command, classifier_run, reviews_csv):
        done = everloop_command("predict", classifier_run, reviews_csv, "--out", "result.csv")
        assert (done.code, done.out) == (0, "")
        assert "60 predictions in result.csv" in done.err
        with open("result.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        texts = [row["text"] for row in csv.DictReader(reviews_csv.open())]
        assert [row["text"] for row in rows] == texts
        assert [row["label"] for row in rows] == load(classifier_run).predict(texts)
        probabilities = load(classifier_run).predict_proba(texts).max(1)
        assert [row["probability"] for row in rows] == [f"{p:.4f}" for p in probabilities]

    def test_a_plain_text_is_one_text_a_line(self, everloop_command, classifier_run, tmp_path):
        (tmp_path / "lines.txt").write_text("a good film\n\na bad film\n")
        done = everloop_command("predict", classifier_run, "lines.txt")
        assert "lines.txt: plain text, read as one text per line, 2 of them" in done.err
        assert [row[1] for row in csv.reader(io.StringIO(done.out))] == ["label", "pos", "neg"]

    def test_another_column(self, everloop_command, classifier_run, tmp_path):
        (tmp_path / "two.csv").write_text("text,remark\nbad,good\nbad,good\n")
        done = everloop_command("predict", classifier_run, "two.csv", "--input", "remark")
        assert [row[1] for row in csv.reader(io.StringIO(done.out))] == ["label", "pos", "pos"]

    def test_an_empty_text_and_one_that_looks_like_nothing(self, everloop_command, classifier_run):
        assert "lists, row 1: input: empty or missing" in everloop_command("predict", classifier_run, "", "b").err
        for text in (".", "x" * 5_000, "/"):
            assert everloop_command("predict", classifier_run, text, "b").code == 0


class TestGenerate:
    def test_a_prompt(self, everloop_command, generator_run):
        done = everloop_command("generate", generator_run, "--prompt", "ca", "-n", 10, "--temperature", 0)
        assert (done.code, done.out, done.err) == (0, "cabcabcabcab\n", "")

    def test_a_seed(self, everloop_command, generator_run):
        words = ("generate", generator_run, "-n", 60, "--temperature", 5, "--seed")
        first, second, other = (everloop_command(*words, seed).out for seed in (1, 1, 2))
        assert first == second != other
        assert first == load(generator_run).generate(length=60, temperature=5.0, seed=1) + "\n"

    def test_top_k_and_top_p(self, everloop_command, generator_run):
        for choice in (("--top-k", 1), ("--top-p", 0.01)):
            done = everloop_command("generate", generator_run, "-p", "a", "-n", 5, "--temperature", 2, *choice)
            assert done.out == "abcabc\n"

    def test_unknown_characters_are_a_warning(self, everloop_command, generator_run):
        done = everloop_command("generate", generator_run, "-p", "aXbX", "-n", 3)
        assert done.code == 0
        assert done.err == "warning: the model never saw 'X': it reads that as an unknown piece\n"
        assert done.out.startswith("aXbX")


class TestShow:
    def test_cells(self, everloop_command):
        done = everloop_command("cells")
        assert [line.split()[0] for line in done.out.splitlines()] == ["cell", *cells.names()]
        rows = json.loads(everloop_command("cells", "--json", "--input", 3, "--hidden", 4).out)
        assert {row["cell"]: row["parameters"] for row in rows}["lstm"] == 4 * (4 * 3 + 4 * 4 + 4)
        assert {row["kind"] for row in rows} == {"recurrent", "diagonal", "scan"}

    @pytest.mark.parametrize("name", cells.names())
    def test_forms_of_every_cell(self, everloop_command, name):
        forms = {form: everloop_command("show", name, "--as", form) for form in ("text", "latex", "backward", "plan")}
        assert {(done.code, done.err) for done in forms.values()} == {(0, "")}
        assert forms["text"].out.startswith(f"{name}: {cells.get(name).source}")
        assert "\\begin{aligned}" in forms["latex"].out
        assert "in the loop, step by step" in forms["plan"].out
        assert len({done.out for done in forms.values()}) == 4
        assert everloop_command("show", name).out == forms["text"].out

    def test_programs_and_pictures(self, everloop_command):
        forms = {
            form: everloop_command("show", "gru", "--as", form) for form in ("numpy", "torch", "diagram", "unrolled")
        }
        assert {(done.code, done.err) for done in forms.values()} == {(0, "")}
        for program in ("numpy", "torch"):
            compile(forms[program].out, program, "exec")
            assert "Cho et al. 2014" in forms[program].out
        assert forms["diagram"].out.startswith("<svg ")
        long = everloop_command("show", "gru", "--as", "unrolled", "--steps", 7, "--layers", 2, "--bidirectional").out
        assert (forms["unrolled"].out.count(">gru<"), long.count(">gru<")) == (4, 7 * 2 * 2)

    def test_a_plan_for_given_sizes(self, everloop_command):
        plan = everloop_command("show", "lstm", "--as", "plan", "--input", 3, "--hidden", 5).out
        assert re.search(r"for input 3, hidden 5, .*\n +parameters +180\n", plan)
        assert re.search(r"FLOPs in the loop +265 +a step; of products 200,", plan)

    def test_datasets(self, everloop_command):
        done = everloop_command("datasets")
        assert "chinese-reviews" in done.out
        assert "chinese-news" in done.out

    def test_a_dataset_as_a_file(self, everloop_command, monkeypatch):
        from everloop.data import datasets
        from everloop.data.files import read_examples

        known = datasets.get("chinese-reviews")
        made = dataclasses.replace(known, read=lambda: read_examples([("a, b", "x"), ("c", "y")]))
        monkeypatch.setattr(datasets, "get", lambda name: made)
        done = everloop_command("datasets", "write", "chinese-reviews", "--out", "reviews.csv")
        assert (done.code, done.err) == (0, "2 examples in reviews.csv\n")
        assert Path("reviews.csv").read_bytes() == b'text,label\n"a, b",x\nc,y\n'

    def test_version_and_help(self, everloop_command):
        assert everloop_command("--version").out == f"everloop {everloop.__version__}\n"
        for words in ((), ("--help",), ("-h",)):
            done = everloop_command(*words)
            assert (done.code, done.err) == (0, "")
            for verb in ("train", "tune", "evaluate", "predict", "generate", "show", "cells", "datasets", "demo"):
                assert re.search(rf"^. {verb} ", done.out, re.MULTILINE)

    def test_help_of_train_names_every_flag(self, everloop_command, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        out = everloop_command("train", "--help").out
        for name in TASK_FLAGS | {"input", "target", "out", "resume", "config", "set", "quiet"}:
            assert f"--{name.replace('_', '-')}" in out


class TestProcess:
    """What only a process of its own can show."""

    def run(self, *words: object, **how: Any) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "everloop", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, **how)

    def test_ctrl_c_then_predict_then_resume(self, tmp_path, everloop_command, reviews_csv):
        many = ("--hidden", 3, "--embedding", 4, "--batch", 4, "--epochs", 5_000, "--patience", 0)
        words = [sys.executable, "-m", "everloop", "train", "reviews.csv", *map(str, many), "--out", "run"]
        process = subprocess.Popen(
            words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch   2"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert "stopped by you in epoch " in err
        assert "Traceback" not in err
        assert err.endswith("to go on:   everloop train --out run --resume\n")
        assert everloop_command("predict", "run", "good").code == 0
        with pytest.raises(ValueError, match="was begun with epochs = 5000; 2 came"):
            everloop.Classifier(**load("run").get_params() | {"epochs": 2}).fit("reviews.csv", out="run", resume=True)

    def test_a_reader_that_has_had_enough(self, generator_run):
        command = f"{sys.executable} -m everloop generate {generator_run} -n 100000 | head -c 5"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        assert (done.stdout[3:], done.stderr) == (done.stdout[:2], "")

    def test_the_module_is_the_command(self):
        done = self.run("show", "lsmt")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: no cell is named 'lsmt'; did you mean lstm, slstm, t_lstm?")


def test_six_hundred_real_reviews(everloop_command, shared_data, tmp_path):
    lines = (shared_data / "reviews_mr.csv").read_text(encoding="utf-8").splitlines()
    # The file is sorted by label.
    step = len(lines[1:]) // 600
    (tmp_path / "reviews.csv").write_text("\n".join([lines[0], *lines[1::step][:600]]) + "\n", encoding="utf-8")
    done = everloop_command("train", "reviews.csv", "--epochs", 1, "--hidden", 16, "--embedding", 32, "--out", "run")
    assert done.code == 0
    results = json.loads(Path("run/results.json").read_text())
    assert list(results) == [
        "lstm (classifier)",
        "majority class",
        "logistic regression on word unigrams and bigrams",
    ]
    assert (
        results["majority class"]["accuracy"] < results["logistic regression on word unigrams and bigrams"]["accuracy"]
    )
    assert "majority class" in done.out
    assert "Traceback" not in done.err
