"""What a recording collects while a network runs: the values of every call of a layer, and the probes in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from everloop.insight.probe import Probed, probed, values_of, width
from everloop.lang.cell import Cell
from everloop.nn.packing import Packing

Place = tuple[str, int, str]
"""The name of a module, the layer in it, and the direction."""

Made = tuple[dict[str, Tensor], dict[str, Tensor]]
"""The outputs of a layer, as rows, and its final states."""

Run = Callable[[Probed, dict[str, Tensor]], Made]
"""Runs a layer with the kernel of a probed cell, and further inputs."""


@dataclass(frozen=True)
class Call:
    """What one call of a layer reads: x as rows, the first states [B, F], the weights by stack. padded: from rows to
    [B, T, F], zero where no step counts.
    """

    cell: Cell
    sizes: dict[str, int]
    x: Tensor
    states: Mapping[str, Tensor]
    stacks: Mapping[str, Tensor]
    packing: Packing
    padded: Callable[[Tensor], Tensor]

    @property
    def bytes(self) -> int:
        """Of one feature at all steps, [B, T]."""
        return self.x.element_size() * self.packing.batch * self.packing.time

    @property
    def lengths(self) -> Tensor:
        """Of each sequence, the steps up to its last that counts, [B]."""
        there = self.padded(self.x.new_ones(*self.x.shape[:-1], 1))[..., 0]
        place = torch.arange(1, there.shape[1] + 1, device=there.device)
        return (there.ne(0) * place).amax(1) if there.shape[1] else place.new_zeros(there.shape[0])

    @property
    def start(self) -> dict[str, Tensor]:
        """The first states, in the order of the caller."""
        packed = self.x.dim() == 2
        return {name: self.packing.original(state) if packed else state for name, state in self.states.items()}

    @property
    def weights(self) -> dict[str, Tensor]:
        """By member."""
        found = {}
        for stack, members in self.cell.graph.stacks.items():
            parts = self.stacks[stack].split([param.shape(self.sizes)[0] for param in members])
            found |= {param.name: part for param, part in zip(members, parts, strict=True)}
        return found


@dataclass(frozen=True)
class Kept:
    """What one call left: x and values [B, T, F], and the probes, as rows, whose gradients are those of the values."""

    call: Call
    x: Tensor
    values: dict[str, Tensor]
    probes: dict[str, Tensor]
    keys: Mapping[str, str]

    def probe(self, name: str) -> Tensor:
        """That of a value."""
        return self.probes[self.keys[name]]


@dataclass
class Recorder:
    """names: which values are kept; None: all, and where there is no room for all, fewer of the named ones. most: how
    many bytes may be kept; used: how many are, or will be with the gradients.
    """

    names: Sequence[str] | None
    gradients: bool
    most: int
    calls: dict[Place, list[Kept]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    backends: dict[str, None] = field(default_factory=dict)
    used: int = 0

    def recorded(self, place: Place, call: Call, run: Run, watched: Sequence[str] = ()) -> Made:
        """What the layer makes, with the values that its caller watches among the outputs."""
        names = self._with_room(place, call)
        probe = probed(call.cell, call.sizes, {*names, *watched}, self.gradients)
        probes = probe.probes(call.x)
        outputs, final = run(probe, probe.given(probes))
        found = probe.kept(outputs)
        values = {name: call.padded(found[name].detach()) for name in names}
        kept = Kept(call, call.padded(call.x.detach()), values, probes, probe.keys)
        self.calls.setdefault(self._of_as_many(place, call), []).append(kept)
        self.used += self._bytes(call, names)
        self.backends[probe.recurrence.ran_on(call.x)] = None
        return {"y": outputs["y"]} | {name: found[name] for name in watched}, final

    def _of_as_many(self, place: Place, call: Call) -> Place:
        """Where a call belongs: calls of as many sequences are one record, others another."""
        name, depth, direction = place
        found, count = place, 1
        while found in self.calls and self.calls[found][0].call.packing.batch != call.packing.batch:
            count += 1
            found = f"{name} ({count})", depth, direction
        return found

    def _with_room(self, place: Place, call: Call) -> list[str]:
        """The names to record of a call, after others were given up where there is no room."""
        while True:
            names = self._wanted(call.cell)
            needed = self.used + self._bytes(call, names)
            if needed <= self.most:
                return names
            cells = [*(kept.call.cell for kept in self._all()), call.cell]
            spare = [name for cell in cells for name in self._spare(cell)]
            if not spare:
                where = f"layer {place[1]} of {place[0]}" if place[0] else f"layer {place[1]}"
                raise ValueError(
                    f"record: with {where}, {_megabytes(needed)} have come together, and there is room for "
                    f"{_megabytes(self.most)}: ask for fewer values with names=[...], give fewer or shorter sequences, "
                    f"or make room with most={needed} or more"
                )
            self._leave_out(spare[-1])

    def _leave_out(self, name: str) -> None:
        self.left_out.append(name)
        for kept in self._all():
            if kept.values.pop(name, None) is not None:
                self.used -= self._bytes_of(kept.call, name)

    def _all(self) -> list[Kept]:
        return [kept for calls in self.calls.values() for kept in calls]

    def _wanted(self, cell: Cell) -> list[str]:
        there = values_of(cell.graph)
        return [n for n in there if n not in self.left_out and (self.names is None or n in self.names)]

    def _spare(self, cell: Cell) -> list[str]:
        """What may be left out: named values that nobody asked for."""
        if self.names is not None:
            return []
        return [n for n in self._wanted(cell) if n not in cell.graph.new and n not in ("y", "output")]

    def _bytes(self, call: Call, names: Collection[str]) -> int:
        return call.bytes * call.sizes["input"] + sum(self._bytes_of(call, name) for name in names)

    def _bytes_of(self, call: Call, name: str) -> int:
        """Of a value, and of its gradient."""
        return call.bytes * width(values_of(call.cell.graph)[name], call.sizes) * (2 if self.gradients else 1)


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MB"
