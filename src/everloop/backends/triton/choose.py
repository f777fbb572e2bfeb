"""Which template runs a loop, from its plan and its sizes.

    scan        affine in the states, and too few numbers to fill the device: steps in chunks, in parallel within them
    diagonal    units do not meet: a program per block of sequences and units, time in the loop
    whole       the recurrent weights fit one multiprocessor: a program per block of sequences keeps them there
    heads       the same for block-diagonal weights, a program per head
    split       they do not: the units are divided among programs that wait for each other after every stage

The figures behind the limits are sizes of the hardware, not measurements: no device was at hand when this was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal

from everloop.backends._values import length, width
from everloop.compiler.affine import Affine
from everloop.compiler.plan import Plan, Product

Template = Literal["scan", "diagonal", "whole", "heads", "split"]

DOT = 16
"""The least length of each axis of a product on tensor cores."""
SEQUENCES = 16
"""Of a block in a recurrent template."""
STEPS = 64
"""Of a chunk of a scan."""
UNITS = 64
"""Of a block where units do not meet."""
CHUNK = 64
"""Columns of a matrix that are multiplied at a time where it does not stay on chip."""
LANES = 2048
"""Numbers that a multiprocessor works on at once; with fewer, it waits for memory."""
COUPLED = 3
"""States that a scan can couple: the coefficients of a step are as many numbers, squared."""


@dataclass(frozen=True)
class Device:
    """multiprocessors: how many. on_chip: bytes of shared memory that a program may have on one of them."""

    multiprocessors: int
    on_chip: int


@dataclass(frozen=True)
class Choice:
    """template, and why. sequences: in a block; 1 in a scan. parts: programs that the units are divided among.
    steps: of a chunk of a scan. resident: weights stay on chip all along the sequence. warps: of a program."""

    template: Template
    reason: str
    sequences: int
    parts: int
    steps: int = 1
    resident: bool = True
    warps: int = 4


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop with its sizes. form: that of a scan. weight, entry: bytes on chip of a weight, and of a number that it is
    multiplied with."""

    plan: Plan
    form: Affine | None
    sizes: Mapping[str, int]
    weight: int
    entry: int

    @cached_property
    def products(self) -> list[Product]:
        return [product for stage in self.plan.stages for product in stage.products]

    @cached_property
    def widths(self) -> list[int]:
        """Of the axes along which states lie."""
        return sorted({width(s.size, self.sizes) for s in self.plan.graph.states.values()})

    @cached_property
    def weight_bytes(self) -> int:
        """Of the recurrent weights, as they would lie on one chip."""
        return self.share_bytes(1)

    def share_bytes(self, parts: int) -> int:
        """Of the weights of a program, if the units are divided among so many."""
        graph, total = self.plan.graph, 0
        for name, op in dict.fromkeys((name, product.op) for product in self.products for name in product.matrices):
            rows, columns = (length(size, self.sizes) for size in graph.params[name].sizes)
            units, others = (rows, columns) if op == "matmul" else (columns, rows)
            total += padded(ceil(units / parts)) * padded(others) * self.weight
        return total

    def vector_bytes(self, sequences: int) -> int:
        """Of what the weights are multiplied with, for so many sequences."""
        vectors = dict.fromkeys(arg for product in self.products for arg in product.args)
        return sum(sequences * padded(length(arg.size, self.sizes)) * self.entry for arg in vectors)

    @cached_property
    def heads(self) -> int:
        """Parts that never meet in the loop; 1 if there are none."""
        graph = self.plan.graph
        blocks = {graph.params[name].blocks for product in self.products for name in product.matrices}
        nodes = [node for stage in self.plan.stages for node in stage.nodes]
        if len(blocks) != 1 or any(node.op in ("sum", "max", "cumsum") for node in nodes):
            return 1
        count = blocks.pop()
        sized = [node for node in (*nodes, *graph.states.values()) if node.size is not None]
        return count if all(length(node.size, self.sizes) % count == 0 for node in sized) else 1


def choose(loop: Loop, sequences: int, steps: int, device: Device) -> Choice:
    """The template for so many sequences, of at most so many steps."""
    units = max(loop.widths)
    if loop.plan.kind != "recurrent":
        parts = ceil(units / UNITS)
        if _is_scannable(loop) and steps > 1 and sequences * units < device.multiprocessors * LANES:
            reason = f"steps of so few numbers do not fill {device.multiprocessors} multiprocessors"
            chunk = min(STEPS, padded(steps))
            return Choice("scan", f"affine in the states, and {reason}", 1, parts, chunk)
        return Choice("diagonal", "units do not meet in the loop", 4, parts)
    vectors = loop.vector_bytes(SEQUENCES)
    if loop.heads > 1 and (loop.weight_bytes + vectors) // loop.heads <= device.on_chip:
        size = loop.weight_bytes // loop.heads
        return Choice("heads", f"{loop.heads} heads of {size:,} bytes of weights", SEQUENCES, loop.heads)
    if loop.weight_bytes + vectors <= device.on_chip:
        reason = f"{loop.weight_bytes:,} bytes of recurrent weights fit into {device.on_chip:,}"
        return Choice("whole", reason, SEQUENCES, 1, warps=4 if units <= 64 else 8)
    return _split(loop, sequences, units, device)


def _split(loop: Loop, sequences: int, units: int, device: Device) -> Choice:
    """All programs of a group have to run at once, one on each multiprocessor; groups that do not fit come later."""
    reason = f"{loop.weight_bytes:,} bytes of recurrent weights do not fit into {device.on_chip:,}"
    most = min(device.multiprocessors, ceil(units / DOT))
    for tall in (SEQUENCES, 2 * SEQUENCES, 4 * SEQUENCES):
        at_once = max(1, device.multiprocessors // ceil(sequences / tall))
        parts = _even(units, min(most, at_once))
        if loop.share_bytes(parts) + loop.vector_bytes(tall) <= device.on_chip:
            where = f"{parts} programs, each keeping its weights on chip"
            return Choice("split", f"{reason}: {where}", tall, parts, warps=8)
    parts = _even(units, most)
    resident = loop.share_bytes(parts) + loop.vector_bytes(SEQUENCES) <= device.on_chip
    where = "each keeping its weights on chip" if resident else "reading weights from the cache"
    return Choice("split", f"{reason}: {parts} programs, {where}", SEQUENCES, parts, resident=resident, warps=8)


def _even(units: int, parts: int) -> int:
    """How many programs have units, of at most so many: each has as many as a block for products."""
    return ceil(units / padded(ceil(units / parts)))


def _is_scannable(loop: Loop) -> bool:
    return loop.form is not None and len(loop.plan.graph.states) <= COUPLED and len(loop.widths) == 1


def padded(size: int) -> int:
    """The power of two that a block of so many has to be, for products."""
    return max(DOT, 1 << (size - 1).bit_length())
