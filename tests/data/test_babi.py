"""bAbI's files as tables."""

from __future__ import annotations

import tarfile

import pytest

from everloop.data.sets.babi import babi

TRAIN = """1 Mary went to the kitchen.
2 John moved to the hall.
3 Where is Mary?	kitchen	1
4 Mary took the milk.
5 What does Mary hold?	milk	4
1 John is there.
2 What is the path?	n,w	1
"""
TEST = "1 A is b.\n2 Is A c?\tno\t1\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "en").mkdir(parents=True)
    (tmp_path / "data" / "en" / "qa1_train.txt").write_text(TRAIN)
    (tmp_path / "data" / "en" / "qa1_test.txt").write_text(TEST)
    return tmp_path / "data"


def test_questions_come_with_what_was_said_before_them(folder):
    table = babi(folder, 1)
    assert table["question"] == ["Where is Mary?", "What does Mary hold?", "What is the path?", "Is A c?"]
    assert table["answer"] == ["kitchen", "milk", "n,w", "no"]
    assert table["story"] == [
        "Mary went to the kitchen.\nJohn moved to the hall.",
        "Mary went to the kitchen.\nJohn moved to the hall.\nMary took the milk.",
        "John is there.",
        "A is b.",
    ]
    assert table["part"] == ["train", "train", "train", "test"]
    assert table["group"] == ["train 1", "train 1", "train 2", "test 1"]


def test_an_archive_is_the_same(folder, tmp_path):
    with tarfile.open(tmp_path / "babi.tar.xz", "w:xz") as archive:
        archive.add(folder, "babi")
    assert babi(tmp_path / "babi.tar.xz", 1) == babi(folder, 1)


def test_refusals(folder):
    with pytest.raises(ValueError, match="task 21 came; bAbI has the tasks 1 to 20"):
        babi(folder, 21)
    with pytest.raises(FileNotFoundError, match=r"there is no file qa2_train\.txt in"):
        babi(folder, 2)


def test_the_whole(shared_data):
    table = babi(shared_data / "babi" / "babi_en.tar.xz", 2)
    assert table["part"].count("train") == table["part"].count("test") == 1_000
    assert len(set(table["answer"])) == 6
