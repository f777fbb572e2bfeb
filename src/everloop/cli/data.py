"""The verbs for named datasets: list them, fetch one, write one as a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from everloop.cli._app import app
from everloop.cli._console import output, say, writing

datasets_app = typer.Typer(help="Real data by name: list them, fetch one, write one as a file.")


app.add_typer(datasets_app, name="datasets")


@datasets_app.callback(invoke_without_command=True)
def datasets(context: typer.Context) -> None:
    """List real data: what comes inside packages, and what can be fetched."""
    from everloop.data import datasets as known

    if context.invoked_subcommand is not None:
        return
    table = Table("name", "task", "rows", "what", "licence", "here", box=None, header_style="bold")
    for dataset in known.datasets():
        here = "yes" if dataset.installed else dataset.needs
        table.add_row(dataset.name, dataset.task, f"{dataset.rows:,}", dataset.what, dataset.licence, escape(here))
    output().print(table)


@datasets_app.command("get")
def get_dataset(
    name: Annotated[str, typer.Argument(help="As `everloop datasets` lists it.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to put it in. Default: a cache, where training finds it.")
    ] = None,
) -> None:
    """Fetch a dataset, check its sum, and say what to do with it."""
    from everloop.data import datasets as known

    known.get(name).get(out, say)


@datasets_app.command("write")
def write_dataset(
    name: Annotated[str, typer.Argument(help="As `everloop datasets` lists it.")],
    out: Annotated[Path, typer.Option("--out", help="CSV file to write, or text for a single text.")],
) -> None:
    """Write a dataset of texts as a file."""
    from everloop.data import datasets as known

    examples = known.get(name).read()
    if examples.modality != "text":
        raise ValueError(
            f"{name} is {examples.modality}, which is no table of texts; everloop datasets get {name} --out"
        )
    with writing(out) as file:
        if examples.targets is None:
            file.write("\n".join(examples.inputs))
        else:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("text", "label"), *zip(examples.inputs, examples.targets, strict=True)])
    say(f"{len(examples.inputs):,} examples in {out}")
