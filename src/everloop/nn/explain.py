"""What runs a layer, and why: `print(explain(layer))`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from everloop import backends
from everloop.compiler.ahead import ahead
from everloop.compiler.describe import KINDS
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import plan
from everloop.nn.recurrent import Recurrent


@dataclass(frozen=True)
class Part:
    """One layer in one direction. backend: the name of the one that runs it; empty if none does."""

    layer: int
    direction: str
    sizes: dict[str, int]
    backend: str


@dataclass(frozen=True)
class Explanation:
    """What runs a layer; as text, in words.

    kind: of the cell's plan. asked: the backend that was asked for, or "auto". reasons: backend -> why it runs the
    layer or does not, the preferred ones first.
    """

    layer: str
    kind: str
    device: str
    dtype: str
    asked: str
    reasons: dict[str, str]
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.layer} on {self.device} in {self.dtype}"
        yield KINDS[self.kind]
        yield ""
        wide = max(map(len, self.reasons))
        for name, reason in self.reasons.items():
            yield f"  {name:<{wide}}  {reason}"
        yield ""
        sizes = list(dict.fromkeys(size for part in self.parts for size in part.sizes))
        rows = [["layer", "direction", *sizes, "runs on"]]
        for part in self.parts:
            lengths = [str(part.sizes.get(size, "")) for size in sizes]
            rows.append([str(part.layer), part.direction, *lengths, part.backend or "nothing"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  " + "  ".join(f"{word:<{width}}" for word, width in zip(row, widths, strict=True)).rstrip()


def explain(layer: Recurrent) -> Explanation:
    """Which backend runs a layer as it is now, on its device and in its type, and why each other one does not.

    A backend that fails to compile a cell is known to have failed once the layer has run.
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"explain: a {type(layer).__name__} came; expected a layer, an everloop.Recurrent")
    like = layer.get_buffer("_like")
    device, dtype = like.device.type, str(like.dtype)
    graph = kernel_graph(ahead(layer.cell.graph).graph)
    refusals = {backend.name: backend.refuses(graph, device, dtype) for backend in backends.backends()}
    asked = backends.asked()
    able = [name for name, refusal in refusals.items() if not refusal and asked in (backends.AUTO, name)]
    runs = able[0] if able else ""
    parts = tuple(
        Part(depth, ("forward", "backward")[direction], one.sizes, one.recurrence.ran_on(like) or runs)
        for depth, directions in enumerate(layer.layers)
        for direction, one in enumerate(directions)  # type: ignore[arg-type]
    )
    failed = any(part.backend != runs for part in parts)
    reasons = {name: _reason(name, refusal, runs, asked, failed) for name, refusal in refusals.items()}
    words = (repr(layer), plan(graph).kind, str(like.device), dtype.removeprefix("torch."), asked)
    return Explanation(*words, reasons, parts)


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
