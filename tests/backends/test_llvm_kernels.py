"""The kernels of the llvm backend against the reference: every cell, odd sizes, all kinds of lengths, gradients of some
things only, threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch

from everloop import cells
from everloop.backends import Kernel, use_backend
from everloop.backends.llvm.engine import CHUNK_ROWS
from everloop.backends.reference import ReferenceKernel
from everloop.lang import functions as f
from everloop.lang.cell import cell
from everloop.nn import Recurrent
from everloop.nn.function import Recurrence
from everloop.testing import (
    KERNEL,
    Drawn,
    Trial,
    assert_close,
    assert_same_results,
    check_backend,
    check_kernel,
    kernel_of,
)

# One of each kind: one product, gates, two stages, a product of products, rows reduced, blocks, a scan, side inputs.
FEW = ("lstm", "mogrifier_lstm", "layernorm_lstm", "slstm", "mingru", "gru_d", "projection_lstm")


@cache
def made(name: str, hidden: int = 7, inputs: int = 5, dtype: str = "float64") -> tuple[Any, Recurrence]:
    return kernel_of("llvm", cells.get(name), {"input": inputs, "hidden": hidden}, dtype)


def check(name: str, trial: Trial, hidden: int = 7, inputs: int = 5) -> None:
    kernel, recurrence = made(name, hidden, inputs, trial.dtype)
    check_kernel(kernel, recurrence.graph, recurrence.sizes, trial)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Every cell, every size


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_is_the_reference(name: str) -> None:
    check(name, Trial((3, 3, 2, 1), idle=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", cells.names())
def test_every_cell_in_every_way(name: str) -> None:
    check_backend("llvm", [name])


@pytest.mark.parametrize("name", ["gru_d", "minlstm"])
def test_the_public_contract(name: str) -> None:
    check_backend("llvm", [name])


@pytest.mark.parametrize("name", FEW)
def test_in_single_precision(name: str) -> None:
    check(name, Trial((5, 4, 4, 1), idle=1, dtype="float32"), hidden=18, inputs=17)
    check(name, Trial((2, 1), dtype="float32", strided=True), hidden=18, inputs=17)


@pytest.mark.parametrize(
    ("name", "hidden", "inputs"),
    [("lstm", 1, 1), ("layernorm_lstm", 17, 1), ("lstm", 1, 63), ("layernorm_lstm", 63, 129), ("lstm", 129, 7)],
)
def test_odd_sizes(name: str, hidden: int, inputs: int) -> None:
    for dtype in ("float64", "float32"):
        for rows in (1, 9):
            check(name, Trial((rows,) * 3, dtype=dtype), hidden, inputs)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("projection_lstm", {"proj": 3}), ("lmu", {"memory": 63}), ("cfc", {"backbone": 1}), ("scrn", {"context": 17})],
)
def test_odd_sizes_of_their_own(name: str, sizes: dict[str, int]) -> None:
    trials = [Trial((3, 2)), Trial((3, 2), dtype="float32")]
    check_backend("llvm", [name], sizes={"hidden": 17} | sizes, trials=trials)


@cell(states="h c", gates="a b", inputs="gap mask:hidden")
def three_heads(x, h, c, gap, mask, W, U, V, u):  # type: ignore[no-untyped-def]
    """Block-diagonal matrices beside whole ones in one pass; reductions, running sums and a side input too."""
    heads = f.blocks(V, 3)
    a = f.tanh(W.a @ x + U.a @ h + heads.a @ c + u.a)
    b = f.softmax(W.b @ x + heads.b @ h + u.b * gap) + f.cumsum(U.b @ (a * mask))
    return f.tanh(a + b - f.mean(b)), f.sigmoid(heads.b @ a) * c


@pytest.mark.parametrize("hidden", [3, 51, 129])
def test_heads_of_odd_widths(hidden: int) -> None:
    dtype = "float32" if hidden == 51 else "float64"
    trials = [Trial((9, 9, 4), dtype=dtype), Trial((1,) * 4, dtype=dtype)]
    check_backend("llvm", [three_heads], sizes={"hidden": hidden}, trials=trials)


# Lengths


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17, 64])
def test_batches(rows: int) -> None:
    for count in (1, 3):
        with threads(count):
            check("lstm", Trial((rows, rows, rows), dtype="float32"), hidden=17)
            check("lstm", Trial((rows, rows, (rows + 1) // 2), idle=2))


def test_lengths() -> None:
    """None, one step, and on both sides of where a chunk of steps ends."""
    for rows in (1, 3):
        most = -(-CHUNK_ROWS // rows)
        for steps in (0, 1, most - 1, most, 2 * most + 1):
            check("gru", Trial((rows,) * steps))


def test_sequences_that_end_in_all_parts_of_a_chunk() -> None:
    most = CHUNK_ROWS // 16
    ends = [*range(1, most), *range(most, 4 * most, 5)]
    sizes = tuple(sum(end > t for end in ends) for t in range(max(ends)))
    for count in (1, 2, 3):
        with threads(count):
            check("lstm", Trial(sizes, idle=3))
            check("layernorm_gru", Trial(sizes, strided=True))


def test_nobody_and_nothing_to_do() -> None:
    for name in ("elman", "mingru"):
        for trial in (Trial(()), Trial((), idle=1), Trial((1,), idle=17)):
            check(name, trial)
            with threads(3):
                check(name, trial)


# Gradients


@pytest.mark.parametrize("name", ["lstm", "mingru"])
def test_gradients_of_some_things_alone(name: str) -> None:
    graph = made(name)[1].graph
    leaves = {*graph.inputs, *graph.states, *graph.stacks}
    for wanted in ({"x"}, {next(iter(graph.states))}, {next(iter(graph.stacks))}, leaves - {"x"}):
        check(name, Trial((3, 2, 2), idle=1, frozen=frozenset(leaves - wanted)))


@pytest.mark.parametrize("name", ["lstm", "mingru"])
def test_gradients_that_nobody_gives(name: str) -> None:
    states = made(name)[1].graph.states
    for unused in ({"y"}, set(states), {"y", *list(states)[1:]}):
        if unused < {"y", *states}:
            check(name, Trial((3, 2, 2), idle=1, unused=frozenset(unused)))


def test_a_sum_has_one_gradient_for_all_rows() -> None:
    layers = [Recurrent("lstm", 5, 7, dtype=torch.float64) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    for layer, backend in zip(layers, ("llvm", "reference"), strict=True):
        with use_backend(backend):
            layer(x)[0].sum().backward()
    for one, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert_close(one.grad, other.grad, KERNEL["float64"])


# Threads


class Between:
    """A kernel that goes forward and backward on different numbers of threads."""

    def __init__(self, kernel: Kernel, before: int, after: int) -> None:
        self.kernel, self.before, self.after = kernel, before, after

    @property
    def source(self) -> str:
        return self.kernel.source

    def forward(self, *args: Any, **options: Any) -> Any:
        with threads(self.before):
            return self.kernel.forward(*args, **options)

    def backward(self, *args: Any) -> Any:
        with threads(self.after):
            return self.kernel.backward(*args)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 5, 48])
def test_the_same_bits_each_time(rows: int, count: int) -> None:
    """For one number of threads: with rows for each of them, and with the units of one sequence shared out."""
    kernel, recurrence = made("lstm", 129, 17, "float32")
    drawn = Drawn.of(recurrence.graph, recurrence.sizes, Trial((rows,) * 9, dtype="float32")).to(torch.float32)
    with threads(count):
        check("lstm", Trial((rows,) * 9, dtype="float32"), 129, 17)
        first = drawn.run(kernel)
        for _ in range(10):
            for name, array in drawn.run(kernel).items():
                assert torch.equal(array, first[name]), name


def test_the_number_of_threads_may_change_before_backward() -> None:
    kernel, recurrence = made("gru", 17, 5)
    for trial in (Trial((7, 7, 5, 2), idle=1), Trial((50,) * 3), Trial((1,) * 5)):
        drawn = Drawn.of(recurrence.graph, recurrence.sizes, trial)
        expected = drawn.run(ReferenceKernel(recurrence.graph, recurrence.sizes))
        for before, after in ((1, 3), (3, 1), (2, 3)):
            found = drawn.run(Between(kernel, before, after))
            assert_same_results(found, expected, expected, what=f"{before} threads, then {after}")


def test_many_callers_at_once() -> None:
    """One kernel, compiled once, called from many threads of Python for batches of many shapes."""
    kernel, recurrence = made("lstm", 17, 5)
    trials = [Trial((rows,) * steps, seed=rows) for rows in (1, 2, 6, 20) for steps in range(1, 30)]

    def both(trial: Trial) -> None:
        check_kernel(kernel, recurrence.graph, recurrence.sizes, trial)

    with threads(2), ThreadPoolExecutor(4) as pool:
        list(pool.map(both, trials))
