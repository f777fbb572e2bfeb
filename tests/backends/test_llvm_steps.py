"""What the kernels of the llvm backend do beyond the protocol: arrays of three axes in the order of the caller, read
from either end, and what is kept in memory that is given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from everloop import cells
from everloop.nn.function import Recurrence
from everloop.testing import Trial, assert_close, check_kernel, kernel_of

# One of each kind: gates, two stages, rows reduced, blocks, a scan, side inputs, a state of another width.
FEW = ("lstm", "mogrifier_lstm", "layernorm_lstm", "slstm", "mingru", "gru_d", "projection_lstm")

RAGGED, FULL, DEEP = Trial((5, 5, 4, 2, 2, 1), idle=2), Trial((5,) * 6), Trial((9,) * 70 + (3,) * 41)
TRIALS = (RAGGED, FULL, DEEP, Trial((), idle=3), Trial(()), Trial((3, 1), unused=frozenset({"y"})))


@cache
def made(name: str, hidden: int = 7, dtype: str = "float64") -> tuple[Any, Recurrence]:
    return kernel_of("llvm", cells.get(name), {"input": 5, "hidden": hidden}, dtype)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check(name: str, trial: Trial, hidden: int = 7, **how: Any) -> None:
    kernel, recurrence = made(name, hidden, trial.dtype)
    check_kernel(Otherwise(kernel, **how), recurrence.graph, recurrence.sizes, trial)


class Otherwise:
    """A kernel called in another way that has to come to the same: everything given so, and what it makes as the
    protocol has it.

    whole: with arrays of three axes, where sequences have an order of their own, longer than any of them, NaN past
    their ends. reverse: with every sequence turned round, to be read from its end. room: it keeps in memory that is
    given. count: threads forward and backward. put: puts an array where it is to lie.
    """

    def __init__(
        self,
        kernel: Any,
        *,
        whole: bool = True,
        reverse: bool = False,
        room: bool = False,
        count: tuple[int, int] = (1, 1),
        put: Callable[[Tensor], Tensor] = lambda array: array,
    ) -> None:
        self.kernel, self.reverse, self.room, self.count, self.put = kernel, reverse, room, count, put
        self.whole = whole

    @property
    def source(self) -> str:
        return self.kernel.source

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        *,
        keep: bool,
        wanted: frozenset[str],
    ) -> Any:
        self.places = _Places(batch_sizes, next(iter(states.values())).shape[0], self.reverse) if self.whole else None
        given, more = self._spread(inputs), self._options()
        shape, batch = given["x"].shape[:-1], next(iter(states.values())).shape[0]
        if self.room and keep:
            most = self.kernel.keeps(wanted, batch, shape.numel())
            more["room"] = self.put(torch.full((most,), torch.nan, dtype=given["x"].dtype))
        with threads(self.count[0]):
            outputs, final, saved = self.kernel.forward(
                given, self._ordered(states), weights, batch_sizes, keep=keep, wanted=wanted, **more
            )
        if self.room and keep:
            saved = self.kernel.kept_in(more["room"], given, batch, shape)
        return self._packed(outputs), self._sorted(final), saved

    def backward(
        self,
        saved: Mapping[str, Tensor],
        grads: Mapping[str, Tensor | None],
        final_grads: Mapping[str, Tensor | None],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        wanted: frozenset[str],
    ) -> Any:
        given, final = self._spread(grads), self._ordered(final_grads)
        with threads(self.count[1]):
            inputs, states, stacks = self.kernel.backward(
                saved, given, final, weights, batch_sizes, wanted, **self._options()
            )
        return self._packed(inputs), self._sorted(states), stacks

    def _options(self) -> dict[str, Any]:
        if self.places is None:
            return {}
        order = {} if self.places.full else {"order": self.places.order}
        return order | ({"reverse": True} if self.reverse else {})

    def _spread(self, arrays: Mapping[str, Tensor | None]) -> dict[str, Any]:
        return self._each(arrays, lambda places, array: self.put(places.spread(array)))

    def _ordered(self, arrays: Mapping[str, Tensor | None]) -> dict[str, Any]:
        return self._each(arrays, lambda places, array: self.put(places.ordered(array)))

    def _packed(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._each(arrays, lambda places, array: places.packed(array))

    def _sorted(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._each(arrays, lambda places, array: array[places.order])

    def _each(self, arrays: Mapping[str, Any], do: Callable[[_Places, Tensor], Tensor]) -> dict[str, Any]:
        places = self.places
        if places is None:
            return dict(arrays)
        return {name: None if array is None else do(places, array) for name, array in arrays.items()}


class _Places:
    """Where packed rows lie in an array of three axes."""

    def __init__(self, batch_sizes: Sequence[int], batch: int, reverse: bool) -> None:
        self.full = not batch_sizes or batch_sizes[-1] == batch
        self.full = self.full and bool(batch_sizes or not batch)
        source = torch.Generator().manual_seed(batch)
        self.order = torch.arange(batch) if self.full else torch.randperm(batch, generator=source)
        self.batch, self.time = batch, len(batch_sizes) + (0 if self.full else 2)
        rows = [(t, row) for t, count in enumerate(batch_sizes) for row in range(count)]
        length = [sum(count > row for count in batch_sizes) for row in range(batch)]
        self.step = torch.tensor([length[row] - 1 - t if reverse else t for t, row in rows], dtype=torch.int64)
        self.sequence = self.order[torch.tensor([row for _, row in rows], dtype=torch.int64)]

    def spread(self, array: Tensor) -> Tensor:
        """[N, F] -> [T, B, F], in memory batch first."""
        whole = array.new_full((self.batch, self.time, array.shape[1]), torch.nan)
        whole[self.sequence, self.step] = array
        return whole.transpose(0, 1)

    def packed(self, array: Tensor) -> Tensor:
        rest = array.clone()
        rest[self.step, self.sequence] = 0
        assert not rest.any(), "past the end of a sequence there is not zero"
        return array[self.step, self.sequence]

    def ordered(self, array: Tensor) -> Tensor:
        """Rows longest first in the order of the caller."""
        return torch.empty_like(array).index_copy_(0, self.order, array)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", FEW)
def test_arrays_of_the_caller(name: str, reverse: bool) -> None:
    for trial in TRIALS:
        check(name, trial, reverse=reverse)
    check(name, Trial((17, 16, 3), dtype="float32"), 18, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("wanted", [{"x"}, {"h"}, {"W"}, {"U", "b"}])
def test_some_gradients_alone(wanted: set[str], reverse: bool) -> None:
    graph = made("lstm")[1].graph
    frozen = frozenset({*graph.inputs, *graph.states, *graph.stacks} - wanted)
    check("lstm", Trial((3, 2, 2), idle=1, frozen=frozen), reverse=reverse)


@pytest.mark.parametrize("count", [(1, 2), (2, 1), (3, 3)])
def test_reverse_on_several_threads(count: tuple[int, int]) -> None:
    for trial in (RAGGED, FULL, DEEP, Trial((40, 40, 33, 1))):
        check("lstm", trial, reverse=True, count=count)
    # One sequence, whose units are shared out.
    check("lstm", Trial((1,) * 9, dtype="float32"), 260, reverse=True, count=count)


@pytest.mark.parametrize("whole", [False, True], ids=["packed", "whole"])
@pytest.mark.parametrize("name", FEW)
def test_what_is_kept_fits_in_the_room_that_is_given(name: str, whole: bool) -> None:
    for trial in TRIALS:
        for count in ((1, 1), (1, 2), (2, 1)):
            check(name, trial, whole=whole, room=True, count=count)


def test_a_room_of_another_size_is_refused() -> None:
    kernel, recurrence = made("lstm")
    x, state = torch.zeros(2, 3, 5, dtype=torch.float64), torch.zeros(3, 7, dtype=torch.float64)
    states = dict.fromkeys(recurrence.graph.states, state)
    weights = {"W": torch.zeros(28, 5).double(), "U": torch.zeros(28, 7).double(), "b": torch.zeros(28).double()}
    wanted = frozenset({"x"})
    right = kernel.keeps(wanted, 3, 6)
    many = torch.zeros(2 * right).double()
    for room in (many[: right - 1], many[None, :right], many[::2], many[:right].float()):
        with pytest.raises(ValueError, match=rf"room: .* as many numbers as `keeps` says, \({right},\)"):
            kernel.forward({"x": x}, states, weights, (3, 3), keep=True, wanted=wanted, room=room)


def test_packed_rows_have_no_reverse() -> None:
    kernel, recurrence = made("lstm")
    states = {name: torch.zeros(1, 7).double() for name in recurrence.graph.states}
    with pytest.raises(ValueError, match="reverse: packed rows came"):
        kernel.forward({"x": torch.zeros(2, 5).double()}, states, {}, (1, 1), keep=False, reverse=True)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is fenced by mprotect")
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", ["lstm", "layernorm_gru", "mingru", "gru_d"])
def test_nothing_beyond_an_array_is_touched(name: str, reverse: bool, fence: Any) -> None:
    kernel, recurrence = made(name, 19, "float32" if name == "lstm" else "float64")
    for trial in (RAGGED, FULL, DEEP, Trial((17,) * 3, idle=1), Trial((), idle=1)):
        for count in ((1, 1), (3, 3)):
            for room in (False, True):
                how = Otherwise(fence.around(kernel), reverse=reverse, room=room, count=count, put=fence.moved)
                trial_of_type = Trial(trial.batch_sizes, trial.idle, kernel.dtype)
                check_kernel(how, recurrence.graph, recurrence.sizes, trial_of_type)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("time", "batch"), [(0, 3), (3, 0), (0, 0)])
def test_no_steps_and_no_sequences(time: int, batch: int, reverse: bool) -> None:
    kernel, recurrence = made("lstm")
    graph = recurrence.graph
    x = torch.randn(time, batch, 5).double()
    states = {name: torch.randn(batch, 7).double() for name in graph.states}
    weights = {"W": torch.randn(28, 5).double(), "U": torch.randn(28, 7).double(), "b": torch.randn(28).double()}
    wanted = frozenset([*graph.inputs, *graph.states, *graph.stacks])
    room = torch.full((kernel.keeps(wanted, batch, time * batch),), torch.nan).double()
    outputs, final, _ = kernel.forward(
        {"x": x}, states, weights, (), keep=True, wanted=wanted, reverse=reverse, room=room
    )
    saved = kernel.kept_in(room, {"x": x}, batch, x.shape[:-1])
    grads = {"y": torch.randn(time, batch, 7).double()}
    inputs, start, stacks = kernel.backward(saved, grads, states, weights, (), wanted, reverse=reverse)
    assert outputs["y"].shape == (time, batch, 7)
    assert inputs["x"].shape == x.shape
    for name, state in states.items():
        assert_close(final[name], state)
        assert_close(start[name], state)
    for name, weight in weights.items():
        assert_close(stacks[name], torch.zeros_like(weight))
