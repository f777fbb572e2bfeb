"""torch.nn.RNNCell, LSTMCell and GRUCell to the letter. A step is a sequence of one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from everloop.backends import AUTO, asked
from everloop.nn.drop_in import GATES, Stacks, fits, recurrence_of, runs, stacks
from everloop.nn.packing import Packing

MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNNCell(nn.RNNCell):
    """torch.nn.RNNCell, and one of its kind: the same arguments, results, parameters and errors.

    Runs on the backend that is asked for by name. Where none is, torch's own forward runs: a single step is little more
    than two products with the weights, which a kernel would first have to lay out as it reads them. Steps of a live
    sequence, whose weights are laid out once, are for `Recurrent.stream`; whole sequences for `RNN`.
    """

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        found = _step(self, MODES.get(self.nonlinearity, ""), input, hx) if _wanted() else None
        return super().forward(input, hx) if found is None else found[0]


class LSTMCell(nn.LSTMCell):
    """torch.nn.LSTMCell, and one of its kind: the same arguments, results, parameters and errors. See `RNNCell`."""

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        found = _step(self, "LSTM", input, hx) if _wanted() else None
        return super().forward(input, hx) if found is None else found


class GRUCell(nn.GRUCell):
    """torch.nn.GRUCell, and one of its kind: the same arguments, results, parameters and errors. See `RNNCell`."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        found = _step(self, "GRU", input, hx) if _wanted() else None
        return super().forward(input, hx) if found is None else found[0]


def _wanted() -> bool:
    """Whether a backend is asked for by name, or torch.func is at work, which torch's own cells do not know."""
    if torch.compiler.is_compiling():
        return False
    return asked() != AUTO or torch._C._are_functorch_transforms_active()


def _step(cell: nn.RNNCellBase, mode: str, x: Any, hx: Any) -> Any:
    """The states after the step, on the backend that is asked for; None for what is torch's to answer."""
    if not isinstance(x, Tensor) or x.dim() not in (1, 2) or x.shape[-1] != cell.input_size:
        return None
    if mode not in GATES or not runs(x, mode) or not (cell.input_size and cell.hidden_size):
        return None
    batch = x.shape[:-1]
    names = "hc" if mode == "LSTM" else "h"
    if hx is None:
        zeros = x.new_zeros(*batch, cell.hidden_size)
        given: Any = [zeros] * len(names)
    else:
        given = hx if mode == "LSTM" else (hx,)
    if not isinstance(given, tuple | list) or len(given) != len(names):
        return None
    weights = _weights(cell, mode, x)
    if weights is None or not all(fits(array, (*batch, cell.hidden_size), x) for array in given):
        return None
    states = {name: array.reshape(-1, cell.hidden_size) for name, array in zip(names, given, strict=True)}
    rows = x.reshape(1, -1, cell.input_size)
    recurrence = recurrence_of(mode, cell.input_size, cell.hidden_size)
    _, final = recurrence({"x": rows}, states, weights, Packing.full(rows.shape[1], 1))
    return tuple(final[name].reshape(*batch, cell.hidden_size) for name in names)


def _weights(cell: nn.RNNCellBase, mode: str, like: Tensor) -> Stacks | None:
    gates = GATES[mode] * cell.hidden_size
    shapes = [(gates, cell.input_size), (gates, cell.hidden_size), (gates,), (gates,)]
    arrays = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    if arrays[2] is None and arrays[3] is None:
        arrays = arrays[:2]
    if not all(fits(array, shape, like) for array, shape in zip(arrays, shapes, strict=False)):
        return None
    return stacks(mode, arrays, len(arrays) == 4, like)
