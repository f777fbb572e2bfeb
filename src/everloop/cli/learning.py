"""The verbs that train: train, tune, demo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from everloop.cli._app import app
from everloop.cli._console import fail, output, say
from everloop.cli._flags import (
    DATA,
    DATA_FLAGS,
    MODEL,
    RUN,
    TRAINING,
    Encoding,
    Group,
    Input,
    Known,
    Modality,
    Part,
    Past,
    Series,
    Target,
    Time,
    Zone,
    option,
    setting,
)


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
        option(
            "--task",
            "classifier, tagger, generator, forecaster, seq2seq or recognizer. Guessed from the data, and said, "
            "if not given.",
            RUN,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("--out", "Run folder to write. Default: runs/FILE-TASK-1, or the next free number.", RUN),
    ] = None,
    resume: Annotated[
        bool, option("--resume", "Go on with the run in --out, to the numbers of one never stopped.", RUN)
    ] = False,
    config: Annotated[
        Path | None,
        option("--config", "Take options from RUN/config.toml; those given here come first.", RUN),
    ] = None,
    seed: Annotated[int | None, option("--seed", "Of everything random. Default 0.", RUN)] = None,
    device: Annotated[str | None, option("--device", "auto, cpu, cuda, ... Default auto.", RUN)] = None,
    quiet: Annotated[bool, option("--quiet", "Only results and errors.", RUN)] = False,
    settings: Annotated[
        list[str] | None,
        option("--set", "NAME=VALUE: any other option of the task, by its Python name.", RUN),
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
        option("--bad-rows", "At a row that cannot be read: stop (default), or skip it.", DATA),
    ] = None,
    split: Annotated[
        str | None,
        option("--split", "random (default), or blocks of neighbouring rows (--set gap=N leaves rows between).", DATA),
    ] = None,
    duplicates: Annotated[
        str | None,
        option("--duplicates", "drop (default) texts that come again, before splitting, or keep them.", DATA),
    ] = None,
    unit: Annotated[
        str | None,
        option("--unit", "Read text as chars, words or subwords. Default auto: looks at the data.", DATA),
    ] = None,
    vocabulary: Annotated[
        int | None, option("--vocabulary", "Most different pieces of text known. Default 30,000.", DATA)
    ] = None,
    length: Annotated[
        int | None, option("--length", "Classifier: pieces of a text that are read at most.", DATA)
    ] = None,
    valid: Annotated[
        float | None,
        option("--valid", "Share kept for validation (early stopping). Default 0.1, of a long text 0.05.", DATA),
    ] = None,
    test: Annotated[float | None, option("--test", "Share kept for the final test. Default 0.1.", DATA)] = None,
    cell: Annotated[
        str | None,
        option(
            "--cell",
            "Recurrent cell (`everloop cells` lists them), or a file my_cell.py with one. Default lstm.",
            MODEL,
        ),
    ] = None,
    hidden: Annotated[int | None, option("--hidden", "Units of a recurrent layer.", MODEL)] = None,
    layers: Annotated[int | None, option("--layers", "Recurrent layers.", MODEL)] = None,
    bidirectional: Annotated[
        bool | None,
        typer.Option(
            "--bidirectional/--one-way",
            help="Classifier: read in both directions. Default: both.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    embedding: Annotated[int | None, option("--embedding", "Features of a piece of text.", MODEL)] = None,
    pooling: Annotated[
        str | None,
        option("--pooling", "Classifier: max+mean (default), max, mean or last output.", MODEL),
    ] = None,
    dropout: Annotated[float | None, option("--dropout", "Share of features set to zero in training.", MODEL)] = None,
    epochs: Annotated[
        int | None, option("--epochs", "Most passes over the training split. Default: enough for the data.", TRAINING)
    ] = None,
    batch: Annotated[
        int | None,
        option("--batch", "Sequences of a batch; for the generator, parallel streams.", TRAINING),
    ] = None,
    window: Annotated[
        int | None, option("--window", "Generator: steps of truncated back-propagation.", TRAINING)
    ] = None,
    lr: Annotated[float | None, option("--lr", "Highest learning rate of the schedule (AdamW).", TRAINING)] = None,
    weight_decay: Annotated[float | None, option("--weight-decay", "Of the matrices (AdamW).", TRAINING)] = None,
    schedule: Annotated[str | None, option("--schedule", "cosine, linear or constant.", TRAINING)] = None,
    warmup: Annotated[
        float | None, option("--warmup", "Share of all updates in which the rate rises.", TRAINING)
    ] = None,
    clip: Annotated[float | None, option("--clip", "Largest norm of a gradient; 0 does not clip.", TRAINING)] = None,
    averaging: Annotated[
        float | None,
        option("--averaging", "Decay of a running average of the weights; 0 takes the weights.", TRAINING),
    ] = None,
    patience: Annotated[
        int | None,
        option("--patience", "Stop after so many epochs without improvement; 0 never.", TRAINING),
    ] = None,
) -> None:
    """Train a recurrent network on a file of sequences, and measure it beside a baseline."""
    given = {name: value for name, value in locals().items() if value is not None}
    before = _before(config, out, resume)
    data = before.get("data", {}) | {k: v for k, v in given.items() if k in DATA_FLAGS}
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
    unknown = sorted(before.get("data", {}).keys() - {"source", *DATA_FLAGS})
    if unknown:
        raise ValueError(f"{config or out}: [data] has {unknown[0]!r}; expected source, {', '.join(DATA_FLAGS)}")
    return before


def _guess(source: str, how: dict[str, Any], quiet: bool) -> str:
    from everloop.tasks.guess import guess

    name, why = guess(source, **how)
    say(f"task: {name} ({why}); --task chooses another", quiet)
    return name


def _model(name: str, before: dict[str, Any], given: dict[str, Any], settings: list[str]) -> Any:
    """The task with its options: those of the configuration, then those given here."""
    from everloop import tasks

    kind = tasks.get(name)
    known = kind().get_params()
    for flag in given:
        if flag in TASK_FLAGS and flag not in known:
            raise ValueError(f"--{flag.replace('_', '-')} is not an option of a {name}; it has {', '.join(known)}")
    options = before.get("options", {}) if name == before.get("task", name) else {}
    options |= {flag: value for flag, value in given.items() if flag in TASK_FLAGS}
    options |= dict(setting(text) for text in settings)
    return kind().set_params(**options)


TASK_FLAGS = {
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
    task: Annotated[str | None, option("--task", "Guessed from the data, and said, if not given.", RUN)] = None,
    minutes: Annotated[float, option("--minutes", "Of the search. Default 10.", RUN)] = 10.0,
    trials: Annotated[int | None, option("--trials", "At most so many more.", RUN)] = None,
    search: Annotated[
        str | None,
        option("--search", "Options to search, with commas. Default: rate, sizes, cell, dropout, batch ...", RUN),
    ] = None,
    out: Annotated[
        Path | None, option("--out", "Folder to write. Default: tuned/FILE-TASK-1, or the next free number.", RUN)
    ] = None,
    resume: Annotated[bool, option("--resume", "Go on with the search in --out.", RUN)] = False,
    config: Annotated[Path | None, option("--config", "Begin from the options of RUN/config.toml.", RUN)] = None,
    seed: Annotated[int | None, option("--seed", "Of everything random. Default 0.", RUN)] = None,
    quiet: Annotated[bool, option("--quiet", "Only results and errors.", RUN)] = False,
    settings: Annotated[
        list[str] | None, option("--set", "NAME=VALUE: an option of the task; it is not searched then.", RUN)
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
    how = before.get("data", {}) | {k: v for k, v in given.items() if k in DATA_FLAGS}
    how = {name: value for name, value in how.items() if name != "source"}
    name = task or before.get("task") or _guess(file, how, quiet)
    model = _model(name, before, given, settings or [])
    fixed = [setting(text)[0] for text in settings or []]
    stem = Path(file).resolve().name.strip(".").partition(".")[0] or "data"
    folder = out or free_folder(f"{stem}-{name}", Path("tuned"))
    names = [word.strip() for word in (search or "").split(",") if word.strip()]
    found = search_options(
        model, file, out=folder, minutes=minutes, trials=trials, search=names, fixed=fixed, resume=resume,
        quiet=quiet, **how,
    )  # fmt: skip
    print(tomli_w.dumps(found.options), end="")
    say(f"to train with them: everloop train --config {found.folder}", quiet)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the two run folders.")] = Path("runs"),
) -> None:
    """Train on real data that a package brings, in a few minutes: sentiment of Chinese reviews, and new reviews."""
    from everloop.demo import run_demo

    run_demo(out)


def _finish(model: Any, quiet: bool) -> None:
    """Where the run is, what to do with it; a training that did not finish is no success."""
    folder = model.run_.folder
    outcome = model.outcome_
    if outcome.status == "diverged":
        fail(f"{outcome.message}\nThe run folder is {folder}", 1)
    say(f"run folder: {folder}\nreport:     {folder / 'report.html'}", quiet)
    if outcome.status == "interrupted":
        say(f"to go on:   everloop train --out {folder} --resume")
        sys.exit(130)
    noun = "TEXT" if getattr(model.codec_, "modality", "") in ("text", "words") else "FILE"
    verb = f"generate {folder} --prompt {noun}" if hasattr(model, "generate") else f"predict {folder} {noun}"
    say(f"to use it:  everloop {verb}", quiet)


def _show_results(model: Any) -> None:
    from everloop.tasks.progress import results_table

    if not model.results_:
        return
    output().print(results_table(model.results_))
    if model.beats_baseline() is False:
        output().print(f"The model does not beat its baseline ({model.better_baseline[0]}).", style="bold")
