"""What a layer is given and gives back: padded batches, masks, packed sequences, nested tensors.

A `Form` lays the steps of x out as `Recurrence` takes them, and puts what comes out in the form in which x came. A
padded batch and a packed sequence are not copied; a mask and a nested tensor cost one copy in and one out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from everloop.nn.packing import Packing, read, seen


class Form:
    """rows: the steps of x, [T, B, I] in the order of the caller, or, longest sequence first, [N, I]."""

    rows: Tensor
    packing: Packing

    @staticmethod
    def of(x: Any, lengths: Sequence[int] | Tensor | None = None, mask: Tensor | None = None) -> Form:
        """x: [B, T, I], with the lengths [B] of its sequences, or a mask [B, T] of the steps that count, in any
        pattern; a PackedSequence; or a nested tensor of layout torch.jagged, [B, j, I].

        A step that does not count leaves the state as it was; its output is zero.
        """
        for name, value in (("lengths", lengths), ("mask", mask)):
            if value is not None and (isinstance(x, PackedSequence) or _is_nested(x)):
                raise ValueError(f"{name}: came with {kind(x)}; expected none, as x knows where its sequences end")
        if isinstance(x, PackedSequence):
            return Packed(x)
        if _is_nested(x):
            return Nested(x)
        if not isinstance(x, Tensor):
            raise TypeError(f"x: {kind(x)} came; expected a tensor [B, T, I] or a PackedSequence")
        _check(x, 3, "[B, T, I]")
        batch, time, _ = x.shape
        if mask is not None and lengths is not None:
            raise ValueError("lengths: came with a mask; expected one of them, as a mask says which steps count")
        if mask is not None:
            return _masked(x, mask)
        if lengths is not None:
            return Padded(x, Packing.of(lengths, batch, time, x.device))
        return Padded(x, Packing.full(batch, time))

    def side(self, array: Any, width: int, name: str = "input", scalar: bool = False) -> Tensor:
        """An input beside x as rows: [B, T, width], or in the form of x. scalar: the last dimension may be missing."""
        raise NotImplementedError

    def sort(self, state: Tensor) -> Tensor:
        """[B, H] in the order of the rows."""
        return state if self.rows.dim() == 3 else self.packing.sort(state)

    def original(self, state: Tensor) -> Tensor:
        """[B, H] back in the order of the caller."""
        return state if self.rows.dim() == 3 else self.packing.original(state)

    def back(self, y: Tensor) -> Any:
        """Rows in the form in which x came, zero where no step counts."""
        raise NotImplementedError


class Padded(Form):
    """[B, T, I], of which all steps count, or those within lengths."""

    def __init__(self, x: Tensor, packing: Packing) -> None:
        self.packing = packing
        self.rows = self._laid(x)

    def _laid(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)

    def side(self, array: Any, width: int, name: str = "input", scalar: bool = False) -> Tensor:
        return self._laid(_padded(array, self.packing, width, name, scalar).to(self.rows))

    def back(self, y: Tensor) -> Tensor:
        return y.transpose(0, 1)


class Masked(Padded):
    """[B, T, I] and which steps count: these move to the front, and back to their places afterwards."""

    def __init__(self, x: Tensor, mask: Tensor, packing: Packing) -> None:
        # [B, T]: which step comes at each place, and at which place each step is.
        step = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        place = step.argsort(dim=1)
        batch, time, _ = x.shape
        sequence = torch.arange(batch, device=x.device)
        self._taken = (sequence * time + step.T).reshape(-1)
        self._put = (sequence.unsqueeze(1) + place * batch).reshape(-1)
        super().__init__(x, packing)

    def _laid(self, x: Tensor) -> Tensor:
        return _picked(x, self._taken)

    def back(self, y: Tensor) -> Tensor:
        return _picked(y, self._put)


class _Rows(Form):
    """What comes as rows without padding. A side input may come so, too, or padded."""

    def side(self, array: Any, width: int, name: str = "input", scalar: bool = False) -> Tensor:
        given = self._beside(array, name)
        if given is None:
            step, sequence = self._places()
            return _padded(array, self.packing, width, name, scalar).to(self.rows)[sequence, step]
        rows = given[:, None] if scalar and given.dim() == 1 else given
        if rows.shape != (self.rows.shape[0], width):
            raise ValueError(f"side {name}: rows {tuple(given.shape)} came; expected ({self.rows.shape[0]}, {width})")
        return rows.to(self.rows)

    def _beside(self, array: Any, name: str) -> Tensor | None:
        """The packed rows of a side input in the form of x; None if it has another form."""
        raise NotImplementedError

    def _places(self) -> tuple[Tensor, Tensor]:
        """Of each row, its step and which sequence it is of, [N] each."""
        order = self.packing.order
        assert order is not None
        step, rank = (index.to(order.device) for index in self.packing.places(self._count))
        return step, order[rank]

    @property
    def _count(self) -> int:
        return self.rows.shape[0]


class Packed(_Rows):
    """A PackedSequence, whose data are the rows."""

    def __init__(self, x: PackedSequence) -> None:
        _check(x.data, 2, "data [N, I]")
        self._x, self.rows = x, x.data
        self.packing = Packing.packed(x.batch_sizes, x.sorted_indices, x.data.device)

    def _beside(self, array: Any, name: str) -> Tensor | None:
        if not isinstance(array, PackedSequence):
            return None
        x = self._x
        if not (_same(array.batch_sizes, x.batch_sizes) and _same(array.sorted_indices, x.sorted_indices)):
            raise ValueError(f"side {name}: a PackedSequence of other lengths or order came; expected those of x")
        return array.data

    def back(self, y: Tensor) -> PackedSequence:
        return PackedSequence(y, self._x.batch_sizes, self._x.sorted_indices, self._x.unsorted_indices)


class Nested(_Rows):
    """A nested tensor, [B, j, I]: its values, sequence after sequence, are taken to packed rows."""

    def __init__(self, x: Any) -> None:
        begins, self._lengths = _extents("x", x)
        # The values: a nested tensor is slow to answer questions.
        values = x.values()
        _check(values, 2, "values [N, I], those of [B, j, I]")
        self._x, self._values = x, values.shape[0]
        # Where there are holes between the sequences, the values say nothing of how many rows there are.
        self._rows = self._values if x.lengths() is None else int(self._lengths.sum())
        self.packing = Packing.joined(self._lengths, self._rows, values.device)
        self._index = self._index_of(begins)
        self.rows = values.index_select(0, self._index)

    @property
    def _count(self) -> int:
        return self._rows

    def _index_of(self, begins: Tensor) -> Tensor:
        """Where each row is among the values of sequences that begin there."""
        step, sequence = self._places()
        return begins.to(step.device)[sequence] + step

    def _beside(self, array: Any, name: str) -> Tensor | None:
        if not _is_nested(array):
            if not seen():
                # Nobody knows how many steps a padded one must have.
                raise TypeError(f"side {name}: {kind(array)} came; expected a nested tensor, as x is, to be traced")
            return None
        begins, lengths = _extents(f"side {name}", array)
        if not _same(lengths, self._lengths):
            known = self._lengths.tolist()
            raise ValueError(f"side {name}: sequences of {lengths.tolist()} steps came; expected those of x, {known}")
        values = array.values()
        return values.index_select(0, self._index_of(begins).to(values.device))

    def back(self, y: Tensor) -> Tensor:
        values = y.new_zeros(self._values, y.shape[1]).index_copy(0, self._index, y)
        return torch.nested.nested_tensor_from_jagged(values, self._x.offsets(), lengths=self._x.lengths())


def _masked(x: Tensor, mask: Tensor) -> Padded:
    """[B, T, I] and which of its steps count; nothing is copied where these are the first ones of each sequence."""
    batch, time, _ = x.shape
    mask = read("mask", mask, x.device)
    if mask.dtype is not torch.bool:
        raise ValueError(f"mask: {mask.dtype} came; expected torch.bool, True where a step counts: mask.bool()")
    if mask.shape != (batch, time):
        raise ValueError(f"mask: {tuple(mask.shape)} came; expected one value for each step, ({batch}, {time})")
    packing = Packing.of(mask.sum(1), batch, time, x.device)
    if seen() and not mask.is_meta and not bool((mask[:, 1:] > mask[:, :-1]).any()):
        return Padded(x, packing)
    return Masked(x, mask, packing)


def _is_nested(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_nested


def kind(x: Any) -> str:
    """What came, in words."""
    return "a nested tensor" if _is_nested(x) else f"a {type(x).__name__}"


def _check(x: Tensor, dimensions: int, expected: str) -> None:
    if x.dim() != dimensions:
        raise ValueError(f"x: {tuple(x.shape)} came; expected {expected}")
    if not x.is_floating_point():
        raise ValueError(f"x: {x.dtype} came; expected numbers of a floating type, such as torch.float32")


def _extents(name: str, x: Any) -> tuple[Tensor, Tensor]:
    """Where in the values of a nested tensor each sequence begins, and its length."""
    if x.layout is not torch.jagged:
        raise ValueError(f"{name}: a nested tensor of layout {x.layout} came; expected layout=torch.jagged")
    if x._ragged_idx != 1:
        raise ValueError(f"{name}: {tuple(x.shape)} came; expected [B, j, I]: transpose it back")
    offsets, lengths = x.offsets(), x.lengths()
    return offsets[:-1], offsets.diff() if lengths is None else lengths


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two arrays of indices are equal, as far as can be seen."""
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and (not seen() or torch.equal(a.cpu(), b.cpu()))


def _padded(array: Any, packing: Packing, width: int, name: str, scalar: bool) -> Tensor:
    """A side input as [B, T, width]."""
    if not isinstance(array, Tensor) or array.is_nested:
        raise TypeError(f"side {name}: {kind(array)} came; expected a tensor [B, T, F], or one in the form of x")
    whole = array[..., None] if scalar and array.dim() == 2 else array
    expected = (packing.batch, packing.time, width)
    if whole.shape != expected:
        also = f" or {expected[:2]}" if scalar else ""
        raise ValueError(f"side {name}: {tuple(array.shape)} came; expected {expected}{also}")
    return whole


def _picked(x: Tensor, index: Tensor) -> Tensor:
    """[A, B, F] as [B, A, F], each row of which is the one that index [B * A] says."""
    rows, columns, width = x.shape
    return x.reshape(rows * columns, width).index_select(0, index).reshape(columns, rows, width)
