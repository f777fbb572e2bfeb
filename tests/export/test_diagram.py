"""Diagrams: nothing overlaps, every wire can be followed, and what is drawn is what the step computes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop import cells
from everloop.export import _svg, diagram
from everloop.export._flow import Block, read
from everloop.export._geometry import Layout, Rect, text_width
from everloop.export._words import greek, plain, say
from everloop.lang import functions as f
from everloop.lang.cell import Cell, cell
from everloop.lang.expr import toposort
from everloop.lang.graph import Graph
from everloop.lang.transforms import layer_norm, residual, zoneout

SVG = "{http://www.w3.org/2000/svg}"
ENDS = ("old", "new", "input", "output")


@cache
def laid_out(name: str) -> Layout:
    return diagram.step_layout(cells.get(name).graph)


def inner(rect: Rect) -> Rect:
    """Without its border, at which wires end."""
    return Rect(rect.x + 1, rect.y + 1, rect.width - 2, rect.height - 2)


def pieces(layout: Layout) -> list[tuple[int, Rect]]:
    """Every straight piece of a wire, as a rectangle without width, with the source of its value."""
    found: dict[tuple[int, Rect], None] = {}
    for edge in layout.edges:
        for (ax, ay), (bx, by) in pairwise(edge.points):
            assert ax == bx or ay == by, "a wire runs across or down"
            found[id(edge.source), Rect(min(ax, bx), min(ay, by), abs(ax - bx), abs(ay - by))] = None
    return list(found)


def on_each_other(a: Rect, b: Rect) -> bool:
    """Whether two straight pieces share more than a point."""
    across = min(a.right, b.right) - max(a.x, b.x)
    down = min(a.bottom, b.bottom) - max(a.y, b.y)
    flat, steep = a.height == b.height == 0, a.width == b.width == 0
    return (flat and down == 0 and across > 0.5) or (steep and across == 0 and down > 0.5)


def check_geometry(layout: Layout) -> None:
    boxes = [placed.rect for placed in layout.blocks]
    labels = [label.rect for label in layout.labels]
    wires = pieces(layout)
    for a, b in combinations([*boxes, *labels], 2):
        assert not a.meets(b), f"{a} and {b} overlap"
    for _, piece in wires:
        for box in [*map(inner, boxes), *labels]:
            assert not piece.meets(box), f"the wire {piece} runs through {box}"
    for (net, a), (other, b) in combinations(wires, 2):
        assert net == other or not on_each_other(a, b), f"{a} and {b} run on each other"
    page = Rect(0, 0, layout.width, layout.height)
    for rect in [*boxes, *labels, *layout.frames, *(piece for _, piece in wires)]:
        assert page.holds(rect), f"{rect} lies outside of {page}"
    at = {id(placed.block): placed.rect for placed in layout.blocks}
    for edge in layout.edges:
        for block, (x, y) in ((edge.source, edge.points[0]), (edge.target, edge.points[-1])):
            rect = at[id(block)]
            assert rect.x <= x <= rect.right
            assert rect.y <= y <= rect.bottom
    for placed in layout.blocks:
        for line in placed.block.lines:
            assert text_width(line) <= placed.rect.width + 0.01, f"{plain(line)} is wider than its block"


def check_flow(graph: Graph, layout: Layout) -> None:
    """What each new state and output is drawn to be made of is what it is made of."""
    blocks = [placed.block for placed in layout.blocks]
    ends = {shape: [block for block in blocks if block.shape == shape] for shape in ENDS}
    leaves = dict(zip([*graph.states.values(), *graph.inputs.values()], [*ends["old"], *ends["input"]], strict=True))
    assert len(leaves) == len(graph.states) + len(graph.inputs)
    drawn = [*zip(graph.new.values(), ends["new"], strict=True)]
    drawn += zip(dict.fromkeys(graph.outputs.values()), ends["output"], strict=True)
    for node, block in drawn:
        needs = {id(leaves[leaf]) for leaf in toposort([node]) if leaf in leaves}
        assert {id(end) for end in below(block) if end.shape in ENDS[::2]} == needs
    wires = {(id(wire.source), id(block)) for block in blocks for wire in block.wires}
    assert wires == {(id(edge.source), id(edge.target)) for edge in layout.edges}


def below(block: Block) -> Iterable[Block]:
    seen: dict[int, Block] = {}
    waiting = [wire.source for wire in block.wires]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            waiting += [wire.source for wire in one.wires]
    return seen.values()


def words(layout: Layout) -> str:
    lines = [line for placed in layout.blocks for line in placed.block.lines]
    return "\n".join(plain(line) for line in [*lines, *(label.line for label in layout.labels)])


def parsed(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "path", "circle", "text", "tspan"}
    assert {"title", "desc", "style"} <= tags
    assert all("href" not in name for element in root.iter() for name in element.attrib)
    assert not any(word in svg for word in ("url(", "@import", "nan", 'inf"'))
    return root


@pytest.mark.parametrize("name", cells.names())
def test_a_step_can_be_read(name: str) -> None:
    check_geometry(laid_out(name))


@pytest.mark.parametrize("name", cells.names())
def test_a_step_is_drawn_as_it_is(name: str) -> None:
    check_flow(cells.get(name).graph, laid_out(name))


@pytest.mark.parametrize("name", cells.names())
def test_everything_of_a_cell_is_named(name: str) -> None:
    graph = cells.get(name).graph
    text = words(laid_out(name))
    for param in graph.held.values():
        assert greek(param.family) in text
    for shape, names in (("old", graph.states), ("new", graph.states), ("input", graph.inputs)):
        drawn = [placed.block.text for placed in laid_out(name).blocks if placed.block.shape == shape]
        assert len(drawn) == len(names)
        assert all(one.startswith(greek(of.partition("_")[0])) for one, of in zip(drawn, names, strict=True))


@pytest.mark.parametrize("name", cells.names())
def test_a_step_is_valid_svg(name: str) -> None:
    layout = laid_out(name)
    root = parsed(_svg.write(layout, name, f"One step of {name}."))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert (width, height) == (round(layout.width, 1), round(layout.height, 1))
    assert len(root.findall(f"{SVG}text")) == words(layout).count("\n") + 1


def test_a_picture_says_what_it_shows() -> None:
    root = parsed(diagram.step(cells.get("lstm").graph))
    assert root.attrib["role"] == "img"
    assert [root.findtext(f"{SVG}{tag}") for tag in ("title", "desc")] == [
        "lstm: one step",
        "Data flow of one step. States enter at the left and leave at the right: h, c. "
        "Inputs enter from below: x. The output leaves at the top.",
    ]


@pytest.mark.parametrize("both", [False, True], ids=["forwards", "both"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", ["elman", "projection_lstm", "slstm", "phased_lstm", "qrnn"])
def test_an_unrolled_network_can_be_read(name: str, layers: int, both: bool) -> None:
    graph = cells.get(name).graph
    layout = diagram.unrolled_layout(graph, 3, layers, both)
    check_geometry(layout)
    parsed(diagram.unrolled(graph, 3, layers, both))
    shapes = [placed.block.shape for placed in layout.blocks]
    rows = layers * (2 if both else 1)
    assert shapes.count("cell") == 3 * rows
    assert shapes.count("old") == shapes.count("new") == rows * len(graph.states)
    assert shapes.count("input") == shapes.count("output") == 3
    named = [plain(label.line) for label in layout.labels if label.role == "name"]
    assert len(named) == 2 * rows * len(graph.states)


def test_states_go_from_step_to_step_and_backwards_in_the_other_direction() -> None:
    layout = diagram.unrolled_layout(cells.get("lstm").graph, 3, 1, True)
    at = {id(placed.block): placed.rect for placed in layout.blocks}
    between = [edge for edge in layout.edges if edge.source.shape == edge.target.shape == "cell"]
    forwards = [edge for edge in between if at[id(edge.source)].x < at[id(edge.target)].x]
    assert len(forwards) == len(between) - len(forwards) == 2 * 2
    lower, upper = (at[id(edges[0].source)].y for edges in (forwards, [e for e in between if e not in forwards]))
    assert lower > upper
    ends = [placed.block.text for placed in layout.blocks if placed.block.shape in ("old", "new")]
    assert ends == ["h0", "h3", "c0", "c3", "h4", "h1", "c4", "c1"]


@pytest.mark.parametrize(("steps", "layers"), [(0, 1), (4, 0)])
def test_there_is_no_network_of_nothing(steps: int, layers: int) -> None:
    with pytest.raises(ValueError, match="0 came; an unrolled network has at least 1"):
        diagram.unrolled(cells.get("lstm").graph, steps, layers)


def test_an_lstm_is_the_picture_of_the_textbook() -> None:
    blocks = [block for block in read(cells.get("lstm").graph).blocks if block.shape not in ENDS]
    assert sorted(block.text for block in blocks) == sorted(
        [
            "σ Wf xt + Uf ht−1 + bf",
            "σ Wi xt + Ui ht−1 + bi",
            "tanh Wg xt + Ug ht−1 + bg",
            "σ Wo xt + Uo ht−1 + bo",
            *("×", "×", "+", "tanh", "×"),
        ]
    )
    assert {plain(block.name) for block in blocks} == {"", "i", "f", "g", "o", "ct"}


def test_what_runs_when_is_told_apart() -> None:
    def parts(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for block in read(cells.get(name).graph).blocks:
            found.setdefault(block.part, set()).add(block.lines[0][0].text)
        return found

    assert parts("mingru")["loop"] == {"×", "+"}
    assert {"σ", "1"} & parts("mingru")["before"]
    assert "before" not in parts("elman")
    assert "after" not in parts("lstm")
    # The gates of a qrnn read the input of the step before: a state, but one that is known before the loop.
    assert "σ" in parts("qrnn")["before"]
    assert parts("qrnn")["loop"] == {"×", "+"}
    assert parts("qrnn")["after"] == {"×"}
    free = [
        run.text for block in read(cells.get("lstm").graph).blocks for line in block.lines for run in line if run.free
    ]
    assert {"W", "x", "b"} <= set(free)
    assert not {"U", "h"} & set(free)


def test_functions_are_one_block() -> None:
    @cell(states="h", gates="a b c")
    def made(x, h, W, U, b):
        u = U @ h
        soft = f.softplus(W.a @ x) * f.logsigmoid(h) * f.softmax(u.b)
        return f.norm(u).a * soft + f.where(h > 0, f.mean(h), 0.5) * f.maximum(h, f.cumsum(u.c))

    graph = made.graph
    layout = diagram.step_layout(graph)
    check_geometry(layout)
    check_flow(graph, layout)
    heads = {placed.block.lines[0][0].text for placed in layout.blocks if placed.block.headed}
    assert heads == {"softplus", "softplus(−·)", "softmax", "norm", "mean", "cumsum"}
    assert any(placed.block.shape == "rows" for placed in layout.blocks)


def test_only_names_that_stand_in_the_diagram_are_mentioned() -> None:
    @cell(states="h", gates="a b")
    def made(x, h, W, U):
        inner = W.a @ x + U.a @ h
        kept = f.sigmoid(W.b @ x)
        return U.b @ (f.tanh(inner) * h) + U.b @ (kept * h)

    text = words(diagram.step_layout(made.graph))
    assert "Ub · + Ub (kept ⊙ ht−1)" in text
    assert "inner" not in text


def test_signs_and_order_are_told() -> None:
    @cell(states="h c", gates="h")
    def made(x, h, c, W):
        p = W.h @ x
        return p * h - c, (h - 1) / (2 - c)

    layout = diagram.step_layout(made.graph)
    check_geometry(layout)
    marks = [label for label in layout.labels if label.role == "mark"]
    assert [plain(label.line) for label in marks] == ["−"]
    (divided,) = [placed.block for placed in layout.blocks if placed.block.text == "÷"]
    assert [(wire.source.text, wire.below) for wire in divided.wires] == [("− 1", False), ("2 −", True)]
    assert "÷ takes its second value from below" in words(layout)


def test_odd_names_are_escaped() -> None:
    plain_graph = cells.get("gru").graph
    odd = Graph(
        '<b>&"\x00',
        plain_graph.inputs,
        plain_graph.states,
        plain_graph.params,
        plain_graph.new,
        plain_graph.outputs,
        plain_graph.start,
        {node: f"<{name}>&" for node, name in plain_graph.names.items()},
    )
    for svg in (diagram.step(odd), diagram.unrolled(odd)):
        texts = ["".join(element.itertext()) for element in parsed(svg).iter()]
        assert any(text.startswith('<b>&"') for text in texts)


def test_names_in_any_script_fit() -> None:
    @cell(states="状态 ß_long_name:größe", gates="ворота lambda_1")
    def ячейка(x, 状态, ß_long_name, W, U, b):
        a = W @ x + U @ 状态 + b
        选择 = f.sigmoid(a.ворота)
        return 选择 * 状态 + f.tanh(a.lambda_1), ß_long_name + f.total(选择)

    graph = ячейка.graph
    layout = diagram.step_layout(graph)
    check_geometry(layout)
    check_flow(graph, layout)
    check_geometry(diagram.unrolled_layout(graph, 3, 2, True))
    parsed(diagram.step(graph))
    assert {"状态", "选择", "ворота"} <= {
        run.text for p in layout.blocks for line in [*p.block.lines, p.block.name] for run in line
    }


def test_a_wide_script_takes_more_room() -> None:
    assert text_width(say("状态")) > text_width(say("ab"))
    assert text_width(say("WM")) > text_width(say("il"))


def test_states_may_cross_rest_and_be_delayed() -> None:
    @cell(states="h c d e", gates="h")
    def made(x, h, c, d, e, W, b):
        return c, h, d, b.h + 0 * e

    graph = made.graph
    layout = diagram.step_layout(graph)
    check_geometry(layout)
    check_flow(graph, layout)

    @cell(states="h", gates="h", inputs="gap")
    def delayed(x, h, gap, W):
        return W.h @ f.shift(x, 3) + h / gap

    layout = diagram.step_layout(delayed.graph)
    check_geometry(layout)
    check_flow(delayed.graph, layout)


def test_matrices_that_are_made_of_others_are_explained() -> None:
    @cell(states="h", gates="h")
    def made(x, h, W, U):
        mask = f.fixed(lambda i, j: f.where(f.floor(i * 3 / 2) > f.floor(j * 5 / 2), 0.25, 0.125))
        return f.tanh(W.h @ x + (U.h * mask) @ h)

    assert "U.h * where(" in words(diagram.step_layout(made.graph))


@pytest.mark.parametrize("changed", [zoneout(cells.get("lstm"), h=0.1, c=0.5), residual(layer_norm(cells.get("gru")))])
def test_a_changed_cell_is_drawn_as_it_is(changed: Cell) -> None:
    graph = changed.graph
    layout = diagram.step_layout(graph)
    check_geometry(layout)
    check_flow(graph, layout)
    for name in graph.draws:
        assert f"{name.replace('_', '', 1)}: drawn at random in training" in words(layout)


def large(number: int) -> Cell:
    @cell(states="h c", gates="a b")
    def made(x, h, c, W, U):
        p, q = W.a @ x, U.b @ h
        for k in range(number // 4):
            p, q = f.tanh(p * q + h), (f.sigmoid(q) - p if k % 3 else f.maximum(q, c))
        return p, q

    return made


def test_a_step_of_200_operations_can_be_read() -> None:
    graph = large(200).graph
    assert len(graph.nodes) > 190
    layout = diagram.step_layout(graph)
    check_geometry(layout)
    check_flow(graph, layout)
    parsed(diagram.step(graph))


def test_a_step_of_a_thousand_operations_in_a_row_is_drawn() -> None:
    @cell(states="h", gates="h")
    def made(x, h, W):
        for k in range(500):
            h = f.tanh(h) if k % 2 else f.sigmoid(h) + 0.5
        return W.h @ x + h

    parsed(diagram.step(made.graph))


OPERATIONS = {
    "add": lambda a, b, c: a + b,
    "sub": lambda a, b, c: a - b,
    "mul": lambda a, b, c: a * b,
    "div": lambda a, b, c: a / b,
    "neg": lambda a, b, c: -a,
    "tanh": lambda a, b, c: f.tanh(a),
    "relu": lambda a, b, c: f.relu(a),
    "softplus": lambda a, b, c: f.softplus(-a),
    "maximum": lambda a, b, c: f.maximum(a, b),
    "gt": lambda a, b, c: a > b,
    "where": lambda a, b, c: f.where(a > 0.1, b, c),
    "half": lambda a, b, c: a / 2,
    "one minus": lambda a, b, c: 1 - a,
    "shifted": lambda a, b, c: a + 0.5,
    "mean": lambda a, b, c: f.mean(a * c) * b,
    "norm": lambda a, b, c: f.norm(a * c),
}
PROGRAMS = st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), *[st.integers(0, 30)] * 3), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(PROGRAMS)
def test_any_step_can_be_read_and_is_drawn_as_it_is(program: list[tuple[str, int, int, int]]) -> None:
    @cell(states="h c", gates="a b")
    def made(x, h, c, W, U, u):
        values = [W.a @ x + u.a, W.b @ x, U.a @ h, h, c, u.a + 0 * h, u.b * h + c]
        h + u.a + W.a @ x + W.b @ x + U.a @ h  # one size for all
        for name, *places in program:
            values.append(OPERATIONS[name](*(values[place % len(values)] for place in places)) + 0 * h)
        return values[-1], values[-2] + U.b @ c

    graph = made.graph
    layout = diagram.step_layout(graph)
    check_geometry(layout)
    check_flow(graph, layout)


def test_a_diagram_is_the_same_in_every_process() -> None:
    program = (
        "from everloop import cells\nfrom everloop.export import diagram\n"
        "for name in ('lstm', 'slstm', 'hgrn', 'qrnn'):\n"
        "    graph = cells.get(name).graph\n"
        "    print(diagram.step(graph), diagram.unrolled(graph, 3, 2, True))\n"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(texts[0]) > 1000
    assert texts[0] == texts[1]
