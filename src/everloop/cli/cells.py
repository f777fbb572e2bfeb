"""The verbs for cells: show one, list all, measure their speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from everloop.cli._app import app
from everloop.cli._console import fail, output


@app.command()
def show(
    cell: Annotated[
        str, typer.Argument(help="Name of a cell (`everloop cells` lists them), or a file my_cell.py with one.")
    ],
    form: Annotated[
        Literal[
            "text",
            "latex",
            "backward",
            "backward-latex",
            "plan",
            "numpy",
            "torch",
            "llvm",
            "triton",
            "diagram",
            "unrolled",
        ],
        typer.Option(
            "--as",
            help="Equations; their gradient (back-propagation through time); the schedule and its cost; a program in "
            "NumPy (forward and backward) or torch; the CPU kernel, before it is compiled; the GPU kernel; an SVG of "
            "the step, or of the network over time.",
        ),
    ] = "text",
    input: Annotated[int, typer.Option(help="Input features, for the cost of a plan and the kernel.")] = 128,
    hidden: Annotated[int, typer.Option(help="Units, for the cost of a plan and the kernel.")] = 128,
    steps: Annotated[int, typer.Option(help="Steps of the unrolled network.")] = 4,
    layers: Annotated[int, typer.Option(help="Layers of the unrolled network.")] = 1,
    bidirectional: Annotated[bool, typer.Option("--bidirectional", help="Unrolled in both directions.")] = False,
) -> None:
    """Show a cell: its equations, the derived backward equations, what runs when, a program, or a picture."""
    from everloop import cells
    from everloop.compiler.ahead import plan_ahead
    from everloop.compiler.cost import usual_sizes
    from everloop.compiler.describe import describe
    from everloop.export import diagram, formula, numpy_source, torch_source

    found = cells.get(cell)
    try:
        graph = found.graph
    except AttributeError as error:  # a member that the cell in a file does not have
        raise ValueError(str(error)) from error
    match form:
        case "text":
            lines = [f"{found.name}: {found.source}", "", *formula.forward(graph), "", found.doc]
        case "latex":
            lines = formula.aligned(formula.forward(graph, formula.LATEX))
        case "backward":
            lines = formula.backward(graph)
        case "backward-latex":
            lines = formula.aligned(formula.backward(graph, formula.LATEX))
        case "plan":
            lines = [describe(plan_ahead(graph), usual_sizes(graph, input, hidden))]
        case "numpy":
            lines = [numpy_source.source(found)]
        case "torch":
            lines = [torch_source.source(found)]
        case "llvm":
            from everloop.backends.llvm.engine import source

            lines = [source(graph, usual_sizes(graph, input, hidden))]
        case "triton":
            from everloop.backends.triton.kernel import source

            lines = [source(graph, usual_sizes(graph, input, hidden))]
        case "diagram":
            lines = [diagram.step(graph)]
        case "unrolled":
            lines = [diagram.unrolled(graph, steps, layers, bidirectional)]
    print("\n".join(line.rstrip("\n") for line in lines))


@app.command()
def cells(
    input: Annotated[int, typer.Option(help="Input features to count parameters for.")] = 128,
    hidden: Annotated[int, typer.Option(help="Units to count parameters for.")] = 128,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recurrent cells: what kind of loop, how many parameters, when to use which."""
    from everloop import cells as catalogue
    from everloop.compiler.ahead import plan_ahead
    from everloop.compiler.cost import parameters, usual_sizes

    rows = []
    for name in catalogue.names():
        found = catalogue.get(name)
        lengths = usual_sizes(found.graph, input, hidden)
        rows.append(
            {
                "cell": name,
                "kind": plan_ahead(found.graph).kind,
                "states": " ".join(found.graph.states),
                "parameters": parameters(found.graph, lengths),
                "year": found.year,
                "when": found.when,
                "source": found.source,
            }
        )
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table("cell", "kind", "parameters", "year", "when to use it", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["cell"], row["kind"], f"{row['parameters']:,}", str(row["year"] or ""), escape(row["when"]))
    table.columns[2].justify = "right"
    output().print(table)


@app.command()
def bench(
    classes: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="step, sequence, cells, scan, ragged, memory, compile, contention; several with commas. Default: all.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(help="Numbers of threads, with commas. Default: 1,2.", show_default=False),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Rounds of a row at most; large problems get fewer.", min=1)] = 25,
    quick: Annotated[bool, typer.Option("--quick", help="A few small shapes: does it all work?")] = False,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write everything to this file too.", show_default=False)
    ] = None,
    cell: Annotated[str | None, typer.Option(help="Only this cell.", show_default=False)] = None,
) -> None:
    """Measure speed and memory beside torch, onnxruntime, jax and loops in Python, and against what was promised."""
    from everloop.bench import suite
    from everloop.bench.options import Options

    names, counts = suite.checked_classes(classes), suite.checked_threads(threads)
    options = Options(repeats=repeats, quick=quick, cell=cell)
    if not suite.run(names, counts, options, as_json, output()):
        fail("not everybody computed the same; see above", 1)
