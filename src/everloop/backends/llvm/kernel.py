"""The kernel as layers use it: arrays are torch's, forward and backward."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import lcm
from typing import Any

import numpy as np
import torch
from torch import Tensor

from everloop.backends.llvm.engine import CHUNK_ROWS, Engine, cut, lengths, parts, pool, steps_of
from everloop.backends.llvm.layout import BLOCK_WORDS, GRADS, KEEP, SCRATCH, rounded
from everloop.backends.llvm.lower import Buffer, Outer, Program, Request, Unsupported
from everloop.backends.llvm.memory import take
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
    lies past the end of one is not read, and is zero in what comes out.
    """

    takes_steps = True

    def __init__(self, graph: Graph, sizes: Mapping[str, int], dtype: str) -> None:
        self.graph, self.sizes, self.dtype = plan(graph).graph, dict(sizes), dtype
        self._training: dict[frozenset[str], _Training] = {}

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
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        engine = self._trained(wanted).forward if keep else self._inference
        like, batch = _like(inputs, states), _batch(states, batch_sizes)
        shape = inputs["x"].shape[:-1]
        blocks = parts(batch, get_num_threads(), engine.layout.weight_count)
        call = _Call(engine, like, blocks, batch, batch_sizes, shape, order)
        outputs = {name: _room(like, shape, b.width) for name, b in engine.program.outers.items()}
        final = {name: like.new_empty(batch, buffer.width) for name, buffer in engine.program.new.items()}
        given = {name: array for name, array in inputs.items() if name in engine.program.inputs}
        kept = call.run({**given, **outputs}, states, final, weights)
        if not keep:
            return outputs, final, {}
        training = self._trained(wanted)
        saved = {name: array for name, array in inputs.items() if name in training.inputs}
        return outputs, final, saved | {KEPT: kept, CUT: like.new_empty(len(call.shape.blocks), batch, *shape, 0)}

    def backward(
        self,
        saved: Mapping[str, Tensor],
        grads: Mapping[str, Tensor | None],
        final_grads: Mapping[str, Tensor | None],
        weights: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        wanted: frozenset[str],
        order: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        training = self._trained(wanted)
        engine, program = training.backward, training.backward.program
        count, batch, *shape, _ = saved[CUT].shape
        kept = saved[KEPT]
        call = _Call(engine, kept, count, batch, batch_sizes, shape, order)
        given = dict(saved) | {f"d:{name}": grad for name, grad in grads.items()}
        found: dict[str, Tensor] = {}
        for name, buffer in program.inputs.items():
            grad = given[name]
            found[name] = kept.new_zeros(buffer.width).expand(*shape, buffer.width) if grad is None else grad
        made = {name: _room(kept, shape, b.width) for name, b in program.outers.items()}
        start, final = {}, {}
        for name, buffer in program.new.items():
            grad = final_grads[name.removeprefix("d:")]
            start[name] = kept.new_zeros(batch, buffer.width) if grad is None else grad
            final[name] = kept.new_empty(batch, buffer.width)
        flat = kept.new_empty(max(1, count), training.size)
        call.run({**found, **made}, start, final, weights, kept, flat)
        if not count:
            flat.zero_()
        stacks = {
            stack: flat.as_strided(shape, (*shape[1:], 1), place) for stack, (place, shape) in training.stacks.items()
        }
        made_inputs = {name.removeprefix("d:"): array for name, array in made.items()}
        return made_inputs, {name.removeprefix("d:"): array for name, array in final.items()}, stacks


KEPT, CUT = "kept", "cut"


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


class _Shape:
    """What the calls of a program for some lengths of sequences have in common: all words but the addresses."""

    def __init__(
        self, engine: Engine, blocks: list[tuple[int, int]], batch: int, batch_sizes: Sequence[int], time: int
    ) -> None:
        """time: the steps that there is room for in arrays of three axes; negative: they are packed."""
        layout, self.blocks = engine.layout, blocks
        most = max((count for _, count in blocks), default=0)
        span = max(1, min(len(batch_sizes), -(-CHUNK_ROWS // max(1, most))))
        places, size = layout.scratch(most, span)
        self.packed = rounded(layout.packed_size)
        self.scratch = self.packed + size * len(blocks)
        long = lengths(blocks, batch_sizes) if blocks else []
        kept = [layout.kept_total(count, steps) for (_, count), steps in zip(blocks, long, strict=True)]
        self.kept = sum(kept)
        item = engine.numbers.bytes
        self.record = array("q")
        for k, ((begin, count), steps) in enumerate(zip(blocks, long, strict=True)):
            words = [begin, count, steps, (self.packed + k * size) * item, sum(kept[:k]) * item]
            self.record.extend([*words, *[0] * (BLOCK_WORDS - len(words))])
        sizes, offsets = steps_of(tuple(batch_sizes))
        # In arrays of three axes, the words of each say how far apart its steps are.
        self.offsets = offsets if time < 0 else np.zeros_like(offsets)
        self.batch_sizes = np.concatenate([sizes, np.zeros(max(0, time - len(sizes)), np.int64)])
        self.order = np.arange(batch, dtype=np.int64)
        values = dict.fromkeys(layout.words, 0) | {
            "batch_sizes": self.batch_sizes.ctypes.data,
            "offsets": self.offsets.ctypes.data,
            "order": self.order.ctypes.data,
            "time": max(0, time),
            "count": len(blocks),
            "span": span,
        }
        values |= {f"at:{name}": place for name, place in places.items()}
        for name, buffer in engine.program.new.items():
            values[f"step start:{name}"] = values[f"step final:{name}"] = buffer.width
        self.words = array("q", engine.words(values).tolist())


class _Call:
    """One call of a program: memory for it, and the words that say where everything is."""

    def __init__(
        self,
        engine: Engine,
        like: Tensor,
        blocks: int,
        batch: int,
        batch_sizes: Sequence[int],
        shape: Sequence[int],
        order: Tensor | None,
    ) -> None:
        self.threads = get_num_threads()
        self.engine = engine.shared if blocks == 1 and self.threads > 1 and batch <= SHARED_ROWS else engine
        self.like = like
        key = blocks, batch, tuple(batch_sizes), shape[0] if len(shape) == 2 else -1
        # Another thread may clear the shapes at any time.
        found = engine.shapes.get(key)
        if found is None:
            if len(engine.shapes) >= SHAPES:
                engine.shapes.clear()
            found = engine.shapes[key] = _Shape(engine, cut(batch, blocks), batch, batch_sizes, key[3])
        self.order = order
        self.shape: _Shape = found

    def run(
        self,
        outer: Mapping[str, Tensor],
        start: Mapping[str, Tensor],
        final: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        kept: Tensor | None = None,
        grads: Tensor | None = None,
    ) -> Tensor:
        """Do it; what was kept."""
        shape, layout, like = self.shape, self.engine.layout, self.like
        at, words, record = layout.words, shape.words[:], shape.record[:]
        scratch = take(shape.scratch, like)
        memory = take(shape.kept, like) if kept is None else kept
        begin, keep = scratch.data_ptr(), memory.data_ptr()
        for k, place in enumerate(range(0, len(record), BLOCK_WORDS)):
            record[place + SCRATCH] += begin
            record[place + KEEP] += keep
            if grads is not None:
                record[place + GRADS] = grads.data_ptr() + k * grads.stride(0) * grads.element_size()
        words[at["blocks"]], words[at["packed"]] = record.buffer_info()[0], begin
        threads = self.threads if self.engine.program.request.shared else min(self.threads, len(shape.blocks))
        words[at["threads"]], words[at["pool"]] = threads, pool() if threads > 1 else 0
        if self.order is not None:
            words[at["order"]] = words[at["index"]] = self.order.data_ptr()
        alive = []
        for name, place, stride, step in layout.outer_words:
            rows = _rows(outer[name])
            words[place], words[stride] = rows.data_ptr(), rows.stride(-2)
            words[step] = rows.stride(0) if rows.dim() == 3 else 0
            alive.append(rows)
        for name, first, last in layout.state_words:
            given = start[name].contiguous()
            words[first], words[last] = given.data_ptr(), final[name].data_ptr()
            alive.append(given)
        for name, place in layout.stack_words:
            stack = weights[name].contiguous()
            words[place] = stack.data_ptr()
            alive.append(stack)
        self.engine.run_at(words.buffer_info()[0])
        return memory


SHARED_ROWS = 1
"""Sequences up to which threads share the units of a step, rather than the sequences."""

SHAPES = 64
"""Lengths of sequences that a program remembers."""


def _room(like: Tensor, shape: Sequence[int], width: int) -> Tensor:
    """Room for a value of every row: [N, F], or [T, B, F], in memory batch first."""
    if len(shape) == 1:
        return like.new_empty(*shape, width)
    return like.new_empty(shape[1], shape[0], width).transpose(0, 1)


def _rows(array: Tensor) -> Tensor:
    """An array whose rows lie without gaps, each for itself."""
    return array if array.stride(-1) == 1 or array.shape[-1] == 1 else array.contiguous()


def _like(inputs: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> Tensor:
    return next(iter((*inputs.values(), *states.values())))


def _batch(states: Mapping[str, Tensor], batch_sizes: Sequence[int]) -> int:
    if states:
        return next(iter(states.values())).shape[0]
    return batch_sizes[0] if batch_sizes else 0
