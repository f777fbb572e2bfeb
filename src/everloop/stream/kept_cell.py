"""A cell as plain data, for the header of a file: its name or its text, its options, and what transformed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from everloop import cells
from everloop.lang import functions, transforms
from everloop.lang.cell import Cell, Rewrite
from everloop.lang.read import ReadStep, read_cell


def keep_cell(cell: Cell) -> dict[str, Any]:
    """What `kept_cell` makes the cell of again. A cell that only this program knows is refused."""
    facts: dict[str, Any] = {"text": cell.step.text} if isinstance(cell.step, ReadStep) else {"name": _catalogued(cell)}
    if cell.options:
        facts["options"] = {name: _plain(cell, name, value) for name, value in cell.options.items()}
    if cell.rewrites:
        facts["transforms"] = [_transform(cell, rewrite) for rewrite in cell.rewrites]
    return facts


def kept_cell(facts: Mapping[str, Any], source: str) -> Cell:
    """The cell of which `keep_cell` gave the facts; source names the file in messages."""
    cell = read_cell(facts["text"], source) if "text" in facts else cells.get(facts["name"])
    options = {
        name: getattr(functions, value) if isinstance(value, str) and value in functions.__all__ else value
        for name, value in facts.get("options", {}).items()
    }
    cell = cell(**options) if options else cell
    for transform in facts.get("transforms", []):
        fields = {name: _tuples(value) for name, value in transform.items() if name != "name"}
        if transform["name"] not in TRANSFORMS:
            raise ValueError(f"{source}: the transform {transform['name']!r} came; there are {', '.join(TRANSFORMS)}")
        cell = cell.rewritten(TRANSFORMS[transform["name"]](**fields))
    return cell


TRANSFORMS: dict[str, Any] = {
    vars(found)["name"]: found
    for found in vars(transforms).values()
    if dataclasses.is_dataclass(found) and found.__module__ == transforms.__name__
}


def _catalogued(cell: Cell) -> str:
    name = cell.step.__name__
    if name not in cells.names() or cells.get(name).step is not cell.step:
        raise ValueError(
            f"cell {name} is not in the catalogue, so a file cannot name it. Put its text in a file of its own and "
            "take it from there (everloop.read_cell), or give it as the entry point everloop.cells of a package"
        )
    return name


def _plain(cell: Cell, name: str, value: Any) -> Any:
    if isinstance(value, int | float):
        return value
    known = getattr(value, "__name__", "")
    if known not in functions.__all__ or getattr(functions, known) is not value:
        raise ValueError(
            f"cell {cell.name}: the option {name} is {value!r}, which a file cannot name; it can name the functions of "
            "the language, such as everloop.tanh"
        )
    return known


def _transform(cell: Cell, rewrite: Rewrite) -> dict[str, Any]:
    name = getattr(rewrite, "name", "")
    if type(rewrite) is not TRANSFORMS.get(name):
        raise ValueError(f"cell {cell.name}: {rewrite!r} is none of the transforms {', '.join(TRANSFORMS)}")
    return {"name": name, **dataclasses.asdict(rewrite)}  # type: ignore[call-overload]


def _tuples(value: Any) -> Any:
    """JSON has lists only."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
