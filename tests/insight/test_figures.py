"""The look of figures: light and dark, the same bytes each time, and names that stand apart."""

from __future__ import annotations

import re
import sys
from itertools import pairwise

import pytest

from everloop.insight.figures import DARK, LIGHT, label_ends, look_of, save, sheet, spread_out, styled
from everloop.testing import SAME, assert_close

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def drawn(theme: str):
    look = look_of(theme)
    with styled(look):
        figure, (axes,) = sheet("One curve", [4])
        axes.plot([1, 2, 3], color=look.colours[0])
        label_ends(axes, [(3, "first", look.colours[0]), (3, "second", look.colours[1])])
    return figure


def colours_of(svg: str) -> set[str]:
    drawing = svg.partition("</style>")[2] if "<style>@media" in svg else svg
    return set(re.findall(r"(?:fill|stroke): (#\w{6})", drawing))


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_figure_is_the_same_file(tmp_path, suffix: str) -> None:
    first, second = (save(drawn("light"), tmp_path / f"{name}.{suffix}", "light") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_light_and_dark(tmp_path) -> None:
    light, dark = (
        save(drawn(theme), tmp_path / f"{theme}.svg", theme).read_text(encoding="utf-8") for theme in ("light", "dark")
    )
    assert {LIGHT.paper, LIGHT.ink, LIGHT.colours[0]} <= colours_of(light)
    assert {DARK.paper, DARK.ink, DARK.colours[0]} <= colours_of(dark)
    assert not colours_of(light) & {DARK.paper, DARK.ink, *DARK.colours}
    png = {theme: save(drawn(theme), tmp_path / f"{theme}.png", theme).read_bytes() for theme in ("light", "dark")}
    assert png["light"][:8] == png["dark"][:8] == SIGNATURE
    assert png["light"] != png["dark"]


def test_an_svg_turns_dark_by_itself(tmp_path) -> None:
    """Whatever is drawn in a colour of the light look has a rule for the dark one."""
    text = save(drawn("auto"), tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert text.count("<style>@media (prefers-color-scheme:dark)") == 1
    drawing = text.partition("</style>")[2]
    used = set(re.findall(r"((?:fill|stroke): #\w{6})", drawing))
    ruled = set(re.findall(r'\[style\*="((?:fill|stroke): #\w{6})"\]', text))
    black = {what for what in used if what.endswith("#000000")}
    assert used - black
    assert used - black <= ruled
    assert "first" in drawing


def test_names_of_curves_stand_apart() -> None:
    assert spread_out([0.2, 0.9, 0.5], 0.1) == [0.2, 0.9, 0.5]
    close = spread_out([0.50, 0.52, 0.9, 0.51], 0.1)
    assert_close(close, [0.41, 0.61, 0.9, 0.51])
    assert spread_out([], 0.1) == []
    chain = sorted(spread_out([0.5, 0.55, 0.62, 0.64], 0.1))
    assert all(b - a >= 0.1 - SAME.absolute for a, b in pairwise(chain))


def test_other_kinds_of_files_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"'\.pdf' came; expected \.png or \.svg"):
        save(drawn("light"), tmp_path / "figure.pdf")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'everloop\[figures\]'"):
        sheet("nothing", [4])
