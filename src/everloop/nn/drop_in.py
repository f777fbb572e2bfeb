"""torch.nn.RNN, LSTM and GRU to the letter, run by Everloop: what changes in a program is the import.

Constructor, parameters and their names, start values, messages, pickling and printing are torch's own code. `forward`
looks at what it is given; what it does not know how to run goes to torch's forward, which runs it, or refuses it in its
own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from everloop import cells
from everloop.backends import AUTO, REFERENCE, asked, choose
from everloop.lang.cell import Cell
from everloop.lang.functions import relu
from everloop.nn.function import Recurrence, autocasts
from everloop.nn.packing import Packing

Stacks = dict[str, Tensor]


class _Layers(nn.RNNBase):
    """What the three have in common.

    Not subclasses of torch's three: torch.compile refuses, by isinstance, every module that is one of them. Nothing is
    held beside what torch's own hold, so that `convert` can make one the other at any time.
    """

    _torch: ClassVar[type[nn.RNNBase]]

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        found = self._found(input, hx)
        if found is None:
            if self.mode == "LSTM" and isinstance(input, PackedSequence):
                self._check_packed(input, hx)
            return self._torch.forward(self, input, hx)
        y, final = self._run(*found)
        if isinstance(input, PackedSequence):
            y = PackedSequence(y, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            final = [_permuted(array, input.unsorted_indices) for array in final]
        elif input.dim() == 2:
            y, final = y.squeeze(1), [array.squeeze(1) for array in final]
        else:
            # Programs view what torch gives without gaps in other shapes.
            y = y.transpose(0, 1) if self.batch_first else y.contiguous()
        return y, tuple(final) if self.mode == "LSTM" else final[0]

    def _check_packed(self, input: PackedSequence, hx: Any) -> None:
        """States of too many layers or dimensions beside what is packed, refused in torch's words: its LSTM does not
        look, and reads over the end.
        """
        count = self.num_layers * (2 if self.bidirectional else 1)
        arrays = [array for array in hx if isinstance(array, Tensor)] if isinstance(hx, tuple) else []
        if len(arrays) == 2 and any(
            array.dim() > 3 or (array.dim() == 3 and array.shape[0] > count) for array in arrays
        ):
            self.check_forward_args(input.data, hx, input.batch_sizes)  # type: ignore[arg-type]

    def _found(
        self, input: Tensor | PackedSequence, hx: Any
    ) -> tuple[Tensor, Packing, list[Sequence[Tensor]], list[Stacks]] | None:
        """The rows of all steps and where they lie, the first values of each state and the weights, of every layer and
        direction; None for what is torch's to answer.
        """
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        if not isinstance(x, Tensor) or x.dim() not in ((2,) if packed else (2, 3)):
            return None
        if not isinstance(self.bidirectional, bool) or isinstance(self.num_layers, bool):
            # Which torch takes in a constructor, and in no call.
            return None
        batched = packed or x.dim() == 3
        time = len(input.batch_sizes) if packed else x.shape[1 if batched and self.batch_first else 0]
        if time == 0 or is_short(time, self.mode) or not runs(x, self.mode) or x.shape[-1] != self.input_size:
            return None
        if packed:
            rows, order = x, input.sorted_indices
            packing = Packing.packed(input.batch_sizes, order, x.device)
        else:
            rows, order = x if batched else x.unsqueeze(1), None
            if batched and self.batch_first:
                rows = x.transpose(0, 1)
            packing = Packing.full(rows.shape[1], time)
        starts = self._starts(hx, rows, packing.batch, order, batched)
        weights = self._weights(x)
        return None if starts is None or weights is None else (rows, packing, starts, weights)

    def _starts(
        self, hx: Any, like: Tensor, batch: int, order: Tensor | None, batched: bool
    ) -> list[Sequence[Tensor]] | None:
        """[B, F] for every layer and direction, of every state; None where hx is not what is expected."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        widths = [self.proj_size or self.hidden_size, self.hidden_size][: 2 if self.mode == "LSTM" else 1]
        if hx is None:
            zeros = like.new_zeros(batch, self.hidden_size)
            return [[zeros[:, :width] if self.proj_size else zeros] * count for width in widths]
        given = hx if self.mode == "LSTM" else (hx,)
        if not isinstance(given, tuple | list) or len(given) != len(widths):
            return None
        found: list[Sequence[Tensor]] = []
        for array, width in zip(given, widths, strict=True):
            if not fits(array, (count, batch, width) if batched else (count, width), like):
                return None
            found.append(_permuted(array if batched else array.unsqueeze(1), order).unbind(0))
        return found

    def _weights(self, like: Tensor) -> list[Stacks] | None:
        """The arrays of the cell for every layer and direction; None where one is not as the constructor makes it.

        Read by name at every call: what wraps, computes or swaps parameters does it by name.
        """
        if self.proj_size and self.mode != "LSTM":
            return None
        directions, state = 2 if self.bidirectional else 1, self.proj_size or self.hidden_size
        gates = GATES[self.mode] * self.hidden_size
        shapes = [(gates, self.input_size), (gates, state)]
        shapes += [(gates,), (gates,)] if self.bias else []
        shapes += [(state, self.hidden_size)] if self.proj_size else []
        found = []
        for place, names in enumerate(self._all_weights):
            if place == directions:
                shapes[0] = (gates, directions * state)
            arrays = [getattr(self, name, None) for name in names]
            if not all(map(fits, arrays, shapes, [like] * len(shapes))):
                return None
            found.append(stacks(self.mode, arrays, self.bias, like))
        return found

    def _run(
        self, rows: Tensor, packing: Packing, starts: list[Sequence[Tensor]], weights: list[Stacks]
    ) -> tuple[Tensor, list[Tensor]]:
        """What the last layer puts out, in the form of rows, and the final states, [L * D, B, F] each."""
        directions = 2 if self.bidirectional else 1
        names = "hc"[: len(starts)]
        finals: list[dict[str, Tensor]] = []
        for depth in range(self.num_layers):
            # Not from a shape, which is no number to torch.jit.trace.
            width = directions * int(self.proj_size or self.hidden_size) if depth else self.input_size
            recurrence = recurrence_of(self.mode, width, self.hidden_size, self.proj_size)
            outputs = []
            for direction in range(directions):
                place = len(finals)
                states = {name: of[place] for name, of in zip(names, starts, strict=True)}
                found, last = recurrence({"x": rows}, states, weights[place], packing, reverse=direction == 1)
                outputs.append(found["y"])
                finals.append(last)
            rows = outputs[0] if directions == 1 else torch.cat(outputs, -1)
            if self.dropout and self.training and depth < self.num_layers - 1:
                # The masks that torch draws are drawn in the order of memory, and there the steps come first.
                rows = nn.functional.dropout(rows.contiguous(), self.dropout)
        return rows, [_stacked([last[name] for last in finals]) for name in names]


class RNN(_Layers):
    """torch.nn.RNN, run by Everloop: the same arguments, results, parameters and errors.

    Differs: it is an RNNBase and no torch.nn.RNN, which torch.compile would refuse; it compiles without a graph break.
    It can be differentiated any number of times. torch's own forward runs, as it always did, what no kernel is compiled
    for (cuDNN runs a GPU, unless a backend is asked for by name), what autocast converts, and sequences of a few steps,
    at which it is quicker. Compiled, what autocast would convert has the type of the weights.
    """

    _torch = nn.RNN

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.nonlinearity = args[3] if len(args) > 3 else kwargs.get("nonlinearity", "tanh")
        if "proj_size" in kwargs or self.nonlinearity not in ("tanh", "relu"):
            nn.RNN(*args, **kwargs)  # refuses them
        if len(args) > 3:
            args = (*args[:3], *args[4:])
        else:
            kwargs.pop("nonlinearity", None)
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)


class LSTM(_Layers):
    """torch.nn.LSTM, run by Everloop: the same arguments, results, parameters and errors. `RNN` says what differs."""

    _torch = nn.LSTM
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(_Layers):
    """torch.nn.GRU, run by Everloop: the same arguments, results, parameters and errors. `RNN` says what differs."""

    _torch = nn.GRU

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            nn.GRU(*args, **kwargs)  # refuses it
        super().__init__("GRU", *args, **kwargs)


# -- what layers and cells have in common ----------------------------------------------------------------------------

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4}
"""By the modes of torch."""

SHORT = {"RNN_TANH": 4, "RNN_RELU": 4, "GRU": 1, "LSTM": 0}
"""Steps up to which torch is quicker: for so few, what is done around the products in Python takes longer than they."""


def runs(x: Tensor, mode: str) -> bool:
    """Whether x is run here: a kernel is compiled for arrays like it, or a backend is asked for that has none, and no
    types are converted on the way.
    """
    if x.layout is not torch.strided:
        return False
    device = x.device.type
    if torch.compiler.is_compiling():
        return device == "cpu"
    if device == "meta" or autocasts(device):
        return False
    return _compiled(mode, device, x.dtype, asked())


def is_short(time: int, mode: str) -> bool:
    """Whether so few steps are torch's, unless a backend is asked for by name, or somebody looks at what is done."""
    # Compiled, a length is not looked at: what is exported would run at no other.
    if torch.compiler.is_compiling() or time > SHORT[mode]:
        return False
    return asked() == AUTO and not torch._C._are_functorch_transforms_active()


def fits(array: Any, shape: tuple[int, ...], like: Tensor) -> bool:
    """Whether an array has this shape, and the type and place of another. Compiled, autocast may change types later."""
    return (
        isinstance(array, Tensor)
        and array.shape == shape
        and (array.dtype is like.dtype or (torch.compiler.is_compiling() and autocasts(like.device.type)))
        and array.device == like.device
        and array.layout is torch.strided
    )


def stacks(mode: str, arrays: Sequence[Any], bias: bool, like: Tensor) -> Stacks:
    """The arrays of torch, in its order, by the names of the cell; the sum of two biases where a cell has one."""
    found = {"W": arrays[0], "U": arrays[1]}
    if not bias:
        b = d = like.new_zeros(arrays[0].shape[0])
    else:
        b, d = arrays[2:4]
    if mode == "GRU":
        found["b"], found["d"] = b, d
    else:
        found["b"] = b + d if bias else b
    if len(arrays) % 2:
        found["P"] = arrays[-1]
    return found


class _Made:
    """The recurrences that there are, as attributes: torch.compile finds what is an attribute again."""


_made = _Made()


def recurrence_of(mode: str, width: int, hidden: int, proj: int = 0) -> Recurrence:
    """One for all modules of these sizes."""
    return getattr(_made, _name(mode, width, hidden, proj))


@torch.compiler.assume_constant_result
def _name(mode: str, width: int, hidden: int, proj: int) -> str:
    """The attribute that it is from now on."""
    return _name_made(mode, width, hidden, proj)


@cache
def _name_made(mode: str, width: int, hidden: int, proj: int) -> str:
    # torch takes True for a size, and it is 1 to a cache.
    width, hidden, proj = int(width), int(hidden), int(proj)
    name = f"{mode}_{width}_{hidden}_{proj}"
    sizes = {"input": width, "hidden": hidden} | ({"proj": proj} if proj else {})
    setattr(_made, name, Recurrence(_cell(mode, bool(proj)), sizes))
    return name


def _cell(mode: str, projected: bool = False) -> Cell:
    if mode == "LSTM":
        return cells.get("projection_lstm" if projected else "lstm")
    if mode == "GRU":
        return cells.get("gru")
    return cells.get("elman")(act=relu) if mode == "RNN_RELU" else cells.get("elman")


@cache
def _compiled(mode: str, device: str, dtype: torch.dtype, name: str) -> bool:
    if name == REFERENCE:
        return True
    return dtype.is_floating_point and choose(_cell(mode).graph, device, str(dtype), name).name != REFERENCE


def _permuted(array: Tensor, order: Tensor | None) -> Tensor:
    return array if order is None else array.index_select(1, order)


def _stacked(arrays: list[Tensor]) -> Tensor:
    return arrays[0].unsqueeze(0) if len(arrays) == 1 else torch.stack(arrays)
