"""Write a cell: what follows from a text, or where it is wrong. The text is read by `read_cell` and never run."""

from __future__ import annotations

import re
from typing import Any

from everloop.lab.session import Answer, Asked, Request
from everloop.lab.training import typed_cell
from everloop.lang.cell import Cell

# Inputs and units that costs are given for.
INPUT, HIDDEN = 64, 64


class Check(Asked):
    text: str


class Writing:
    """The panel."""

    def __init__(self) -> None:
        self.requests = {"cell.check": Request(Check, self.check)}

    def check(self, asked: Check) -> Answer:
        try:
            cell = typed_cell(asked.text)
        except (ValueError, TypeError) as error:
            # Refused says where; what the trace finds wrong has the line in its words.
            return {"found": False, **mistake(error)}
        return {"found": True, "name": cell.name, **derived(cell)}


def derived(cell: Cell) -> dict[str, Any]:
    """What is made of the one definition."""
    from everloop.compiler.ahead import plan_ahead
    from everloop.compiler.cost import parameters, usual_sizes
    from everloop.compiler.describe import describe
    from everloop.export import diagram, formula

    graph = cell.graph
    plan, sizes = plan_ahead(graph), usual_sizes(graph, INPUT, HIDDEN)
    return {
        "latex": "\n".join(formula.aligned(formula.forward(graph, formula.LATEX))),
        "backward_latex": "\n".join(formula.aligned(formula.backward(graph, formula.LATEX))),
        "backward": "\n".join(formula.backward(graph)),
        "diagram": diagram.step(graph),
        "plan": describe(plan, sizes),
        "kind": plan.kind,
        "states": list(graph.states),
        "parameters": parameters(graph, sizes),
    }


def mistake(error: Exception) -> dict[str, Any]:
    """The message, its line from 1 and its column from 0, where they are known."""
    message = str(error)
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return {"message": message, "line": error.lineno, "column": (error.offset or 1) - 1}
    place = re.search(r"line (\d+)", message)
    return {"message": message, "line": int(place[1]) if place else None, "column": None}
