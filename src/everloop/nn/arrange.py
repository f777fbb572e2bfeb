"""What each layer of a `Recurrent` is, from the arguments that it is made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from everloop import cells
from everloop.lang.cell import Cell
from everloop.lang.graph import Graph
from everloop.lang.transforms import recurrent_dropout, zoneout

SKIPS = (None, "residual", "dense")


@dataclass(frozen=True)
class Level:
    """One layer, in one direction or both.

    cell: what runs. name: that of the cell as it was given. sizes: the lengths of its sizes, `input` among them.
    output: features that it puts out, those of both directions. adds: whether its input is added to them. side: the
    side inputs that a caller may give, and the size of each; empty: one number.
    """

    cell: Cell
    name: str
    sizes: dict[str, int]
    output: int
    adds: bool
    side: dict[str, str]


def arrange(
    given: Sequence[Cell],
    hidden_sizes: Sequence[int],
    input_size: int,
    directions: int,
    sizes: Mapping[str, int],
    skip: str | None,
    noise: Noise,
) -> tuple[Level, ...]:
    """The layers, the lowest first."""
    if skip not in SKIPS:
        raise ValueError(f"skip: {skip!r} came; expected one of {', '.join(map(repr, SKIPS))}")
    sizes = _checked(given, sizes)
    noisy = noise.added(given)
    levels: list[Level] = []
    width = input_size
    for cell, hidden in zip(given, hidden_sizes, strict=True):
        lengths = _lengths(cell, width, hidden, sizes, first=not levels)
        output = lengths[str(cell.graph.outputs["y"].size)] * directions
        side = {name: size for name, size in beside(cell.graph).items() if name not in cell.graph.draws}
        adds = skip == "residual" and output == width
        levels.append(Level(noisy[cell], cell.name, lengths, output, adds, side))
        width = width + output if skip == "dense" else output
    if skip == "residual" and not any(level.adds for level in levels):
        made = ", ".join(f"{level.output} of {level.sizes['input']}" for level in levels)
        raise ValueError(
            f"skip: 'residual' came, and no layer puts out as many features as it is given ({made}): "
            "choose hidden_size so, or leave out skip"
        )
    return tuple(levels)


@dataclass(frozen=True)
class Noise:
    """What training does to the states of every cell. zoneout: one share, or one per state."""

    zoneout: float | Mapping[str, float]
    recurrent_dropout: float

    def added(self, given: Sequence[Cell]) -> dict[Cell, Cell]:
        """Each cell, and what it becomes."""
        share("recurrent_dropout", self.recurrent_dropout)
        shares = self.zoneout if isinstance(self.zoneout, Mapping) else {}
        for name, value in shares.items():
            share(f"zoneout: {name}", value)
            if not any(name in cell.states for cell in given):
                known = "; ".join(f"{cell.name} has {', '.join(cell.states)}" for cell in dict.fromkeys(given))
                raise ValueError(f"zoneout: state {name!r} came; {known}")
        if not isinstance(self.zoneout, Mapping):
            share("zoneout", self.zoneout)
        return {cell: self._added(cell) for cell in dict.fromkeys(given)}

    def _added(self, cell: Cell) -> Cell:
        # Dropout first: what a unit keeps by zoneout is its old value, whether or not the step has seen it.
        made = recurrent_dropout(cell, self.recurrent_dropout) if self.recurrent_dropout else cell
        if isinstance(self.zoneout, Mapping):
            shares = {name: value for name, value in self.zoneout.items() if value and name in cell.states}
            return zoneout(made, **shares) if shares else made
        return zoneout(made, self.zoneout) if self.zoneout else made


def beside(graph: Graph) -> dict[str, str]:
    """The inputs beside x, and the size of each; empty: one number."""
    return {name: str(leaf.size or "") for name, leaf in graph.inputs.items() if name != "x"}


def share(name: str, value: Any) -> None:
    """Refuse what is no share of something that is left out."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise ValueError(f"{name}: {value!r} came; expected a share of 0 or more and less than 1")


def flag(name: str, value: Any) -> None:
    """Refuse what is neither on nor off."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} came; expected True or False")


def whole(name: str, value: Any) -> int:
    """How many there are of something, as an int; refused where there is none, or no such number."""
    try:
        number = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}: {value!r} came; expected a whole number of 1 or more")
    return number


def each(
    cell: str | Cell | Sequence[str | Cell], hidden_size: int | Sequence[int], num_layers: int | None
) -> tuple[tuple[Cell, ...], tuple[int, ...]]:
    """The cell and the units of each layer, where both may come once for all layers or one per layer."""
    several: dict[str, Sequence[Any]] = {}
    if isinstance(cell, Sequence) and not isinstance(cell, str):
        several["cell"] = cell
    if isinstance(hidden_size, Sequence):
        several["hidden_size"] = hidden_size
    if num_layers is not None:
        num_layers = whole("num_layers", num_layers)
    counts = {name: len(values) for name, values in several.items()}
    said, count = next(iter(counts.items()), ("", 1)) if num_layers is None else ("num_layers", num_layers)
    for name, found in counts.items():
        if found != count:
            raise ValueError(f"{name}: {found} values came; expected {count}, one per layer, as {said} says")
        if not found:
            raise ValueError(f"{name}: none came; expected one for all layers, or one per layer")
    given = tuple(map(cells.get, several.get("cell", [cell])))
    units = tuple(whole("hidden_size", value) for value in several.get("hidden_size", [hidden_size]))
    return given * (count // len(given)), units * (count // len(units))


def _lengths(cell: Cell, width: int, hidden: int, given: Mapping[str, int], first: bool) -> dict[str, int]:
    """The length of each size of a cell whose input has so many features."""
    graph = cell.graph
    known = {"input": width, "hidden": hidden} | graph.sizes
    known |= {name: value for name, value in given.items() if name in graph.size_names}
    if first and "hidden" not in graph.size_names and hidden != width:
        raise ValueError(f"hidden_size: {hidden} came; cell {graph.name} is as wide as its input: expected {width}")
    missing = [name for name in graph.size_names if name not in known]
    if missing:
        wanted = ", ".join(f'"{name}": ...' for name in missing)
        raise ValueError(f"cell {graph.name} needs a size for {', '.join(missing)}: sizes={{{wanted}}}")
    return known


def _checked(given: Sequence[Cell], sizes: Mapping[str, int]) -> dict[str, int]:
    if not isinstance(sizes, Mapping):
        raise ValueError(f'sizes: {sizes!r} came; expected lengths by name, such as {{"proj": 64}}')
    found = {}
    for name, value in sizes.items():
        if name in ("input", "hidden"):
            raise ValueError(f"sizes: {name!r} came; that is the argument {name}_size")
        found[name] = whole(f"sizes: {name}", value)
        if not any(name in cell.graph.size_names for cell in given):
            known = "; ".join(
                f"cell {cell.name} has no size {name!r}; it has {', '.join(cell.graph.size_names)}"
                for cell in dict.fromkeys(given)
            )
            raise ValueError(f"sizes: {known}")
    return found
