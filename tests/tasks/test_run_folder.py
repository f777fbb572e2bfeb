"""The run folder is the model: it holds everything, needs nothing else, and says so when it is damaged."""

from __future__ import annotations

import csv
import errno
import json
import pickle
import resource
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import everloop
from everloop import Classifier, Generator, load
from everloop.tasks.run import FORMAT, Run, free_folder, read_config


class TestWhatItHolds:
    def test_files(self, classifier_run):
        assert {path.name for path in classifier_run.iterdir()} == {
            "config.toml",
            "run.json",
            "model.safetensors",
            "codec.json",
            "metrics.csv",
            "results.json",
            "checkpoint.safetensors",
            "report.html",
        }

    @pytest.mark.parametrize("kind", [Classifier, Generator])
    def test_every_option_is_in_the_configuration_resolved(self, kind, classifier_run, generator_run):
        folder = classifier_run if kind is Classifier else generator_run
        config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
        assert sorted(config["options"]) == sorted(kind().get_params())
        assert config["everloop"] == everloop.__version__
        assert config["options"]["unit"] == ("words" if kind is Classifier else "chars")
        assert config["options"]["epochs"] == (2 if kind is Classifier else 1)

    def test_epochs_that_the_data_decided(self, reviews, tmp_path):
        task = Classifier(hidden=2, embedding=2, batch=60, lr=1e-9, patience=1)
        task.fit(*reviews, out=tmp_path / "run", quiet=True)
        assert read_config(tmp_path / "run")["options"]["epochs"] == task.epochs_ == 60

    def test_weights_are_safetensors_of_the_best_epoch(self, classifier_run):
        with safe_open(classifier_run / "model.safetensors", "pt") as file:
            assert "recurrent.layers.0.0.U" in set(file.keys())
            assert json.loads(file.metadata()["everloop"])["epoch"] in (1, 2)

    def test_metrics_results_and_state(self, classifier_run):
        with (classifier_run / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["1", "2"]
        assert {"train_loss", "valid_loss", "valid_accuracy", "lr", "clipped", "seconds"} <= rows[0].keys()
        results = json.loads((classifier_run / "results.json").read_text(encoding="utf-8"))
        model, majority, regression = results
        assert (model, majority) == ("lstm (classifier)", "majority class")
        assert regression.startswith("logistic regression")
        assert all({"accuracy", "macro_f1", "loss"} == metrics.keys() for metrics in results.values())
        state = Run.open(classifier_run).state
        assert (state["format"], state["status"], state["task"]) == (FORMAT, "finished", "classifier")

    def test_reports(self, classifier_run, generator_run):
        page = (classifier_run / "report.html").read_text(encoding="utf-8")
        for part in ("Confusion matrix", "majority class", "Loss after each epoch", "hidden = 3"):
            assert part in page
        page = (generator_run / "report.html").read_text(encoding="utf-8")
        assert "Generated texts" in page
        assert "Kneser-Ney" in page
        assert "Confusion matrix" not in page

    def test_nothing_in_it_is_unpickled(self, classifier_run, monkeypatch):
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("something was unpickled")

        for module in (pickle, torch):
            monkeypatch.setattr(module, "load", refuse)
        monkeypatch.setattr(pickle, "loads", refuse)
        monkeypatch.setattr(pickle, "Unpickler", refuse)
        Run.open(classifier_run).read_tensors("checkpoint.safetensors")
        assert load(classifier_run).predict("good")


class TestLoading:
    def test_needs_nothing_but_the_folder(self, small, reviews, tmp_path):
        first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
        task = small().fit(*reviews, out=first, quiet=True)
        second.parent.mkdir()
        shutil.move(first, second)
        for name in ("config.toml", "run.json", "model.safetensors", "codec.json"):
            assert (second / name).is_file()
        for name in ("checkpoint.safetensors", "metrics.csv", "results.json", "report.html"):
            (second / name).unlink()
        again = load(second)
        assert (again.predict_proba(reviews[0]) == task.predict_proba(reviews[0])).all()
        assert again.get_params() == task.get_params() | {"unit": "words"}

    def test_a_generator(self, small_generator, letters, tmp_path):
        task = small_generator().fit([letters], out=tmp_path / "run", quiet=True)
        again = load(tmp_path / "run")
        assert again.evaluate(letters) == task.evaluate(letters)
        assert again.generate("ab", seed=3, length=40) == task.generate("ab", seed=3, length=40)

    def test_a_loaded_one_can_be_saved_elsewhere(self, copy_of, classifier_run, reviews, tmp_path):
        model = load(classifier_run)
        assert load(model.save(tmp_path / "copy")).predict(reviews[0]) == model.predict(reviews[0])
        assert model.save(classifier_run) == classifier_run
        with pytest.raises(FileExistsError, match="copy exists and is not empty; give another --out"):
            model.save(tmp_path / "copy")

    def test_what_was_fitted_without_a_folder_can_be_saved(self, small, reviews, tmp_path):
        task = small().fit(*reviews, quiet=True)
        assert task.run_ is None
        again = load(task.save(tmp_path / "run"))
        assert (again.predict_proba(reviews[0]) == task.predict_proba(reviews[0])).all()
        assert {"results.json", "metrics.csv", "report.html"} <= {path.name for path in (tmp_path / "run").iterdir()}
        assert "source" not in read_config(tmp_path / "run")["data"]

    def test_what_is_not_fitted_cannot(self, tmp_path):
        with pytest.raises(ValueError, match="this Classifier is not fitted yet; call fit first"):
            Classifier().save(tmp_path / "run")


def put(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        before = path.read_text(encoding="utf-8")
        after = change(before)
        assert after != before
        path.write_text(after, encoding="utf-8")

    return damage


def put_json(**entries: Any) -> Callable[[Path], None]:
    return put("run.json", lambda text: json.dumps(json.loads(text) | entries))


def flip(name: str, place: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)

    return damage


def cut(name: str, to: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to])


def unnoted(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """As from somebody who took the sums away as well."""

    def both(folder: Path) -> None:
        put_json(files={}, files_before={})(folder)
        damage(folder)

    return both


DAMAGED = "is damaged or was changed: its sha256 is not the one that run.json notes. Copy the run folder again"
DAMAGES = {
    "weights, a bit": (flip("model.safetensors", -5), f"model.safetensors {DAMAGED}"),
    "weights, the header": (flip("model.safetensors", 20), f"model.safetensors {DAMAGED}"),
    "weights, cut": (cut("model.safetensors", 300), f"model.safetensors {DAMAGED}"),
    "weights, empty": (cut("model.safetensors", 0), f"model.safetensors {DAMAGED}"),
    "weights, missing": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "model.safetensors is missing: the run (status: finished) has no trained model to load",
    ),
    "weights cut, and no sums": (
        unnoted(cut("model.safetensors", 300)),
        "model.safetensors cannot be read as safetensors: ",
    ),
    "codec": (put("codec.json", lambda text: text.replace('"good"', '"goof"')), f"codec.json {DAMAGED}"),
    "codec, and no sums": (unnoted(put("codec.json", lambda text: text[:-9])), "this is no codec of Everloop"),
    "codec not text, and no sums": (
        unnoted(lambda folder: (folder / "codec.json").write_bytes(b"\xff\xfe\xfa")),
        "codec.json is damaged: it is not text",
    ),
    "codec, missing": (lambda folder: (folder / "codec.json").unlink(), "codec.json is missing"),
    "another size": (
        put("config.toml", lambda text: text.replace("hidden = 3", "hidden = 5")),
        "model.safetensors does not fit config.toml: size mismatch for recurrent.layers.0.0.",
    ),
    "another cell": (
        put("config.toml", lambda text: text.replace('cell = "lstm"', 'cell = "gru"')),
        "model.safetensors does not fit config.toml: ",
    ),
    "another task": (
        put("config.toml", lambda text: text.replace('task = "classifier"', 'task = "generator"')),
        "config.toml: Generator has no option 'bidirectional'",
    ),
    "unknown cell": (
        put("config.toml", lambda text: text.replace('cell = "lstm"', 'cell = "lsmt"')),
        "no cell is named 'lsmt'; did you mean lstm",
    ),
    "unknown task": (
        put("config.toml", lambda text: text.replace('task = "classifier"', 'task = "classifer"')),
        "no task is named 'classifer'; did you mean classifier?",
    ),
    "no task": (put("config.toml", lambda text: text.replace('task = "classifier"', "")), "config.toml names no task"),
    "impossible value": (
        put("config.toml", lambda text: text.replace("hidden = 3", "hidden = -3")),
        "hidden: -3 came; expected greater than or equal to 1",
    ),
    "unknown option": (
        put("config.toml", lambda text: text.replace("hidden = 3", "hiden = 3")),
        "config.toml: Classifier has no option 'hiden'",
    ),
    "option outside its table": (
        put("config.toml", lambda text: "hidden = 3\n" + text),
        "config.toml has an entry 'hidden'; expected everloop, task, options, data: options go in [options]",
    ),
    "options not a table": (
        lambda folder: (folder / "config.toml").write_text('task = "classifier"\noptions = 3\n'),
        "config.toml: options = 3 came; expected a table, [options]",
    ),
    "config not TOML": (put("config.toml", lambda text: text + "\n= nothing"), "config.toml is not TOML: "),
    "config, missing": (lambda folder: (folder / "config.toml").unlink(), "there is no configuration"),
    "state not JSON": (cut("run.json", 40), "run.json is not JSON: "),
    "state a list": (lambda folder: (folder / "run.json").write_text("[1]"), "run.json must hold one JSON object"),
    "state, missing": (lambda folder: (folder / "run.json").unlink(), "is not a run folder: it has no run.json"),
    "no format": (put_json(format=None), "run.json: format None came; expected a number of 1 or more"),
    "newer": (
        put_json(format=FORMAT + 1, everloop="9.0.0"),
        f"was written by Everloop 9.0.0 in run format {FORMAT + 1}; this is Everloop {everloop.__version__}, "
        f"which reads formats up to {FORMAT}. Upgrade it: pip install --upgrade everloop",
    ),
    "no classes": (put_json(fitted={"pairs": 0}), "run.json: the entry 'fitted' is damaged (KeyError('classes'))"),
    "too many classes": (
        put_json(fitted={"classes": ["a", "b", "c"], "pairs": 0}),
        "model.safetensors does not fit config.toml: ",
    ),
    "not trained": (put_json(fitted=None), "run.json has no entry 'fitted': the run was stopped before training"),
    "sums damaged": (put_json(files=[1]), "run.json: the entry 'files' is damaged; copy the run folder again"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(name, classifier_run, copy_of):
    damage, words = DAMAGES[name]
    folder = copy_of(classifier_run)
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(folder)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value) or "did you mean" in words or "codec of" in words or "expected g" in words


def test_a_damaged_checkpoint_is_not_gone_on_with(small, reviews, tmp_path):
    small().fit(*reviews, out=tmp_path / "run", quiet=True)
    flip("checkpoint.safetensors", -5)(tmp_path / "run")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged or was changed"):
        small().fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
    assert load(tmp_path / "run").predict("good")


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no run\.json"):
        load(tmp_path)


def test_a_folder_that_is_not_empty_is_left_alone(small, reviews, classifier_run, tmp_path, at_update):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    run, exists = "or --resume to go on with the run in it", "exists and is not empty; give another --out"
    for out, words in ((tmp_path / "notes", exists), (tmp_path / "file", exists), (classifier_run, run)):
        with pytest.raises(FileExistsError, match=words):
            small().fit(*reviews, out=out, quiet=True)
    assert (tmp_path / "notes" / "a.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_free_folders(tmp_path):
    assert free_folder("a", tmp_path) == tmp_path / "a-1"
    (tmp_path / "a-1").mkdir()
    assert free_folder("a", tmp_path) == tmp_path / "a-2"


class TestFullDisk:
    """What was there before stays loadable, and the message says what to do."""

    def full_for(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        replace = Path.replace

        def refuse(path: Path, target: Path) -> Path:
            if Path(target).name in names:
                raise OSError(errno.ENOSPC, "No space left on device")
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", refuse)

    @pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors", "run.json", "metrics.csv"])
    def test_at_any_file_of_the_second_epoch(
        self, small_generator, letters, tmp_path, monkeypatch, at_update, same, name
    ):
        out = tmp_path / "run"
        with monkeypatch.context() as patch:
            with (
                at_update(Generator, 8, lambda: self.full_for(patch, name)),
                pytest.raises(OSError, match=rf"no space left to write .*{name} \([\d,]+ bytes\); what the run"),
            ):
                small_generator().fit([letters], out=out, quiet=True)
            # Once more, without having made room.
            with pytest.raises(OSError, match="Make room, then go on with --resume"):
                small_generator().fit([letters], out=out, resume=True, quiet=True)
            assert len(load(out).generate("a", length=9)) == 10
        assert not list(out.glob(".*")), "no partial files"
        gone_on = small_generator().fit([letters], out=out, resume=True, quiet=True)
        assert same(gone_on, small_generator().fit([letters], quiet=True))

    def test_a_real_limit_of_the_system(self, classifier_run, copy_of, reviews, files_of_at_most):
        folder = copy_of(classifier_run)
        run = Run.open(folder)
        with files_of_at_most(2_000), pytest.raises(OSError, match=r"no space left to write .*model.safetensors \(4,1"):
            run.write_tensors("model.safetensors", {"w": torch.ones(1_000)})
        assert load(folder).predict(reviews[0]) == load(classifier_run).predict(reviews[0])
        assert not list(folder.glob(".*"))


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """The operating system lets no file of this process grow larger."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
