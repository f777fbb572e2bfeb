"""Loops of plans as Triton kernels, on arrays of torch."""

from __future__ import annotations

import linecache
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import accumulate, chain
from math import ceil
from typing import Any

import torch
from torch import Tensor

from everloop.backends._values import Values, rows_of, width
from everloop.backends.reference import Loops, Schedule
from everloop.backends.triton.choose import Choice, Device, Loop, choose
from everloop.backends.triton.fuse import fused
from everloop.backends.triton.source import Source
from everloop.backends.triton.writer import Argument
from everloop.compiler.plan import Plan
from everloop.lang.expr import Expr

REALS = {torch.float32: "tl.float32", torch.float64: "tl.float64"}
PRECISE = "tf32x3"
"""Products in float32: as three of tf32 on tensor cores, about as precise as float32 itself. Triton 3.9 aborts on some
kernels with plain ones ("ieee")."""
HELD = {
    torch.float32: "tl.float32",
    torch.float64: "tl.float64",
    torch.bfloat16: "tl.bfloat16",
    torch.float16: "tl.float16",
}

SHAPES = 64
"""Lengths of sequences that are remembered."""
LEAST = 1024
"""Bytes on chip: with fewer, no template can do."""

log = logging.getLogger("everloop")


class TritonLoops(Loops):
    """Each loop as one kernel. pick: which template a loop gets."""

    def __init__(
        self, sizes: Mapping[str, int], dtype: torch.dtype, device: Device, pick: Callable[..., Choice] = choose
    ) -> None:
        self._sizes, self._dtype, self._device, self._pick = dict(sizes), dtype, device, pick
        self._ran: dict[tuple[str, str], str] = {}
        self._loops: dict[Schedule, Loop] = {}
        self._on_chip: dict[Schedule, int] = {}
        self._sources: dict[tuple[Schedule, Choice, bool], Source] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Of every template that has run, forward and backward: why, and for which shape the last time."""
        return tuple(self._ran.values())

    def arrange(self, found: Plan) -> Plan:
        return fused(found)

    def source(self, schedule: Schedule, sequences: int, steps: int, *, backwards: bool) -> tuple[Choice, Source]:
        """The template for so many sequences and steps, and its source."""
        if schedule not in self._loops:
            self._loops[schedule] = Loop(schedule.plan, schedule.form, self._sizes, *_on_chip(self._dtype))
        loop = self._loops[schedule]
        device = replace(self._device, on_chip=self._room(schedule))
        choice = self._pick(loop, sequences, steps, device)
        key = schedule, choice, backwards
        if key not in self._sources:
            real = REALS.get(self._dtype, "tl.float32")
            self._sources[key] = Source(loop, choice, schedule.history, real, HELD[self._dtype], backwards)
        return choice, self._sources[key]

    def _room(self, schedule: Schedule) -> int:
        """Bytes on chip that a template may count on."""
        return self._on_chip.get(schedule, self._device.on_chip)

    def run(
        self,
        schedule: Schedule,
        values: Values,
        states: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        *,
        backwards: bool,
    ) -> dict[str, Tensor]:
        """The final states; `values` gets the history."""
        sequences, total = next(iter(states.values())).shape[0], sum(batch_sizes)
        if not total:
            values.update({node: values.like.new_empty(0, self._width(node)) for node in schedule.history})
            return {name: array.clone() for name, array in states.items()}
        final = {name: torch.empty_like(array, memory_format=torch.contiguous_format) for name, array in states.items()}
        choice, source = self.source(schedule, sequences, len(batch_sizes), backwards=backwards)
        made = {nodes: values.like.new_empty(total, sum(map(self._width, nodes))) for nodes in source.history}
        given = [self._given(one, values, states, final, made, total, sequences) for one in source.arguments]
        try:
            self._launch(source.text, choice, given, tuple(batch_sizes), sequences, values.like.device)
        except Exception as error:
            # Triton finds out how much a kernel needs when it compiles it.
            less = self._room(schedule) // 2
            if type(error).__name__ != "OutOfResources" or less < LEAST:
                raise
            self._on_chip[schedule] = less
            log.info("%s: %s; trying a template that keeps less on chip", schedule.plan.graph.name, error)
            return self.run(schedule, values, states, batch_sizes, backwards=backwards)
        way = "backward" if backwards else "forward"
        shape = f"{way}, {sequences} x {len(batch_sizes)} steps"
        self._ran[way, choice.template] = f"{shape}: {choice.template}, {choice.reason}"
        for nodes, array in made.items():
            values.put(nodes, array)
        return final

    def _width(self, node: Expr) -> int:
        return width(node.size, self._sizes)

    def _given(
        self,
        one: Argument,
        values: Values,
        states: Mapping[str, Tensor],
        final: Mapping[str, Tensor],
        made: Mapping[tuple[Expr, ...], Tensor],
        total: int,
        sequences: int,
    ) -> tuple[Tensor | int, ...]:
        """The array of an argument, and how far its rows are apart where they may lie anywhere."""
        if isinstance(one.of, str):
            match one.kind:
                case "first":
                    return (states[one.of].contiguous(),)
                case "last":
                    return (final[one.of],)
            array = rows_of(values.weights.member(one.of))
            return array, array.stride(0)
        match one.kind:
            case "history":
                array = made[one.of]
            case "feed":
                array = rows_of(values.pack(one.of, total))
            case "exchange":
                real = self._dtype if self._dtype in REALS else torch.float32
                return (values.like.new_empty(2, sequences, self._width(one.of[0]), dtype=real),)
            case _:
                value = values[one.of[0]]
                return (value.contiguous() if isinstance(value, Tensor) else values.like.new_tensor(value),)
        return array, array.stride(0)

    def _launch(
        self,
        text: str,
        choice: Choice,
        given: Sequence[tuple[Any, ...]],
        batch_sizes: tuple[int, ...],
        sequences: int,
        device: torch.device,
    ) -> None:
        args = [*chain.from_iterable(given), *_places(batch_sizes, sequences, device)]
        groups = ceil(sequences / choice.sequences)
        at_once = max(1, self._device.multiprocessors // choice.parts) if choice.template == "split" else groups
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else PRECISE
        failed = torch.zeros(1, dtype=torch.int32, device=device)
        for begun in range(0, groups, at_once):
            some = min(at_once, groups - begun)
            arrived = torch.zeros(some, dtype=torch.int32, device=device)
            kernel_of(text)[(some, choice.parts)](
                *args, arrived, failed, sequences, begun * choice.sequences,
                TF32=precision, num_warps=choice.warps,
                **({"launch_cooperative_grid": True} if choice.template == "split" and choice.parts > 1 else {}),
            )  # fmt: skip
        if choice.template == "split":
            torch._assert_async(  # type: ignore[reportPrivateImportUsage]
                failed[0] == 0, "programs of one recurrence waited for each other in vain"
            )


def _on_chip(dtype: torch.dtype) -> tuple[int, int]:
    """Bytes that a weight takes, and a number of a vector: as the compiler has it, for kernels of ten cells. In float32
    a weight lies there as two numbers of tf32."""
    return dtype.itemsize * (2 if dtype == torch.float32 else 1), 2 * dtype.itemsize


@lru_cache(maxsize=SHAPES)
def _places(batch_sizes: tuple[int, ...], sequences: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many steps each sequence has, and the first row of each step."""
    sizes = torch.tensor(batch_sizes)
    lengths = (sizes[None, :] > torch.arange(sequences)[:, None]).sum(1, dtype=torch.int32)
    offsets = torch.tensor([0, *accumulate(batch_sizes)][:-1])
    return lengths.to(device), offsets.to(device)


def kernel_of(text: str) -> Any:
    """The kernel of a source."""
    from triton import knobs

    return _kernel(text, bool(knobs.runtime.interpret))


@cache
def _kernel(text: str, interpreted: bool) -> Any:
    """Triton reads the text of what it compiles: it is given a place where Python finds it."""
    level = logging.INFO if interpreted else logging.WARNING  # the compiler takes seconds, and somebody waits for it
    log.log(level, "compiling a kernel for a GPU: %s", text.partition("def loop")[2].splitlines()[1].strip())
    name = f"<everloop kernel {hash((text, interpreted)) & 0xFFFFFFFFFFFF:012x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    module: dict[str, Any] = {"__name__": "everloop.backends.triton.generated"}
    exec(compile(text, name, "exec"), module)
    return module["loop"]
