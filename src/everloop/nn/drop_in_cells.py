"""torch.nn.RNNCell, LSTMCell and GRUCell to the letter."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad

from everloop.backends import AUTO, asked
from everloop.nn.drop_in import GATES, Stacks, fits, recurrence_of, runs, stacks
from everloop.nn.function import PLAIN, Recurrence
from everloop.nn.packing import Packing, seen
from everloop.nn.runner import Runner

QUICKER = ("LSTM", "GRU")
"""Modes whose steps without a gradient are quicker here than torch's. Measured from 1 to 128 sequences, of 64 to 512
units: LSTM 0.94 to 1.19 of torch's speed, GRU 1.14 to 1.48, and RNN 0.60 to 1.08; with a gradient 0.6 to 1.1.
"""

MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNNCell(nn.RNNCell):
    """torch.nn.RNNCell, and one of its kind: the same arguments, results, parameters and errors.

    A single step is little more than two products with the weights, and where torch is quicker, torch's own forward
    runs it: steps of an RNNCell, and all that have a gradient, unless a backend is asked for by name, or a
    transform of torch.func is at work. Steps of a live sequence are for `Recurrent.stream`, whole sequences for `RNN`.
    """

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        found = _step(self, MODES.get(self.nonlinearity, ""), input, hx)
        return super().forward(input, hx) if found is None else found[0]


class LSTMCell(nn.LSTMCell):
    """torch.nn.LSTMCell, and one of its kind: the same arguments, results, parameters and errors. See `RNNCell`."""

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        found = _step(self, "LSTM", input, hx)
        return super().forward(input, hx) if found is None else found


class GRUCell(nn.GRUCell):
    """torch.nn.GRUCell, and one of its kind: the same arguments, results, parameters and errors. See `RNNCell`."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        found = _step(self, "GRU", input, hx)
        return super().forward(input, hx) if found is None else found[0]


def _step(cell: nn.RNNCellBase, mode: str, x: Any, hx: Any) -> Any:
    """The states after the step; None for what is torch's to answer."""
    # Compiled, torch's own is code around two products of torch, and a kernel a call: three times as slow.
    if torch.compiler.is_compiling() or mode not in GATES or not (cell.input_size and cell.hidden_size):
        return None
    backend = asked()
    by_name = backend != AUTO
    if (by_name or mode in QUICKER) and type(cell) in PLAIN_CELLS and type(x) in PLAIN:
        found = _quickly(cell, mode, x, hx, backend)
        if found is not None:
            return found
    if not (by_name or _transformed()) or not isinstance(x, Tensor):
        return None
    if x.dim() not in (1, 2) or x.shape[-1] != cell.input_size or not runs(x, mode):
        return None
    hidden, names = int(cell.hidden_size), "hc" if mode == "LSTM" else "h"
    shape = *x.shape[:-1], hidden
    given: Any = [x.new_zeros(shape)] * len(names) if hx is None else hx if mode == "LSTM" else (hx,)
    if not isinstance(given, tuple | list) or len(given) != len(names):
        return None
    weights = _weights(cell, mode, x)
    if weights is None or not all(fits(array, shape, x) for array in given):
        return None
    states = {name: array.reshape(-1, hidden) for name, array in zip(names, given, strict=True)}
    rows = x.reshape(1, -1, cell.input_size)
    recurrence = recurrence_of(mode, cell.input_size, cell.hidden_size)
    _, final = recurrence({"x": rows}, states, weights, Packing.full(rows.shape[1], 1))
    return tuple(final[name].reshape(shape) for name in names)


def _transformed() -> bool:
    """Whether transforms of torch.func are at work, which torch's own cells do not know, or are slow with; but for
    gradients forward, which kernels do not know.
    """
    if not torch._C._are_functorch_transforms_active():
        return False
    return all(one.key() != TransformType.Jvp for one in retrieve_all_functorch_interpreters())


def _weights(cell: nn.RNNCellBase, mode: str, like: Tensor) -> Stacks | None:
    gates = GATES[mode] * cell.hidden_size
    shapes = [(gates, cell.input_size), (gates, cell.hidden_size), (gates,), (gates,)]
    arrays = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    if arrays[2] is None and arrays[3] is None:
        arrays = arrays[:2]
    if not all(fits(array, shape, like) for array, shape in zip(arrays, shapes, strict=False)):
        return None
    return stacks(mode, arrays, len(arrays) == 4, like)


# -- the quick way: plain arrays, no gradient, and a kernel that has one ----------------------------------------------

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
PLAIN_CELLS = (RNNCell, LSTMCell, GRUCell)


def _quickly(cell: nn.RNNCellBase, mode: str, x: Tensor, hx: Any, backend: str) -> tuple[Tensor, ...] | None:
    """The states after the step; None for what is not as usual. backend: the one that is asked for."""
    held, grad = cell._parameters, torch.is_grad_enabled()
    arrays: Any = [held.get(name) for name in NAMES]
    if grad and any(array is not None and array.requires_grad for array in arrays):
        return None
    if x.dim() != 2 or not len(x) or not seen() or forward_ad._current_level >= 0:
        return None
    if torch._C._is_any_autocast_enabled():
        return None
    hidden, dtype = int(cell.hidden_size), x.dtype
    plan = _plan(mode, cell.input_size, hidden, dtype, backend)
    if plan is None or not _is(x, (len(x), cell.input_size), dtype):
        return None
    shape = len(x), hidden
    states: Any = (x.new_zeros(shape),) * plan.count if hx is None else hx if mode == "LSTM" else (hx,)
    if arrays[2] is None and arrays[3] is None and not cell.bias:
        del arrays[2:]
    if not isinstance(states, tuple | list) or len(states) != plan.count:
        return None
    for array in states:
        if not _is(array, shape, dtype):
            return None
    for array, expected in zip(arrays, plan.shapes, strict=False):
        if not _is(array, expected, dtype):
            return None
    if grad and any(array.requires_grad for array in (x, *states)):
        return None
    plan.runner.make_ready(None)
    # The reference may have taken over.
    one_step = getattr(plan.runner.kernel, "one_step", None)
    if one_step is None:
        return None
    found = stacks(mode, arrays, len(arrays) == 4, x)
    return tuple(one_step(len(x), x)(x, states, [found[name] for name in plan.stacks]))


def _is(array: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    return (
        type(array) in PLAIN
        and array.shape == shape
        and array.dtype is dtype
        and array.is_cpu
        and array.layout is torch.strided
    )


class _Plan:
    """What is the same for all cells of one kind, size and type on one backend."""

    def __init__(self, mode: str, recurrence: Recurrence, runner: Runner) -> None:
        self.runner, self.stacks, self.count = runner, recurrence.stacks, len(recurrence.states)
        width, hidden = recurrence.sizes["input"], recurrence.sizes["hidden"]
        gates = GATES[mode] * hidden
        self.shapes = (gates, width), (gates, hidden), (gates,), (gates,)


@cache
def _plan(mode: str, width: int, hidden: int, dtype: torch.dtype, backend: str) -> _Plan | None:
    if not runs(torch.empty(0, dtype=dtype, device="cpu"), mode):
        return None
    recurrence = recurrence_of(mode, width, hidden)
    return _Plan(mode, recurrence, recurrence.runner(backend, torch.device("cpu"), dtype))
