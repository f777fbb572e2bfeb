"""The task is guessed from the data, with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from everloop.tasks.guess import guess

FILES = {
    "reviews.csv": "text,label\n" + "".join(f"film {k} was fine,{'good' if k % 2 else 'bad'}\n" for k in range(40)),
    "dated.csv": "date,text,stars\n" + "".join(f"2024-01-{k + 1:02},film {k} was fine,{k % 3}\n" for k in range(20)),
    "play.txt": "To be, or not to be: that is the question.\n" * 20,
    "letters.csv": "text\n" + "".join(f"a letter of the year {k}\n" for k in range(30)),
    "tagged.txt": "我/r 吃/v 苹果/n\n你/r 好/a\n" * 10,
    "columns.conll": "the DT\ncat NN\n\nit PRP\nsat VBD\n\n" * 5,
    "power.csv": "date,load,heat\n" + "".join(f"2016-07-01 {k:02}:00:00,{k}.5,{k % 5}\n" for k in range(24)),
    "pairs.tsv": "english\tchinese\n" + "".join(f"I have {k} apples\t我有{k}个苹果\n" for k in range(60)),
}


@pytest.mark.parametrize(
    ("name", "how", "task"),
    [
        ("reviews.csv", {}, "classifier"),
        ("dated.csv", {}, "classifier"),
        ("play.txt", {}, "generator"),
        ("letters.csv", {}, "generator"),
        ("tagged.txt", {}, "tagger"),
        ("columns.conll", {}, "tagger"),
        ("power.csv", {}, "forecaster"),
        ("power.csv", {"time": "date"}, "forecaster"),
        ("pairs.tsv", {"input": "english", "target": "chinese"}, "seq2seq"),
    ],
)
def test_the_task_is_guessed(name: str, how: dict[str, str], task: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    found, why = guess(str(tmp_path / name), **how)
    assert found == task
    assert why


def test_a_dataset_says_it_itself() -> None:
    assert guess("chinese-reviews")[0] == "classifier"
    assert guess("chinese-tags")[0] == "tagger"


def test_what_nobody_can_guess(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="holds audio and no targets"):
        guess(str(tmp_path))
