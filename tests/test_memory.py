"""Every cell learns to remember, or its page says why it cannot: `benchmarks/memory.py` and what it found."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from everloop import cells

ROOT = Path(__file__).parents[1]
FOUND: dict[str, dict[str, Any]] = json.loads((ROOT / "docs" / "memory.json").read_text(encoding="utf-8"))["cells"]
PASSED = [name for name, row in FOUND.items() if row["passes"]]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, which lies outside the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("memory")


# -- what was found ---------------------------------------------------------------------------------------------------


def test_every_cell_has_been_tried() -> None:
    assert sorted(FOUND) == sorted(cells.names())


def test_a_cell_passes_or_its_page_says_why_not() -> None:
    says = {name for name in cells.names() if "fails the adding problem" in _beware(cells.get(name).doc)}
    assert says == set(FOUND) - set(PASSED)


def _beware(doc: str) -> str:
    return " ".join(doc.split()).partition("Beware:")[2]


def test_figures_are_those_of_the_tries(memory: ModuleType) -> None:
    recipes = {(recipe.task, recipe.layers, recipe.rate) for recipe in memory.TRIES}
    for name, row in FOUND.items():
        tries = [row, *row["before"]]
        assert [_passes(memory, tried) for tried in tries] == [row["passes"], *(False for _ in row["before"])], name
        assert {(tried["task"], tried["layers"], tried["rate"]) for tried in tries} <= recipes, name
        assert all(tried["updates"] <= memory.MOST for tried in tries), name
        assert row["passes"] or len(tries) == len(recipes), f"{name}: not everything was tried"


def _passes(memory: ModuleType, tried: dict[str, Any]) -> bool:
    return tried["error"] is not None and tried["error"] < memory.PASSES * tried["trivial"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSED)
def test_it_is_found_again(name: str, memory: ModuleType) -> None:
    """With twice the updates, because other machines round otherwise, and training makes much of it."""
    row, most = FOUND[name], 2 * memory.MOST
    outcome = memory.train(name, memory.PROBLEMS[row["task"]], layers=row["layers"], rate=row["rate"], most=most)
    print(f"{name}: {outcome}")
    assert outcome.passes, outcome


# -- a small version for every run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gru", "indrnn", "lem", "lru", "mingru", "slstm"])
def test_adding_over_a_few_steps(name: str, memory: ModuleType) -> None:
    outcome = memory.train(name, memory.Adding(20), layers=2, rate=1e-2, most=500)
    assert outcome.passes, outcome


def test_copying_over_a_few_steps(memory: ModuleType) -> None:
    outcome = memory.train("gru", memory.CopyMemory(4, 2, 3), layers=1, rate=1e-2, most=300)
    assert outcome.passes, outcome


def test_a_seed_fixes_the_outcome(memory: ModuleType) -> None:
    first, again, other = (
        memory.train("mingru", memory.Adding(5), layers=1, rate=1e-2, most=3, seed=seed).error for seed in (0, 0, 1)
    )
    assert first == again != other


def test_without_memory_nothing_passes(memory: ModuleType) -> None:
    """The measure itself: a network that sees the last step only cannot pass, however short the sequences."""

    class Forgetful(memory.Adding):
        def draw(self, count: int, generator: Any) -> Any:
            x, target = super().draw(count, generator)
            return x[:, -1:], target

    outcome = memory.train("gru", Forgetful(20), layers=1, rate=1e-2, most=200)
    assert not outcome.passes
    assert outcome.reached == 0
