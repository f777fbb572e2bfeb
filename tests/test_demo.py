"""The demo, on a few hundred of its reviews."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from everloop.data import datasets
from everloop.demo import MIXED, REVIEWS, run_demo
from everloop.tasks import load, task


def test_demo_shows_result_baseline_predictions_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = datasets.get("chinese-reviews").read()
    rows = range(0, len(whole.inputs), 40)
    few = dataclasses.replace(
        whole,
        inputs=[whole.inputs[k][:40] for k in rows],
        targets=[whole.targets[k] for k in rows] if whole.targets else None,
        rows=[whole.rows[k] for k in rows],
    )
    monkeypatch.setattr(task, "get_dataset", lambda name: SimpleNamespace(read=lambda: few))
    run_demo(tmp_path)
    out = capsys.readouterr().out
    assert "majority class" in out
    assert "logistic regression" in out
    for text in REVIEWS:
        assert text in out
    assert out.count("█") + out.count("░") == 20 * MIXED.count("，") + 20 * MIXED.count("。")
    run = tmp_path / "demo-1"
    assert str(run) in out.replace("\n", "")
    assert (run / "report.html").is_file()
    assert load(run).predict(REVIEWS[0])[0] in ("positive", "negative")
