"""The states of a stack of layers, as named tuples."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import _register_namedtuple

from everloop.nn.forms import kind


class States:
    """Which states a stack of layers has, and how they are handed out and taken back.

    cells: the name of each layer's cell. widths: the features of its states, by name. alike: whether a state of all
    layers and directions is one array, [L * D, B, F]; otherwise there is a named tuple of [D, B, F] for each layer.
    """

    def __init__(
        self, cells: tuple[str, ...], widths: tuple[Mapping[str, int], ...], directions: int, alike: bool
    ) -> None:
        self._given = cells, widths, directions, alike
        self._layers = tuple(f"layer{depth}" for depth in range(len(cells)))
        # What lies in one array, or side by side in one named tuple: of every layer and direction, or of a layer.
        several = [widths] if alike else [(of_one,) for of_one in widths]
        self._groups = [[of_one for of_one in group for _ in range(directions)] for group in several]
        # Looked up here and not in a call, which torch may compile.
        pairs = zip(cells, self._groups, strict=False)
        self._types = [_type(cell, tuple(group[0]), directions) for cell, group in pairs]
        self._outer = None if alike else _type("layers", self._layers, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        return States, self._given

    def join(self, arrays: Sequence[Mapping[str, Tensor]]) -> Any:
        """The states [B, F] of every layer and direction, as one named tuple."""
        parts, begin = [], 0
        for made, group in zip(self._types, self._groups, strict=True):
            members = arrays[begin : begin + len(group)]
            parts.append(made(*[_stacked([states[name] for states in members]) for name in group[0]]))
            begin += len(group)
        return parts[0] if self._outer is None else self._outer(*parts)

    def split(self, given: Any, batch: int, like: Tensor) -> list[dict[str, Tensor]]:
        """What `join` gives, or plain tuples of its form, as the states [B, F] of every layer and direction."""
        if self._outer is None:
            return _split("state", given, self._groups[0], batch, like)
        parts = zip(self._layers, _counted("state", given, self._layers), self._groups, strict=True)
        return [states for layer, part, group in parts for states in _split(f"state {layer}", part, group, batch, like)]


def _stacked(arrays: list[Tensor]) -> Tensor:
    """[B, F] each as one array; where layers differ in width, the narrower ones have zeros behind."""
    if len(arrays) == 1:
        return arrays[0][None]
    width = max(array.shape[1] for array in arrays)
    return torch.stack([nn.functional.pad(array, (0, width - array.shape[1])) for array in arrays])


def _split(
    what: str, given: Any, widths: Sequence[Mapping[str, int]], batch: int, like: Tensor
) -> list[dict[str, Tensor]]:
    names = list(widths[0])
    arrays = _counted(what, given, names)
    for name, array in zip(names, arrays, strict=True):
        if not isinstance(array, Tensor):
            raise TypeError(f"{what} {name}: {kind(array)} came; expected a tensor")
        expected = (len(widths), batch, max(known[name] for known in widths))
        if array.shape != expected:
            raise ValueError(f"{what} {name}: {tuple(array.shape)} came; expected {expected}")
    arrays = [array.to(like) for array in arrays]
    return [
        {name: array[place][:, : known[name]] for name, array in zip(names, arrays, strict=True)}
        for place, known in enumerate(widths)
    ]


def _counted(what: str, given: Any, names: Sequence[str]) -> Sequence[Any]:
    if not isinstance(given, Tensor | Sequence):
        raise TypeError(f"{what}: {kind(given)} came; expected a tuple of {', '.join(names)}, as a layer returns it")
    parts = (given,) if isinstance(given, Tensor) else tuple(given)
    if len(parts) != len(names):
        raise ValueError(f"{what}: {len(parts)} values came; expected {len(names)}: {', '.join(names)}")
    return parts


@cache
def _type(name: str, fields: tuple[str, ...], directions: int) -> Any:
    """Named tuples of the states of a cell of that name, or, without directions, of those of several layers."""
    made = namedtuple(f"{re.sub('[^a-zA-Z0-9]', '', name.title())}State", fields)
    # Set on the type itself, because torch takes apart those named tuples alone that inherit from nothing else. It has
    # no place where pickle could find it: it is made again.
    made.__reduce__ = lambda self: (_made, (name, fields, directions, tuple(self)))  # type: ignore[method-assign]
    made.detach = _detach  # type: ignore[attr-defined]
    # So that torch.export can write down what a program gives and takes.
    _register_namedtuple(made, serialized_type_name=f"everloop {name} {directions} {' '.join(fields)}")
    if "last" not in fields:
        made.last = property(lambda self: _last(self, directions))  # type: ignore[attr-defined]
    return made


def _made(name: str, fields: tuple[str, ...], directions: int, values: tuple[Any, ...]) -> Any:
    return _type(name, fields, directions)(*values)


def _last(self: Any, directions: int) -> Any:
    """The states of the last layer, both directions side by side: [B, D * F] each."""
    return self._make(part[-directions:].transpose(0, 1).flatten(1) for part in self) if directions else self[-1].last


def _detach(self: Any) -> Any:
    """The same values, of which no gradient flows back to where they came from."""
    return self._make(part.detach() for part in self)
