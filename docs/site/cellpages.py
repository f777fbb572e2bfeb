"""A page for each cell and a table of all of them, written from the catalogue: nothing here knows any cell."""

from __future__ import annotations

import html
import inspect
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import equations

from everloop import cells
from everloop.compiler.ahead import plan_ahead
from everloop.compiler.cost import parameters, usual_sizes
from everloop.compiler.describe import KINDS, describe
from everloop.export import diagram, formula
from everloop.lang.cell import Cell
from everloop.lang.graph import Graph
from everloop.lang.param import Param
from everloop.nn.start import meets_state

INPUT = HIDDEN = 128
"""Sizes that parameters are counted for, as in `everloop cells`."""


def write(folder: Path) -> dict[str, list[str]]:
    """Write `index.md` and one page per cell into a folder; say which cells are of which kind."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [cells.get(name) for name in cells.names()]
    for cell in found:
        (folder / f"{cell.name}.md").write_text(page(cell), encoding="utf-8")
    (folder / "index.md").write_text(catalogue(found), encoding="utf-8")
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for cell in found:
        kinds[plan_ahead(cell.graph).kind].append(cell.name)
    return kinds


def catalogue(found: Iterable[Cell]) -> str:
    rows = [
        f"| [`{cell.name}`]({cell.name}.md) | {_cell_text(_sentence(cell.when))} "
        f"| {plan_ahead(cell.graph).kind} | {_code(cell.states)} | {cell.year or ''} |"
        for cell in found
    ]
    kinds = "\n".join(f"- **{kind}**: {meaning.partition(': ')[2]}" for kind, meaning in KINDS.items())
    return f"""# Cells

Every cell is a layer by its name, `Recurrent("lstm", 64, 128)`, and a choice of the command,
`everloop train FILE --cell lstm`. Its page shows what is derived from its one step: equations, backward equations,
plan, parameters. The kind is found from the equations:

{kinds}

<div class="catalogue" markdown>

| cell | when to use it | kind | states | year |
|---|---|---|---|---|
{chr(10).join(rows)}

</div>

A cell of your own is a function: see [The language](../language.md).
"""


def page(cell: Cell) -> str:
    """Everything that can be said of a cell, as Markdown with the equations in MathML."""
    graph, schedule = cell.graph, plan_ahead(cell.graph)
    parts = [
        f"# {cell.name}",
        _title(cell),
        _facts(cell, graph, schedule.kind),
        "## Equations",
        "The minus sign (h⁻) marks a state as it was before the step; ⊙ multiplies feature by feature.",
        equations.table(formula.forward(graph, formula.LATEX)),
        *_diagram(graph),
        "## Notes",
        notes(cell.doc),
        "```python\nfrom everloop import Recurrent\n\n"
        f'layer = Recurrent("{cell.name}", {INPUT}, {HIDDEN}{_sizes_argument(graph)})\n```',
        "## What runs when",
        f"The [plan](../compiler.md#the-plan), as `everloop show {cell.name} --as plan` prints it.",
        f"```text\n{describe(schedule, usual_sizes(graph, INPUT, HIDDEN))}\n```",
        "## Parameters",
        *_parameters(cell, graph),
        "## Backward",
        "Back-propagation through time, [derived](../compiler.md#the-gradient) from the step. ∂y is the gradient that "
        "the output receives at this step; a plus sign marks what the step after hands back, a minus sign what this "
        "step hands to the one before. Gradients of parameters are sums over steps t.",
        equations.table(formula.backward(graph, formula.LATEX)),
        "## Source",
        f"```python\n{inspect.getsource(_module(cell)).strip()}\n```",
        f"As a program of its own: `everloop show {cell.name} --as numpy` (the gradient too) or `--as torch`.",
    ]
    return "\n\n".join(parts) + "\n"


LABEL = r"(?:(?:torch|Keras|ONNX)(?:, (?:torch|Keras|ONNX))*|Beware|Options?|Side inputs?|Sizes?|Differs[^:.]*): "


def notes(doc: str) -> str:
    """A docstring as Markdown: its opening, then one item for each thing that it says under a label.

    `torch: ...`, `Beware: ...` begin an item, at the start of a line or of a sentence; so does `Used in ...`.
    """
    paragraphs = [" ".join(paragraph.split()) for paragraph in doc.split("\n\n")]
    written: list[str] = []
    for paragraph in paragraphs:
        pieces = re.split(rf"(?:^|(?<=[.;)]) )(?={LABEL}|Used )", paragraph)
        written += [_item(piece) for piece in pieces if piece]
    return re.sub(r"(?m)(^- .*)\n\n(?=- )", r"\1\n", "\n\n".join(written))


def _item(piece: str) -> str:
    label = re.match(LABEL, piece)
    if label:
        return f"- **{label[0][:-2]}**: {_text(piece[label.end() :])}"
    return f"- {_text(piece)}" if piece.startswith("Used ") else _text(piece)


def _module(cell: Cell) -> Any:
    return inspect.getmodule(cell.step)


def _title(cell: Cell) -> str:
    return _text((inspect.getdoc(_module(cell)) or cell.name).splitlines()[0])


def _sentence(words: str) -> str:
    return words and f"{words[0].upper()}{words[1:].rstrip('.')}."


def _text(words: str) -> str:
    """Plain words as Markdown: what would be markup is not, and names of cells become links."""

    def code(found: re.Match[str]) -> str:
        name = found[1]
        return f"[`{name}`]({name}.md)" if name in cells.names() else found[0]

    quoted = re.split(r"(`[^`]+`)", words)
    return "".join(
        re.sub(r"`([^`]+)`", code, part) if k % 2 else re.sub(r"([\\*_\[\]])", r"\\\1", html.escape(part, quote=False))
        for k, part in enumerate(quoted)
    )


def _cell_text(words: str) -> str:
    return _text(words).replace("|", "\\|")


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _facts(cell: Cell, graph: Graph, kind: str) -> str:
    year = f" ({cell.year})" if cell.year and str(cell.year) not in cell.source else ""
    options = [f"`{p.name}={_option(p.default)}`" for p in cell._arguments if p.kind is p.KEYWORD_ONLY]
    sizes = [name for name in graph.size_names if name not in ("input", "hidden")]
    side = [name for name in graph.inputs if name != "x"]
    facts = {
        "when to use it": _text(_sentence(cell.when)),
        "source": f"{_text(cell.source)}{year}",
        "kind": f"{kind}: {KINDS[kind].partition(': ')[2]}",
        "states": _code(name if size == "hidden" else f"{name}:{size}" for name, size in cell.states.items()),
        "gates": _code(cell.gates),
        "options": " ".join(options),
        "sizes": " ".join(f"`{name}={graph.sizes[name]}`" if name in graph.sizes else f"`{name}`" for name in sizes),
        "side inputs": _code(side),
        "memory": _remembered(cell.name),
    }
    return "\n".join(f"- **{name}**: {value}" for name, value in facts.items() if value)


@cache
def _memory() -> dict[str, Any]:
    """What benchmarks/memory.py measured, for every cell."""
    return json.loads((Path(__file__).parents[1] / "memory.json").read_text(encoding="utf-8"))


def _remembered(name: str) -> str:
    found = _memory()["cells"].get(name)
    if found is None:
        return ""
    layers = "1 layer" if found["layers"] == 1 else f"{found['layers']} layers"
    verdict = "" if found["passes"] else "; not learnt, see Beware below"
    return (
        f"{found['task']}, {layers} of {_memory()['hidden']} units: error {found['error']:g} after "
        f"{found['updates']:,} updates, where training stops (the best answer without memory: {found['trivial']:g}); "
        f"the sequences grow in training, as benchmarks/memory.py says{verdict}"
    )


def _option(value: Any) -> str:
    return value.__name__ if callable(value) else f"{value}"


def _diagram(graph: Graph) -> list[str]:
    svg = diagram.step(graph).strip()
    width = re.search(r'<svg [^>]*width="([\d.]+)"', svg)
    # Shrunk a little to fit the page; beyond that it scrolls, because its words would be too small to read.
    least = f"{0.75 * float(width[1]):.0f}px" if width else "0"
    return ["## Diagram", f'<div class="diagram" style="--least: {least}" tabindex="0">\n{svg}\n</div>']


def _sizes_argument(graph: Graph) -> str:
    lengths = usual_sizes(graph, INPUT, HIDDEN)
    chosen = [name for name in graph.size_names if name not in ("input", "hidden") and name not in graph.sizes]
    return ", sizes={" + ", ".join(f'"{name}": {lengths[name]}' for name in chosen) + "}" if chosen else ""


def _parameters(cell: Cell, graph: Graph) -> list[str]:
    lengths = usual_sizes(graph, INPUT, HIDDEN)
    rows = []
    for stack, members in graph.stacks.items():
        shapes = [param.shape(lengths) for param in members]
        count = sum(math.prod(shape) for shape in shapes)
        size = " x ".join(map(str, (sum(shape[0] for shape in shapes), *shapes[0][1:])))
        rows.append(
            f"| `{stack}` | {_code(p.name for p in members)} | {_symbols(members)} | {size} | {count:,} "
            f"| {_starts(cell, members)} |"
        )
    others = [f"{name} = {lengths[name]}" for name in graph.size_names if name not in ("input", "hidden")]
    sizes = ", ".join([f"input = {INPUT}", f"hidden = {HIDDEN}", *others])
    if not rows:
        return ["None."]
    return [
        f"{parameters(graph, lengths):,} numbers for {sizes}.",
        "| array | holds | shape | here | numbers | starts at |\n|---|---|---|---:|---:|---|\n" + "\n".join(rows),
    ]


def _symbols(members: tuple[Param, ...]) -> str:
    rows = Counter(str(param.sizes[0]) for param in members)
    shape = " + ".join(name if many == 1 else f"{many} {name}" for name, many in rows.items())
    blocks = f" / {members[0].blocks}" if members[0].blocks > 1 else ""
    return f"{shape} x {members[0].sizes[1]}{blocks}" if members[0].is_matrix else shape


def _starts(cell: Cell, members: tuple[Param, ...]) -> str:
    """What a stack's members start at; the same words once."""
    words = {param.name: _start(cell, param) for param in members}
    kinds = Counter(words.values())
    usual = kinds.most_common(1)[0][0]
    special = [f"{_cell_text(word)} (`{name}`)" for name, word in words.items() if word != usual]
    return ", ".join([_cell_text(usual), *special])


def _start(cell: Cell, param: Param) -> str:
    given = cell.graph.init_of(param)
    if isinstance(given, tuple):
        return "uniform in [{:g}, {:g}]".format(*given)
    if isinstance(given, str):
        return given
    if callable(given):
        return "a rule of its own"
    if given is not None:
        return f"{given:g}"
    if not param.is_matrix:
        return "0"
    return "orthogonal" if meets_state(param, cell) else "glorot"
