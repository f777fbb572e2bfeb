"""The verbs for trained models: evaluate, predict, generate."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from everloop.cli._app import app
from everloop.cli._console import output, say, writing
from everloop.cli._flags import (
    BadRows,
    Device,
    Encoding,
    Input,
    Known,
    Modality,
    Past,
    Series,
    Target,
    Time,
    Zone,
    data_flags,
    read_data,
)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of a trained model.")],
    file: Annotated[str, typer.Argument(help="Data of the same form as it was trained on.")],
    input: Input = None,
    target: Target = None,
    modality: Modality = None,
    time: Time = None,
    series: Series = None,
    known: Known = None,
    past: Past = None,
    zone: Zone = None,
    encoding: Encoding = None,
    bad_rows: BadRows = "stop",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Measure a trained model on other data."""
    how = data_flags(locals())
    from everloop.tasks import load
    from everloop.tasks.progress import results_table

    model = load(run, device)
    examples = read_data(model, file, how)
    metrics = model.evaluate_examples(examples)
    if as_json:
        print(json.dumps(metrics))
    else:
        output().print(results_table([(f"{run} on {examples.source}", metrics)]))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder of a trained model.")],
    texts: Annotated[
        list[str],
        typer.Argument(help="Texts, or one file: a table, plain text with one text a line, a recording, a picture ..."),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Write the predictions as CSV.")] = None,
    input: Input = None,
    target: Target = None,
    modality: Modality = None,
    time: Time = None,
    series: Series = None,
    known: Known = None,
    past: Past = None,
    zone: Zone = None,
    encoding: Encoding = None,
    bad_rows: BadRows = "stop",
    device: Device = "auto",
) -> None:
    """What a trained model makes of texts given here, or of every row of a file: classes, tags, a translation, a
    forecast, a transcript.
    """
    how = data_flags(locals())
    from everloop.tasks import load

    model = load(run, device)
    if not hasattr(model, "predictions"):  # as it is without torch
        raise ValueError(f"{run} is a {model.name}, which does not predict classes; try everloop generate {run}")
    examples = _inputs(model, texts, how)
    if out is None:
        _write_rows(model.predictions(examples), sys.stdout)
        return
    with writing(out) as file:
        rows = _write_rows(model.predictions(examples), file)
    say(f"{rows:,} predictions in {out}")


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(help="Run folder of a trained generator.")],
    prompt: Annotated[
        str,
        typer.Option("--prompt", "-p", help='What it begins with: a text; for music, "C4 E4 G4 | D4" or a MIDI file.'),
    ] = "",
    length: Annotated[
        int | None, typer.Option("--length", "-n", help="Pieces of text at most (500), or steps of music (64).")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Lower is safer, higher is wilder; 0 takes the most probable. Text 0.8, music 1."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Text: draw from the k most probable pieces only; 0: from all.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Text: draw from the fewest pieces that have this probability together.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the result repeatable.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Music: the MIDI file to write.")] = None,
    device: Device = "auto",
) -> None:
    """Write on: text, shown as it is produced, or music, into a MIDI file."""
    given = {"length": length, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    how = {name: value for name, value in given.items() if value is not None}
    from everloop.tasks import load

    model = load(run, device)
    if not hasattr(model, "generate"):
        raise ValueError(f"{run} is a {model.name}, which does not generate text; try everloop predict {run} TEXT")
    if model.codec_.modality == "notes":
        _compose(model, prompt, how, out)
        return
    if out is not None:
        raise ValueError(f"--out is for music; {run} writes text, which goes to standard output")
    pieces = model.stream(prompt, **how)
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _inputs(model: Any, texts: list[str], how: dict[str, Any]) -> Any:
    """What to predict from: the texts themselves, or the file or folder that they name."""
    from everloop.data.files import names_a_file

    if len(texts) > 1 or not names_a_file(texts[0]):
        how = {name: value for name, value in how.items() if name == "modality"}
        return read_data(model, texts, how, "no")
    examples = read_data(model, texts[0], how, "no")
    if examples.kind == "text":
        lines = [line for line in examples.inputs[0].splitlines() if line.strip()]
        say(f"{Path(texts[0])}: plain text, read as one text per line, {len(lines):,} of them")
        return read_data(model, lines, {}, "no")
    return examples


def _write_rows(rows: Iterator[dict[str, Any]], file: Any) -> int:
    """Row by row, so that what is done stays done if something happens."""
    count, writer = 0, None
    for count, row in enumerate(rows, start=1):
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
        if count % 64 == 0:
            file.flush()
    return count


def _compose(model: Any, prompt: str, how: dict[str, Any], out: Path | None) -> None:
    from everloop.data import notes

    if out is None:
        raise ValueError("this generator writes music: --out names the MIDI file")
    for name in ("top_k", "top_p"):
        if name in how:
            raise ValueError(f"--{name.replace('_', '-')} is for text; music has --temperature")
    if out.exists():
        raise FileExistsError(f"{out} exists; give another --out")
    piece = model.generate(prompt, **how)
    notes.save(piece, out)
    say(f"{piece.seconds:.0f} seconds of music in {out}")
