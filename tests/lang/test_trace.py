"""A trace keeps the author's names, whoever else is watching."""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
from typing import Any

import pytest

from everloop.cells import get
from everloop.lang.cell import Cell, cell
from everloop.lang.functions import tanh


def fresh() -> Cell:
    """The LSTM, not traced yet."""
    return get("lstm")()


def local_names(made: Cell) -> set[str]:
    return set(made.graph.names.values())


NAMES = {"a_i", "a_f", "a_g", "a_o", "i", "f", "g", "o", "c", "h"}


def test_names_of_local_variables_survive() -> None:
    graph = fresh().graph
    assert set(graph.names.values()) == NAMES
    named = {name: node for node, name in graph.names.items()}
    assert named["i"].op == "sigmoid"
    assert named["c"] is graph.new["c"]
    assert named["h"] is graph.new["h"]


def test_the_last_value_of_a_name_counts_and_bundles_name_their_gates() -> None:
    @cell(states="h", gates="r z")
    def again(x, h, W):
        q = W @ x
        q = tanh(q)
        n = q.r + h
        n = n * q.z
        return n + 0

    graph = again.graph
    named = {name: node.op for node, name in graph.names.items()}
    assert named == {"q_r": "tanh", "q_z": "tanh", "n": "mul"}


def test_an_output_that_is_no_state_is_called_y() -> None:
    @cell(states="h", gates="h")
    def separate(x, h, W):
        return tanh(h), W.h @ x

    assert set(separate.graph.names.values()) == {"y", "h"}


def test_names_survive_under_a_profiler() -> None:
    profile = cProfile.Profile()
    profile.enable()
    names = local_names(fresh())
    profile.disable()
    assert names == NAMES
    assert pstats.Stats(profile).total_calls > 0  # type: ignore[attr-defined]


def test_a_profile_hook_stays_in_place_and_is_not_disturbed() -> None:
    seen: list[str] = []

    def hook(frame: Any, event: str, argument: Any) -> None:
        seen.append(event)

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        names = local_names(fresh())
        kept = sys.getprofile()
    finally:
        sys.setprofile(before)
    assert names == NAMES
    assert kept is hook
    assert "call" in seen


def test_a_trace_hook_as_of_coverage_sees_the_step_run() -> None:
    """Coverage tools hook every thread; the lines of a step must count as run."""
    lines: set[int] = set()
    code = get("lstm").step.__code__

    def hook(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code is code and event == "line":
            lines.add(frame.f_lineno)
        return hook

    before = threading.gettrace()
    threading.settrace(hook)
    try:
        names = local_names(fresh())
    finally:
        threading.settrace(before)  # type: ignore[arg-type]
    assert names == NAMES
    assert len(lines) == 4


def test_a_mistake_in_a_step_shows_its_own_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        assert get("elman")(act=lambda v: v * (1 / 0)).graph
    assert any(entry.name == "elman" for entry in caught.traceback)


def test_a_trace_happens_once() -> None:
    made = fresh()
    assert made.graph is made.graph
