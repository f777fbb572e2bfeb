"""A cell as a picture: one step of it, or the network unrolled over time. SVG text, nothing but the standard library.

Both are derived from the traced step, so that any cell has them. What runs before, in and after the loop differs in
colour and in outline.
"""

from __future__ import annotations

from dataclasses import replace

from everloop.compiler.ahead import ahead
from everloop.export import _svg, _unrolled
from everloop.export._flow import Block, Flow, Part, read
from everloop.export._geometry import HEAD, TEXT, Label, Layout, Placed, Rect, text_width
from everloop.export._layout import MARGIN, place
from everloop.export._words import Line, Run, broken, say, symbol
from everloop.lang.expr import toposort
from everloop.lang.graph import Graph
from everloop.lang.param import write_matrix

TITLE = 30
PARTS: dict[Part, str] = {
    "before": "before the loop: all steps at once",
    "loop": "in the loop: step by step",
    "after": "after the loop: all steps at once",
}
ORDERED = ("÷", ">", "≥")
NARROW = 560
"""A legend is no narrower than this, however narrow the diagram is."""


def step(graph: Graph) -> str:
    """The data flow of one step: states from left to right, the input from below, the output at the top."""
    said = (
        f"Data flow of one step. States enter at the left and leave at the right: {', '.join(graph.states)}. "
        f"Inputs enter from below: {', '.join(graph.inputs)}. The output leaves at the top."
    )
    return _svg.write(step_layout(graph), f"{graph.name}: one step", said)


def unrolled(graph: Graph, steps: int = 4, layers: int = 1, bidirectional: bool = False) -> str:
    """The network over `steps` time steps: a box for each step and layer, and for each direction if there are two."""
    both = ", in both directions" if bidirectional else ""
    said = (
        f"The network unrolled over {steps} steps, {layers} deep{both}. "
        f"States go from step to step: {', '.join(graph.states)}. Inputs enter from below, outputs leave at the top."
    )
    title = f"{graph.name}: {steps} steps"
    return _svg.write(unrolled_layout(graph, steps, layers, bidirectional), title, said)


def step_layout(graph: Graph) -> Layout:
    """Where everything in the picture of a step lies."""
    flow = read(graph)
    return _framed(place(flow.blocks, TITLE), (Run(graph.name), Run(": one step")), _notes(graph, flow))


def unrolled_layout(graph: Graph, steps: int = 4, layers: int = 1, bidirectional: bool = False) -> Layout:
    """Where everything in the picture of an unrolled network lies."""
    for name, number in (("steps", steps), ("layers", layers)):
        if number < 1:
            raise ValueError(f"{name}: {number} came; an unrolled network has at least 1")
    layout = _unrolled.place(graph, steps, layers, bidirectional, TITLE)
    return _framed(layout, (Run(graph.name), Run(f": {steps} steps")), _row_notes(graph, layers, bidirectional))


Note = tuple[Block | None, Line]
"""An entry of the legend: a swatch, perhaps, and what it means."""


def _notes(graph: Graph, flow: Flow) -> list[Note]:
    blocks = flow.blocks
    parts = {block.part for block in blocks}
    notes: list[Note] = [(Block("swatch", part, ()), say(text)) for part, text in PARTS.items() if part in parts]
    if any(run.free for block in blocks for line in block.lines for run in line):
        notes.append((None, (Run("in blue", free=True), Run(" inside a formula: before the loop, too"))))
    signs = [block.lines[0][0].text for block in blocks if block.shape == "dot"]
    notes += [(None, say(f"{sign} takes its second value from below")) for sign in ORDERED if sign in signs]
    for name in ahead(graph).values:
        notes.append((None, (*symbol(name), *say(" needs no past: it is known before the loop"))))
    notes += [(None, line) for line in flow.given]
    return notes + _input_notes(graph) + _matrix_notes(graph)


def _row_notes(graph: Graph, layers: int, bidirectional: bool) -> list[Note]:
    notes: list[Note] = [(None, say("the boxes of one row are the same cell, with the same parameters"))]
    if layers > 1:
        side = [name for name in graph.inputs if name != "x"]
        notes += [(None, (*symbol(name), *say(" goes into every layer"))) for name in side]
    if bidirectional:
        notes.append((None, say("concat: the outputs of both directions side by side")))
    return notes + _input_notes(graph)


def _input_notes(graph: Graph) -> list[Note]:
    return [(None, (*symbol(name), *say(": drawn at random in training"))) for name in graph.draws]


def _matrix_notes(graph: Graph) -> list[Note]:
    """Matrices that are made of others, where their name does not say of which."""
    notes: list[Note] = []
    for name, param in graph.params.items():
        if param.made is None:
            continue
        leaves = [str(leaf.attr).partition(".")[0] for leaf in toposort([param.made]) if leaf.op == "matrix"]
        if not leaves or any(family not in param.family for family in leaves):
            lines = broken(write_matrix(param.made))
            notes.append((None, (*symbol(name), *say(" = "), *lines[0])))
            notes += [(None, line) for line in lines[1:]]
    return notes


def _framed(layout: Layout, title: Line, notes: list[Note]) -> Layout:
    """With a title at the top and a legend at the bottom."""
    placed, labels = list(layout.blocks), list(layout.labels)
    labels.append(Label(title, Rect(MARGIN, MARGIN - 6, text_width(title, HEAD), 20), HEAD, "title"))
    width = max(layout.width, text_width(title, HEAD) + 2 * MARGIN)
    limit = max(layout.width, NARROW) - MARGIN
    x, y = float(MARGIN), layout.height - MARGIN + 14
    for swatch, text in notes:
        indent = 24 if swatch is not None else 0
        wide = text_width(text) + indent
        if x > MARGIN and x + wide > limit:
            x, y = float(MARGIN), y + 22
        if swatch is not None:
            placed.append(Placed(swatch, Rect(x, y, 18, 14)))
        labels.append(Label(text, Rect(x + indent, y - 1, text_width(text), 16), TEXT, "legend"))
        width = max(width, x + wide + MARGIN)
        x += wide + 22
    return replace(layout, width=width, height=y + 16 + MARGIN, blocks=tuple(placed), labels=tuple(labels))
