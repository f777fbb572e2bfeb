"""One layer in one direction: the parameters of a cell, what it draws, and its recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from everloop.lang.cell import Cell
from everloop.lang.draw import Draw
from everloop.nn.arrange import beside
from everloop.nn.function import Recurrence
from everloop.nn.packing import Packing
from everloop.nn.start import meets_state, start

# A start value beyond this stands for something, such as the -1e30 of a running maximum: nothing to learn from.
MODERATE = 1e3


class Layer(nn.Module):
    """A cell's parameters, one array per stack, and its recurrence.

    weight_drop: share of the entries of the matrices that meet a state that are zero in a call, in training.
    learn_start: whether the first states are parameters, `start_<state>`; those that begin beyond MODERATE are not.
    """

    def __init__(
        self, cell: Cell, sizes: dict[str, int], factory: dict[str, Any], weight_drop: float, learn_start: bool
    ) -> None:
        super().__init__()
        graph = cell.graph
        self.sizes, self.weight_drop = sizes, weight_drop
        self.recurrence = Recurrence(cell, sizes)
        self._watching: dict[tuple[str, ...], Recurrence] = {(): self.recurrence}
        self._beside = {name: sizes[size] if size else 1 for name, size in beside(graph).items()}
        # Of each stack: the rows of its members; and, where weight drop leaves out some, those which it does.
        self._rows: dict[str, list[int]] = {}
        self._dropped: dict[str, list[bool]] = {}
        for stack, members in graph.stacks.items():
            shapes = [param.shape(sizes) for param in members]
            self._rows[stack] = [rows for rows, *_ in shapes]
            shape = [sum(self._rows[stack]), *shapes[0][1:]]
            self.register_parameter(stack, nn.Parameter(torch.empty(shape, **factory)))
            meets = [param.is_matrix and meets_state(param, cell) for param in members] if weight_drop else []
            if any(meets):
                self._dropped[stack] = meets
        # Of each state: its features, its start value, and the parameter that is in its place.
        self._states: dict[str, tuple[int, float, str]] = {}
        for name, leaf in graph.states.items():
            width, value = sizes[str(leaf.size)], graph.start[name]
            learned = f"start_{name}" if learn_start and abs(value) <= MODERATE else ""
            self._states[name] = width, value, learned
            if learned:
                self.register_parameter(learned, nn.Parameter(torch.empty(width, **factory)))
        self.reset_parameters()

    @property
    def drops(self) -> bool:
        """Whether weight drop has anything to act on."""
        return bool(self._dropped)

    @property
    def widths(self) -> dict[str, int]:
        """The features of each state."""
        return {name: width for name, (width, *_) in self._states.items()}

    @property
    def names(self) -> list[str]:
        """What can be watched: the states, and the named values of a step."""
        graph = self.recurrence.cell.graph
        named = graph.new | {
            name: node for node, name in graph.names.items() if node.size is not None and name not in graph.new
        }
        # What the step calls y and does not put out would be taken for the output.
        return [name for name, node in named.items() if name != "y" or node is graph.outputs["y"]]

    def watch(self, names: Sequence[str]) -> tuple[str, ...]:
        """Make ready for calls that watch these names, of which each is known."""
        watched = tuple(names)
        if watched not in self._watching:
            self._watching[watched] = Recurrence(self.recurrence.cell, self.sizes, watched)
        return watched

    def start(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """The states before the first step, [B, F] each."""
        return {
            name: getattr(self, learned).to(like).expand(batch, width)
            if learned
            else like.new_full((batch, width), _within(value, like.dtype))
            for name, (width, value, learned) in self._states.items()
        }

    def forward(
        self,
        inputs: dict[str, Tensor],
        states: dict[str, Tensor],
        packing: Packing,
        reverse: bool = False,
        watched: tuple[str, ...] = (),
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the graph takes and is not given, the layer draws, or fills with the cell's own value."""
        if self._beside:
            self._complete(inputs, packing)
        # By attribute where something has taken the place of a parameter, such as a parametrization.
        held = self._parameters
        weights: Any = {stack: held[stack] if stack in held else getattr(self, stack) for stack in self._rows}
        if self._dropped and self.training:
            for stack, meets in self._dropped.items():
                weights[stack] = _weight_dropped(weights[stack], self._rows[stack], meets, self.weight_drop)
        return self._watching[watched](inputs, states, weights, packing, reverse)

    def _complete(self, inputs: dict[str, Tensor], packing: Packing) -> None:
        graph, like = self.recurrence.cell.graph, inputs["x"]
        for name, width in self._beside.items():
            if name in graph.draws:
                inputs[name] = self._drawn(graph.draws[name], width, like, packing)
            elif name not in inputs:
                inputs[name] = like.new_full((width,), graph.start[name]).expand(*like.shape[:-1], width)

    def _drawn(self, draw: Draw, width: int, like: Tensor, packing: Packing) -> Tensor:
        """A mask or noise for every row; in evaluation, its mean."""
        if not self.training:
            return like.new_full((width,), draw.mean).expand(*like.shape[:-1], width)
        if draw.every == "step":
            return _random(draw, like, *like.shape[:-1], width)
        return per_sequence(_random(draw, like, packing.batch, width), like, packing)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        cell = self.recurrence.cell
        for stack, rows in self._rows.items():
            parts = self.get_parameter(stack).split(rows)
            for param, values in zip(cell.graph.stacks[stack], parts, strict=True):
                start(values, param, cell)
        for _, value, learned in self._states.values():
            if learned:
                self.get_parameter(learned).fill_(value)


def dropout(rows: Tensor, share: float, packing: Packing, variational: bool) -> Tensor:
    """Rows of which a share of the entries is zero; variational: the same features at all steps of a sequence."""
    if not variational:
        return nn.functional.dropout(rows, share)
    mask = nn.functional.dropout(rows.new_ones(packing.batch, rows.shape[-1]), share)
    return rows * per_sequence(mask, rows, packing)


def per_sequence(values: Tensor, like: Tensor, packing: Packing) -> Tensor:
    """What is said of each sequence [B, F], said of each row of it: [T, B, F], or [N, F] where `like` is packed."""
    if like.dim() == 3:
        return values.expand(like.shape[0], *values.shape)
    _, rank = packing.places(like.shape[0])
    return values.index_select(0, rank.to(values.device))


def within(rows: Tensor, packing: Packing) -> Tensor:
    """Rows that are zero past the end of a sequence."""
    if rows.dim() == 2 or packing.given is None:
        return rows
    inside = torch.arange(packing.time, device="cpu")[:, None] < packing.given
    return torch.where(inside.to(rows.device)[:, :, None], rows, 0)


def _random(draw: Draw, like: Tensor, *shape: int) -> Tensor:
    if draw.kind == "normal":
        return draw.amount * torch.randn(shape, dtype=like.dtype, device=like.device)
    return draw.scale * torch.bernoulli(like.new_full(shape, draw.amount))


def _weight_dropped(array: Tensor, rows: list[int], meets: list[bool], share: float) -> Tensor:
    """A stack with some entries of the members that meet a state set to zero, the others scaled up."""
    if all(meets):
        return nn.functional.dropout(array, share)
    parts = zip(array.split(rows), meets, strict=True)
    return torch.cat([nn.functional.dropout(part, share) if meet else part for part, meet in parts])


def _within(value: float, dtype: torch.dtype) -> float:
    """A start value that lies beyond the range of a half type: its end stands for it."""
    if abs(value) <= MODERATE:
        return value
    limits = torch.finfo(dtype)
    return min(max(value, limits.min), limits.max)
