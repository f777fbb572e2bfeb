"""How the operators of `everloop.nn.operator` are differentiated, and what torch.vmap makes of them.

Under vmap, where all share the weights, many become one larger batch, and one call, in which each may have gradients of
the weights of its own. Otherwise there is one call for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Row = tuple[Tensor, ...]
Dims = Sequence[int | None]


@dataclass(frozen=True)
class How:
    """What a call is told beside its arrays.

    counts: how many inputs, states and weights. outputs: how many outputs, beside the final states. wanted: of each
    array, whether its gradient will be asked for. groups: of how many groups of sequences, one after the other, each
    has gradients of the weights of its own; 0: they are those of all together.
    """

    key: str
    backend: str
    reverse: bool
    counts: tuple[int, int, int]
    outputs: int
    wanted: tuple[bool, ...] = ()
    groups: int = 0

    def lists(self, arrays: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Inputs, states and weights."""
        a, b = self.counts[0], self.counts[0] + self.counts[1]
        return list(arrays[:a]), list(arrays[a:b]), list(arrays[b : b + self.counts[2]])

    @property
    def arrays(self) -> int:
        return sum(self.counts)


class Forward(Function):
    """Outputs, final states, and what is kept for a gradient of the wanted arrays."""

    @staticmethod
    def forward(how: How, given: Tensor | None, *arrays: Tensor) -> Row:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(
                torch.ops.everloop.recurrence(
                    *how.lists(arrays), given, how.key, how.backend, how.reverse, list(how.wanted)
                )
            )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Row) -> None:
        how, given, *arrays = inputs
        room = output[how.outputs + how.counts[1] :]
        ctx.how, ctx.has = how, (given is not None, bool(room))
        ctx.mark_non_differentiable(*room)
        ctx.save_for_backward(*arrays, *([given] if ctx.has[0] else []), *room)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        how: How = ctx.how
        arrays, rest = ctx.saved_tensors[: how.arrays], list(ctx.saved_tensors[how.arrays :])
        given = rest.pop(0) if ctx.has[0] else None
        needed = tuple(ctx.needs_input_grad[2:])
        room = rest.pop(0) if ctx.has[1] and needed == how.wanted else None
        results = grads[: how.outputs + how.counts[1]]
        there = tuple(grad is not None for grad in results)
        if not any(there):
            return (None,) * (2 + how.arrays)
        asked = replace(how, wanted=needed)
        found = gradient(asked, there, given, room, *arrays, *(grad for grad in results if grad is not None))
        return None, None, *_spread(found, needed)

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: Any, how: How, given: Tensor | None, *arrays: Tensor
    ) -> tuple[Row, Any]:
        many, of_given, dims = info.batch_size, in_dims[1], in_dims[2:]
        if not _shared(how, arrays, dims):
            return _one_by_one(
                lambda given, *arrays: forward(how, given, *arrays, wanted=()),
                many,
                (of_given, *dims),
                (given, *arrays),
            )
        batch = _one_batch(how, arrays, dims, many)
        # A gradient may be taken of each of many, as told, or of all as one batch, which torch knows then.
        ask = None if any(map(_needs, batch)) else how.wanted
        made = forward(how, _sequences(given, of_given, many), *batch, wanted=ask)
        count = how.outputs + how.counts[1]
        unfolded, out = _unfolded(made[:count], how.outputs, many)
        return (*unfolded, *made[count:]), (*out, *[None] * len(made[count:]))


class Gradient(Function):
    """The gradients of the wanted arrays."""

    @staticmethod
    def forward(how: How, there: tuple[bool, ...], given: Tensor | None, room: Tensor | None, *arrays: Tensor) -> Row:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(
                torch.ops.everloop.recurrence_gradient(
                    *how.lists(arrays),
                    list(arrays[how.arrays :]),
                    room,
                    given,
                    how.key,
                    how.backend,
                    how.reverse,
                    list(how.wanted),
                    list(there),
                    how.groups,
                )
            )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Row) -> None:
        ctx.how, ctx.there, given, _, *arrays = inputs
        ctx.has = given is not None
        ctx.save_for_backward(*arrays, *([given] if ctx.has else []))
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *seconds: Tensor | None) -> tuple[Any, ...]:
        arrays = list(ctx.saved_tensors)
        given = arrays.pop() if ctx.has else None
        needed = tuple(ctx.needs_input_grad[4:])
        asked = tuple(second is not None for second in seconds)
        if not any(asked) or not any(needed):
            return (None,) * (4 + len(arrays))
        which = ctx.there, asked, needed
        of = second_of_groups if ctx.how.groups else second
        found = of(ctx.how, which, given, *arrays, *(one for one in seconds if one is not None))
        return None, None, None, None, *_spread(found, needed)

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any,
        in_dims: Any,
        how: How,
        there: tuple[bool, ...],
        given: Tensor | None,
        room: Tensor | None,
        *arrays: Tensor,
    ) -> tuple[Row, Any]:
        many, of_given, dims = info.batch_size, in_dims[2], in_dims[4:]
        same = all(dim is None for dim in (of_given, *dims[: how.arrays]))
        if same or not _shared(how, arrays, dims):
            # What was kept is of use where it is the same for all.
            return _one_by_one(
                lambda given, *arrays: gradient(how, there, given, room if same else None, *arrays),
                many,
                (of_given, *dims),
                (given, *arrays),
            )
        outer = sum(there[: how.outputs])
        grads = zip(arrays[how.arrays :], dims[how.arrays :], strict=True)
        handed = [(_rows if k < outer else _sequences)(grad, dim, many) for k, (grad, dim) in enumerate(grads)]
        batch = _one_batch(how, arrays, dims, many)
        of_groups = replace(how, groups=many * max(1, how.groups))
        made = gradient(of_groups, there, _sequences(given, of_given, many), room, *batch, *handed)
        front = sum(how.wanted[: how.counts[0] + how.counts[1]])
        unfolded, out = _unfolded(made[:front], sum(how.wanted[: how.counts[0]]), many)
        stacks = [array.unflatten(0, (many, -1)) if how.groups else array for array in made[front:]]
        return (*unfolded, *stacks), (*out, *[0] * len(stacks))


class Second(Function):
    """The gradients of what the gradients were made of."""

    @staticmethod
    def forward(how: How, which: tuple[tuple[bool, ...], ...], given: Tensor | None, *arrays: Tensor) -> Row:
        there, asked, needed = map(list, which)
        a, b = how.arrays, how.arrays + sum(there)
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(
                torch.ops.everloop.recurrence_second(
                    *how.lists(arrays),
                    list(arrays[a:b]),
                    list(arrays[b:]),
                    given,
                    how.key,
                    how.backend,
                    how.reverse,
                    list(how.wanted),
                    there,
                    asked,
                    needed,
                )
            )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Row) -> None:
        """Nothing: there is no third."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        raise NotImplementedError(
            "a third derivative of a recurrence, through torch.func or a compiler; expected the first or the second. "
            "torch.autograd.grad(..., create_graph=True) on the layer itself has any"
        )

    @staticmethod
    def vmap(  # type: ignore[override]
        info: Any, in_dims: Any, how: How, which: Any, given: Tensor | None, *arrays: Tensor
    ) -> tuple[Row, Any]:
        return _one_by_one(
            lambda given, *arrays: second(how, which, given, *arrays), info.batch_size, in_dims[2:], (given, *arrays)
        )


def forward(how: How, given: Tensor | None, *arrays: Tensor, wanted: tuple[bool, ...] | None = None) -> Row:
    """Outputs and final states, and what is kept for the gradients of the wanted arrays (None: of those of which torch
    would take one).
    """
    asked = tuple(map(_needs, arrays)) if wanted is None else wanted or (False,) * len(arrays)
    return Forward.apply(replace(how, wanted=asked), given, *arrays)  # type: ignore[return-value]


def _needs(array: Tensor) -> bool:
    return torch.is_grad_enabled() and array.requires_grad


def gradient(how: How, there: tuple[bool, ...], given: Tensor | None, room: Tensor | None, *arrays: Tensor) -> Row:
    return Gradient.apply(how, there, given, room, *arrays)  # type: ignore[return-value]


def second(how: How, which: tuple[tuple[bool, ...], ...], given: Tensor | None, *arrays: Tensor) -> Row:
    return Second.apply(how, which, given, *arrays)  # type: ignore[return-value]


def second_of_groups(
    how: How, which: tuple[tuple[bool, ...], ...], given: Tensor | None, *arrays: Tensor
) -> list[Tensor]:
    """The same where groups of sequences have gradients of their own: one after the other."""
    there, asked, needed = which
    kinds = [*kinds_of(how), *kinds_of_results(how, there)]
    chosen = [kind for kind, want in zip(kinds_of(how), how.wanted, strict=True) if want]
    of_seconds = ["own" if kind == "weights" else kind for kind, ask in zip(chosen, asked, strict=True) if ask]
    parts = [
        second(replace(how, groups=0), which, one, *rest)
        for one, *rest in split((given, *arrays), ("sequences", *kinds, *of_seconds), how.groups)
    ]
    return together(parts, [kind for kind, need in zip(kinds, needed, strict=True) if need], of_weights=sum)


def _spread(found: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    rest = iter(found)
    return [next(rest) if need else None for need in needed]


# -- groups of sequences ---------------------------------------------------------------------------------------------


def kinds_of(how: How) -> list[str]:
    """Of each array, which axis its sequences lie along: that of rows [T, B, F], of [B, F], or none."""
    a, b, c = how.counts
    return ["rows"] * a + ["sequences"] * b + ["weights"] * c


def kinds_of_results(how: How, there: Sequence[bool]) -> list[str]:
    return ["rows" if k < how.outputs else "sequences" for k, one in enumerate(there) if one]


def split(arrays: Sequence[Tensor | None], kinds: Sequence[str], count: int) -> list[list[Any]]:
    """The arrays of each group of sequences. Of the gradients of weights, each has its own; weights they share."""
    found = []
    for k in range(count):
        one: list[Any] = []
        for array, kind in zip(arrays, kinds, strict=True):
            if array is None or kind == "weights":
                one.append(array)
            elif kind == "own":
                one.append(array[k])
            else:
                one.append(array.chunk(count, dim=int(kind == "rows"))[k])
        found.append(one)
    return found


def together(parts: Sequence[Sequence[Tensor]], kinds: Sequence[str], of_weights: Callable[[Any], Any]) -> list[Tensor]:
    """The results for all sequences from those of each group."""
    return [
        of_weights(arrays) if kind == "weights" else torch.cat(arrays, dim=int(kind == "rows"))
        for arrays, kind in zip(zip(*parts, strict=True), kinds, strict=True)
    ]


# -- many as one batch -----------------------------------------------------------------------------------------------


def _shared(how: How, arrays: Sequence[Tensor], dims: Dims) -> bool:
    """Whether all can be one batch: of arrays [T, B, F], with the same weights."""
    whole = arrays[0].dim() - (dims[0] is not None) == 3
    return whole and all(dim is None for dim in dims[how.arrays - how.counts[2] : how.arrays])


def _one_batch(how: How, arrays: Sequence[Tensor], dims: Dims, many: int) -> list[Tensor]:
    inputs, states, weights = how.lists(arrays)
    of_inputs, of_states, _ = how.lists(dims)
    return [
        *(_rows(array, dim, many) for array, dim in zip(inputs, of_inputs, strict=True)),
        *(_sequences(array, dim, many) for array, dim in zip(states, of_states, strict=True)),
        *weights,
    ]


def _rows(array: Tensor, dim: int | None, many: int) -> Tensor:
    """Many of [T, B, F] as [T, many * B, F]."""
    apart = array.unsqueeze(1).expand(-1, many, -1, -1) if dim is None else array.movedim(dim, 1)
    return apart.flatten(1, 2)


def _sequences(array: Tensor | None, dim: int | None, many: int) -> Any:
    """Many of [B, ...] as [many * B, ...]."""
    if array is None:
        return None
    apart = array.unsqueeze(0).expand(many, *array.shape) if dim is None else array.movedim(dim, 0)
    return apart.flatten(0, 1)


def _unfolded(arrays: Sequence[Tensor], rows: int, many: int) -> tuple[Row, tuple[int, ...]]:
    """One batch as many again; so many of the arrays are [T, B, F], the others [B, F]."""
    dims = tuple(1 if k < rows else 0 for k in range(len(arrays)))
    return tuple(array.unflatten(dim, (many, -1)) for array, dim in zip(arrays, dims, strict=True)), dims


def _one_by_one(do: Callable[..., Row], many: int, dims: Dims, args: Sequence[Any]) -> tuple[Row, tuple[int, ...]]:
    made = [
        do(*(arg if dim is None else arg.select(dim, k) for arg, dim in zip(args, dims, strict=True)))
        for k in range(many)
    ]
    return tuple(torch.stack(arrays) for arrays in zip(*made, strict=True)), (0,) * len(made[0])
