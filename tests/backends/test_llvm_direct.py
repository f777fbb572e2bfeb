"""Calls of a few rows, which read matrices as they lie, and single steps with as little around them as can be."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from everloop import cells
from everloop.backends.llvm import engine
from everloop.backends.llvm.call import Call
from everloop.backends.llvm.kernel import LlvmKernel
from everloop.testing import SAME, Drawn, Trial, assert_close, check_backend, check_kernel, kernel_of

# Gates, two stages, a product of products, rows reduced, blocks, products of several vectors, no product, side inputs.
FEW = ("lstm", "gru", "mogrifier_lstm", "layernorm_lstm", "slstm", "projection_lstm", "mingru", "gru_d")


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every call of up to 64 rows reads matrices as they lie; whether each call did."""
    monkeypatch.setattr(engine, "LENGTH_PER_ROW", 0.001)
    seen: list[bool] = []
    run = Call.run

    def noted(call: Call, *args: Any, **options: Any) -> Tensor:
        seen.append(call.engine.program.request.direct)
        return run(call, *args, **options)

    monkeypatch.setattr(Call, "run", noted)
    return seen


@pytest.mark.slow
def test_every_cell(direct: list[bool]) -> None:
    trials = (Trial((5, 5, 4, 2, 2, 1)), Trial((1,), dtype="float32"), Trial((2, 2, 1), strided=True))
    check_backend("llvm", trials=trials, sizes={"input": 3, "hidden": 4})
    assert any(direct)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    ("inputs", "hidden", "dtype"), [(1, 2, "float64"), (13, 20, "float32"), (40, 34, "float64"), (64, 48, "float32")]
)
def test_odd_sizes_and_lengths(name: str, inputs: int, hidden: int, dtype: str, direct: list[bool]) -> None:
    kernel, recurrence = kernel_of("llvm", cells.get(name), {"input": inputs, "hidden": hidden}, dtype)
    for sizes in ((1,), (2,), (3, 3), (8,), (13,), (1,) * 7, (5, 4, 4, 1)):
        check_kernel(kernel, recurrence.graph, recurrence.sizes, Trial(sizes, dtype=dtype))
    assert all(direct) or name == "mingru"


@pytest.mark.parametrize("sizes", [(2, 1), (9,) * 8])
def test_where_sequences_have_no_step_and_where_rows_are_many_weights_are_laid_out(
    sizes: tuple[int, ...], direct: list[bool]
) -> None:
    kernel, recurrence = kernel_of("llvm", cells.get("lstm"), {"input": 5, "hidden": 7})
    check_kernel(kernel, recurrence.graph, recurrence.sizes, Trial(sizes, idle=int(sizes[0] == 2)))
    assert not any(direct)


def test_threads(direct: list[bool]) -> None:
    """Blocks of sequences, and the units of one sequence shared out."""
    kernel, recurrence = kernel_of("llvm", cells.get("gru"), {"input": 13, "hidden": 300}, "float32")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for sizes in ((1, 1), (7, 6), (40,)):
            check_kernel(kernel, recurrence.graph, recurrence.sizes, Trial(sizes, dtype="float32"))
    finally:
        torch.set_num_threads(before)
    assert all(direct)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is fenced by mprotect")
@pytest.mark.parametrize("name", FEW)
def test_nothing_beyond_an_array_is_touched_and_nothing_unwritten_is_read(
    name: str, fence: Any, direct: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Drawn, "to", lambda drawn, kind, device="cpu": drawn.each(lambda array: fence.moved(array.to(kind)))
    )
    for dtype, inputs, hidden in (("float32", 13, 22), ("float64", 40, 34)):
        kernel, recurrence = kernel_of("llvm", cells.get(name), {"input": inputs, "hidden": hidden}, dtype)
        for sizes in ((5, 4, 4, 1), (1,), (17,)):
            trial = Trial(sizes, dtype=dtype)
            check_kernel(fence.around(kernel), recurrence.graph, recurrence.sizes, trial)


# Single steps


def step_of(name: str, batch: int, dtype: str = "float64") -> tuple[LlvmKernel, Drawn]:
    kernel, recurrence = kernel_of("llvm", cells.get(name), {"input": 5, "hidden": 7}, dtype)
    assert isinstance(kernel, LlvmKernel)
    drawn = Drawn.of(recurrence.graph, recurrence.sizes, Trial((batch,), dtype=dtype)).to(getattr(torch, dtype))
    return kernel, drawn


def stepped(kernel: LlvmKernel, drawn: Drawn) -> list[Tensor]:
    x = drawn.inputs["x"]
    return kernel.one_step(len(x), x)(x, [*drawn.states.values()], [*drawn.weights.values()])


@pytest.mark.parametrize("name", ["lstm", "gru", "elman", "projection_lstm"])
@pytest.mark.parametrize("batch", [1, 3, 70])
def test_a_single_step_is_a_sequence_of_one(name: str, batch: int) -> None:
    kernel, drawn = step_of(name, batch)
    _, final, _ = kernel.forward(drawn.inputs, drawn.states, drawn.weights, (batch,), keep=False)
    for given in (drawn, drawn.strided(), drawn):
        for state, expected in zip(stepped(kernel, given), final.values(), strict=True):
            assert_close(state, expected, SAME)


def test_single_steps_of_several_threads_do_not_meet() -> None:
    kernel, drawn = step_of("lstm", 3)
    expected = stepped(kernel, drawn)

    def run(_: int) -> bool:
        return all(torch.equal(a, b) for a, b in zip(stepped(kernel, drawn), expected, strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(400)))
