"""The kernels of the llvm backend read and write what is theirs, give back what they take, and know the ends of the
range of numbers; where there can be no kernel, the reference runs.
"""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from everloop import backends, cells
from everloop.backends.llvm import kernel as torch_kernel
from everloop.backends.llvm import step as numpy_step
from everloop.backends.llvm.memory import SMALL, take
from everloop.backends.llvm.step import LlvmStep
from everloop.backends.reference import ReferenceKernel
from everloop.nn import Recurrent
from everloop.stream.numpy_step import NumpyStep
from everloop.stream.weights import all_members
from everloop.testing import FLOAT32, FUNCTION, KERNEL, SAME, Drawn, Trial, assert_close, check_kernel, kernel_of

LINUX = sys.platform == "linux"
FEW = ("lstm", "mogrifier_lstm", "layernorm_gru", "mingru", "gru_d")

SIZES = {"input": 5, "hidden": 7}


# Memory


@pytest.mark.skipif(not LINUX, reason="memory is fenced by mprotect")
@pytest.mark.parametrize("name", FEW)
def test_nothing_beyond_an_array_is_touched_and_nothing_unwritten_is_read(
    name: str, fence: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = "float32" if name in ("lstm", "mingru") else "float64"
    kernel, recurrence = kernel_of("llvm", cells.get(name), {"input": 13, "hidden": 19}, dtype)
    monkeypatch.setattr(
        Drawn, "to", lambda drawn, kind, device="cpu": drawn.each(lambda array: fence.moved(array.to(kind)))
    )
    for sizes in ((5, 4, 4, 1), (17,) * 3, (1, 1), (9,) * 40 + (3,) * 3, ()):
        for count in (1, 3):
            torch.set_num_threads(count)
            trial = Trial(sizes, idle=1, dtype=dtype)
            check_kernel(fence.around(kernel), recurrence.graph, recurrence.sizes, trial)
    torch.set_num_threads(1)


def test_memory_that_is_used_again_is_lent_to_one_at_a_time() -> None:
    like = torch.empty(0)

    def borrow(number: int) -> bool:
        numbers, same = np.random.default_rng(number), True
        held: list[tuple[float, Tensor]] = []
        for k in range(60):
            mark = float(100 * number + k)
            held.append((mark, take(int(numbers.integers(SMALL // 4 + 1, 3 * SMALL)), like).fill_(mark)))
            if len(held) > 3:
                mark, piece = held.pop(int(numbers.integers(4)))
                same = same and piece.data_ptr() % 64 == 0 and bool((piece == mark).all())
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(borrow, range(4)))


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def stepping(rows: int = 2) -> Callable[[], None]:
    bound, _, _ = bind(LlvmStep, "lstm", rows)
    x, out = np.zeros((1, rows, 5)), np.empty((1, rows, 7))
    return lambda: bound(1, (x,), out, None)


def training() -> Callable[[], None]:
    layer, x = Recurrent("lstm", 3, 4), torch.randn(2, 3, 3)

    def run() -> None:
        with backends.use_backend("llvm"):
            layer(x)[0].sum().backward()

    return run


@pytest.mark.skipif(not LINUX, reason="memory is looked up in /proc")
@pytest.mark.parametrize(
    ("make", "calls"),
    [
        (stepping, 200_000),
        (training, 2_000),
        pytest.param(stepping, 1_000_000, marks=pytest.mark.slow),
        pytest.param(training, 50_000, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost(make: Callable[[], Callable[[], None]], calls: int) -> None:
    run = make()
    for _ in range(calls // 10):
        run()
    gc.collect()
    before = resident()
    for _ in range(calls):
        run()
    gc.collect()
    # Less than ten bytes a call, or what the allocator may hold back.
    assert resident() - before < max(10 * calls, 1 << 20)


# The ends of the range


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FEW)
def test_no_number_infinity_and_the_smallest_ones(name: str, dtype: str) -> None:
    """Where the reference is not a number, so are outputs and gradients, and nowhere else."""
    kernel, recurrence = kernel_of("llvm", cells.get(name), SIZES, dtype)
    drawn = Drawn.of(recurrence.graph, recurrence.sizes, Trial((5, 5, 4, 2), idle=1, dtype=dtype))
    kind = getattr(torch, dtype)
    drawn.inputs["x"][1, 2], drawn.inputs["x"][2, 0] = torch.nan, torch.inf
    drawn.inputs["x"][3, 1], drawn.inputs["x"][4] = -torch.inf, torch.finfo(kind).tiny / 8
    drawn.inputs["x"][6] = 1e30
    drawn = drawn.to(kind)
    found, expected = drawn.run(kernel), drawn.run(ReferenceKernel(recurrence.graph, recurrence.sizes))
    assert any(array.isnan().any() for array in expected.values())
    for what, array in expected.items():
        assert torch.equal(found[what].isnan(), array.isnan()), what
        if not what.startswith("gradient"):
            assert_close(found[what], array, KERNEL["float64"] if dtype == "float64" else FLOAT32, f"{name}: {what}")


def test_gates_that_are_shut_are_not_quite() -> None:
    """A forget gate of sigmoid(-30) lets 1e-13 of the state through, to the last digits."""
    graph = cells.get("lstm")
    layer = Recurrent(graph, 1, 1, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    members = [param.slot for param in graph.graph.stacks["b"]]
    bias = layer.get_parameter("layers.0.0.b")
    with torch.no_grad():
        bias[members.index("f")] = -30.0
    state = [torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)]
    with backends.use_backend("llvm"), torch.no_grad():
        for kind, tolerance in ((torch.float64, FUNCTION), (torch.float32, FLOAT32)):
            _, final = layer.to(kind)(torch.zeros(1, 1, 1, dtype=kind), [array.to(kind) for array in state])
            expected = np.exp(-30.0) / (1 + np.exp(-30.0))
            assert_close(final[1].double() / expected, torch.ones(1, 1, 1), tolerance)


# One step of a stream


def bind(make: Callable[..., Any], name: str, rows: int, dtype: Any = np.float64, **more: Any) -> tuple[Any, Any, Any]:
    """A step that runs, its states [rows, S] and the widths of its inputs and outputs."""
    numbers = np.random.default_rng(0)
    cell = cells.get(name)
    _, recurrence = kernel_of("reference", cell, SIZES)
    graph, sizes = cell.graph, recurrence.sizes
    weights = {}
    for stack, params in graph.stacks.items():
        shapes = [param.shape(sizes) for param in params]
        weights[stack] = numbers.normal(size=(sum(shape[0] for shape in shapes), *shapes[0][1:])) / 2

    def width(leaf: Any) -> int:
        return 1 if leaf.size is None else sizes[str(leaf.size)]

    if make is LlvmStep:
        more["members"] = lambda weights: all_members(graph, sizes, weights)
    step = make(graph, sizes, np.dtype(dtype), **more)
    start = [np.full((rows, width(leaf)), graph.start.get(name, 0.0)) for name, leaf in graph.states.items()]
    state = np.concatenate(start, 1).astype(dtype)
    widths = {name: width(leaf) for name, leaf in {**graph.inputs, **graph.outputs}.items()}
    return step.bind(step.pack(weights), state), state, widths


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_steps_as_in_numpy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = numpy_step._aligned
    monkeypatch.setattr(numpy_step, "_aligned", lambda count, dtype: poisoned(aligned(count, dtype)))
    steps, rows = 3, 4
    (ours, state, widths), (other, expected, _) = (bind(make, name, rows) for make in (LlvmStep, NumpyStep))
    numbers = np.random.default_rng(1)
    width = widths.pop("y")
    inputs = tuple(numbers.uniform(0.25, 1.25, (steps, rows, one)) for one in widths.values())
    which = np.array([2, 0], np.int64)
    for index in (None, which):
        given = inputs if index is None else tuple(np.ascontiguousarray(array[:, :2]) for array in inputs)
        outs = [np.full((steps, rows if index is None else 2, width), np.nan) for _ in range(2)]
        ours(steps, given, outs[0], index)
        other(steps, given, outs[1], index)
        assert_close(outs[0], outs[1], SAME, f"{name}: y")
        assert_close(state, expected, SAME, f"{name}: the states")


def poisoned(array: np.ndarray) -> np.ndarray:
    array.fill(np.nan)
    return array


@pytest.mark.parametrize("offset", [0, 8, 24, 1])
def test_a_step_takes_arrays_at_any_place(offset: int) -> None:
    def placed(array: np.ndarray) -> np.ndarray:
        whole = np.zeros(array.nbytes + 64 + offset, np.uint8)
        first = -whole.ctypes.data % 64 + offset
        found = whole[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        found[...] = array
        return found

    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    (ours, state, _), (other, expected, _) = (bind(make, "lstm", 3) for make in (LlvmStep, NumpyStep))
    outs = [placed(np.zeros((4, 3, 7))) for _ in range(2)]
    ours(4, (placed(x),), outs[0], placed(np.array([1, 0, 2])))
    other(4, (x,), outs[1], np.array([1, 0, 2]))
    assert_close(outs[0], outs[1], SAME)
    assert_close(state, expected, SAME)


def test_many_threads_step_different_states_of_one_model() -> None:
    ours, state, _ = bind(LlvmStep, "gru", 16)
    other, expected, _ = bind(NumpyStep, "gru", 16)
    x = np.random.default_rng(0).normal(size=(300, 16, 5))
    failures: list[BaseException] = []

    def go(first: int) -> None:
        rows = np.arange(first, first + 4)
        try:
            for t in range(300):
                ours(1, (np.ascontiguousarray(x[t : t + 1, rows]),), np.empty((1, 4, 7)), rows)
        except BaseException as failure:
            failures.append(failure)
            raise

    workers = [threading.Thread(target=go, args=(first,)) for first in range(0, 16, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    other(300, (x,), np.empty((300, 16, 7)), None)
    assert_close(state, expected, SAME)


# Other machines, and none


@pytest.mark.parametrize("cpu", ["baseline", "avx2"])
def test_lesser_processors(cpu: str) -> None:
    """In a process of its own: the kind of machine is found out once."""
    code = """
from everloop.backends.llvm.machine import host
try:
    host()
except ValueError as error:
    print("skip:", error)
    raise SystemExit from None
from everloop.testing import Trial, check_backend
check_backend("llvm", ["lstm", "layernorm_gru"], sizes={"hidden": 19}, trials=[Trial((9, 9, 2, 1), idle=1)])
check_backend("llvm", ["mogrifier_lstm", "mingru"], sizes={"hidden": 19}, trials=[Trial((9, 2), dtype="float32")])
"""
    environment = {"EVERLOOP_CPU": cpu, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if ran.stdout.startswith("skip:"):
        pytest.skip(ran.stdout)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program can be compiled."""

    def fail(*_: object) -> None:
        raise RuntimeError("no machine code today")

    monkeypatch.setattr(torch_kernel, "Engine", fail)
    monkeypatch.setattr(backends, "_warned", set())


@pytest.mark.usefixtures("broken")
def test_where_compiling_fails_the_reference_runs_and_says_so_once() -> None:
    torch.manual_seed(0)
    layer, x = Recurrent("gru", 3, 4, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    with backends.use_backend("reference"):
        expected, _ = layer(x)
    with warnings.catch_warnings(record=True) as caught, backends.use_backend("llvm"):
        warnings.simplefilter("always")
        for _ in range(2):
            y, _ = layer(x)
            y.sum().backward()
            with torch.no_grad():
                layer(x)
    assert_close(y, expected, SAME)
    assert [str(one.message) for one in caught if "no machine code today" in str(one.message)] != []
    assert len(caught) == 1
