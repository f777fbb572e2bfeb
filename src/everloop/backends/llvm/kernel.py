"""The kernel as layers use it: arrays are torch's, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import lcm
from typing import Any

import torch
from torch import Tensor

from everloop.backends.llvm.apart import Apart
from everloop.backends.llvm.call import SHAPES, Call
from everloop.backends.llvm.engine import Engine
from everloop.backends.llvm.lower import Buffer, Outer, Program, Request, Unsupported
from everloop.backends.llvm.once import OneStep
from everloop.backends.llvm.threads import get_num_threads
from everloop.compiler.differentiate import Adjoint, differentiate
from everloop.compiler.kernel import only
from everloop.compiler.plan import plan
from everloop.compiler.saves import save
from everloop.compiler.simplify import simplify
from everloop.lang.graph import Graph

NOTHING: frozenset[str] = frozenset()

MEMORY = 20.0
"""What it costs to keep a value and to read it again, in additions (compiler.saves): more than in torch operations,
whose additions go through memory too. With 8, layernorm_lstm trains at 0.83 of this speed for 32 sequences of 256
units; with 40 or 80 nothing is gained.
"""


class LlvmKernel:
    """A cell as machine code, compiled when first called for.

    The arrays of forward, and so those of backward, may have three axes, [T, B, F], in whatever order they lie in
    memory, and states the order of the caller. order: the sequences, longest first, where they differ in length; what
    lies past the end of one is not read, and is zero in what comes out. reverse: every sequence is read from its end.
    """

    takes_steps = True
    takes_groups = True
    takes_reverse = True

    def __init__(self, graph: Graph, sizes: Mapping[str, int], dtype: str) -> None:
        self.graph, self.sizes, self.dtype = plan(graph).graph, dict(sizes), dtype
        self._training: dict[frozenset[str], _Training] = {}
        self._steps: dict[tuple[int, int], OneStep] = {}
        self.kept_dtype = f"torch.{dtype}"

    @property
    def source(self) -> str:
        return self._inference.source()

    @cached_property
    def _inference(self) -> Engine:
        return Engine(Request(self.graph, self.sizes, outer=self.graph.outputs), self.dtype)

    @cached_property
    def _adjoint(self) -> Adjoint:
        return differentiate(self.graph)

    def _trained(self, wanted: frozenset[str]) -> _Training:
        if wanted not in self._training:
            self._training[wanted] = _Training(
                self.graph, self._adjoint, self.sizes, wanted, lambda request: Engine(request, self.dtype)
            )
        return self._training[wanted]

    def prepare(self, wanted: frozenset[str] | None) -> None:
        """Compile what forward and backward need for these gradients; None: forward alone, nothing kept."""
        _ = self._inference if wanted is None else self._trained(wanted)

    def keeps(self, wanted: frozenset[str], sequences: Any, rows: Any) -> Any:
        """How many numbers `forward` keeps at most."""
        return self._trained(wanted).forward.layout.kept_most(sequences, rows)

    def kept_in(
        self, room: Tensor, inputs: Mapping[str, Tensor], sequences: int, shape: Sequence[int]
    ) -> dict[str, Tensor]:
        """What `forward` gave as kept, from the room that it had. shape: of an input, without the last axis."""
        return {**inputs, KEPT: room, SHAPE: room.new_empty(sequences, *shape, 0)}

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        *,
        keep: bool,
        wanted: frozenset[str] = NOTHING,
        order: Tensor | None = None,
        reverse: bool = False,
        room: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        engine = self._trained(wanted).forward if keep else self._inference
        like, shape = _like(inputs, states), inputs["x"].shape[:-1]
        batch = shape[1] if len(shape) == 2 else _batch(states, batch_sizes)
        call = Call(engine, like, batch, batch_sizes, shape, order, reverse)
        steps_first = _steps_first(inputs.values())
        outputs = {name: _room(like, shape, b.width, steps_first) for name, b in engine.program.outers.items()}
        final = {name: like.new_empty(batch, buffer.width) for name, buffer in engine.program.new.items()}
        given = {name: array for name, array in inputs.items() if name in engine.program.inputs}
        if room is not None:
            _check_room(room, self.keeps(wanted, batch, shape.numel()), like)
        kept = call.run({**given, **outputs}, states, final, weights, room)
        if not keep:
            return outputs, final, {}
        training = self._trained(wanted)
        saved = {name: array for name, array in inputs.items() if name in training.inputs}
        return outputs, final, saved | {KEPT: kept, SHAPE: like.new_empty(batch, *shape, 0)}

    def one_step(self, batch: int, like: Tensor) -> OneStep:
        """The quickest way to the new states of so many sequences after one step."""
        key = batch, get_num_threads()
        # Another thread may clear them at any time.
        found = self._steps.get(key)
        if found is None:
            if len(self._steps) >= SHAPES:
                self._steps.clear()
            found = self._steps[key] = OneStep(self._inference, batch, like)
        return found

    def backward(
        self,
        saved: Mapping[str, Tensor],
        grads: Mapping[str, Tensor | None],
        final_grads: Mapping[str, Tensor | None],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        wanted: frozenset[str],
        order: Tensor | None = None,
        reverse: bool = False,
        groups: int = 0,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        training = self._trained(wanted)
        engine = training.apart.engine if groups else training.backward
        program = engine.program
        batch, *shape, _ = saved[SHAPE].shape
        kept = saved[KEPT]
        call = Call(engine, kept, batch, batch_sizes, shape, order, reverse)
        count = len(call.shape.blocks)
        given = dict(saved) | {f"d:{name}": grad for name, grad in grads.items()}
        found: dict[str, Tensor] = {}
        for name, buffer in program.inputs.items():
            grad = given[name]
            found[name] = kept.new_zeros(buffer.width).expand(*shape, buffer.width) if grad is None else grad
        steps_first = _steps_first(found.values())
        made = {name: _room(kept, shape, b.width, steps_first) for name, b in program.outers.items()}
        start, final = {}, {}
        for name, buffer in program.new.items():
            grad = final_grads[name.removeprefix("d:")]
            start[name] = kept.new_zeros(batch, buffer.width) if grad is None else grad
            final[name] = kept.new_empty(batch, buffer.width)
        flat = None if groups else kept.new_empty(max(1, count), training.size)
        call.run({**found, **made}, start, final, weights, kept, flat)
        stacks = training.apart.stacks(made, groups) if flat is None else training.split(flat, count)
        made_inputs = {name.removeprefix("d:"): array for name, array in made.items() if name.startswith("d:")}
        return made_inputs, {name.removeprefix("d:"): array for name, array in final.items()}, stacks


KEPT, SHAPE = "kept", "shape"


def refusal(graph: Graph) -> str:
    """Why there can be no kernel of a graph; empty if there can."""
    graph = plan(graph).graph
    part = lcm(*(param.blocks for param in graph.params.values()))
    sizes = {name: part * (k + 1) for k, name in enumerate(graph.size_names)}
    everything = frozenset([*graph.inputs, *graph.states, *graph.stacks])
    try:
        Program(Request(graph, sizes, outer=graph.outputs))
        _Training(graph, differentiate(graph), sizes, everything, _Lowered)
    except Unsupported as reason:
        return str(reason)
    return ""


class _Lowered:
    """A program that is not compiled."""

    def __init__(self, request: Request) -> None:
        self.program = Program(request)


class _Training:
    """The forward program that keeps what the backward program reads, and that one, for the wanted gradients."""

    def __init__(
        self,
        graph: Graph,
        adjoint: Adjoint,
        sizes: Mapping[str, int],
        wanted: frozenset[str],
        engine: Callable[[Request], Any],
    ) -> None:
        found = save(only(adjoint, graph, wanted), graph, MEMORY)
        back = simplify(found.graph)
        self.inputs = frozenset(name for name in graph.inputs if name in back.inputs)
        keep = {name: node for name, node in found.saved.items() if name in back.inputs}
        self.forward = engine(Request(graph, sizes, outer=graph.outputs, keep=keep))
        program = self.forward.program
        self.stacks: dict[str, tuple[int, torch.Size]] = {}
        places: dict[str, int] = {}
        self.size = 0
        for stack, members in graph.stacks.items():
            if stack not in wanted:
                continue
            shapes = [[program.length(size) for size in param.sizes] for param in members]
            begin = self.size
            for param, (rows, *columns) in zip(members, shapes, strict=True):
                places[param.name] = self.size
                self.size += rows * (columns[0] // param.blocks if columns else 1)
            rows = sum(shape[0] for shape in shapes)
            self.stacks[stack] = begin, torch.Size([rows, (self.size - begin) // rows][: len(shapes[0])])
        outers = [
            Outer(name, back.outputs[rows], back.outputs[columns])
            for name, pairs in found.matrices.items()
            for rows, columns in pairs
        ]
        self._apart = graph, found, back, program.kept, sizes, wanted, engine
        self.backward = engine(
            Request(
                back,
                sizes,
                backwards=True,
                inputs={name: Buffer(name, "keep", buffer.width) for name, buffer in program.kept.items()},
                outer={f"d:{name}": back.outputs[key] for name, key in found.inputs.items()},
                sums={name: back.outputs[key] for name, key in found.vectors.items()},
                outers=tuple(outers),
                places=places,
                gradients=self.size,
            )
        )

    @cached_property
    def apart(self) -> Apart:
        """The backward program that gives the gradients of the weights for groups of sequences."""
        return Apart(*self._apart)

    def split(self, flat: Tensor, blocks: int) -> dict[str, Tensor]:
        """The gradients of the stacks, from where they lie in one row after the other."""
        if not blocks:
            flat.zero_()
        return {stack: flat.as_strided(shape, (*shape[1:], 1), place) for stack, (place, shape) in self.stacks.items()}


def _steps_first(arrays: Iterable[Tensor]) -> bool:
    """Whether arrays [T, B, F] lie step by step in memory, rather than sequence by sequence."""
    return any(array.dim() == 3 and array.stride(0) > array.stride(1) > 0 for array in arrays)


def _room(like: Tensor, shape: Sequence[int], width: int, steps_first: bool) -> Tensor:
    """Room for a value of every row: [N, F], or [T, B, F], in memory as the inputs are. No view: what a layer puts out
    may be changed in place.
    """
    if len(shape) == 1:
        return like.new_empty(*shape, width)
    time, batch = shape
    strides = (batch * width, width, 1) if steps_first else (width, time * width, 1)
    return like.new_empty_strided((time, batch, width), strides)


def _check_room(room: Tensor, most: int, like: Tensor) -> None:
    if room.shape != (most,) or not room.is_contiguous() or room.dtype is not like.dtype:
        raise ValueError(
            f"room: {tuple(room.shape)}, strides {room.stride()}, {room.dtype} came; expected as many numbers as "
            f"`keeps` says, ({most},), without gaps, {like.dtype}"
        )


def _like(inputs: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> Tensor:
    return next(iter((*inputs.values(), *states.values())))


def _batch(states: Mapping[str, Tensor], batch_sizes: Sequence[int]) -> int:
    if states:
        return next(iter(states.values())).shape[0]
    return batch_sizes[0] if batch_sizes else 0
