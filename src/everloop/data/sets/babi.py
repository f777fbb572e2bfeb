"""bAbI: short stories, questions about them, and answers of a word or a few (Weston et al. 2015).

A line of the files is a number and a sentence; the numbers begin again at 1 with every story. A question has, after
tabs, its answer and the numbers of the sentences that answer it. An answer of several words has commas between them.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("story", "question", "answer", "part", "group")


def babi(path: str | Path, task: int) -> dict[str, list[str]]:
    """Task 1 to 20 of an archive (or a folder) that has `qa1_train.txt`, `qa1_test.txt` ... anywhere in it, as a table.

    story: the sentences before the question, one a line. part: train or test, as the data have it. group: questions
    about one story are of one.
    """
    if not 1 <= task <= 20:
        raise ValueError(f"task {task} came; bAbI has the tasks 1 to 20")
    table: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for part in ("train", "test"):
        for story, question, answer, place in _questions(_text(Path(path), f"qa{task}_{part}.txt")):
            for name, value in zip(COLUMNS, (story, question, answer, part, f"{part} {place}"), strict=True):
                table[name].append(value)
    return table


def _questions(text: str) -> Iterator[tuple[str, str, str, int]]:
    """Story, question, answer, and the number of the story."""
    place, sentences = 0, []
    for line in text.splitlines():
        number, _, rest = line.partition(" ")
        if number == "1":
            place, sentences = place + 1, []
        sentence, *answer = rest.split("\t")
        if answer:
            yield "\n".join(sentences), sentence.strip(), answer[0], place
        else:
            sentences.append(sentence.strip())


def _text(path: Path, name: str) -> str:
    """The file of that name, anywhere in the folder or archive."""
    if path.is_dir():
        found = next(iter(sorted(path.rglob(name))), None)
        if found is not None:
            return found.read_text(encoding="utf-8")
    elif path.is_file():
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if Path(member.name).name == name else None
                if file is not None:
                    return file.read().decode("utf-8")
    raise FileNotFoundError(f"there is no file {name} in {path}")
