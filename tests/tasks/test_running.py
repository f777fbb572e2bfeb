"""Trained tasks at work without torch: the same results as with it, from the same run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import everloop
from everloop import Classifier, Generator, load
from everloop.tasks import TRAINING, running
from everloop.testing import FLOAT32, assert_close

CELL = """
from everloop import cell, tanh, sigmoid

@cell(states="h", gates="z n", inputs="dt", start={"dt": 1.0})
def mine(x, h, dt, W, U, b):
    a = W @ x + U @ h + b
    return sigmoid(a.z) * h + dt * tanh(a.n)
"""

WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
import json, numpy, time
"""


def without_torch(code: str, *words: str, missing: Collection[str] = TRAINING) -> Any:
    """What the code puts into `result`, in another process, as if the packages for training were not installed."""
    before = f"MISSING = {sorted(missing)!r}" + WITHOUT
    report = "\nassert 'torch' not in sys.modules\nprint(json.dumps(result))"
    environment = os.environ | {"PYTHONPATH": str(Path(everloop.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-c", before + code + report, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, reviews: Any) -> Callable[..., Path]:
    """The run folder of a classifier with these options, trained for a moment."""
    folder = tmp_path_factory.mktemp("running")

    def make(**options: Any) -> Path:
        place = folder / "-".join(["trained", *(f"{name}.{value}" for name, value in options.items())])
        if not place.exists():
            small = {"hidden": 3, "embedding": 4, "epochs": 2, "min_count": 1, "lr": 0.02, "batch": 16}
            Classifier(**{**small, "bidirectional": False, **options}).fit(*reviews, out=place, quiet=True)
        return place

    return make


class TestClassifier:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"bidirectional": True, "layers": 2},
            {"unit": "chars"},
            {"unit": "chars", "bidirectional": True},
            {"pooling": "max", "cell": "gru", "layers": 2},
            {"pooling": "mean", "cell": "projection_lstm"},
            {"pooling": "last", "cell": "mingru"},
            {"length": 3},
        ],
        ids=str,
    )
    def test_probabilities_are_those_of_torch(self, trained: Any, reviews: Any, options: dict[str, Any]) -> None:
        folder, texts = trained(**options), [*reviews[0][:20], "", "not in the vocabulary ?!"]
        found, task = running.load(folder), load(folder)
        assert found.classes_ == task.classes_
        assert_close(found.predict_proba(texts), task.predict_proba(texts), FLOAT32)
        assert found.predict(texts) == task.predict(texts)
        assert_close(found.predict_proba(texts[0]), task.predict_proba(texts[0]), FLOAT32)
        assert found.predict_proba([]).shape == (0, 2)

    @pytest.mark.parametrize("unit", ["chars", "words"])
    @pytest.mark.parametrize("pooling", ["max+mean", "last"])
    def test_a_stream_is_the_text_so_far(self, trained: Any, reviews: Any, unit: str, pooling: str) -> None:
        """After every piece, what the model says of the text up to there."""
        task = load(trained(unit=unit, pooling=pooling))
        assert (task.pair_count_ > 0) == (unit == "chars")
        ids = task.codec_.encode(reviews[0][0])
        scores = task._scores([ids[: k + 1] for k in range(len(ids))])
        expected = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        whole, singly, cut = task.stream(), task.stream(), task.stream()
        assert_close(whole.push(reviews[0][0]), expected, FLOAT32)
        assert_close(np.array([singly.push(id) for id in ids]), expected, FLOAT32)
        assert_close(np.concatenate([cut.push(ids[:3]), cut.push([]), cut.push(ids[3:].tolist())]), expected, FLOAT32)
        assert_close(task.predict_proba(reviews[0][0])[0], expected[-1], FLOAT32)

    @pytest.mark.parametrize("unit", ["chars", "words"])
    def test_snapshots_forks_and_a_new_beginning(self, trained: Any, unit: str) -> None:
        model = running.load(trained(unit=unit))
        stream = model.stream()
        first = stream.push("the film")
        kept, fork = stream.snapshot(), stream.fork()
        expected = stream.push(" is good")
        other = running.load(trained(unit=unit)).stream()
        other.restore(kept)
        for again in (other, fork):
            assert (again.push(" is good") == expected).all()
        stream.reset()
        assert (stream.push("the film") == first).all()
        with pytest.raises(ValueError, match="snapshot: it is of another model"):
            running.load(trained(pooling="max", cell="gru", layers=2)).stream().restore(kept)

    def test_one_graph_for_all_of_it(self, trained: Any) -> None:
        stream = running.load(trained()).stream()
        assert set(stream.state) == {"0.h", "0.c", "pooling.largest", "pooling.sum", "pooling.steps"}

    def test_both_directions_refuse_and_say_why(self, trained: Any) -> None:
        folder = trained(bidirectional=True, layers=2)
        for model in (running.load(folder), load(folder)):
            with pytest.raises(
                ValueError, match=r"a layer of both directions cannot be streamed: .* bidirectional=False"
            ):
                model.stream()

    def test_before_fitting(self) -> None:
        with pytest.raises(ValueError, match="this Classifier is not fitted yet"):
            Classifier().stream()

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (1.5, "push: float64 of shape () came; expected a text, an id, or ids [T]"),
            ([[1]], "push: int64 of shape (1, 1) came"),
            (-1, "push: ids from -1 to -1 came; the vocabulary has 0 to"),
            ([1, 10_000], "push: ids from 1 to 10000 came"),
        ],
    )
    def test_what_is_no_text(self, trained: Any, given: Any, words: str) -> None:
        with pytest.raises((TypeError, ValueError)) as caught:
            running.load(trained()).stream().push(given)
        assert str(caught.value).startswith(words)


class TestGenerator:
    def scores(self, task: Generator, ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return task.network_(torch.from_numpy(ids[None]))[0][0].numpy()

    def test_probabilities_are_those_of_torch(self, generator_run: Path, letters: str) -> None:
        task, stream = load(generator_run), running.load(generator_run).stream()
        ids = task.codec_.encode(letters[:40])
        expected = torch.from_numpy(self.scores(task, ids)).softmax(-1)
        assert_close(stream.push(letters[:40]), expected, FLOAT32)
        assert_close(stream.probabilities, expected[-1], FLOAT32)
        again = task.stream()
        assert_close(np.array([again.push(id) for id in ids]), expected, FLOAT32)
        assert_close(running.load(generator_run).stream(letters[:40]).probabilities, expected[-1], FLOAT32)

    def test_the_most_probable_by_torch(self, generator_run: Path) -> None:
        """Written without a draw, each piece is the one that the whole text so far makes most probable."""
        task = load(generator_run)
        text = running.load(generator_run).generate("ab", length=12, temperature=0)
        ids = task.codec_.encode(text)
        scores = self.scores(task, ids)[1:-1]
        scores[:, :3] = -np.inf
        assert scores.argmax(-1).tolist() == ids[2:].tolist()
        assert text == task.generate("ab", length=12, temperature=0)
        assert task.generate("a", length=20, seed=3) == running.load(generator_run).generate("a", length=20, seed=3)

    def test_reading_and_writing_take_turns(self, generator_run: Path) -> None:
        model = running.load(generator_run)
        stream = model.stream("ab", length=3, temperature=0)
        written = "".join(stream)
        after = stream.push("c")
        assert_close(after, model.stream().push("ab" + written + "c")[-1:], FLOAT32)
        again = model.stream("ab" + written + "c", length=3, temperature=0)
        assert "".join(stream) == "".join(again)

    def test_without_a_prompt_a_line_break_is_read(self, generator_run: Path, trained: Any) -> None:
        model = running.load(generator_run)
        assert model.first.tolist() == [model.codec_.end], "there is no line break in these texts"
        assert (model.stream().probabilities == model.stream().push(model.first)[-1]).all()
        pushed = model.stream()
        assert (pushed.push("a") == model.stream("a").probabilities).all(), "what is pushed is all that is read"

    def test_snapshots_forks_and_a_new_beginning(self, generator_run: Path) -> None:
        model = running.load(generator_run)
        stream = model.stream("abca", length=9, seed=1)
        kept, fork = stream.snapshot(), stream.fork()
        expected = "".join(stream)
        other = running.load(generator_run).stream(length=9, seed=1)
        other.restore(kept)
        assert "".join(other) == "".join(fork) == expected
        stream.restore(model.stream().snapshot())
        assert (stream.probabilities == model.stream().probabilities).all()
        stream.push("abc")
        stream.reset()
        assert (stream.probabilities == model.stream().probabilities).all()
        assert set(stream.state) == {"0.h", "0.c"}

    def test_options(self, generator_run: Path) -> None:
        with pytest.raises(ValueError, match="top_k: -1 came; expected 0"):
            running.load(generator_run).stream("a", top_k=-1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'heat'"):
            running.load(generator_run).generate("a", heat=1)


class TestDamaged:
    def test_weights_that_do_not_fit(self, copy_of: Any, generator_run: Path) -> None:
        folder = copy_of(generator_run)
        config = (folder / "config.toml").read_text()
        (folder / "config.toml").write_text(config.replace("hidden = 4", "hidden = 5"))
        with pytest.raises(ValueError, match=r"model\.safetensors does not fit config\.toml: linear\.weight: shape"):
            running.load(folder)
        (folder / "config.toml").write_text(config.replace("hidden = 4\n", ""))
        with pytest.raises(ValueError, match=r"config\.toml or run\.json has no entry 'hidden'"):
            running.load(folder)

    def test_a_file_that_was_changed(self, copy_of: Any, classifier_run: Path) -> None:
        folder = copy_of(classifier_run)
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"abcd")
        with pytest.raises(ValueError, match="is damaged or was changed: its sha256"):
            running.load(folder)

    def test_a_task_that_needs_torch(self, copy_of: Any, classifier_run: Path) -> None:
        folder = copy_of(classifier_run)
        config = (folder / "config.toml").read_text()
        (folder / "config.toml").write_text(config.replace('task = "classifier"', 'task = "juggler"'))
        with pytest.raises(
            ModuleNotFoundError, match=r"is a juggler, which needs torch to run: pip install 'everloop\["
        ):
            running.load(folder)


class TestWithoutTorch:
    def test_a_classifier(self, trained: Any, reviews: Any) -> None:
        folder, texts = trained(unit="chars"), reviews[0][:5]
        code = """
import everloop
model = everloop.load(sys.argv[1])
texts = json.loads(sys.argv[2])
stream = model.stream()
result = [model.predict(texts), model.predict_proba(texts).tolist(), stream.push(texts[0])[-1].tolist()]
"""
        labels, probabilities, last = without_torch(code, str(folder), json.dumps(texts))
        task = load(folder)
        assert labels == task.predict(texts)
        assert_close(probabilities, task.predict_proba(texts), FLOAT32)
        assert_close(last, task.predict_proba(texts)[0], FLOAT32)

    def test_a_generator_of_a_cell_from_a_file(self, tmp_path: Path, letters: str) -> None:
        (tmp_path / "mine.py").write_text(CELL)
        task = Generator(cell=str(tmp_path / "mine.py"), hidden=4, embedding=3, epochs=1, window=16, layers=2)
        task.fit([letters], out=tmp_path / "run", quiet=True)
        (tmp_path / "mine.py").unlink()
        code = """
import everloop
model = everloop.load(sys.argv[1])
result = [model.generate("ab", length=9, seed=1), model.stream().push("abc").tolist()]
"""
        text, probabilities = without_torch(code, str(tmp_path / "run"))
        again = load(tmp_path / "run")
        assert text == again.generate("ab", length=9, seed=1)
        with torch.no_grad():
            scores, _ = again.network_(torch.from_numpy(again.codec_.encode("abc")[None]))
        assert_close(probabilities, scores[0].softmax(-1), FLOAT32)

    def test_a_saved_layer(self, tmp_path: Path) -> None:
        from everloop import Recurrent
        from everloop.stream import save_layer

        layer = Recurrent("gru", 3, 4, 2).eval()
        save_layer(layer, tmp_path / "layer.safetensors")
        code = """
import everloop
layer = everloop.load(sys.argv[1])
x = numpy.arange(15, dtype=numpy.float32).reshape(5, 3) / 10
stream, pool = layer.stream(), layer.pool()
id = pool.open()
result = [stream.push(x).tolist(), pool.push({id: x})[id].tolist(), layer(x[None]).tolist()]
"""
        with torch.no_grad():
            expected = layer(torch.arange(15.0).reshape(1, 5, 3) / 10)[0]
        stream, pool, whole = without_torch(code, str(tmp_path / "layer.safetensors"))
        assert_close(stream, expected[0], FLOAT32)
        assert_close(pool, expected[0], FLOAT32)
        assert_close(whole, expected, FLOAT32)

    def test_what_needs_torch_says_so(self) -> None:
        code = """
from everloop import tasks
try:
    tasks.get("classifier")
except ModuleNotFoundError as error:
    result = str(error)
"""
        assert without_torch(code).endswith(", which is not installed: pip install 'everloop[train]'")

    @pytest.mark.parametrize("words", [["predict", "a good film"], ["generate", "--prompt", "ab", "--length", "3"]])
    def test_the_command(self, words: list[str], classifier_run: Path, generator_run: Path) -> None:
        folder = classifier_run if words[0] == "predict" else generator_run
        code = f"""
import contextlib, io
from everloop import cli
sys.argv = ["everloop", {words[0]!r}, {str(folder)!r}, *{words[1:]!r}]
out = io.StringIO()
with contextlib.redirect_stdout(out):
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
result = [code, out.getvalue()]
"""
        # The library that reads the command line may need pydantic itself.
        end, out = without_torch(code, missing=TRAINING - {"pydantic"})
        assert end == 0
        assert out.startswith("text,label,probability\na good film," if words[0] == "predict" else "ab")


COLD = """
begin = time.perf_counter()
import everloop
model = everloop.load(sys.argv[1])
model.predict_proba(["a good film"]) if hasattr(model, "predict_proba") else model.stream("ab").probabilities
result = time.perf_counter() - begin
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with Everloop and what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    project = str(Path(__file__).parents[2])
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", project]
    subprocess.run(install, check=True, timeout=600)
    return python


@pytest.mark.slow
class TestInAnEnvironmentOfItsOwn:
    def ran(self, python: str, code: str, *words: str) -> Any:
        """As `without_torch`, without the pretence; the installed package, not the one of this checkout."""
        whole = "import sys, json, time, numpy\n" if "numpy" in code else "import sys, json, time\n"
        report = "\nprint(json.dumps(result))"
        done = subprocess.run(
            [python, "-I", "-c", whole + code + report, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def test_nothing_of_training_is_there(self, python: str) -> None:
        code = f"""
from importlib.util import find_spec
result = [name for name in {sorted(TRAINING - {"pydantic"})!r} if find_spec(name)]
"""
        assert self.ran(python, code) == []

    def test_it_predicts_and_generates(self, python: str, trained: Any, reviews: Any, generator_run: Path) -> None:
        folder, texts = trained(unit="chars"), reviews[0][:5]
        code = """
import everloop
texts = json.loads(sys.argv[3])
result = [
    everloop.load(sys.argv[1]).predict_proba(texts).tolist(),
    everloop.load(sys.argv[2]).generate("ab", length=9, seed=1),
]
"""
        probabilities, text = self.ran(python, code, str(folder), str(generator_run), json.dumps(texts))
        assert_close(probabilities, load(folder).predict_proba(texts), FLOAT32)
        assert text == load(generator_run).generate("ab", length=9, seed=1)

    def test_a_cold_start_is_quick(self, python: str, trained: Any, generator_run: Path) -> None:
        """From `import` to the first prediction, with a warm cache: under 1 s; the best of five, on a busy machine."""
        for folder in (trained(unit="chars"), generator_run):
            times = [self.ran(python, COLD, str(folder)) for _ in range(5)]
            print(f"cold start, {folder.name}: {min(times):.2f} s at best, {max(times):.2f} s at worst")
            assert min(times) < 1.0
