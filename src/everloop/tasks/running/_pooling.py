"""Pooling over time and the linear layer on top of it, as a cell: so it runs step by step with the layers below."""

from __future__ import annotations

import math
from collections.abc import Sequence

from everloop.lang.cell import Cell, cell
from everloop.lang.functions import maximum, sized


def pooling(kinds: Sequence[str]) -> Cell:
    """Outputs of the layers, one step after another, as scores of the classes of what has come so far: a linear layer
    on their maximum, their mean, the last one, or several of these.
    """

    @cell(states="largest:input sum:input steps:input", gates="max mean last y", start={"largest": -math.inf})
    def pooled(x, largest, sum, steps, V, c):
        largest, sum, steps = maximum(largest, x), sum + x, steps + 1
        found = {"max": largest, "mean": sum / steps, "last": x}
        y = c.y
        for kind in kinds:
            y = y + getattr(V, kind) @ found[kind]
        return sized(y, "classes"), largest, sum, steps

    return pooled
