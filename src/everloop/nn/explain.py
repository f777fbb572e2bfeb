"""What runs a layer, and why: `print(explain(layer))`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from everloop import backends
from everloop.compiler.describe import KINDS
from everloop.compiler.plan import plan
from everloop.nn.recurrent import Recurrent


@dataclass(frozen=True)
class Part:
    """One layer in one direction. backend: the name of the one that runs it; empty if none does. notes: what the kernel
    says of the calls that it has run, where it chooses anew for every shape.
    """

    layer: int
    direction: str
    sizes: dict[str, int]
    backend: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellPlan:
    """What holds for all layers of one cell.

    kind: of the cell's plan. reasons: backend -> why it runs these layers or does not, the preferred ones first.
    """

    cell: str
    layers: tuple[int, ...]
    kind: str
    reasons: dict[str, str]


@dataclass(frozen=True)
class Explanation:
    """What runs a layer; as text, in words.

    asked: the backend that was asked for, or "auto". plans: one for each cell.
    """

    layer: str
    device: str
    dtype: str
    asked: str
    plans: tuple[CellPlan, ...]
    parts: tuple[Part, ...]

    @property
    def kind(self) -> str:
        """Of the plan of the lowest layer."""
        return self.plans[0].kind

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.layer} on {self.device} in {self.dtype}"
        for found in self.plans:
            if len(self.plans) > 1:
                yield ""
                places = ", ".join(map(str, found.layers))
                yield f"layer{'s' * (len(found.layers) > 1)} {places}: {found.cell}"
            yield KINDS[found.kind]
            yield ""
            wide = max(map(len, found.reasons))
            for name, reason in found.reasons.items():
                yield f"  {name:<{wide}}  {reason}"
        yield ""
        yield from self._table()

    def _table(self) -> Iterator[str]:
        sizes = list(dict.fromkeys(size for part in self.parts for size in part.sizes))
        rows = [["layer", "direction", *sizes, "runs on"]]
        for part in self.parts:
            lengths = [str(part.sizes.get(size, "")) for size in sizes]
            rows.append([str(part.layer), part.direction, *lengths, part.backend or "nothing"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  " + "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()
        for part in self.parts:
            if part.notes:
                yield ""
                yield f"  layer {part.layer}, {part.direction}, as it has run:"
                yield from (f"    {note}" for note in part.notes)


def explain(layer: Recurrent) -> Explanation:
    """Which backend runs a layer as it is now, on its device and in its type, and why each other one does not.

    A backend that fails to compile a cell is known to have failed once the layer has run.
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"explain: a {type(layer).__name__} came; expected a layer, an everloop.Recurrent")
    like = layer.get_buffer("_like")
    alike: dict[tuple, list[int]] = {}
    for depth, cell in enumerate(layer.cells):
        alike.setdefault((cell.step, cell.name, str(cell.options)), []).append(depth)
    parts: list[Part] = []
    plans: list[CellPlan] = []
    for depths in alike.values():
        found, made = _of_one_cell(layer, depths, like)
        plans.append(found)
        parts += made
    parts.sort(key=lambda part: part.layer)
    words = (repr(layer), str(like.device), str(like.dtype).removeprefix("torch."), backends.asked())
    return Explanation(*words, tuple(plans), tuple(parts))


def _of_one_cell(layer: Recurrent, depths: list[int], like: Tensor) -> tuple[CellPlan, list[Part]]:
    graph = layer.layers[depths[0]][0].recurrence.graph  # type: ignore[index]
    device, dtype, asked = like.device.type, str(like.dtype), backends.asked()
    refusals = {backend.name: backend.refuses(graph, device, dtype) for backend in backends.backends()}
    able = [name for name, refusal in refusals.items() if not refusal and asked in (backends.AUTO, name)]
    runs = able[0] if able else ""
    parts = [
        Part(depth, direction, one.sizes, one.recurrence.ran_on(like) or runs, one.recurrence.notes(like))
        for depth in depths
        for direction, one in zip(_directions(layer), layer.layers[depth], strict=True)  # type: ignore[arg-type]
    ]
    failed = any(part.backend != runs for part in parts)
    reasons = {name: _reason(name, refusal, runs, asked, failed) for name, refusal in refusals.items()}
    return CellPlan(layer.cells[depths[0]].name, tuple(depths), plan(graph).kind, reasons), parts


def _directions(layer: Recurrent) -> tuple[str, ...]:
    if layer.bidirectional:
        return "forward", "reverse"
    return ("reverse",) if layer.reverse else ("forward",)


def _reason(name: str, refusal: str, runs: str, asked: str, failed: bool) -> str:
    """Why a backend runs a layer or not. failed: the one that should run it could not compile it."""
    if name == runs:
        why = "the fastest that can" if asked == backends.AUTO else "asked for"
        return f"{why}, but failed to compile it" if failed else f"runs it: {why}"
    if refusal:
        return f"asked for, and refuses: {refusal}" if name == asked else f"refuses: {refusal}"
    if failed and name == backends.REFERENCE:
        return f"runs it, because {runs} failed"
    return f"could run it; {asked} was asked for" if asked != backends.AUTO else f"could run it; {runs} is preferred"
