"""Figures of a network of one's own: what is drawn is what was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from everloop import Recurrent
from everloop.insight import plots, record
from everloop.insight.dynamics import gradient_norms, half_life, spectrum, step_jacobians
from everloop.insight.figures import DARK, LIGHT, save
from everloop.insight.memory import measure_memory
from everloop.testing import assert_close


@pytest.fixture(scope="module")
def layer() -> Recurrent:
    torch.manual_seed(0)
    return Recurrent("lstm", 3, 6, num_layers=2, bidirectional=True)


@pytest.fixture(scope="module")
def recording(layer: Recurrent):
    x = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(1))
    return record(layer, x, loss=lambda output, _: output[0][:, -1].square().sum())


def drawn(figure, which: int = 0) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata()) for line in figure.axes[which].lines}


def test_gradients_are_those_of_the_record(recording, tmp_path) -> None:
    figure = plots.gradients(recording)
    curves = drawn(figure)
    assert len(curves) == 8
    expected = gradient_norms(recording.layers[3])["c"].mean(0)
    # Of the upper layer's way back only the first step is asked for; nothing has no place on a scale of powers of ten.
    assert (expected[:-1] == 0).all()
    assert_close(curves["c, layer 1, backward"], np.where(expected > 0, expected, np.nan))
    assert_close(curves["h, layer 0, forward"], gradient_norms(recording.layers[0])["h"].mean(0))
    assert save(figure, tmp_path / "gradients.svg").stat().st_size


def test_steps_are_called_by_their_names(recording) -> None:
    named = replace(recording, steps=tuple(["the", "dog", "barked"] * 4))
    labels = [label.get_text() for label in plots.gradients(named).axes[0].get_xticklabels()]
    assert labels == list(named.steps)
    numbered = plots.gradients(recording).axes[0]
    assert numbered.get_xlabel() == "step"
    shown = [label.get_text() for label in numbered.get_xticklabels()]
    assert list(numbered.get_xticks()) == [int(number) - 1 for number in shown] == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_values_are_units_over_time(recording, theme: str, tmp_path) -> None:
    one = recording.layers[0]
    figure = plots.values(one, "f", row=1, theme=theme)
    (picture,) = figure.axes[0].images
    assert_close(picture.get_array().data, one.values["f"][1].T)
    look = {"light": LIGHT, "dark": DARK}[theme]
    assert figure.get_facecolor()[:3] == tuple(int(look.paper[k : k + 2], 16) / 255 for k in (1, 3, 5))
    save(figure, tmp_path / "values.png", theme)
    with pytest.raises(ValueError, match="'q' came; there are h, c"):
        plots.values(one, "q")


def test_stretching_is_the_spectrum() -> None:
    torch.manual_seed(0)
    layer, x = Recurrent("gru", 3, 5), torch.randn(2, 9, 3)
    found = spectrum(step_jacobians(layer, x))
    curves = drawn(plots.stretching(found))
    assert_close(curves["largest"], found.singular[..., 0].mean(0))
    assert_close(curves["smallest"], found.singular[..., -1].mean(0))


def test_memories_are_scores() -> None:
    torch.manual_seed(0)
    found = {cell: measure_memory(Recurrent(cell, 1, 8), range(12), steps=40) for cell in ("elman", "gru")}
    curves = drawn(plots.memories(found))
    for name, one in found.items():
        assert_close(curves[name], one.score)


def test_half_lives_are_in_order(recording) -> None:
    one = recording.layers[0]
    assert_close(drawn(plots.half_lives(one))["c"], np.sort(half_life(one)["c"]))
    (other,) = record(Recurrent("elman", 3, 4), torch.randn(1, 5, 3)).layers
    with pytest.raises(ValueError, match="elman keeps its states by matrices alone"):
        plots.half_lives(other)
