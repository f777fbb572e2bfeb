"""Every task and codec keeps the contract that is public in `everloop.testing`; a new one has to be listed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pytest

from everloop import tasks
from everloop.data import codecs
from everloop.data.audio import Waveform
from everloop.data.notes import Notes
from everloop.data.series import read_series
from everloop.testing import check_codec, check_task

DICE = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    data: Any
    targets: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)


def signals() -> tuple[list[np.ndarray], list[str]]:
    labels = ["up", "down"] * 30
    ramps = [np.linspace(0, 1, n) for n in DICE.integers(6, 12, 60)]
    return [(r if y == "up" else -r) + DICE.normal(0, 0.1, len(r)) for r, y in zip(ramps, labels, strict=True)], labels


def sounds() -> tuple[list[Waveform], list[str]]:
    """A word is a tone of its own."""
    time = np.arange(1_600) / 8_000
    words = {name: np.sin(2 * np.pi * pitch * time) for name, pitch in (("low", 300), ("high", 1_500))}
    texts = [" ".join(said) for count in (1, 2, 3) for said in product(words, repeat=count)] * 3
    waves = [np.concatenate([np.r_[words[word], np.zeros(500)] for word in text.split()]) for text in texts]
    return [Waveform((wave + DICE.normal(0, 0.01, len(wave))).astype(np.float32), 8_000) for wave in waves], texts


def pairs() -> tuple[list[str], list[str]]:
    names, verbs = {"John": "约翰", "Mary": "玛丽", "Tom": "汤姆"}, {"sees": "看见", "likes": "喜欢"}
    things = {"dogs": "狗", "cats": "猫", "books": "书", "birds": "鸟"}
    found = [(f"{n} {v} {t}", names[n] + verbs[v] + things[t]) for n, v, t in product(names, verbs, things)]
    return [source for source, _ in found] * 3, [target for _, target in found] * 3


CASES: dict[str, Callable[[], Case]] = {
    "classifier": lambda: Case(*signals(), {"hidden": 4, "epochs": 3, "batch": 8, "lr": 0.02}),
    "tagger": lambda: Case(
        [f"{who}/r {what}/v 苹果{k}/n" for k in range(8) for who, what in product("我你他", "吃买")],
        None,
        {"hidden": 4, "embedding": 8, "characters": 4, "epochs": 3, "batch": 8},
    ),
    "generator": lambda: Case(
        ["ab ba " * 12, "abc abc " * 9] * 20,
        None,
        {"hidden": 8, "embedding": 4, "window": 16, "batch": 4, "epochs": 2, "duplicates": "keep"},
    ),
    "forecaster": lambda: Case(
        np.sin(np.arange(400) / 4) + DICE.normal(0, 0.1, 400),
        None,
        {"hidden": 4, "horizon": 4, "lookback": 24, "epochs": 2},
    ),
    "seq2seq": lambda: Case(
        *pairs(), {"hidden": 8, "embedding": 8, "epochs": 2, "batch": 8, "beam": 2, "min_count": 1}
    ),
    "recognizer": lambda: Case(
        *sounds(), {"hidden": 8, "channels": 8, "epochs": 2, "batch": 8, "unit": "words", "duplicates": "keep"}
    ),
}

INPUTS: dict[str, Callable[[], list[Any]]] = {
    "text": lambda: ["a film to remember", "what a mess", "a film"],
    "words": lambda: [["the", "cat"], ["a", "mat", "the"]],
    "vectors": lambda: [DICE.normal(size=(n, 3)).astype(np.float32) for n in (4, 7, 5)],
    "series": lambda: [read_series(np.arange(30.0)).inputs[0]],
    "image": lambda: [DICE.integers(0, 256, (6, 5), dtype=np.uint8) for _ in range(3)],
    "frames": lambda: [DICE.integers(0, 256, (n, 6, 5), dtype=np.uint8) for n in (3, 4)],
    "audio": lambda: [Waveform(DICE.normal(0, 0.1, n).astype(np.float32), 8_000) for n in (4_000, 6_000)],
    "notes": lambda: [Notes.of("C4 E4 | G4 | C5"), Notes.of("A3 | B3 D4")],
}
FIT: dict[str, dict[str, Any]] = {"text": {"unit": "words", "reversible": False, "min_count": 1}}
OWN_FORM = {"words", "series"}
"""What these encode is more than ids or values: a structure that their own task knows."""


def test_every_task_and_every_modality_is_here() -> None:
    assert set(CASES) == set(tasks.names())
    assert set(INPUTS) == set(codecs.names())


@pytest.mark.parametrize("name", CASES)
def test_a_task_keeps_the_contract(name: str) -> None:
    case = CASES[name]()
    check_task(tasks.get(name)(**case.options), case.data, case.targets, **case.how)


@pytest.mark.parametrize("name", sorted(set(INPUTS) - OWN_FORM))
def test_a_codec_keeps_the_contract(name: str) -> None:
    inputs = INPUTS[name]()
    check_codec(codecs.get(name).fit(inputs, **FIT.get(name, {})), inputs)
