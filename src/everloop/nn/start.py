"""What parameters are before training: what the cell says, or the usual for their kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from everloop.compiler.ahead import ahead
from everloop.lang.cell import Cell
from everloop.lang.expr import toposort
from everloop.lang.graph import Start
from everloop.lang.param import Param


def start(values: Tensor, param: Param, cell: Cell) -> None:
    """Draw the start value of one parameter: what the cell says, or the usual for its kind."""
    given: Start | None = cell.graph.init_of(param)
    if isinstance(given, tuple):
        values.uniform_(*given)
    elif isinstance(given, int | float):
        values.fill_(given)
    elif callable(given):
        n = values.shape[0]
        drawn = torch.rand(n, dtype=torch.float64, device="cpu").tolist()
        values.copy_(torch.tensor([given(u, k, n) for k, u in enumerate(drawn)], dtype=torch.float64, device="cpu"))
    elif not param.is_matrix:
        values.zero_()
    else:
        for block in values.chunk(param.blocks):
            STARTED[given or ("orthogonal" if meets_state(param, cell) else "glorot")](block)


def _orthogonal(values: Tensor) -> None:
    # Drawn in single precision, because torch has no QR decomposition in the half types.
    drawn = torch.empty_like(values, dtype=torch.promote_types(values.dtype, torch.float32))
    values.copy_(nn.init.orthogonal_(drawn))


STARTED: dict[str, Callable[[Tensor], Any]] = {
    "identity": nn.init.eye_,
    "orthogonal": _orthogonal,
    "glorot": nn.init.xavier_uniform_,
    "normal": lambda values: values.normal_(0.0, values.shape[1] ** -0.5),
}


def meets_state(param: Param, cell: Cell) -> bool:
    """Whether the matrix, or one that is made of it, acts on something that a state reaches."""
    graph = ahead(cell.graph).graph
    acting = {param.name}
    for other in graph.params.values():
        if other.made is not None and any(node.attr == param.name for node in toposort([other.made])):
            acting.add(other.name)
    return any(node.op == "matmul" and node.attr[0] in acting and node in graph.depends for node in graph.nodes)
