"""What the compiler finds in each cell of the catalogue, held in one table: table.txt.

    cell | kind | products before the loop | in each stage of the loop | after it | parameters, stack by stack

A product is written as the number of matrices stacked in it; + where it takes the sum that follows along. States that
need no past (delays of inputs) stand behind the kind. To accept a change, look at it and run
`EVERLOOP_WRITE_GOLDEN=1 pytest tests/cells/test_table.py`, which fails all the same.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from everloop import cells
from everloop.cells import get
from everloop.compiler.ahead import ahead, plan_ahead
from everloop.compiler.kernel import kernel_graph
from everloop.compiler.plan import Plan, Stage, plan
from everloop.lang.graph import Graph

GOLDEN = Path(__file__).parent / "table.txt"


def row(name: str) -> str:
    graph = get(name).graph
    schedule = plan_ahead(graph)
    kind = f"{schedule.kind}{' '.join(('', *schedule.early))}"
    return " | ".join([f"{name:<20}", f"{kind:<10}", *map(products, parts(schedule)), stacks(graph)]).rstrip()


def parts(schedule: Plan) -> tuple[Sequence[Stage], ...]:
    return schedule.before, schedule.stages, schedule.after


def products(stages: Sequence[Stage]) -> str:
    found = [
        " ".join(f"{len(product.matrices)}{'+' if product.plus else ''}" for product in stage.products)
        for stage in stages
        if stage.products
    ]
    return f"{', '.join(found):<8}"


def stacks(graph: Graph) -> str:
    return " ".join(f"{stack}.{','.join(param.slot for param in members)}" for stack, members in graph.stacks.items())


def test_the_table() -> None:
    text = "\n".join(map(row, cells.names())) + "\n"
    if os.environ.get("EVERLOOP_WRITE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
        pytest.fail(f"{GOLDEN} written; look at it, then run without EVERLOOP_WRITE_GOLDEN")
    assert text.splitlines() == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_the_catalogue_has_every_kind() -> None:
    """Recurrent with one stage and with two and more, diagonal, scan."""
    found = Counter(kind_and_stages(plan_ahead(get(name).graph)) for name in cells.names())
    assert found["recurrent", 1] > 10
    assert found["recurrent", 2] > 10
    assert found["diagonal", 0] > 2
    assert found["scan", 0] > 5
    assert len(cells.names()) >= 50


def kind_and_stages(schedule: Plan) -> tuple[str, int]:
    return schedule.kind, sum(bool(stage.products) for stage in schedule.stages)


@pytest.mark.parametrize("name", cells.names())
def test_what_a_kernel_gets_runs_as_the_table_says(name: str) -> None:
    graph = get(name).graph
    schedule = plan_ahead(graph)
    found = plan(kernel_graph(ahead(graph).graph))
    assert found.kind == schedule.kind
    for ours, expected in zip(parts(found), parts(schedule), strict=True):
        assert products(ours) == products(expected)


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_says_where_it_comes_from_and_how_it_differs(name: str) -> None:
    cell = get(name)
    assert cell.name == name
    assert str(cell.year) in cell.source or cell.year in (1997, 2000)
    assert 1980 < cell.year < 2030
    assert "Beware: " in cell.doc
    assert cell.when
    assert len(cell.when) < 120
    for other in ("torch", "Keras", "ONNX"):
        assert other in cell.doc


def test_a_cell_is_given_back_as_it_is() -> None:
    lstm = get("lstm")
    assert get(lstm) is lstm


def test_an_unknown_cell_is_named_with_its_neighbours() -> None:
    with pytest.raises(ValueError, match=r"no cell is named 'lsmt'; did you mean lstm"):
        get("lsmt")
    with pytest.raises(TypeError, match="a cell is a name or what @cell makes of a function, not a int"):
        get(3)  # type: ignore[arg-type]
