"""The side inputs of a stack of layers: what is known at every step beside x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from everloop.nn.arrange import Level
from everloop.nn.forms import Form, kind


@dataclass(frozen=True)
class Sides:
    """taken: their names, and the size of each in a layer (empty: one number per step). needed: the names of those for
    which a cell has no value of its own, and that cell's.
    """

    levels: tuple[Level, ...]
    taken: Mapping[str, str]
    needed: Mapping[str, str]

    @staticmethod
    def of(levels: Sequence[Level]) -> Sides:
        taken: dict[str, str] = {}
        needed: dict[str, str] = {}
        for level in levels:
            taken |= level.side
            needed |= {name: level.name for name in level.side if name not in level.cell.graph.start}
        return Sides(tuple(levels), taken, needed)

    def rows(self, given: Mapping[str, Any] | None, form: Form) -> dict[str, Tensor]:
        """What a caller gives, as rows beside those of x."""
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            names = ", ".join(self.taken) or "none, as no cell here takes any"
            raise TypeError(f"side: {kind(given)} came; expected a dictionary of side inputs by name: {names}")
        for name, cell in self.needed.items():
            if name not in given:
                raise ValueError(f"side: {name} is missing; {cell} needs it at every step")
        return {name: form.side(array, self._width(name), name, not self.taken[name]) for name, array in given.items()}

    def _width(self, name: str) -> int:
        takers = [level for level in self.levels if name in level.side]
        if not takers:
            cells = ", ".join(dict.fromkeys(level.name for level in self.levels))
            raise ValueError(f"side: {name!r} came; {cells} has {', '.join(self.taken) or 'no side inputs'}")
        size = self.taken[name]
        widths = {level.sizes[level.side[name]] if level.side[name] else 1 for level in takers}
        if len(widths) > 1:
            several = "inputs" if size == "input" else f"{size} sizes"
            raise ValueError(
                f"side: {name} came; it is as wide as the {size} of a layer, and the {len(takers)} layers have "
                f"{several} of {min(widths)} and {max(widths)} features: use one layer of {takers[0].name} at a time"
            )
        return widths.pop()
