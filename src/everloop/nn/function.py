"""A cell over whole sequences, as a function of tensors: for any backend, in either direction."""

from __future__ import annotations

import json
import operator
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from everloop import __version__
from everloop.backends import REFERENCE, asked, compile_kernel
from everloop.backends._evaluate import evaluate
from everloop.backends._values import Values, Weights
from everloop.compiler.ahead import ahead
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.lang.cell import Cell
from everloop.lang.expr import Expr
from everloop.lang.graph import Graph
from everloop.nn.gradient import run
from everloop.nn.packing import Packing, seen
from everloop.nn.runner import Arrays, Runner
from everloop.nn.transforms import How, forward
from everloop.stream.kept_cell import keep_cell, kept_cell


class Recurrence:
    """One cell with its sizes, ready to run: the states that need no past, matrices made of others, the kernel.

    watched: the states and named values of the step whose history is an output, beside y. key: what the operator
    `everloop::recurrence` calls it; where the cell can be named in a file, any process finds it by that.
    """

    def __init__(self, cell: Cell, sizes: Mapping[str, int], watched: Sequence[str] = ()) -> None:
        self.cell, self.sizes, self.watched = cell, dict(sizes), tuple(watched)
        found = ahead(_watching(cell.graph, self.watched))
        self.graph = kernel_graph(found.graph)
        self._early = {name: plan(_graph_of(name, value, found.graph)) for name, value in found.values.items()}
        members = {stack: tuple(param.name for param in params) for stack, params in self.graph.stacks.items()}
        held = {stack: tuple(param.name for param in params) for stack, params in cell.graph.stacks.items()}
        # Where the kernel takes other arrays than the layer holds: the members of these, nothing for those held.
        gathered = {stack: names if held.get(stack) != names else () for stack, names in members.items()}
        self._gathered = gathered if members != held else {}
        # Whether the kernel is all there is to it.
        self.plain = not (self._early or self._gathered)
        self._runners: dict[tuple[str, torch.device, torch.dtype], Runner] = {}
        # What the operator takes and gives, in this order.
        self.inputs, self.states, self.stacks = (tuple(f) for f in (cell.graph.inputs, cell.graph.states, held))
        self.outputs = ("y", *(f"{WATCHED}{name}" for name in self.watched))
        self.key = _key(self)
        KNOWN[self.key] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return Recurrence, (self.cell, self.sizes, self.watched)

    def __deepcopy__(self, _: Any) -> Recurrence:
        return self

    def __call__(
        self, inputs: Arrays, states: Arrays, weights: Arrays, packing: Packing, reverse: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Outputs (y and what is watched) in the form of the inputs, and the final states [B, F].

        inputs: x and the side inputs, all [T, B, F] in the caller's order of sequences, or all packed rows [N, F].
        states: [B, F], in the same order. reverse: every sequence is read from its own end; what comes out at a step
        belongs to the input of that step.
        """
        x = inputs["x"]
        if autocasts(x.device.type):
            return self._cast(inputs, states, weights, packing, reverse)
        _check_kind(x, weights)
        way = self._by_operator if _seen_through(x, weights) else self.run
        outputs, final = way(inputs, states, weights, packing, reverse)
        return {
            name.removeprefix(WATCHED): array for name, array in outputs.items()
        } if self.watched else outputs, final

    def run(
        self, inputs: Arrays, states: Arrays, weights: Arrays, packing: Packing, reverse: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The shorter way, on plain tensors."""
        early: dict[str, Tensor] = {}
        if not self.plain:
            members = Weights(self.cell.graph, self.sizes, weights, inputs["x"])
            if self._early:
                inputs, early = self._run_early(inputs, states, members, packing, reverse)
                states = {name: states[name] for name in self.graph.states}
            if self._gathered:
                stacks = self._gathered.items()
                weights = {stack: members.stacked(names) if names else weights[stack] for stack, names in stacks}
        outputs, final = run(self._runner(inputs["x"], weights), inputs, states, weights, packing, reverse)
        return outputs, {**final, **early} if early else final

    def _cast(
        self, inputs: Arrays, states: Arrays, weights: Arrays, packing: Packing, reverse: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Under autocast: what comes takes the type of the weights, which is as exact or more so."""
        x = inputs["x"]
        dtype = next((array.dtype for array in weights.values()), x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return self(
                {name: array.to(dtype) for name, array in inputs.items()},
                {name: array.to(dtype) for name, array in states.items()},
                weights,
                packing,
                reverse,
            )

    def _by_operator(
        self, inputs: Arrays, states: Arrays, weights: Arrays, packing: Packing, reverse: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Through the operator, which compilers, transforms and modes of torch know how to treat."""
        row = [[inputs[n] for n in self.inputs], [states[n] for n in self.states], [weights[n] for n in self.stacks]]
        arrays = [array for part in row for array in part]
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            counts = len(self.inputs), len(self.states), len(self.stacks)
            how = How(self.key, asked(), reverse, counts, len(self.outputs))
            made: Any = forward(how, packing.given, *arrays)
        else:
            wanted = [_differentiated_here() and array.requires_grad for array in arrays]
            made = torch.ops.everloop.recurrence(*row, packing.given, self.key, _asked(), reverse, wanted)
        outputs = dict(zip(self.outputs, made, strict=False))
        return outputs, dict(zip(self.states, made[len(self.outputs) :], strict=False))

    def _run_early(
        self, inputs: Arrays, states: Arrays, members: Weights, packing: Packing, reverse: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inputs, with the states that need no past among them, and the final values of these."""
        given, final, shape = _without_padding(inputs, packing), {}, inputs["x"].shape[:-1]
        total = shape.numel()
        for name, schedule in self._early.items():
            graph = schedule.graph
            values = Values(members, self.sizes, inputs["x"])
            leaves = {leaf: given[other] for other, leaf in graph.inputs.items() if other in given}
            values.update({leaf: array.reshape(total, array.shape[-1]) for leaf, array in leaves.items()})
            evaluate(schedule.before, values, total)
            new = values.rows(graph.outputs["y"], total)
            if len(shape) == 2:
                given[name], final[name] = _delayed(new.reshape(*shape, new.shape[-1]), states[name], packing, reverse)
            else:
                given[name], final[name] = _delayed_rows(new, states[name], packing, reverse)
        return given, final

    def ran_on(self, x: Tensor) -> str:
        """The backend whose kernel has run arrays like x, if any has."""
        found = self._runners.get((asked(), x.device, x.dtype))
        return found.backend if found else ""

    def notes(self, x: Tensor) -> tuple[str, ...]:
        """What the kernel that has run arrays like x says of its calls."""
        found = self._runners.get((asked(), x.device, x.dtype))
        return getattr(found.kernel, "notes", ()) if found else ()

    def runner(self, backend: str, device: torch.device, dtype: torch.dtype) -> Runner:
        """The kernel on a backend, or on the one that is chosen where it is called auto."""
        key = (backend, device, dtype)
        found = self._runners.get(key)
        if found is None:
            backend, kernel = compile_kernel(self.graph, self.sizes, device.type, str(dtype), backend)
            found = self._runners[key] = Runner(backend, kernel, self.graph, self.sizes)
        return found

    def _runner(self, x: Tensor, weights: Arrays) -> Runner:
        device, dtype, backend = x.device, x.dtype, asked()
        for array in weights.values():
            if array.dtype is not dtype or array.device != device:
                # What does not fit together is torch's to convert, or to refuse.
                backend = REFERENCE
        return self.runner(backend, device, dtype)


KNOWN: WeakValueDictionary[str, Recurrence] = WeakValueDictionary()
"""Recurrences by key, as long as somebody has them."""


def find(key: str) -> Recurrence:
    """The recurrence of a key: one that there is, or one that its key describes."""
    found = KNOWN.get(key)
    if found is None:
        facts = json.loads(key)
        if not isinstance(facts["cell"], dict):
            raise LookupError(
                f"the operator everloop::recurrence was called for the cell {facts['cell']}, which this process does "
                "not know: keep a layer of it, or, for another process, take the cell from a text or a file "
                "(everloop.read_cell)"
            )
        found = Recurrence(
            kept_cell(facts["cell"], "the operator everloop::recurrence"), facts["sizes"], facts["watched"]
        )
    return found


def _key(recurrence: Recurrence) -> str:
    try:
        cell: Any = keep_cell(recurrence.cell)
    except ValueError:
        # Known to this process alone, as long as it has it.
        cell = f"{recurrence.cell.name} {id(recurrence.cell)}"
    # With the version, because torch.compile keeps on disk what it made for an operator.
    facts = {"cell": cell, "sizes": recurrence.sizes, "watched": recurrence.watched, "everloop": __version__}
    return json.dumps(facts)


@torch.compiler.assume_constant_result
def _asked() -> str:
    return asked()


def _differentiated_here() -> bool:
    """Whether who calls now is who takes gradients: not where a program is written down, for anybody to run. It keeps
    nothing for a gradient, which does it again.
    """
    if torch.compiler.is_compiling():
        return torch.is_grad_enabled() and not torch.compiler.is_exporting()
    return torch.is_grad_enabled() and torch._C._get_tracing_state() is None


def autocasts(device: str) -> bool:
    """Whether autocast is on for a type of device."""
    if not torch._C._is_any_autocast_enabled():
        return False
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _check_kind(x: Tensor, weights: Arrays) -> None:
    """What torch would say of a product, which nobody knows of, said of x."""
    for array in weights.values():
        if array.dim() > 1 and array.dtype is not x.dtype:
            raise ValueError(f"x: {x.dtype} came; expected {array.dtype}, as the weights are: x.to({array.dtype})")
        if array.dim() > 1 and array.device != x.device:
            raise ValueError(f"x: came on {x.device}; expected {array.device}, where the weights are: x.to(...)")


def _seen_through(x: Tensor, weights: Arrays) -> bool:
    """Whether a compiler, a transform of torch.func, a mode, a tracer or a kind of tensor of its own looks at what is
    done, so that it has to be one operator.
    """
    return (
        not seen() or type(x) not in PLAIN or x.is_meta or any(type(array) not in PLAIN for array in weights.values())
    )


PLAIN = (Tensor, torch.nn.Parameter)


WATCHED = "at:"
"""Before the name of a watched value where it is an output of a kernel, which may have an input of that name."""


def _watching(graph: Graph, watched: Sequence[str]) -> Graph:
    """The graph with values of the step as outputs, beside y."""
    if not watched:
        return graph
    named = {name: node for node, name in graph.names.items()} | graph.new
    for name in watched:
        if name not in named or named[name].size is None:
            known = ", ".join(name for name, node in named.items() if node.size is not None)
            raise ValueError(f"{graph.name} has no state or named value {name!r}; there are {known}")
    return replace(graph, outputs=graph.outputs | {f"{WATCHED}{name}": named[name] for name in watched})


def _graph_of(name: str, value: Expr, graph: Graph) -> Graph:
    """A graph of one value that needs no state."""
    return Graph(f"{graph.name}, {name}", graph.inputs, {}, graph.params, {}, {"y": value})


def _without_padding(inputs: Arrays, packing: Packing) -> dict[str, Tensor]:
    """Inputs whose padding is zero: what is multiplied by a gradient of zero must be a number."""
    x = inputs["x"]
    if x.dim() == 2 or packing.given is None:
        return dict(inputs)
    there = (torch.arange(x.shape[0], device=x.device)[:, None] < packing.given.to(x.device))[..., None]
    return {name: torch.where(there, array, 0.0) for name, array in inputs.items()}


def _delayed(new: Tensor, first: Tensor, packing: Packing, reverse: bool) -> tuple[Tensor, Tensor]:
    """New values of all steps [T, B, F] and the old value before the first [B, F] give the old values [T, B, F], and
    the last new ones [B, F], as they are read.
    """
    time = new.shape[0]
    if not time:
        return new, first
    if packing.given is None:
        if reverse:
            return torch.cat([new[1:], first[None]]), new[0]
        return torch.cat([first[None], new[:-1]]), new[-1]
    lengths = packing.given.to(new.device)[:, None]
    if not reverse:
        end = (lengths - 1).clamp_min(0)[None].expand(1, *first.shape)
        return torch.cat([first[None], new[:-1]]), torch.where(lengths > 0, new.gather(0, end)[0], first)
    last = torch.arange(time, device=new.device)[:, None, None] == lengths - 1
    old = torch.where(last, first[None], torch.cat([new[1:], first[None]]))
    return old, torch.where(lengths > 0, new[0], first)


def _delayed_rows(new: Tensor, first: Tensor, packing: Packing, reverse: bool) -> tuple[Tensor, Tensor]:
    """The same for packed rows [N, F]."""
    if reverse:
        old, last = delay(packing.turned(new), first, packing.batch_sizes)
        return packing.turned(old), last
    return delay(new, first, packing.batch_sizes)


def delay(new: Tensor, first: Tensor, batch_sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """New values of all steps [N, F] and the old value before the first [B, F] give the old values [N, F] and the last
    new ones [B, F]; packed, longest first.
    """
    if not batch_sizes:
        return new, first
    running = batch_sizes[0]
    if running == batch_sizes[-1] == first.shape[0]:
        return torch.cat([first, new[:-running]]), new[-running:]
    began = list(accumulate(batch_sizes, initial=0))
    steps = zip(began, batch_sizes[1:], strict=False)
    rows = [torch.arange(begin, begin + count, device="cpu") for begin, count in steps]
    before = new.index_select(0, torch.cat(rows).to(new.device)) if rows else new[:0]
    lengths = [bisect_left(batch_sizes, -row, key=operator.neg) for row in range(running)]
    ends = [began[length - 1] + row for row, length in enumerate(lengths)]
    last = new.index_select(0, torch.tensor(ends, device=new.device))
    return torch.cat([first[:running], before]), torch.cat([last, first[running:]])
