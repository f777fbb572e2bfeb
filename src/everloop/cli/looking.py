"""The verbs for looking inside: inspect, demonstrate, lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from everloop.cli._app import app
from everloop.cli._console import output, say
from everloop.cli._flags import setting


@app.command(
    epilog='For example: [bold]everloop inspect runs/reviews-classifier-1 "A warm and clever film."[/]; '
    "[bold]everloop inspect runs/speech-1 call.wav --language zh --out call.html[/]"
)
def inspect(
    run: Annotated[Path, typer.Argument(help="Run folder of a trained model.")],
    input: Annotated[str, typer.Argument(help="A text, or a file with one input: a recording, a picture, a table ...")],
    target: Annotated[str | None, typer.Option(help="What is right: gradients are then those of the loss.")] = None,
    at: Annotated[
        int | None,
        typer.Option(help="Whose answer is asked, from 0: of a tagger the word, of a forecaster the step ahead, ..."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page; .png or .svg: the figure. Default: inspect.html in the run.")
    ] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Of the page.")] = "en",
) -> None:
    """Why the model says that: one page with its states and gates, what its answer rests on, gradients through time."""
    from everloop.inspecting import inspect_run

    say(f"the page is {inspect_run(run, input, target, out, at, language, say)}")


@app.command()
def demonstrate(
    name: Annotated[
        str | None, typer.Argument(help="order, vanishing, exploding, clipping or carrying; all are listed without.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The figure to draw: .png or .svg.")] = None,
    theme: Annotated[
        Literal["auto", "light", "dark"], typer.Option(help="Of the figure; auto: an SVG that follows the page.")
    ] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of it, such as seed=1.")
    ] = None,
) -> None:
    """What every course on recurrent networks tells, seen on real ones: who minds the order, why gradients vanish or
    explode, what clipping does, which cells carry.
    """
    from everloop.insight import demonstrations

    if name is None:
        for known, about in demonstrations.NAMES.items():
            output().print(f"[bold]{known:12}[/]{about}")
        return
    found = demonstrations.demonstrate(name, out, dict(setting(text) for text in settings or []), theme=theme)
    output().print(found.summary, markup=False)
    if found.path is not None:
        say(f"the figure is {found.path}")


@app.command()
def lab(
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65_535)] = 8888,
    runs: Annotated[Path, typer.Option(help="Folder of the run folders that can be opened there.")] = Path("runs"),
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
) -> None:
    """A page on this machine: watch networks think and learn, race cells, write one, talk to a model."""
    from everloop.lab import serve_lab

    serve_lab(port, open_browser=browser, runs=runs)
