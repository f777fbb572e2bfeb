"""The cells: one file each, discovered. A file `foo.py` here defines the cell `foo`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from everloop.lang.cell import Cell
from everloop.lang.read import read_cell_file


@cache
def names() -> tuple[str, ...]:
    """The names of all cells: those of this folder, and those of other packages (entry point `everloop.cells`)."""
    own = {module.name for module in pkgutil.iter_modules(__path__)}
    return tuple(sorted(own | {entry.name for entry in entry_points(group="everloop.cells")}))


def get(cell: str | Cell) -> Cell:
    """The cell of that name, or of that file (a name that ends in .py); a cell itself is given back as it is.

    A file is read, not run: see `read_cell`.
    """
    if isinstance(cell, Cell):
        return cell
    if not isinstance(cell, str):
        raise TypeError(f"a cell is a name or what @cell makes of a function, not a {type(cell).__name__}")
    if cell.endswith(".py"):
        return read_cell_file(cell)
    if cell not in names():
        near = difflib.get_close_matches(cell, names(), 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(names())}"
        raise ValueError(f"no cell is named {cell!r}; {hint}")
    for entry in entry_points(group="everloop.cells"):
        if entry.name == cell:
            return entry.load()
    return getattr(importlib.import_module(f"{__name__}.{cell}"), cell)
