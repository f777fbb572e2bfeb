"""The recurrence as one operator of torch, `everloop::recurrence`: what torch.compile, torch.export, torch.func and
modes see of a layer. Its gradient is an operator as well, and so is the gradient of that.

Each takes the arrays of a cell in three lists (inputs, states, weights, in the order in which the cell has them) and
the key of a `Recurrence`. `given` says how long the sequences are: the lengths [B] for arrays [T, B, F], the batch
sizes [T] for packed rows, and nothing where all have all steps. How they are differentiated and batched:
`everloop.nn.transforms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from everloop.nn import flops
from everloop.nn.calls import Call, differentiable, gradients, group_by_group, pulled_back
from everloop.nn.function import find
from everloop.nn.transforms import Forward, Gradient, How

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
    call = Call(inputs, states, weights, given, key, backend, reverse)
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
    call = Call(inputs, states, weights, given, key, backend, reverse)
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
    call = Call(inputs, states, weights, given, key, backend, reverse)
    if groups and not call.takes_groups:
        return group_by_group(call, grads, wanted, there, groups)
    if room is None and not groups:
        with differentiable():
            pairs = zip(call.arrays, wanted, strict=True)
            leaves = [array.detach().requires_grad_(bool(want)) for array, want in pairs]
            return call.own([one.detach() for one in gradients(call, leaves, grads, wanted, there)])
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
    call = Call(inputs, states, weights, given, key, "reference", reverse)
    with differentiable():
        leaves = [leaf.detach().requires_grad_() for leaf in call.arrays]
        handed = [grad.detach().requires_grad_() for grad in grads]
        first = gradients(call, leaves, handed, wanted, there, create_graph=True)
        chosen = [one for one, ask in zip(first, asked, strict=True) if ask]
        ends = [end for end, need in zip([*leaves, *handed], needed, strict=True) if need]
        return call.own(pulled_back(chosen, seconds, ends))


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
