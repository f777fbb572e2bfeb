"""`everloop inspect`: why a trained model says what it says of one input, as a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from everloop.data.files import is_there, names_a_file
from everloop.data.notes import Notes
from everloop.insight.answer_figure import save_figure
from everloop.insight.explanation import explain_answer
from everloop.insight.figures import SUFFIXES
from everloop.insight.page import render_page
from everloop.insight.page.words import Language
from everloop.tasks import load
from everloop.tasks.task import is_dataset

OTHERS = 100
"""Inputs of the training data in which like states are looked for."""

LONGEST = 300
"""Characters of each of these; of longer ones, parts."""


def inspect_run(
    run: str | Path,
    input: str,
    target: Any = None,
    out: str | Path | None = None,
    at: int | None = None,
    language: Language = "en",
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write the page, and say where: `out`, or `inspect.html` in the run folder. To an `out` that ends in .png or .svg,
    draw the figure of the inside instead, for a paper.

    input: a text, or a file that holds one input (of a table, the first row), whose truth is the target unless one is
    given. at: whose answer is asked, where there are several (`Task.inside`). say: is told what is left out, and why.
    """
    model = load(run)
    if not hasattr(model, "inside"):
        raise ValueError(
            f"{run} is a {getattr(model, 'name', 'layer')} that cannot be looked into; expected a run folder"
        )
    given, truth = _one(model, input, say)
    others, labels = _others(model, say)
    target = truth if target is None else target
    with model.few_threads():
        answer = explain_answer(model, given, target, at=at, others=others, labels=labels)
    path = Path(run) / "inspect.html" if out is None else Path(out)
    if path.suffix in SUFFIXES:
        return save_figure(answer, path)
    path.write_text(render_page(answer, language=language), encoding="utf-8")
    return path


def _one(model: Any, input: str, say: Callable[[str], None]) -> tuple[Any, Any]:
    """One input as the model takes it, and its target if its file has one."""
    if model.name == "forecaster":
        return input, None
    if not names_a_file(input):
        if model.name != "generator":
            return model.read([input], want_target="no").inputs[0], None
        # What a generator goes on from may be empty, or end in a space; music is chords.
        return Notes.of(input) if model.codec_.modality == "notes" else input, None
    if not is_there(input):
        raise FileNotFoundError(f"there is no file {input} to look into")
    examples = model.read(input, want_target="if there" if model.needs_target else "no")
    if len(examples) > 1:
        say(f"{input} holds {len(examples):,} inputs: this is about the first")
    return examples.inputs[0], None if examples.targets is None else examples.targets[0]


def _others(model: Any, say: Callable[[str], None]) -> tuple[list[Any], list[str]]:
    """Inputs that the model was trained on, and their labels where these are short; none where these are no texts."""
    if not _reads_texts(model):
        return [], []
    how = dict(model.data_)
    source = how.pop("source", None)
    if source is None or not (Path(source).exists() or is_dataset(source)):
        say("the data that the model was trained on are not there any more: like states elsewhere are left out")
        return [], []
    examples = model.read(source, **how)
    places = range(0, len(examples), max(1, len(examples) // OTHERS))
    inputs = [examples.inputs[k] for k in places][:OTHERS]
    if all(isinstance(given, str) for given in inputs) and max(map(len, inputs)) > LONGEST:
        return _parts(inputs), []
    targets = None if examples.targets is None else [examples.targets[k] for k in places][:OTHERS]
    return inputs, [] if targets is None or not all(map(_is_short, targets)) else [str(target) for target in targets]


def _reads_texts(model: Any) -> bool:
    """Whether what stands around a step of another input can be read."""
    codec = model.codec_
    return getattr(codec, "reads_text", getattr(codec, "modality", "text") == "text") and model.name != "forecaster"


def _parts(texts: Sequence[str]) -> list[str]:
    """Of long texts, parts that begin where a line or a sentence does, spread over them all."""
    each = max(1, OTHERS // len(texts))
    found = []
    for text in texts:
        for begin in range(0, len(text), max(LONGEST, len(text) // each)):
            start = max(text.rfind(end, 0, begin) for end in ("\n", ". ", "。")) + 1 if begin else 0
            found.append(text[start : start + LONGEST].strip())
    return [part for part in found if part][:OTHERS]


def _is_short(target: Any) -> bool:
    return isinstance(target, str | int) and len(str(target)) <= 40
