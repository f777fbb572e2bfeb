"""The contracts of tasks and codecs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from everloop.data import codecs
from everloop.insight.metrics import is_share


def check_codec(codec: codecs.Codec, inputs: Sequence[Any]) -> None:
    """A fitted codec: what it makes of inputs, one by one and together, is numbers of one kind, and a codec that was
    written and read again makes the same.
    """
    name = type(codec).__name__
    together = list(codec.encode_batch(inputs))
    assert len(together) == len(inputs), f"{name} made {len(together)} sequences of {len(inputs)} inputs"
    for k, row in enumerate(together):
        _check_row(codec, row, f"{name}, input {k}")
        (alone,) = codec.encode_batch(inputs[k : k + 1])
        assert np.array_equal(alone, row), f"{name}, input {k}: by itself it is encoded differently"
    text = codec.to_json()
    for read in (type(codec).from_json(text), codecs.from_json(text)):
        assert type(read) is type(codec), f"{name}: its JSON was read as a {type(read).__name__}"
        assert read.to_json() == text, f"{name}: its JSON changes when it is read and written"
        for k, (row, expected) in enumerate(zip(read.encode_batch(inputs), together, strict=True)):
            assert np.array_equal(row, expected), f"{name}, input {k}: once read again, it encodes differently"
    assert codecs.get(codec.modality) is type(codec), f"{name}: the modality {codec.modality!r} has another codec"
    assert codec.describe().strip(), f"{name} says nothing of itself"


def _check_row(codec: Any, row: Any, what: str) -> None:
    assert isinstance(row, np.ndarray), f"{what}: a {type(row).__name__} came"
    assert len(row), f"{what}: no steps came"
    if row.dtype.kind == "i":
        assert row.dtype == np.int64, f"{what}: ids are {row.dtype}; expected int64"
        assert row.min() >= 0, f"{what}: an id is {row.min()}"
        return
    assert row.dtype == np.float32, f"{what}: values are {row.dtype}; expected float32"
    assert row.ndim == 2, f"{what}: values of shape {row.shape} came; expected [T, F]"
    assert row.shape[1] == codec.features, f"{what}: {row.shape[1]} features came; the codec says {codec.features}"
    assert np.isfinite(row).all(), f"{what}: not all values are finite"


def check_task(task: Any, data: Any, targets: Sequence[Any] | None = None, **how: Any) -> None:
    """A task that is not fitted yet, on data that train in seconds: it can be cloned and fitted, stands beside a
    baseline, keeps itself in a folder without pickles, and comes back from there as it was.
    """
    from sklearn.base import clone

    from everloop.tasks import load

    name = type(task).__name__
    other: Any = clone(task)
    assert other.get_params() == task.get_params(), f"{name}: a clone has other options"
    examples = task.read(data, targets, **how)
    for use in (lambda: list(task.predictions(examples)), lambda: task.evaluate_examples(examples)):
        assert "not fitted" in _refusal(use), f"{name} works without having been fitted"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        assert task.fit(data, targets, out=run, quiet=True, **how) is task, f"{name}: fit gives back another object"
        _check_results(task, name)
        _check_folder(run, name)
        predicted, measured = list(task.predictions(examples)), task.evaluate_examples(examples)
        assert predicted, f"{name} predicts nothing"
        assert all(row.keys() == predicted[0].keys() for row in predicted), f"{name}: rows have different columns"
        task.save(Path(folder) / "copy")
        for again in (load(run), load(Path(folder) / "copy")):
            assert again.get_params() == task.get_params() | {"epochs": task.epochs_} | task.resolved()
            assert list(again.predictions(examples)) == predicted, f"{name}: once loaded, it predicts differently"
            assert again.evaluate_examples(examples) == measured, f"{name}: once loaded, it measures differently"
    other.fit(data, targets, quiet=True, **how)
    assert list(other.predictions(examples)) == predicted, f"{name}: the same seed gives another model"


def _refusal(use: Callable[[], object]) -> str:
    try:
        use()
    except ValueError as error:
        return str(error)
    return ""


def _check_results(task: Any, name: str) -> None:
    (_, own), *baselines = task.results_
    assert task.judged_by in own, f"{name} is judged by {task.judged_by}, which it does not measure"
    assert any(task.judged_by in row for _, row in baselines), f"{name} has no baseline by {task.judged_by}"
    for rival, row in task.results_:
        for metric, value in row.items():
            assert not math.isnan(value), f"{name}: {metric} of {rival} is no number"
            assert not is_share(metric) or value >= 0, f"{name}: {metric} of {rival} is {value}"
    assert task.beats_baseline() in (True, False)
    assert task.verdict().endswith(".")
    assert any(f"valid_{task.monitor}" in row for row in task.outcome_.history), (
        f"{name}: {task.monitor} is not followed"
    )


def _check_folder(run: Path, name: str) -> None:
    for file in ("config.toml", "run.json", "model.safetensors", "codec.json", "results.json", "report.html"):
        assert (run / file).stat().st_size, f"{name}: {file} is empty"
    for file in run.iterdir():
        is_pickle = file.suffix != ".safetensors" and file.read_bytes().startswith(b"\x80")
        assert not is_pickle, f"{name}: {file.name} is a pickle"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page, f"{name}: the report has a script"
    assert "http" not in page.replace("http://www.w3.org", ""), f"{name}: the report names something elsewhere"
