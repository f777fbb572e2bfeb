"""The flags that several commands share, and reading data as they say."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import typer

from everloop.cli._console import say

MODEL, TRAINING, DATA, RUN = "The network", "Training", "The data", "The run"


def option(flag: str, help: str, panel: str) -> Any:
    return typer.Option(flag, help=help, rich_help_panel=panel, show_default=False)


Input = Annotated[
    str | None,
    option("--input", "Column of the input; several with commas between them. Guessed, and said, if not given.", DATA),
]


Target = Annotated[str | None, option("--target", "Column of the label, the text to be written, the values.", DATA)]


Part = Annotated[
    str | None, option("--part", "Column that says train, valid or test, where the data are split already.", DATA)
]


Group = Annotated[
    str | None, option("--group", "Column whose equal values stay in one split: speaker, author ...", DATA)
]


Modality = Annotated[
    str | None, option("--modality", "text, audio, image, frames, notes, vectors. Default: seen from the data.", DATA)
]


Time = Annotated[str | None, option("--time", "Forecaster: column of the time stamps.", DATA)]


Series = Annotated[str | None, option("--series", "Forecaster: column that tells several series apart.", DATA)]


Known = Annotated[
    str | None, option("--known", "Forecaster: columns known ahead, with commas (holidays, prices ...).", DATA)
]


Past = Annotated[str | None, option("--past", "Forecaster: columns known only as they happen, with commas.", DATA)]


Zone = Annotated[str | None, option("--zone", "Forecaster: where clocks show those times: Europe/Berlin.", DATA)]


Encoding = Annotated[str | None, option("--encoding", "Of the file: utf-8 unless given; gb18030, latin-1, ...", DATA)]


BadRows = Annotated[
    Literal["stop", "skip"], option("--bad-rows", "At a row that cannot be read: stop, or skip it.", DATA)
]


Device = Annotated[str, option("--device", "auto, cpu, cuda, cuda:1, ...", RUN)]


DATA_FLAGS = (
    "input", "target", "part", "group", "modality", "time", "series", "known", "past", "zone", "encoding", "bad_rows",
)  # fmt: skip


def data_flags(values: dict[str, Any]) -> dict[str, Any]:
    """The flags about data that were given."""
    return {name: values[name] for name in DATA_FLAGS if values.get(name) not in (None, "stop")}


def read_data(model: Any, source: Any, how: dict[str, Any], want_target: str | None = None) -> Any:
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
        say(note)
    return examples


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value read as TOML where it is TOML, else as text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: expected NAME=VALUE")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value
