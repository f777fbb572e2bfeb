"""What the compiler finds in each cell of the catalogue, as a table."""

from __future__ import annotations

import pytest

from everloop import cells
from everloop.cells import get
from everloop.compiler.plan import plan

# cell: kind | matrices of each product before the loop | in each stage of the loop | parameters, stack by stack.
# Sums that a product takes along are marked +.
TABLE = """
elman            recurrent | 1+ | 1+      | W.h U.h b.h
gru              recurrent | 3+ | 3+      | W.rzn b.rzn U.rzn d.rzn
gru_before       recurrent | 3+ | 2+ 1+   | W.rzn U.rzn b.rzn
indrnn           diagonal  | 1+ |         | W.h u.h b.h
layernorm_lstm   recurrent | 4  | 4       | W.ifgo s.ifgo U.ifgo t.ifgoc b.ifgoc
lstm             recurrent | 4+ | 4+      | W.ifgo U.ifgo b.ifgo
mingru           scan      | 2+ |         | W.zn b.zn
peephole_lstm    recurrent | 4+ | 4+      | W.ifgo U.ifgo b.ifgo p.ifo
projection_lstm  recurrent | 4+ | 4+ 1    | W.ifgo U.ifgo b.ifgo P.h
slstm            recurrent | 4+ | 4+      | W.ifzo U.ifzo b.ifzo
"""
ROWS = {line.split()[0]: line.split(maxsplit=1)[1] for line in TABLE.strip().splitlines()}


@pytest.mark.parametrize("name", ROWS)
def test_kind_products_and_parameters(name: str) -> None:
    schedule = plan(get(name).graph)
    before, loop, after = (
        " ".join(
            f"{len(product.matrices)}{'+' if product.plus else ''}" for stage in stages for product in stage.products
        )
        for stages in (schedule.before, schedule.stages, schedule.after)
    )
    stacks = " ".join(
        f"{stack}.{''.join(param.slot for param in members)}" for stack, members in schedule.graph.stacks.items()
    )
    assert [part.strip() for part in ROWS[name].split("|")] == [schedule.kind, before, loop, stacks]
    assert after == ""


def test_the_table_has_every_cell() -> None:
    assert tuple(ROWS) == cells.names()


@pytest.mark.parametrize("name", cells.names())
def test_every_cell_says_where_it_comes_from_and_how_it_differs(name: str) -> None:
    cell = get(name)
    assert cell.name == name
    assert any(letters.isdigit() for letters in cell.source.replace(",", " ").split())
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
