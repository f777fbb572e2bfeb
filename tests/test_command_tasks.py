"""The command on every task: a small file is trained on, measured, predicted from, as a user would."""

from __future__ import annotations

import csv
import io
import json
import wave
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Command = Callable[..., Any]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def trained(command: Command, *words: object) -> str:
    done = command("train", *words, "--out", "run")
    assert done.code == 0, done.err
    assert "report:     run/report.html" in done.err
    assert Path("run/report.html").stat().st_size > 2_000
    return done.err


def test_a_tagger(everloop_command: Command, tmp_path: Path) -> None:
    lines = [f"{who}/r {what}/v 苹果{k}/n" for k in range(12) for who, what in product("我你他", "吃买")]
    (tmp_path / "tagged.txt").write_text("\n".join(lines), encoding="utf-8")
    said = trained(everloop_command, "tagged.txt", "--hidden", 8, "--epochs", 6, "--batch", 8)
    assert "task: tagger (its words have tags)" in said
    found = everloop_command("predict", "run", "我 吃 苹果", "他 买 苹果")
    assert [row["tags"] for row in rows_of(found.out)] == ["r v n", "r v n"]
    assert json.loads(everloop_command("evaluate", "run", "tagged.txt", "--json").out)["accuracy"] > 0.9


def test_a_forecaster(everloop_command: Command, tmp_path: Path) -> None:
    hours = [f"2016-07-{day:02} {hour:02}:00" for day in range(1, 29) for hour in range(24)]
    load = [10 + 3 * np.sin(2 * np.pi * k / 24) for k in range(len(hours))]
    text = "date,load\n" + "".join(f"{hour},{value:.4f}\n" for hour, value in zip(hours, load, strict=True))
    (tmp_path / "power.csv").write_text(text)
    said = trained(everloop_command, "power.csv", "--set", "horizon=6", "--set", "lookback=24", "--epochs", 3)
    assert "task: forecaster (it has a column of times, and columns of numbers)" in said
    rows = rows_of(everloop_command("predict", "run", "power.csv").out)
    assert [row["time"][:13] for row in rows] == [f"2016-07-29{' T'['T' in rows[0]['time']]}{k:02}" for k in range(6)]
    assert all(abs(float(row["forecast"]) - 10) < 6 for row in rows)
    assert "mase" in json.loads(everloop_command("evaluate", "run", "power.csv", "--json").out)


def test_a_translator(everloop_command: Command, tmp_path: Path) -> None:
    names, verbs = {"John": "约翰", "Mary": "玛丽", "Tom": "汤姆"}, {"sees": "看见", "likes": "喜欢"}
    things = {"dogs": "狗", "cats": "猫", "books": "书", "birds": "鸟"}
    pairs = [
        f"{n} {v} {a} and {b}\t{names[n]}{verbs[v]}{things[a]}和{things[b]}"
        for n, v, a, b in product(names, verbs, things, things)
    ]
    (tmp_path / "pairs.tsv").write_text("english\tchinese\n" + "\n".join(pairs), encoding="utf-8")
    words = ("pairs.tsv", "--input", "english", "--target", "chinese", "--hidden", 32, "--embedding", 16)
    said = trained(everloop_command, *words, "--epochs", 12, "--batch", 8, "--dropout", 0.1)
    assert "task: seq2seq (every input has a text of its own)" in said
    (row,) = rows_of(everloop_command("predict", "run", "Tom likes cats and dogs").out)
    assert row["prediction"]
    assert "chrf" in json.loads(
        everloop_command("evaluate", "run", "pairs.tsv", "--input", "english", "--target", "chinese", "--json").out
    )


def tone(path: Path, words: list[str]) -> None:
    """A word is a tone of its own."""
    pitch = {"low": 300, "high": 1_500}
    time = np.arange(2_000) / 8_000
    gap = np.zeros(600)
    sound = np.concatenate([part for word in words for part in (np.sin(2 * np.pi * pitch[word] * time), gap)])
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes((sound * 20_000).astype("<i2").tobytes())


def test_a_recognizer(everloop_command: Command, tmp_path: Path) -> None:
    (tmp_path / "said").mkdir()
    texts = [" ".join(words) for count in (1, 2, 3) for words in product(("low", "high"), repeat=count)] * 4
    for k, text in enumerate(texts):
        tone(tmp_path / "said" / f"{k}.wav", text.split())
        (tmp_path / "said" / f"{k}.txt").write_text(text)
    trained(
        everloop_command, "said", "--task", "recognizer", "--unit", "words", "--hidden", 16, "--epochs", 4,
        "--batch", 8, "--duplicates", "keep",
    )  # fmt: skip
    (row,) = rows_of(everloop_command("predict", "run", "said/0.wav").out)
    assert set(row["prediction"].split()) <= {"low", "high"}
    assert "wer" in json.loads(everloop_command("evaluate", "run", "said", "--json").out)


def test_music(everloop_command: Command, tmp_path: Path) -> None:
    from everloop.data import notes

    (tmp_path / "tunes").mkdir()
    for k in range(16):
        piece = notes.Notes.of("C4 E4 G4 | F4 A4 C5 | G4 B4 D5 | " * 6).transposed(k - 8)
        notes.save(piece, tmp_path / "tunes" / f"{k}.mid")
    said = trained(everloop_command, "tunes", "--hidden", 16, "--embedding", 8, "--epochs", 2, "--batch", 4)
    assert "task: generator (it is music)" in said
    done = everloop_command("generate", "run", "--prompt", "C4 E4 G4", "-n", 12, "--seed", 1, "--out", "song.mid")
    assert done.code == 0, done.err
    assert len(notes.load("song.mid")) <= 13
    for words, message in (
        ((), "this generator writes music: --out names the MIDI file"),
        (("--out", "song.mid"), "song.mid exists; give another --out"),
        (("--out", "other.mid", "--top-k", 3), "--top-k is for text; music has --temperature"),
    ):
        assert message in everloop_command("generate", "run", *words).err


def test_signals(everloop_command: Command, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    lines = []
    for k in range(80):
        time = np.arange(20) / 20
        up = k % 2
        values = (time if up else -time) + dice.normal(0, 0.1, 20)
        lines.append(",".join([["down", "up"][up], *(f"{value:.3f}" for value in values)]))
    header = ",".join(["label", *(f"t{k}" for k in range(20))])
    (tmp_path / "signals.csv").write_text("\n".join([header, *lines]))
    words = ("signals.csv", "--modality", "vectors", "--hidden", 8, "--epochs", 6, "--batch", 8)
    trained(everloop_command, *words)
    found = everloop_command("evaluate", "run", "signals.csv", "--modality", "vectors", "--json")
    assert json.loads(found.out)["accuracy"] > 0.9
    rows = rows_of(everloop_command("predict", "run", "signals.csv", "--modality", "vectors").out)
    assert len(rows) == 80
    assert sum(row["label"] == ["down", "up"][k % 2] for k, row in enumerate(rows)) > 70


@pytest.mark.parametrize("flag", ["--time", "--series", "--known"])
def test_flags_of_another_task_are_refused(everloop_command: Command, tmp_path: Path, flag: str) -> None:
    (tmp_path / "a.csv").write_text("text,label\nx,a\ny,b\n")
    done = everloop_command("train", "a.csv", "--task", "classifier", flag, "text")
    assert done.code == 1
    assert f"{flag[2:]}= says nothing about the data of a classifier" in done.err
