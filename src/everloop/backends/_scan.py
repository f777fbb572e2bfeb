"""Affine recurrences in parallel over time: new_i = sum over j of A_ij * state_j + b_i, elementwise, at every step.

Sequences are cut into chunks of some L steps, and three sweeps follow:

    1  L steps on all chunks at once, from a state of zero, give what each chunk adds; the same steps from each
       unit state, without b, give the product of its coefficients
    2  from chunk to chunk, with these, the state before each is found
    3  L steps on all chunks at once, from these states, are the recurrence itself

With L near the root of T, T steps take some three such roots of operations; the coefficients are read twice, the
states written once. At the end, the states that the third sweep reached are held against those that the second
foresaw: where a product of coefficients overflowed, or vanished and should not have, they differ, and the loop has
to go step by step.

Sequences come packed, as in the reference backend. Nothing here knows of expressions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from everloop.backends._chunks import Chunks, Value, cut

# A step on as many numbers as this keeps a processor busy by itself, and chunks would only read memory twice.
WIDE_ON_CPU = 4096
WIDE_ELSEWHERE = 1 << 20

# Shorter sequences are taken as one chunk: three sweeps over so few steps are no fewer operations.
SHORT = 40


class Scanned:
    """What a recurrence gave, by states: before every step and after it, [N, F] each; and at the end, [B, F]."""

    def __init__(self, chunks: Chunks, rooms: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> None:
        self._chunks, self._rooms, self._start = chunks, rooms, start

    def before(self, name: str) -> Tensor:
        return self._chunks.before(self._rooms[name])

    def after(self, name: str) -> Tensor:
        return self._chunks.after(self._rooms[name])

    @cached_property
    def final(self) -> dict[str, Tensor]:
        last = {name: self._chunks.final(room) for name, room in self._rooms.items()}
        return {name: torch.cat([array, self._start[name][array.shape[0] :]]) for name, array in last.items()}


def scan(
    coefficients: Mapping[tuple[str, str], Value],
    offsets: Mapping[str, Value],
    start: Mapping[str, Tensor],
    batch_sizes: Sequence[int],
    *,
    backwards: bool = False,
    length: int | None = None,
) -> Scanned | None:
    """The states of the recurrence from `start` [B, F] on; None if it has to go step by step.

    coefficients: (new state, old state) -> A; offsets: new state -> b: [N, F], [N, 1], [F] or a number; what is
    absent is zero. length: steps of a chunk (None: what is quickest, or None again where chunks gain nothing).
    """
    some = next(iter(start.values()))
    width = max(array.shape[1] for array in start.values())
    chosen = length or _length(batch_sizes, width, some.device.type)
    if not chosen:
        return None
    chunks = cut(batch_sizes, chosen, backwards, some.device)
    taking_part = {name: array[: batch_sizes[0]] for name, array in start.items()}
    recurrence = _Recurrence(chunks, coefficients, offsets, taking_part)
    rooms = recurrence.run()
    return Scanned(chunks, rooms, start) if recurrence.holds(rooms) else None


def _length(batch_sizes: Sequence[int], width: int, device: str) -> int:
    """How many steps a chunk should have; 0 if chunks gain nothing."""
    steps = len(batch_sizes)
    if steps < 2:
        return 0
    even = batch_sizes[0] == batch_sizes[-1]
    limit = WIDE_ON_CPU if device == "cpu" else WIDE_ELSEWHERE
    # The chunks of ragged batches have to be gathered and put back, which is as much traffic again.
    wide = sum(batch_sizes) * width >= steps * (limit if even else limit / 2)
    if wide or steps < SHORT:
        return steps if even else 0
    return max(2, round(sqrt(steps)))


@dataclass(frozen=True)
class _Rows:
    """A value that differs from row to row, in the order of the chunks."""

    array: Tensor


class _Recurrence:
    """The three sweeps."""

    def __init__(
        self,
        chunks: Chunks,
        coefficients: Mapping[tuple[str, str], Value],
        offsets: Mapping[str, Value],
        start: Mapping[str, Tensor],
    ) -> None:
        self.chunks, self.start = chunks, start
        self.coefficients = {pair: self._arranged(value) for pair, value in coefficients.items()}
        self.offsets = {name: self._arranged(value) for name, value in offsets.items()}
        # The states with which the whole chunks should end, as the second sweep has it.
        self.foreseen: list[dict[str, Tensor]] = []

    def run(self) -> dict[str, Tensor]:
        """The states before and after every step, in rooms of the chunks."""
        states = self._carry(*self._summarise())
        rooms = {name: self.chunks.room(array) for name, array in self.start.items()}
        into = {name: self.chunks.steps(self.chunks.written(room)) for name, room in rooms.items()}
        for coefficients, offsets in self._steps():
            out = {name: next(slices) for name, slices in into.items()}
            rows = next(iter(out.values())).shape[0]
            states = _step(coefficients, offsets, self._longest(states, rows), out)
        return rooms

    def holds(self, rooms: Mapping[str, Tensor]) -> bool:
        """Whether the chunks end as was foreseen, up to rounding: half the digits of the largest, unit by unit."""
        if not self.foreseen:
            return True
        verdicts = []
        for name, room in rooms.items():
            foreseen = self.chunks.join([states[name] for states in self.foreseen], [])
            reached = self.chunks.ends(room)
            scale = torch.where(reached.isfinite(), reached.abs(), 0).amax(0)
            numbers = torch.finfo(reached.dtype)
            near = (foreseen - reached).abs() <= sqrt(numbers.eps) * scale + numbers.tiny
            same = (foreseen == reached) | (foreseen.isnan() & reached.isnan())
            verdicts.append((near | same).all())
        return bool(torch.stack(verdicts).all())

    def _summarise(self) -> tuple[dict[tuple[str, str], Value], dict[str, Value]]:
        """The first sweep: the end of every whole chunk, as coefficients and offsets to its beginning."""
        if not self.chunks.whole:
            return {}, {}
        ends: dict[str, Value] = {}
        products: dict[str, dict[str, Value]] = {old: {old: 1.0} for _, old in self.coefficients}
        for coefficients, offsets in self._steps(whole=True):
            ends = _step(coefficients, offsets, ends)
            products = {old: _step(coefficients, {}, states) for old, states in products.items()}
        return {(new, old): value for old, states in products.items() for new, value in states.items()}, ends

    def _carry(self, products: Mapping[tuple[str, str], Value], ends: Mapping[str, Value]) -> dict[str, Tensor]:
        """The second sweep: the states before every chunk."""
        chunks, now = self.chunks, dict(self.start)
        coefficients = {pair: chunks.blocks(value) for pair, value in products.items()}
        offsets = {name: chunks.blocks(value) for name, value in ends.items()}
        whole: list[dict[str, Tensor]] = []
        rest: list[dict[str, Tensor]] = []
        for rows, begun in zip(chunks.whole, chunks.begun[1:], strict=True):
            if rows < len(next(iter(now.values()))):
                rest.append({name: array[rows:] for name, array in now.items()})
            whole.append(now := _first(now, rows))
            found = _step(_next(coefficients), _next(offsets), now)
            self.foreseen.append({name: _full(found.get(name), array) for name, array in now.items()})
            now = _first(self.foreseen[-1], begun)
        rest.append(now)
        return {name: chunks.join([part[name] for part in whole], [part[name] for part in rest]) for name in now}

    def _steps(self, *, whole: bool = False) -> Iterator[tuple[dict[tuple[str, str], Value], dict[str, Value]]]:
        """Coefficients and offsets of all chunks, or of the whole ones only, step by step."""
        coefficients = {pair: self._slices(value, whole) for pair, value in self.coefficients.items()}
        offsets = {name: self._slices(value, whole) for name, value in self.offsets.items()}
        for _ in range(self.chunks.length):
            yield _next(coefficients), _next(offsets)

    def _slices(self, value: Value | _Rows, whole: bool) -> Iterator[Value]:
        if not isinstance(value, _Rows):
            return repeat(value)
        slices = self.chunks.steps(value.array)
        return (self.chunks.longest(rows, self.chunks.count) for rows in slices) if whole else slices

    def _longest(self, states: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
        if next(iter(states.values())).shape[0] == rows:
            return states
        return {name: self.chunks.longest(array, rows) for name, array in states.items()}

    def _arranged(self, value: Value) -> Value | _Rows:
        if isinstance(value, Tensor) and value.dim() == 2 and value.shape[0] == sum(self.chunks.batch_sizes):
            return _Rows(self.chunks.arrange(value))
        return value


def _next(slices: Mapping[Any, Iterator[Value]]) -> dict[Any, Value]:
    return {key: next(found) for key, found in slices.items()}


def _step(
    coefficients: Mapping[tuple[str, str], Value],
    offsets: Mapping[str, Value],
    states: Mapping[str, Value],
    out: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The new states, written to `out` if given. States that are absent are zero, before and after."""
    products: dict[str, list[tuple[Value, Value]]] = {name: [] for name in out or offsets}
    for (new, old), coefficient in coefficients.items():
        if old in states:
            products.setdefault(new, []).append((coefficient, states[old]))
    return {name: _sum(offsets.get(name), found, out[name] if out else None) for name, found in products.items()}


def _sum(offset: Value | None, products: list[tuple[Value, Value]], out: Tensor | None) -> Value:
    """offset + the products, the last operation written to `out`."""
    if not products:
        value = 0.0 if offset is None else offset
        if out is None:
            return value
        return out.copy_(value) if isinstance(value, Tensor) else out.fill_(value)
    total = offset
    for coefficient, state in products[:-1]:
        total = _add_product(total, coefficient, state, None)
    return _add_product(total, *products[-1], out)


def _add_product(total: Value | None, a: Value, b: Value, out: Tensor | None) -> Value:
    """total + a * b, where any may be a number, in one operation where there is one."""
    if not isinstance(a, Tensor):
        a, b = b, a
    if not isinstance(a, Tensor):
        return a * b if total is None else total + a * b
    if isinstance(total, Tensor):
        if isinstance(b, Tensor):
            return torch.addcmul(total, a, b, out=out)
        return torch.add(total, a, alpha=b, out=out)
    product = torch.mul(a, b, out=out)
    return product if total is None else product.add_(total)


def _first(states: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    if next(iter(states.values())).shape[0] == rows:
        return states
    return {name: array[:rows] for name, array in states.items()}


def _full(value: Value | None, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value if value.shape == like.shape else value.expand(like.shape)
    return torch.full_like(like, value or 0.0)
