"""The figure of an answer: what is drawn is what the recording holds, and text stays text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from everloop import load
from everloop.insight.answer_figure import draw, save_figure
from everloop.insight.explanation import Answer, explain_answer
from everloop.insight.figures import LIGHT, styled
from everloop.insight.page.drawing import share_of, unit_order
from everloop.inspecting import inspect_run
from everloop.testing import FLOAT32, assert_close

TEXT = "the story of a warm film with some music and a clever plot"


@pytest.fixture(scope="module")
def answer(trained: Path) -> Answer:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    return explain_answer(load(trained), TEXT, steps=8, orders=19)


def test_it_shows_the_numbers_of_the_recording(answer: Answer) -> None:
    with styled(LIGHT):
        figure = draw(answer, LIGHT, layer=1)
    _, bars, units, *gates, gradient = figure.axes
    record = answer.layers[1]
    assert [bar.get_height() for bar in bars.patches] in [found.values.tolist() for found in answer.saliency]
    values = record.values["h"][0]
    assert_close(units.images[0].get_array()[..., 3], np.abs(share_of(values).T[unit_order(values)]), FLOAT32)
    for axes, name in zip(gates, ["i", "f", "o"], strict=True):
        assert axes.get_ylabel() == name
        assert_close(axes.lines[0].get_ydata(), record.values[name][0].mean(1), FLOAT32)
    norms = np.linalg.norm(record.gradients["h"][0], axis=-1)
    assert_close([bar.get_height() for bar in gradient.patches], norms, FLOAT32)
    assert [label.get_text() for label in gradient.get_xticklabels()] == TEXT.split()


def test_it_is_kept_as_its_suffix_says(answer: Answer, tmp_path: Path) -> None:
    svg = save_figure(answer, tmp_path / "inside.svg").read_text(encoding="utf-8")
    assert "What speaks for “positive”" in svg
    assert "prefers-color-scheme:dark" in svg
    assert save_figure(answer, tmp_path / "inside.png", theme="dark").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"the suffix '\.pdf' came"):
        save_figure(answer, tmp_path / "inside.pdf")


@pytest.mark.filterwarnings("error::UserWarning")
def test_spaces_and_nothing_can_be_drawn(answer: Answer, tmp_path: Path) -> None:
    """Every letter has a shape, and gradients that are all zero have no logarithm."""
    silent = [
        replace(layer, gradients={name: array * 0 for name, array in layer.gradients.items()})
        for layer in answer.layers
    ]
    odd = replace(answer, asked=" ", pieces=[" ", "\n", *answer.pieces[2:]], layers=silent)
    assert save_figure(odd, tmp_path / "odd.png").stat().st_size


def test_the_command_draws_it(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = inspect_run(trained, TEXT, out=tmp_path / "inside.svg")
    assert path.read_text(encoding="utf-8").startswith("<?xml")
