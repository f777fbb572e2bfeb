"""The benchmarks: whoever is timed computes the same, figures and goals are what they say, and the command runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from everloop.bench import contest, goals, machine, peers, suite, table
from everloop.bench.apart import apart
from everloop.bench.classes import NAMES, compile, contention, memory, ragged, rows, scan, sequence
from everloop.bench.classes import cells as other_cells
from everloop.bench.measure import FEWEST, SAMPLE, compare
from everloop.bench.options import Options
from everloop.bench.peers import torch_loop
from everloop.bench.problem import Problem, Rival, disagreements, ours
from everloop.bench.row import OURS, Check, Figure, Row

SHAPE = (3, 7, 5, 6)
TIGHT = Options(repeats=3, seconds=0.05, quick=True)


def problem(cell: str, what: str = "forward") -> Problem:
    shape = (1, 1, *SHAPE[2:]) if what == "step" else SHAPE
    return Problem.of(cell, shape, what)


def slow(seconds: float, calls: list[str], name: str) -> Callable[[], None]:
    def run() -> None:
        calls.append(name)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    return run


# -- who is compared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["forward", "training"])
@pytest.mark.parametrize("cell", sequence.CELLS)
def test_everybody_computes_what_we_do(cell: str, what: str) -> None:
    given = problem(cell, what)
    rivals = peers.rivals(given)
    expected = {"torch.nn", "torch loop", "jax scan"}
    expected |= set() if what == "training" else {"onnxruntime", "onnxruntime, bound"}
    assert set(rivals) == expected
    assert disagreements(given, rivals, ours(given)) == {}


@pytest.mark.parametrize("cell", other_cells.CELLS)
def test_every_loop_written_by_hand_computes_what_we_do(cell: str) -> None:
    assert cell in torch_loop.STEPS
    for what in ("forward", "training"):
        given = problem(cell, what)
        assert disagreements(given, peers.rivals(given), ours(given)) == {}


@pytest.mark.parametrize("cell", ["ugrnn", "t_lstm", "qrnn", "on_lstm", "esn"])
def test_a_cell_nobody_wrote_a_loop_for_has_one_made_of_it(cell: str) -> None:
    assert cell not in torch_loop.STEPS
    given = problem(cell, "training")
    rivals = peers.rivals(given)
    assert list(rivals) == ["torch loop"]
    assert disagreements(given, rivals, ours(given)) == {}


@pytest.mark.parametrize("cell", [*sequence.CELLS, *other_cells.CELLS])
def test_steps_go_on_from_step_to_step(cell: str) -> None:
    """Against the layer over the same input again and again."""
    given = problem(cell, "step")
    rivals = peers.rivals(given)
    assert "torch loop" in rivals
    assert cell not in sequence.CELLS or {"torch.nn", "torch.nn cell", "jax", "onnxruntime, bound"} < set(rivals)
    with torch.inference_mode():
        y, _ = given.layer(given.x.expand(1, 3, -1))
    steps = iter(y[0].numpy())
    assert disagreements(given, rivals, Rival(lambda: next(steps), lambda y: {"y": y.reshape(1, 1, -1)})) == {}


@pytest.mark.parametrize("name", scan.SCANS)
def test_scans_alone_are_scans_and_read_inputs_only(name: str) -> None:
    given = Problem.of(scan.SCANS[name], (2, 5, 4, 4), "training")
    assert given.flops == 0
    assert ours(given).read(ours(given).run())["x"].shape == (2, 5, 4)
    # x and the side inputs, y; and all of it twice more.
    assert scan.moved(given) == 3 * 4 * (2 + len(given.side)) * 2 * 5 * 4


def test_who_computes_something_else_is_not_timed() -> None:
    given = problem("gru")
    right = ours(given)
    off = Rival(right.run, lambda y: {"y": y.numpy() + 1e-3})
    found = disagreements(given, {"torch.nn": off, "same": right}, right)
    assert list(found) == ["torch.nn"]
    assert found["torch.nn"].startswith("torch.nn was not timed, because it computes something else: y: ")


def test_a_small_gradient_is_compared_at_its_own_scale() -> None:
    given = problem("gru")
    small = np.full((3, 7, 6), 1e-9)
    expected, off = Rival(int, lambda _: {"y": small}), Rival(int, lambda _: {"y": 1.01 * small})
    assert list(disagreements(given, {"peer": off}, expected)) == ["peer"]


def test_who_is_not_installed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name in ("jax", "jaxlib") else object())
    assert "jax scan" not in peers.rivals(problem("lstm"))
    assert peers.missing() == ["jax and jaxlib not installed: left out (pip install 'everloop[bench]')"]


# -- timing -----------------------------------------------------------------------------------------------------------


def test_short_calls_are_repeated_in_a_sample_and_rivals_take_turns() -> None:
    calls: list[str] = []
    rivals = {"a": slow(SAMPLE / 10, calls, "a"), "b": slow(SAMPLE * 2, calls, "b")}
    found = compare(rivals, repeats=4, seconds=60.0)
    assert {name: figure.samples for name, figure in found.items()} == {"a": 4, "b": 4}
    assert SAMPLE / 10 <= found["a"].low <= found["a"].median <= found["a"].high
    assert found["b"].median >= 2 * SAMPLE
    rounds = re.sub(r"(.)\1*", r"\1", "".join(calls))
    assert rounds == "ababbaabba".replace("bb", "b").replace("aa", "a")
    assert calls.count("a") > 10 * 4


def test_time_bounds_the_rounds_but_not_the_first() -> None:
    found = compare({"a": slow(SAMPLE, [], "a")}, repeats=1000, seconds=0.0)
    assert found["a"].samples == FEWEST


def test_a_figure_is_a_median_between_quartiles() -> None:
    figure = Figure.of([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (figure.median, figure.low, figure.high, figure.samples) == (3.0, 2.0, 4.0, 5)
    assert Figure.of([7.0]) == Figure(7.0, 7.0, 7.0, 1)


# -- goals ------------------------------------------------------------------------------------------------------------


def test_goals_are_those_of_the_table() -> None:
    def of(peer: str, cell: str, what: str, batch: int, units: int) -> float | None:
        return goals.goal(peer, cell, what, batch, units)

    assert of("torch.nn", "lstm", "forward", 1, 64) == 2.5
    assert of("torch.nn", "lstm", "training", 8, 128) == 1.3
    assert of("torch.nn", "gru", "training", 1, 64) == 15
    assert of("torch.nn", "elman", "forward", 256, 128) == 1.4
    assert of("onnxruntime, bound", "gru", "forward", 32, 256) == 1.04
    assert of("torch loop", "mgu", "training", 64, 512) == 1.3
    assert of("torch loop", "lstm", "forward", 8, 128) is None
    assert of("onnxruntime, bound", "lstm", "step", 1, 256) == 1.7
    assert of("torch loop", "lem", "step", 1, 64) == 40
    assert of("jax scan", "elman", "training", 1, 64) == 1.0
    assert of("jax scan", "lstm", "training", 1, 64) is None


def test_a_check_is_met_or_missed_or_neither() -> None:
    assert Check("torch.nn", 1.3, 1.25).met is True
    assert Check("torch.nn", 1.2, 1.25).met is False
    assert Check("memory", 0.9, 1.0, at_most=True).met is True
    assert Check("memory", 1.1, 1.0, at_most=True).met is False
    assert Check("jax scan", 3.0).met is None


def test_products_are_counted_by_hand() -> None:
    batch, steps, inputs, units = SHAPE
    assert problem("lstm").flops == batch * steps * 2 * 4 * units * (inputs + units)
    assert problem("lstm", "training").flops == 3 * problem("lstm").flops
    assert problem("mingru").flops == batch * steps * 2 * 2 * units * inputs
    assert [problem(name).has_products for name in ("lstm", "indrnn", "mingru")] == [True, False, False]


# -- rows and tables --------------------------------------------------------------------------------------------------


def test_a_row_shows_everybody_and_goes_to_json_and_back() -> None:
    found = contest.contest("sequence", problem("lstm"), TIGHT)
    assert set(found.figures) == {OURS, *peers.rivals(problem("lstm"))}
    for check in found.checks:
        assert check.value == found.figures[check.figure].median / found.figures[OURS].median
    assert found.rate == pytest.approx(problem("lstm").flops / found.figures[OURS].median / 1e9)
    assert Row.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert [check["met"] for check in found.to_json()["checks"]] == [check.met for check in found.checks]


def test_a_row_leaves_out_who_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Rival(int, lambda _: {"y": np.zeros((3, 7, 6))})
    monkeypatch.setattr(peers, "rivals", lambda _: {"torch.nn": wrong})
    found = contest.contest("sequence", problem("lstm"), TIGHT)
    assert list(found.figures) == [OURS]
    assert found.checks == []
    assert len(found.wrong) == 1


def test_a_cell_has_its_share_of_the_lstm() -> None:
    found = other_cells.beside_lstm(problem("mgu"), TIGHT)
    check = found.checks[-1]
    lstm = problem("lstm").flops / found.figures[other_cells.YARDSTICK].median / 1e9
    assert found.rate is not None
    assert check.value == pytest.approx(found.rate / lstm)
    assert check.goal == goals.SHARE_OF_LSTM
    assert other_cells.beside_lstm(problem("indrnn"), TIGHT).checks[-1].goal is None


def test_a_ragged_batch_is_held_against_its_share_of_a_full_one() -> None:
    for what in ("forward", "training"):
        found = ragged.ragged(problem("gru", what), TIGHT)
        assert found.wrong == []
        check, packed = found.checks
        share = float(re.findall(r"(\d+)%", check.name)[0]) / 100
        part = found.figures[OURS].median / found.figures[ragged.FULL].median
        assert check.value == pytest.approx(part / share, rel=0.02)
        assert (check.goal, check.at_most, packed.name) == (goals.RAGGED, True, ragged.PACKED)


def test_the_table_has_a_line_for_each_comparison() -> None:
    figures = {OURS: Figure(1.6e-6, 1e-6, 2e-6), "torch.nn": Figure(152e-6, 1e-6, 2e-6), "jax": Figure(54e-6, 0, 1)}
    checks = [Check("torch.nn", 95.0, 40, figure="torch.nn"), Check("jax", 33.8, figure="jax")]
    row = Row("step", "gru", (1, 1, 64, 64), "step", 1, figures, checks, rate=12.3, rate_unit="GFLOP/s")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(table.table([row]))
    lines = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert lines[2] == "gru 1, 1, 64, 64 step 1.6 us 12.3 GFLOP/s torch.nn 152 us 95 >= 40 met"
    assert lines[3] == "jax 54 us 33.8"
    slower = replace(row, checks=[Check("torch.nn", 20.0, 40, figure="torch.nn")])
    assert table.summary([row, slower]) == [
        "goals met: 1 of 2",
        "missed: step, gru (1, 1, 64, 64) step, 1 thread: torch.nn 20, goal >= 40",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1.64e-6, "s", "1.64 us"), (0.0123, "s", "12.3 ms"), (73.0, "s", "73 s"), (130e6, "B", "130 MB")],
)
def test_amounts_have_the_unit_that_reads_best(value: float, unit: str, text: str) -> None:
    assert table.amount(value, unit) == text


# -- processes of their own -------------------------------------------------------------------------------------------


def test_threads_are_limited_for_everybody() -> None:
    given = machine.environment(1)
    assert (given["OMP_NUM_THREADS"], given["NPROC"]) == ("1", "1")
    assert "--xla_cpu_multi_thread_eigen=false" in given["XLA_FLAGS"]
    assert apart("os", "cpu_count", environment=given) == os.cpu_count()


def test_a_process_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChildProcessError, match=r"os\.listdir ended with code 1"):
        apart("os", "listdir", "/no/such/folder", environment=machine.environment(1))
    assert "No such file" in capfd.readouterr().err


def test_the_peak_of_a_training_step_is_seen() -> None:
    """The loop keeps some ten arrays [B, T, H]; ours as well."""
    shape = (32, 40, 32, 256)
    peak = apart(memory.__name__, "peak", "torch loop", "lstm", shape, 1, environment=machine.environment(1))
    array = 4 * 32 * 40 * 256
    assert 5 * array < peak < 100 * array


def test_first_calls_are_measured_for_every_kind() -> None:
    found = apart(compile.__name__, "first_calls", "gru", (2, 3, 4, 5), 1, environment=machine.environment(1))
    assert {"forward", "training"} <= set(found)
    assert all(seconds >= 0 for seconds in found.values())


def test_busy_processes_are_there_only_within(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **how: started.append(start(*words, **how)) or started[-1])
    with contention.busy(1):
        assert [process.poll() for process in started] == [None]
    assert all(process.poll() is not None for process in started)


def test_contention_takes_two_threads() -> None:
    found = list(rows("contention", Options(threads=1)))
    assert len(found) == 1
    assert str(found[0]).startswith("contention: left out, because it takes two threads")


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_measures_and_writes(everloop_command, tmp_path: Path) -> None:
    words = ("--class", "sequence", "--cell", "elman", "--quick", "--threads", 1, "--json", "found.json")
    done = everloop_command("bench", *words)
    assert done.code == 0, done.err
    assert re.search(r"^ *elman +1, 100, 64, 64 +forward", done.out, re.MULTILINE)
    assert re.search(r"^goals met: \d+ of 9$", done.out, re.MULTILINE)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["cores"] >= 1
    assert {"python", "torch", "onnxruntime"} <= set(found["versions"])
    assert [(row["cell"], row["what"]) for row in found["rows"]] == [("elman", "forward"), ("elman", "training")] * 2
    for row in found["rows"]:
        assert all(figure["low"] <= figure["median"] <= figure["high"] for figure in row["figures"].values())
        # Nobody took more than the one thread they were given.
        assert all(figure["cores"] <= 1.1 for figure in row["figures"].values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--class", "speed"), f"--class speed: expected {', '.join(NAMES)}, or several with commas"),
        (("--threads", "0"), "--threads 0: expected numbers from 1 to"),
        (("--threads", "two"), "--threads two: expected numbers from 1 to"),
        (("--cell", "nosuch"), "nosuch"),
    ],
)
def test_what_cannot_be_measured_is_an_error(everloop_command, words: tuple[str, ...], said: str) -> None:
    done = everloop_command("bench", *words)
    assert done.code == 1
    assert said in done.err


def test_who_disagreed_ends_the_command_with_an_error(everloop_command, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("step", "gru", (1, 1, 2, 2), "step", 1, {OURS: Figure.of([1.0])}, [], wrong=["jax was not timed"])
    monkeypatch.setattr(suite, "_worker", lambda *_: iter([{"row": row.to_json()}, {"done": "step"}]))
    done = everloop_command("bench", "--class", "step", "--threads", 1)
    assert done.code == 1
    assert "jax was not timed" in done.out
    assert "not everybody computed the same" in done.err


def test_the_command_names_all_classes(everloop_command) -> None:
    assert set(NAMES) == {path.stem for path in Path(compile.__file__).parent.glob("[a-z]*.py")}
    done = everloop_command("bench", "--help")
    assert all(name in done.out for name in NAMES)
