"""One layer of a recording as a layer of its own, to be run again: for values of its step that nobody named, and for
whatever takes a layer and what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from everloop.backends import REFERENCE, use_backend
from everloop.insight.recording import LayerRecord
from everloop.lang.cell import Cell
from everloop.lang.expr import Expr
from everloop.lang.graph import Graph
from everloop.nn import Recurrent


class Alone(NamedTuple):
    """A layer of one direction, what it reads [B, T, I] in the order in which it reads, and its first state."""

    layer: Recurrent
    x: Tensor
    state: object


def alone(one: LayerRecord, lengths: ArrayLike | None = None, cell: Cell | None = None) -> Alone:
    """The layer of a record, with its weights: `step_jacobians(*alone(recording.layers[0]))`.

    lengths [B]: of a padded batch, as a recording has them. cell: another one with the same parameters and states, to
    run in its place. Side inputs have the cell's own values; noise is off.
    """
    made, like = cell or one.cell, torch.as_tensor(one.x)
    sizes = dict(one.sizes)
    width, units = sizes.pop("input", one.x.shape[-1]), sizes.pop("hidden", 1)
    layer = Recurrent(made, width, units, sizes=sizes, dtype=like.dtype).eval()
    (inner,), *_ = layer.layers  # type: ignore[misc]
    with torch.no_grad():
        for stack, members in made.graph.stacks.items():
            rows = [torch.as_tensor(one.weights[param.name]) for param in members]
            inner.get_parameter(stack).copy_(torch.cat(rows))  # type: ignore[union-attr]
    x = like if one.direction == "forward" else torch.as_tensor(turned(one.x, lengths))
    start = layer.start_state(like.shape[0])
    state = start._make(torch.as_tensor(one.start[name])[None] for name in start._fields)
    return Alone(layer, x, state)


def along(
    one: LayerRecord, choose: Callable[[Graph], Mapping[str, Expr]], lengths: ArrayLike | None = None
) -> dict[str, np.ndarray]:
    """Values of the step, named or not, at every step: [B, T, F] each, in the order in which the layer reads.

    choose: which ones, by any name, of the graph that it is given.
    """
    numbers: dict[Expr, str] = {}
    chosen: dict[str, str] = {}

    def with_names(graph: Graph) -> Graph:
        # Two of the wanted may be one value, and any may have a name of its own already.
        for name, node in choose(graph).items():
            chosen[name] = numbers.setdefault(node, f"along {len(numbers)}")
        return replace(graph, names=graph.names | numbers)

    layer, x, state = alone(one, lengths, one.cell.rewritten(with_names))
    if not numbers:
        return {}
    ends = None if lengths is None else [int(length) for length in np.asarray(lengths)]
    with torch.no_grad(), use_backend(REFERENCE):
        *_, (history,) = layer(x, state, ends, return_states=list(numbers.values()))
    # A value may be a parameter itself, which torch goes on to watch.
    return {name: history[number].detach().numpy() for name, number in chosen.items()}


def turned(values: np.ndarray, lengths: ArrayLike | None = None) -> np.ndarray:
    """Sequences [B, T, ...] from their own ends; what is past an end stays there."""
    if lengths is None:
        return values[:, ::-1].copy()
    found = values.copy()
    for row, length in enumerate(np.asarray(lengths)):
        found[row, :length] = values[row, :length][::-1]
    return found


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without noise and without gradients to parameters; afterwards every part of the module is as it was."""
    training = {part: part.training for part in module.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in module.parameters()}
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, was in training.items():
            part.training = was
        for parameter, was in wanted.items():
            parameter.requires_grad_(was)
