"""Bad input through the command: one clear message, a non-zero exit, never a traceback, and nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import everloop
from everloop import cli
from everloop.tasks import load


@dataclass(frozen=True)
class Failed:
    code: int
    message: str
    news: str


Command = Callable[..., Failed]


@pytest.fixture
def fails(everloop_command) -> Command:
    """Run the command in this process; it must fail, with one message, which is the last it says."""

    def run(*words: object) -> Failed:
        done = everloop_command(*words)
        news, error, message = f"\n{done.err}".partition("\nerror: ")
        assert error, done.err
        assert "error:" not in message
        assert "Traceback" not in done.err
        assert "please report it" not in message
        assert done.out == ""
        return Failed(done.code, message.rstrip("\n"), news)

    return run


def lines(rows: int) -> list[str]:
    words = ("film", "story", "plot", "actor", "scene", "music")
    return [f"{words[row % 6]} {['bad', 'good'][row % 2]} {row},{['neg', 'pos'][row % 2]}" for row in range(rows)]


REVIEWS = "\n".join(["text,label", *lines(60)]) + "\n"
SMALL = ("--hidden", 2, "--embedding", 3, "--epochs", 1, "--batch", 32)


@pytest.fixture
def reviews_csv(tmp_path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text(REVIEWS)
    return path


@pytest.fixture(scope="module")
def classifier_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "reviews.csv").write_text(REVIEWS)
    task = everloop.Classifier(hidden=2, embedding=3, batch=32, epochs=1)
    return task.fit(str(folder / "reviews.csv"), out=folder / "run", quiet=True).run_.folder


@pytest.fixture(scope="module")
def generator_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generator") / "run"
    return (
        everloop.Generator(hidden=2, embedding=3, window=8, epochs=1)
        .fit(["abc" * 99], out=folder, quiet=True)
        .run_.folder
    )


FILES: dict[str, tuple[str | bytes, tuple[object, ...], str]] = {
    # name of the file: its content, further words, the message
    "empty.csv": ("", (), "empty.csv is empty; expected examples, or a text"),
    "blank.txt": (" \n\n", (), "blank.txt is empty; expected examples, or a text"),
    "header.csv": ("text,label\n", (), 'header.csv has columns "text" and "label" and no rows; expected at least one'),
    "columns.csv": (
        REVIEWS,
        ("--input", "txt"),
        'columns.csv has no column "txt"; it has "text" and "label"; did you mean "text"?',
    ),
    "target.csv": (REVIEWS, ("--target", "lable"), 'it has "text" and "label"; did you mean "label"?'),
    "twice.csv": (REVIEWS, ("--input", "text", "--target", "text"), 'column "text" is named as input and as target'),
    "one class.csv": (
        REVIEWS.replace(",neg", ",pos"),
        ("--task", "classifier"),
        "column 'label' of one class.csv holds one class only ('pos', 60 of them); a classifier needs two or more",
    ),
    "no labels.csv": (
        "text\n" + "\n".join(line.split(",")[0] for line in lines(30)),
        ("--task", "classifier"),
        'no labels.csv has no column that looks like labels (different values that come again); it has "text"; '
        "name the labels with --target",
    ),
    "numbers.csv": (
        "text,id\n" + "\n".join(f"film {k},{k}" for k in range(60)),
        ("--target", "id"),
        "column 'id' of numbers.csv holds 60 different values in 60 rows: these are not classes. "
        "Name the label column with --target, or train a generator with --task generator",
    ),
    "row.csv": (
        REVIEWS + "a, b, pos\n",
        (),
        'row.csv, row 62: 3 fields came, the header has 2 ("text" and "label"); a field that holds a comma needs '
        "quotation marks around it; --bad-rows skip leaves such rows out",
    ),
    "missing label.csv": (REVIEWS + "good film,\n", (), 'missing label.csv, row 62: target column "label": empty'),
    "row.jsonl": ('{"text": "a", "label": "b"}\n{"text": \n', (), "row.jsonl, row 2: not JSON: "),
    "bytes.csv": (REVIEWS.encode() + b"caf\xe9,pos\n", (), "bytes.csv, line 62: byte 0xE9 is not UTF-8; name the"),
    "encoding.csv": (REVIEWS, ("--encoding", "utf-9"), 'encoding.csv, line 1: there is no text encoding "utf-9"'),
    "binary.txt": (b"GIF89a\0\0", (), "binary.txt, byte 7: a zero byte came, which no text has"),
    "cut.csv.gz": (gzip.compress(REVIEWS.encode())[:-20], (), "cut.csv.gz, not a whole gzip file: "),
    "false.parquet": ("PAR1", (), "false.parquet: not a readable parquet file: "),
    "two rows.csv": ("text,label\ngood,pos\nbad,neg\n", (), "2 rows came; at least 3 rows are needed for training"),
    "quote.csv": (
        REVIEWS + '"never closed,pos\nnext,neg\n',
        (),
        "quote.csv, row 62: a quotation mark opened here is never",
    ),
    "short.txt": ("abcd", (), "short.txt is too short to train on: "),
    "one letter.txt": ("a", (), "1 steps came; at least 3 steps are needed"),
    "labelled.txt": (
        "just a text",
        ("--task", "classifier"),
        "labelled.txt is read as one text and has no labels; expected a .csv, .tsv",
    ),
    "target.txt": ("just a text", ("--target", "label"), "target.txt is read as one text and has no columns; leave"),
    "generator target.csv": (
        REVIEWS,
        ("--task", "generator", "--target", "label"),
        'a target column "label" was named where no target is wanted; leave it out',
    ),
    "shares.csv": (REVIEWS, ("--valid", 0.5, "--test", 0.5), "valid=0.5 and test=0.5 came; expected shares"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(fails, tmp_path, name):
    content, words, message = FILES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    failed = fails("train", name, *SMALL, *words, "--out", "run")
    assert failed.code == 1
    assert message in failed.message
    assert not (tmp_path / "run").exists()


def test_no_file(fails, reviews_csv):
    assert fails("train", "review.csv").message == 'there is no file review.csv; similar names there: "reviews.csv"'
    assert fails("train", "data/review.csv").message == "there is no file data/review.csv: there is no folder data"
    assert fails("train").message == "what should it train on? Give a FILE, or --config RUN/config.toml"


def test_an_unreadable_row_is_skipped_when_asked(fails, tmp_path, monkeypatch):
    (tmp_path / "all.csv").write_text("text,label\n" + "a,b,c\n" * 3)
    message = fails("train", "all.csv", "--bad-rows", "skip").message
    assert message.startswith('all.csv has columns "text" and "label" and no rows; expected at least one example; 3 un')


VALUES = {
    "--hidden 0": "hidden: 0 came; expected greater than or equal to 1",
    "--vocabulary 3": "vocabulary: 3 came; expected greater than or equal to 4",
    "--layers -1": "layers: -1 came; expected greater than or equal to 1",
    "--dropout 1.5": "dropout: 1.5 came; expected less than 1",
    "--dropout -0.1": "dropout: -0.1 came; expected greater than or equal to 0",
    "--lr -1": "lr: -1.0 came; expected greater than 0",
    "--lr inf": "lr: inf came; expected a finite number",
    "--lr nan": "lr: nan came; expected a finite number",
    "--clip -1": "clip: -1.0 came; expected greater than or equal to 0",
    "--epochs -2": "epochs: -2 came; expected greater than or equal to 0",
    "--batch 0": "batch: 0 came; expected greater than or equal to 1",
    "--valid 0": "valid: 0.0 came; expected greater than 0",
    "--test 0.9": "test: 0.9 came; expected less than or equal to 0.5",
    "--seed -1": "seed: -1 came; expected greater than or equal to 0",
    "--averaging 1": "averaging: 1.0 came; expected less than 1",
    "--warmup 1": "warmup: 1.0 came; expected less than 1",
    "--unit word": "unit: 'word' came; expected 'auto', 'chars', 'words' or 'subwords'",
    "--schedule cosin": "schedule: 'cosin' came; expected 'cosine', 'linear' or 'constant'",
    "--pooling median": "pooling: 'median' came; expected 'max+mean', 'max', 'mean' or 'last'",
    "--duplicates maybe": "duplicates: 'maybe' came; expected 'drop' or 'keep'",
    "--cell lsmt": "no cell is named 'lsmt'; did you mean lstm, slstm, t_lstm?",
    "--task clasifier": "no task is named 'clasifier'; did you mean classifier? there are classifier, forecaster",
    "--device gpu": "device: 'gpu' came; it cannot be used here: ",
    "--window 9": "--window is not an option of a classifier; it has cell, hidden",
    "--task generator --pooling max": "--pooling is not an option of a generator; it has cell, hidden",
    "--task generator --one-way": "--bidirectional is not an option of a generator",
    "--set hidden": "--set hidden: expected NAME=VALUE",
    "--set hiden=3": "Classifier has no option 'hiden'; it has cell, hidden",
    "--set word_dropout=much": "word_dropout: 'much' came; expected a valid number",
    "--set cell=3": "cell: 3 came; expected a valid string",
    "--resume": "--resume needs --out, the run folder to go on with",
    "--config nowhere": "there is no configuration nowhere",
}


@pytest.mark.parametrize("options", VALUES)
def test_values(fails, reviews_csv, options):
    failed = fails("train", "reviews.csv", *options.split())
    assert failed.code == 1
    assert failed.message.startswith(VALUES[options])
    assert not Path("runs").exists()


USAGE = {
    "train reviews.csv --hiden 3": ("No such option: --hiden", "--hidden", "see everloop train --help"),
    "train reviews.csv --hidden many": ("Invalid value for '--hidden'", "valid integer", "see everloop train --help"),
    "train reviews.csv --bad-rows ignore": ("Invalid value for '--bad-rows'", "skip", "see everloop train --help"),
    "train reviews.csv more.csv": ("unexpected extra argument", "more.csv", "see everloop train --help"),
    "trian reviews.csv": ("No such command 'trian'", "", "see everloop --help"),
    "predict": ("Missing argument", "", "see everloop predict --help"),
    "evaluate run": ("Missing argument", "", "see everloop evaluate --help"),
    "show lstm --as picture": ("Invalid value for '--as'", "latex", "see everloop show --help"),
}


@pytest.mark.parametrize("words", USAGE)
def test_usage(fails, words):
    failed = fails(*words.split())
    assert failed.code == 2
    assert failed.news == ""
    assert "\n" not in failed.message
    for part in USAGE[words]:
        assert part in failed.message


def test_too_little_memory(fails, reviews_csv, monkeypatch):
    monkeypatch.setattr(everloop.Classifier, "make_network", lambda self: torch.empty(2**52))
    assert fails("train", "reviews.csv", "--out", "run").message == (
        "there is not enough memory; try a smaller --hidden, --batch, --vocabulary or --length"
    )
    assert not Path("run").exists()


def test_an_error_of_our_own_asks_for_a_report(monkeypatch, capsys, reviews_csv):
    def break_down(self: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(everloop.Classifier, "make_network", break_down)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["everloop", "train", str(reviews_csv), "--quiet", "--out", "run"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert (stop.value.code, capsys.readouterr().err) == (
        1,
        "error: unexpected ZeroDivisionError: by zero. EVERLOOP_DEBUG=1 shows where; please report it\n",
    )
    monkeypatch.setenv("EVERLOOP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main()


class TestRunFolders:
    def test_out_that_exists(self, fails, reviews_csv, classifier_run, tmp_path):
        before = (classifier_run / "run.json").read_bytes()
        failed = fails("train", "reviews.csv", *SMALL, "--out", classifier_run)
        assert failed.message.endswith(
            "exists and is not empty; give another --out, or --resume to go on with the run in it"
        )
        assert (classifier_run / "run.json").read_bytes() == before
        assert "text as" not in failed.news, "found before the data are looked at"
        assert fails("train", "reviews.csv", "--out", "reviews.csv").message == (
            "reviews.csv exists and is not empty; give another --out"
        )

    def test_out_that_cannot_be_made(self, fails, reviews_csv):
        assert fails("train", "reviews.csv", *SMALL, "--out", "reviews.csv/run").message == (
            "reviews.csv/run: Not a directory"
        )

    def test_the_other_task(self, fails, classifier_run, generator_run):
        assert fails("generate", classifier_run).message == (
            f"{classifier_run} is a classifier, which does not generate text; "
            f"try everloop predict {classifier_run} TEXT"
        )

    def test_no_run_folder(self, fails, tmp_path):
        for words in (("predict", "run", "a"), ("generate", "run"), ("evaluate", "run", "a.csv")):
            assert fails(*words).message == "there is no run folder run"
        assert fails("predict", tmp_path, "a").message == f"{tmp_path} is not a run folder: it has no run.json"

    @pytest.mark.parametrize("name", ["model.safetensors", "codec.json"])
    def test_tampered(self, fails, classifier_run, tmp_path, name):
        folder = shutil.copytree(classifier_run, tmp_path / "run")
        content = bytearray((folder / name).read_bytes())
        content[-9] ^= 1
        (folder / name).write_bytes(content)
        words = "is damaged or was changed: its sha256 is not the one that run.json notes. Copy the run folder again"
        assert fails("predict", "run", "a").message == f"run/{name} {words}, or train anew"

    def test_truncated(self, fails, classifier_run, tmp_path):
        folder = shutil.copytree(classifier_run, tmp_path / "run")
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
        assert fails("predict", "run", "a").message.startswith("run/model.safetensors is damaged or was changed")
        (folder / "model.safetensors").unlink()
        assert fails("predict", "run", "a").message.startswith("run/model.safetensors is missing: the run (status: fin")

    def test_newer(self, fails, classifier_run, tmp_path):
        folder = shutil.copytree(classifier_run, tmp_path / "run")
        state = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(state | {"format": 99, "everloop": "9.9"}))
        for words in (("predict", "run", "a"), ("train", "--out", "run", "--resume")):
            assert fails(*words).message.startswith(
                "run was written by Everloop 9.9 in run format 99; this is Everloop"
            )

    def test_state_that_is_not_json(self, fails, classifier_run, tmp_path):
        folder = shutil.copytree(classifier_run, tmp_path / "run")
        (folder / "run.json").write_text("{")
        assert fails("predict", "run", "a").message.startswith("run/run.json is not JSON: ")

    def test_another_architecture(self, fails, classifier_run, tmp_path):
        folder = shutil.copytree(classifier_run, tmp_path / "run")
        config = (folder / "config.toml").read_text()
        (folder / "config.toml").write_text(config.replace("hidden = 2", "hidden = 4"))
        assert fails("predict", "run", "a").message.startswith(
            "run/model.safetensors does not fit config.toml: size mis"
        )

    def test_configurations(self, fails, classifier_run, tmp_path, reviews_csv):
        config = (classifier_run / "config.toml").read_text()
        cases = {
            "hidden = 3\n": "has an entry 'hidden'; expected everloop, task, options, data: options go in [options]",
            "hidden 3\n": "is not TOML: ",
            'task = "classifier"\n[options]\nhiden = 3\n': "Classifier has no option 'hiden'",
            "options = 3\n": "options = 3 came; expected a table, [options]",
            "[data]\ninputs = 3\n": "[data] has 'inputs'; expected source, input, target, part, group, modality, time",
            config.replace(str(classifier_run.parent), "gone"): "there is no file gone/reviews.csv: there is no folder",
            'task = "classifier"\n[data]\nbad_rows = "stop"\n': "the configuration names none: it was trained on",
        }
        for text, words in cases.items():
            (tmp_path / "some.toml").write_text(text)
            source = () if "[data]" in text else ("reviews.csv",)
            assert words in fails("train", *source, "--config", "some.toml", "--out", "new").message

    def test_resume_with_other_options(self, fails, reviews_csv, classifier_run, tmp_path):
        shutil.copytree(classifier_run, tmp_path / "run")
        assert fails("train", "--out", "run", "--resume", "--hidden", 7).message == (
            "run was begun with hidden = 2; 7 came. A resumed run keeps its options; start a new one with another --out"
        )
        reviews_csv.write_text(REVIEWS + "another row,pos\n")
        assert fails("train", "reviews.csv", "--out", "run", "--resume").message == (
            "run was begun with other data than reviews.csv holds now. A resumed run needs the same; "
            "start a new one with another --out"
        )
        assert load("run").predict("good") == load(classifier_run).predict("good")


class TestUsingAModel:
    def test_unknown_label(self, fails, classifier_run, tmp_path):
        (tmp_path / "other.csv").write_text("text,label\ngood,positive\nbad,neg\n")
        assert fails("evaluate", classifier_run, "other.csv").message == (
            "label 'positive' is not one of the 2 the model knows: neg, pos"
        )

    def test_files(self, fails, classifier_run, tmp_path):
        assert fails("evaluate", classifier_run, "missing.csv").message == "there is no file missing.csv"
        assert fails("predict", classifier_run, "missing.csv").message == "there is no file missing.csv"
        (tmp_path / "empty.csv").write_text("")
        assert fails("predict", classifier_run, "empty.csv").message.startswith("empty.csv is empty")

    def test_out_is_never_overwritten(self, fails, classifier_run, reviews_csv):
        failed = fails("predict", classifier_run, "reviews.csv", "--out", "reviews.csv")
        assert failed.message == "reviews.csv exists; give another --out"
        assert reviews_csv.read_text() == REVIEWS
        assert (
            fails("predict", classifier_run, "a", "--out", "no/b.csv").message == "no/b.csv: No such file or directory"
        )
        assert (
            fails("datasets", "write", "chinese-news", "--out", "reviews.csv").message
            == "reviews.csv exists; give another --out"
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--temperature -1", "temperature: -1.0 came; expected 0 (always the most probable) or more"),
            ("--temperature nan", "temperature: nan came; expected 0 (always the most probable) or more"),
            ("--top-p 0", "top_p: 0.0 came; expected more than 0 and at most 1 (all)"),
            ("--top-p 2", "top_p: 2.0 came; expected more than 0 and at most 1 (all)"),
            ("--top-k -1", "top_k: -1 came; expected 0 (all) or how many of the most probable pieces to draw from"),
            ("--length -5", "length: -5 came; expected 0 or more pieces"),
        ],
    )
    def test_sampling(self, fails, generator_run, options, message):
        assert fails("generate", generator_run, *options.split()).message == message

    def test_names(self, fails):
        assert fails("show", "lsmt").message.startswith("no cell is named 'lsmt'; did you mean lstm, slstm, t_lstm?")
        message = fails("datasets", "write", "chinese-review", "--out", "a.csv").message
        assert message.startswith('there is no dataset "chinese-review"; there are "air-passengers", "chinese-news"')
        assert message.endswith('did you mean "chinese-reviews"?')


class TestFullDisk:
    def limited(self, size: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    def run(self, folder: Path, size: int, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "everloop", *map(str, words)],
            cwd=folder,
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=self.limited(size),
        )

    def test_training(self, tmp_path, reviews_csv):
        done = self.run(tmp_path, 3_000, "train", "reviews.csv", "--hidden", 20, "--epochs", 2, "--out", "run")
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: no space left to write run/model.safetensors (")
        assert last.endswith("what the run folder held before is intact. Make room, then go on with --resume")

    def test_predicting(self, fails, classifier_run, tmp_path):
        (tmp_path / "many.csv").write_text("text\n" + "a good film\n" * 3_000)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            failed = fails("predict", classifier_run, "many.csv", "--out", "result.csv")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert failed.message == "result.csv: File too large"
        assert len((tmp_path / "result.csv").read_text().splitlines()) > 500, "what was done stays"


class TestInterrupting:
    def start(self, folder: Path, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "everloop", *map(str, words)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )

    def test_outside_of_training(self, fails, reviews_csv, monkeypatch):
        def interrupt(*_: Any, **__: Any) -> None:
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr("everloop.tasks.guess.read_examples", interrupt)
        failed = fails("train", "reviews.csv")
        assert (failed.code, failed.message) == (130, "stopped")

    def test_while_measuring(self, fails, reviews_csv, monkeypatch):
        def interrupt(*_: Any, **__: Any) -> None:
            signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(everloop.Classifier, "baselines", interrupt)
            failed = fails("train", "reviews.csv", *SMALL, "--out", "run")
        assert (failed.code, failed.message) == (130, "stopped")
        assert load("run").predict("good")
        again = everloop.Classifier(**load("run").get_params()).fit("reviews.csv", out="run", resume=True, quiet=True)
        assert len(again.results_) == 3

    def test_twice(self, tmp_path, reviews_csv):
        """The second Ctrl-C does not wait for the update: here one takes longer than the test may."""
        (tmp_path / "slow.py").write_text(
            "import sys, time\nfrom everloop import cli\nfrom everloop.tasks.classifier.task import _Problem\n"
            "loss = _Problem.loss\n"
            "def slow(*a):\n    print('update', file=sys.stderr, flush=True)\n    time.sleep(600)\n"
            "_Problem.loss = slow\ncli.main()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "slow.py", "train", "reviews.csv", *map(str, SMALL), "--out", "run"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line == "update\n":
                break
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None, "the first waits for the update"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        told = "stopping after this update; Ctrl-C once more stops at once\n"
        assert (process.returncode, out, err) == (130, "", f"{told}error: stopped\n")
