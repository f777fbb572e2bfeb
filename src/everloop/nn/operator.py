"""The recurrence as one operator of torch, `everloop::recurrence`: what torch.compile, torch.export, torch.func and
modes see of a layer. Its gradient is an operator as well, and so is the gradient of that.

Each takes the arrays of a cell in three lists (inputs, states, weights, in the order in which the cell has them) and
the key of a `Recurrence`. `given` says how long the sequences are: the lengths [B] for arrays [T, B, F], the batch
sizes [T] for packed rows, and nothing where all have all steps. How they are differentiated and batched:
`everloop.nn.transforms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from everloop.backends import REFERENCE, use_backend
from everloop.nn import flops
from everloop.nn.function import Recurrence, find
from everloop.nn.packing import Packing
from everloop.nn.runner import Runner
from everloop.nn.transforms import Forward, Gradient, How, kinds_of, kinds_of_results, split, together

_ARRAYS = "Tensor[] inputs, Tensor[] states, Tensor[] weights"
_HOW = "Tensor? given, str key, str backend, bool reverse"
# Lists of flags are int[], because torch.jit.trace knows no lists of bool.


def _operator(name: str, arguments: str) -> Any:
    """A decorator: the function is the operator on real arrays, on every device."""
    torch.library.define(f"everloop::{name}", f"({arguments}) -> Tensor[]")
    return torch.library.impl(f"everloop::{name}", "CompositeExplicitAutograd")


@_operator("recurrence", f"{_ARRAYS}, {_HOW}, int[] wanted")
def recurrence(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Outputs, final states, and, where a gradient is wanted of some arrays, what the kernel keeps for it, if it can
    say from shapes alone how much that is.
    """
    call = _Call(inputs, states, weights, given, key, backend, reverse)
    room = call.room(wanted)
    if room is None:
        return call.laid_out(*call.run(*call.named))
    outputs, final, _ = call.runner.forward(
        *call.named, call.packing, reverse=reverse, keep=True, wanted=call.wanted(wanted), room=room
    )
    return [*call.laid_out(outputs, final), room]


@torch.library.register_fake("everloop::recurrence")
def _(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
) -> list[Tensor]:
    call = _Call(inputs, states, weights, given, key, backend, reverse)
    room = call.room(wanted)
    made = [call.blank_rows(width) for width in call.output_widths]
    made += [state.new_empty(state.shape) for state in states]
    return made if room is None else [*made, room]


@_operator(
    "recurrence_gradient", f"{_ARRAYS}, Tensor[] grads, Tensor? room, {_HOW}, int[] wanted, int[] there, int groups"
)
def recurrence_gradient(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    room: Tensor | None,
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
    there: Sequence[bool],
    groups: int,
) -> list[Tensor]:
    """The gradients of the wanted arrays, from those of the outputs and final states that are there.

    room: what forward kept for the gradients of these arrays; without it, everything is done again. groups: of how many
    groups of sequences, one after the other, each has gradients of the weights of its own, [groups, ...]; 0: none has.
    """
    call = _Call(inputs, states, weights, given, key, backend, reverse)
    if groups and not call.takes_groups:
        return _group_by_group(call, grads, wanted, there, groups)
    if room is None and not groups:
        with _differentiable():
            pairs = zip(call.arrays, wanted, strict=True)
            leaves = [array.detach().requires_grad_(bool(want)) for array, want in pairs]
            return call.own([one.detach() for one in _gradients(call, leaves, grads, wanted, there)])
    runner, handed = call.runner, iter(grads)
    results = [next(handed) if one else None for one in there]
    arrays, _, stacks = call.named
    names = call.wanted(wanted)
    if room is not None:
        saved = runner.kernel.kept_in(room, arrays, call.batch, call.shape)  # type: ignore[attr-defined]
    else:
        runner.make_ready(names)
        _, _, saved = runner.forward(*call.named, call.packing, reverse=reverse, keep=True, wanted=names)
    found = runner.backward(
        saved,
        *runner.name(results),
        stacks,
        call.packing,
        whole=call.whole,
        reverse=reverse,
        wanted=names,
        groups=groups,
    )
    by_name = {name: array for part in found for name, array in part.items()}
    return call.own([by_name[name] for name, want in zip(call.names, wanted, strict=True) if want])


@torch.library.register_fake("everloop::recurrence_gradient")
def _(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    room: Tensor | None,
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
    there: Sequence[bool],
    groups: int,
) -> list[Tensor]:
    front = [array.new_empty(array.shape) for array in (*inputs, *states)]
    of_each = (groups,) if groups else ()
    made = [*front, *(array.new_empty((*of_each, *array.shape)) for array in weights)]
    return [array for array, want in zip(made, wanted, strict=True) if want]


@_operator(
    "recurrence_second",
    f"{_ARRAYS}, Tensor[] grads, Tensor[] seconds, {_HOW}, int[] wanted, int[] there, int[] asked, int[] needed",
)
def recurrence_second(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    seconds: Sequence[Tensor],
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
    there: Sequence[bool],
    asked: Sequence[bool],
    needed: Sequence[bool],
) -> list[Tensor]:
    """The gradients of the needed arrays and gradients, from those of the gradients that are asked for. In torch's
    operations, on the reference.
    """
    call = _Call(inputs, states, weights, given, key, "reference", reverse)
    with _differentiable():
        leaves = [leaf.detach().requires_grad_() for leaf in call.arrays]
        handed = [grad.detach().requires_grad_() for grad in grads]
        first = _gradients(call, leaves, handed, wanted, there, create_graph=True)
        chosen = [one for one, ask in zip(first, asked, strict=True) if ask]
        ends = [end for end, need in zip([*leaves, *handed], needed, strict=True) if need]
        return call.own(_pulled_back(chosen, seconds, ends))


@torch.library.register_fake("everloop::recurrence_second")
def _(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    seconds: Sequence[Tensor],
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
    there: Sequence[bool],
    asked: Sequence[bool],
    needed: Sequence[bool],
) -> list[Tensor]:
    pairs = zip([*inputs, *states, *weights, *grads], needed, strict=True)
    return [array.new_empty(array.shape) for array, need in pairs if need]


register_flop_formula(torch.ops.everloop.recurrence)(flops.of_recurrence)
register_flop_formula(torch.ops.everloop.recurrence_gradient)(flops.of_gradient)


# -- where torch takes gradients -------------------------------------------------------------------------------------


@torch.library.impl("everloop::recurrence", "Autograd")
def _(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
) -> list[Tensor]:
    counts = len(inputs), len(states), len(weights)
    how = How(key, backend, reverse, counts, len(find(key).outputs), tuple(wanted))
    return list(Forward.apply(how, given, *inputs, *states, *weights))  # type: ignore[arg-type]


@torch.library.impl("everloop::recurrence_gradient", "Autograd")
def _(
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    room: Tensor | None,
    given: Tensor | None,
    key: str,
    backend: str,
    reverse: bool,
    wanted: Sequence[bool],
    there: Sequence[bool],
    groups: int,
) -> list[Tensor]:
    counts = len(inputs), len(states), len(weights)
    how = How(key, backend, reverse, counts, len(there) - len(states), tuple(wanted), groups)
    arrays = (*inputs, *states, *weights, *grads)
    return list(Gradient.apply(how, tuple(there), given, room, *arrays))  # type: ignore[arg-type]


# -- what they have in common ----------------------------------------------------------------------------------------


class _Call:
    """The arguments of an operator, put in order."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        given: Tensor | None,
        key: str,
        backend: str,
        reverse: bool,
    ) -> None:
        self.recurrence: Recurrence = find(key)
        self.given, self.backend, self.reverse = given, backend, reverse
        self.arrays = [*inputs, *states, *weights]
        self.named = self.by_name(self.arrays)
        x = inputs[0]
        self.whole, self.shape = x.dim() == 3, x.shape[:-1]
        self.x = x
        self.batch: Any = states[0].shape[0] if states else self.shape[-1] if self.whole else None
        if self.batch is None:
            # Packed rows of a cell without states: those of the first step.
            assert given is not None
            self.batch = int(given[0]) if len(given) else 0

    @property
    def names(self) -> tuple[str, ...]:
        found = self.recurrence
        return (*found.inputs, *found.states, *found.stacks)

    def by_name(self, arrays: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Inputs, states and weights."""
        found, rest = self.recurrence, iter(arrays)
        a, b, c = ({name: next(rest) for name in part} for part in (found.inputs, found.states, found.stacks))
        return a, b, c

    def wanted(self, wanted: Sequence[bool]) -> frozenset[str]:
        return frozenset(name for name, want in zip(self.names, wanted, strict=True) if want)

    @property
    def packing(self) -> Packing:
        if self.whole:
            time, batch = self.shape
            if self.given is None:
                return Packing.full(batch, time)
            return Packing.of(self.given, batch, time, self.x.device)
        assert self.given is not None
        sizes = tuple(count for count in self.given.tolist() if count)
        return Packing(self.batch, len(sizes), sizes, given=self.given)

    @property
    def runner(self) -> Runner:
        x = self.x
        # What does not fit together is torch's to convert, or to refuse: a kernel would read over the end.
        fits = all(array.dtype is x.dtype and array.device == x.device for array in self.arrays)
        return self.recurrence.runner(self.backend if fits else REFERENCE, x.device, x.dtype)

    @property
    def takes_groups(self) -> bool:
        return self.recurrence.plain and self.runner.takes_groups(self.whole, self.reverse)

    def room(self, wanted: Sequence[bool]) -> Tensor | None:
        """Memory for what the kernel keeps; None if nothing is wanted, or it cannot say how much that is."""
        if not any(wanted) or not self.recurrence.plain or self.x.device.type == "meta":
            return None
        runner, names = self.runner, self.wanted(wanted)
        runner.make_ready(names)
        keeps = getattr(runner.kernel, "keeps", None)
        if keeps is None or not runner.as_they_lie(self.whole, self.reverse):
            return None
        rows = self.shape[0] * self.shape[1] if self.whole else self.shape[0]
        dtype = getattr(torch, runner.kernel.kept_dtype.removeprefix("torch."))  # type: ignore[attr-defined]
        return self.x.new_empty(keeps(names, self.batch, rows), dtype=dtype)

    def run(
        self, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor], weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with use_backend(self.backend):
            return self.recurrence.run(inputs, states, weights, self.packing, self.reverse)

    @property
    def output_widths(self) -> list[int]:
        graph, sizes = self.recurrence.graph, self.recurrence.sizes
        return [sizes[str(graph.outputs[name].size)] for name in self.recurrence.outputs]

    def blank_rows(self, width: int) -> Tensor:
        """Room for a value of every row, in memory batch first."""
        if not self.whole:
            return self.x.new_empty(*self.shape, width)
        time, batch = self.shape
        return self.x.new_empty(batch, time, width).transpose(0, 1)

    def laid_out(self, outputs: Mapping[str, Tensor], final: Mapping[str, Tensor]) -> list[Tensor]:
        """Outputs and final states as `blank_rows` promises them, each in memory of its own."""
        rows = [outputs[name] for name in self.recurrence.outputs]
        laid = [y.transpose(0, 1).contiguous().transpose(0, 1) if self.whole else y.contiguous() for y in rows]
        return self._apart([*laid, *(final[name].contiguous() for name in self.recurrence.states)])

    def own(self, arrays: Sequence[Tensor]) -> list[Tensor]:
        """Gradients as they are promised: without gaps, each in memory of its own."""
        return self._apart([array.contiguous() for array in arrays])

    def _apart(self, arrays: Sequence[Tensor]) -> list[Tensor]:
        seen = {array.untyped_storage().data_ptr() for array in self.arrays}
        found = []
        for array in arrays:
            place = array.untyped_storage().data_ptr()
            found.append(array.clone() if place in seen else array)
            seen.add(place)
        return found


def _group_by_group(
    call: _Call, grads: Sequence[Tensor], wanted: Sequence[bool], there: Sequence[bool], groups: int
) -> list[Tensor]:
    found = call.recurrence
    counts = len(found.inputs), len(found.states), len(found.stacks)
    how = How(found.key, call.backend, call.reverse, counts, len(found.outputs))
    kinds = kinds_of(how)
    arrays = (call.given, *call.arrays, *grads)
    parts = []
    for given, *rest in split(arrays, ("sequences", *kinds, *kinds_of_results(how, there)), groups):
        lists, handed = how.lists(rest), rest[how.arrays :]
        how_it_is = given, found.key, call.backend, call.reverse, wanted, there, 0
        parts.append(torch.ops.everloop.recurrence_gradient(*lists, handed, None, *how_it_is))
    return together(parts, [kind for kind, want in zip(kinds, wanted, strict=True) if want], of_weights=torch.stack)


def _gradients(
    call: _Call,
    leaves: Sequence[Tensor],
    grads: Sequence[Tensor],
    wanted: Sequence[bool],
    there: Sequence[bool],
    create_graph: bool = False,
) -> list[Tensor]:
    """The gradients of the wanted leaves, by doing it all again."""
    outputs, final = call.run(*call.by_name(leaves))
    made = [*(outputs[name] for name in call.recurrence.outputs), *(final[name] for name in call.recurrence.states)]
    results = [result for result, one in zip(made, there, strict=True) if one]
    return _pulled_back(results, grads, [leaf for leaf, want in zip(leaves, wanted, strict=True) if want], create_graph)


def _pulled_back(
    results: Sequence[Tensor], grads: Sequence[Tensor], ends: Sequence[Tensor], create_graph: bool = False
) -> list[Tensor]:
    """The gradients of the ends, from those of the results; zero where there is none."""
    pairs = [(result, grad) for result, grad in zip(results, grads, strict=True) if result.requires_grad]
    if not pairs or not ends:
        return [torch.zeros_like(end) for end in ends]
    found = torch.autograd.grad(
        [result for result, _ in pairs],
        ends,
        [grad for _, grad in pairs],
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
    return list(found)


_KEYS = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()


@contextmanager
def _differentiable() -> Iterator[None]:
    """Inside an operator, torch's own gradients are off; on again, as outside of any."""
    with torch._C._ForceDispatchKeyGuard(*_KEYS), torch.enable_grad():
        yield
