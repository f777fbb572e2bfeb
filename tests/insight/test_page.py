"""The page says what the recording says, in both languages, with and without its script, wherever it is read."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import string
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop import load
from everloop.insight.explanation import Answer, Attention, explain_answer
from everloop.insight.page import render_page
from everloop.insight.page.data import packed, unpacked
from everloop.insight.page.drawing import band, decades, heat_map, share_of, unit_order
from everloop.insight.page.text import coloured, excerpt, set_apart, small
from everloop.insight.page.words import GATES, WORDS, Words
from everloop.testing import FLOAT32, assert_close

TEXT = "the story of a film with some music and quite the plot a scene of clever music and a warm film some plot"
EVIL = "</script><b onclick='x'>&\"{evil}"


class Seen(HTMLParser):
    """The tags, with their attributes, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def answer(trained: Path) -> Answer:
    others = ["a dull film and the music", "great story with quite a scene", "slow and boring plot"]
    return explain_answer(load(trained), TEXT, "positive", others=others, labels=["n", "p", "n"], steps=16)


def numbers_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_numbers_are_those_of_the_recording(answer: Answer, language: Any) -> None:
    told = numbers_of(render_page(answer, language=language))
    assert told["pieces"] == TEXT.split()
    assert told["answers"] == [list(pair) for pair in answer.answers]
    for found in answer.saliency:
        assert_close(told["saliency"][found.method], found.values, FLOAT32)
    assert [(one["layer"], one["direction"]) for one in told["layers"]] == [(0, "forward"), (0, "backward")]
    for shown, record in zip(told["layers"], answer.layers, strict=True):
        assert list(shown["values"])[:2] == ["h", "c"]
        assert {"h", "c", "i", "f", "g", "o"} <= set(shown["values"]) == set(record.values) - {"y"}
        assert shown["gates"] == ["i", "f", "o"]
        for name, given in shown["values"].items():
            assert (np.abs(unpacked(given) - record.values[name][0]) <= 0.51 * given["scale"]).all()
        for name in ("h", "c"):
            norms = np.linalg.norm(record.gradients[name][0], axis=-1)
            assert_close(shown["norms"][name], norms, FLOAT32)


def test_the_page_needs_nothing_from_elsewhere(answer: Answer) -> None:
    page = render_page(answer)
    for tag, given in Seen(page).tags:
        assert tag not in ("link", "iframe", "object")
        for name in ("src", "href"):
            assert (given.get(name) or "data:").startswith("data:")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", page)


def test_what_is_said_is_what_was_found(answer: Answer) -> None:
    text = Seen(render_page(answer)).text
    best = max(share for _, share in answer.answers)
    assert f"The model says “positive”, with a probability of {100 * best:.1f}\u00a0%." in text
    assert "The truth is “positive”." in text
    test = answer.tests[0]
    assert test.convinces
    assert f"falls faster than in {test.beaten} of 39 random orders: the answer does rest on them." in text
    unsure = replace(answer, tests=[replace(test, chance=0.4) for test in answer.tests])
    text = Seen(render_page(unsure)).text
    assert "does rest on them" not in text
    assert "Chance could do this: do not read much into the colours." in text


def test_how_well_a_unit_follows_is_said(answer: Answer) -> None:
    found = answer.followers["line"]
    text = Seen(render_page(answer)).text
    assert f"{found.name.state}[{found.name.unit}]" in text
    assert f"correlation {found.held_out:.2f} (0 is nothing)" in text
    quoted = replace(found, measure="auc", held_out=0.875, sign=-1)
    text = Seen(render_page(replace(answer, followers={"quotes": quoted}))).text
    assert "tells inside from outside in 87.5\u00a0% of pairs (50 % is nothing) · low where the other is high" in text
    assert "What single units keep track of" not in Seen(render_page(replace(answer, followers={}))).text


def test_texts_are_escaped(answer: Answer) -> None:
    evil = replace(
        answer,
        model=EVIL,
        facts=[(EVIL, EVIL)],
        pieces=[EVIL, *answer.pieces[1:]],
        answers=[(EVIL, 0.75), ("b", 0.25)],
        asked=EVIL,
        target=EVIL,
        ablation=EVIL,
        attention=Attention([EVIL], [EVIL], np.ones((1, 1)), np.ones(1)),
    )
    page = render_page(evil)
    seen = Seen(page)
    plain = Seen(render_page(replace(answer, attention=Attention(["a"], ["b"], np.ones((1, 1)), np.ones(1)))))
    assert [tag for tag, _ in seen.tags].count("script") == 2
    assert not any("onclick" in given for _, given in seen.tags)
    assert {tag for tag, _ in seen.tags} == {tag for tag, _ in plain.tags}
    assert numbers_of(page)["pieces"][0] == EVIL


def test_a_value_is_no_probability(answer: Answer) -> None:
    forecast = replace(answer, unit="value", answers=[("load", 12.5), ("price", -3.0)], asked="load")
    text = Seen(render_page(forecast)).text
    assert "The model says “load”: 12.5." in text
    assert "12.5" in text
    assert "%" not in text[text.index("The model says") : text.index("What speaks for it")]


def test_an_answer_that_the_layers_have_no_say_in(answer: Answer) -> None:
    """All gradients are exactly zero: nothing is divided by them, and it is said."""
    layers = [
        replace(layer, gradients={name: np.zeros_like(array) for name, array in layer.gradients.items()})
        for layer in answer.layers
    ]
    silent = replace(answer, layers=layers, saliency=[replace(s, values=s.values * 0) for s in answer.saliency])
    page = render_page(silent)
    assert "nan" not in page.lower().replace("nancy", "")
    assert "Nothing of the loss against the truth hangs on the memory h of this layer." in Seen(page).text
    assert "One unit at a time" not in Seen(page).text


def test_what_does_not_fit_is_left_out_and_said(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.insight.page.data.MOST", 100)
    page = render_page(answer)
    assert [list(layer["values"]) for layer in numbers_of(page)["layers"]] == [["h", "c"], ["h", "c"]]
    assert "not on this page, for want of room" in Seen(page).text
    assert "i, f, g, o" in Seen(page).text


def test_values_that_are_no_numbers_do_not_break_the_page(answer: Answer) -> None:
    values = {name: array.copy() for name, array in answer.layers[0].values.items()}
    values["c"][0, 3, :2] = np.nan, np.inf
    broken = replace(answer, layers=[replace(answer.layers[0], values=values), *answer.layers[1:]])
    page = render_page(broken)
    assert unpacked(numbers_of(page)["layers"][0]["values"]["c"])[3, :2].tolist() == [0, 0]
    assert "values that are no finite numbers, shown as 0" in Seen(page).text
    assert "NaN" not in page


def test_attention_is_shown(answer: Answer) -> None:
    seen = Attention(["je", "bois"], ["I", "drink"], np.array([[0.9, 0.1], [0.25, 0.75]]), np.array([0.5, 0.125]))
    page = Seen(render_page(replace(answer, attention=seen)))
    titles = [given["title"] for tag, given in page.tags if tag == "td" and "title" in given]
    assert titles == ["0.900", "0.100", "0.250", "0.750"]
    assert "50.0\u00a0%" in page.text
    assert "12.5\u00a0%" in page.text


# Words.


def test_both_languages_say_the_same() -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for key, (english, chinese) in WORDS.items():
        assert english.strip(), key
        assert chinese.strip(), key
        assert fields(english) == fields(chinese), key
        assert not re.search(r"[\u4e00-\u9fff]", english), key
    assert all(len(names) == 2 for gates in GATES.values() for names in gates.values())
    with pytest.raises(ValueError, match="language: 'de' came; expected 'en' or 'zh'"):
        Words("de")  # type: ignore[arg-type]


def test_a_chinese_page_is_in_chinese(answer: Answer) -> None:
    page = render_page(answer, language="zh")
    assert '<html lang="zh-Hans">' in page
    headings = re.findall(r"<h[12][^>]*>(.*?)</h[12]>", page)
    assert len(headings) >= 5
    assert all(re.search(r"[\u4e00-\u9fff]", heading) for heading in headings)


# Drawing.


def test_a_heat_map_holds_every_value() -> None:
    from PIL import Image

    values = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    data = base64.b64decode(heat_map(values).removeprefix("data:image/png;base64,"))
    pixels = np.array(Image.open(io.BytesIO(data)))
    shares = share_of(values).T[unit_order(values)]
    assert pixels.shape == (5, 9, 4)
    assert (pixels[..., 3] == np.round(255 * np.abs(shares))).all()
    assert ((pixels[..., 2] > pixels[..., 0]) == (shares > 0)).all(), "blue above zero, orange below"


def test_units_that_move_alike_lie_together() -> None:
    time = np.linspace(0, 6, 40)
    values = np.stack([np.sin(time), np.cos(time), np.sin(time) * 2, np.cos(time) * 3], 1)
    order = unit_order(values).tolist()
    assert abs(order.index(0) - order.index(2)) == 1 or {order[0], order[-1]} == {0, 2}
    assert sorted(unit_order(np.zeros((4, 3))).tolist()) == [0, 1, 2]
    assert unit_order(np.ones((1, 2))).tolist() == [0, 1]


def test_gates_are_drawn_where_they_are() -> None:
    drawn = band(np.full((3, 4), 0.25))
    line = re.search(r'class="line" d="M([^"]*)"', drawn)
    assert line is not None
    assert {point.split()[1] for point in line[1].split("L")} == {"0.750"}


def test_bars_reach_over_as_many_powers_of_ten_as_there_are() -> None:
    assert decades(np.array([1.0, 0.5])) == 1
    assert decades(np.array([1.0, 0.002, 0.0])) == 3
    assert decades(np.array([1.0, 1e-30])) == 8


def test_pieces_are_joined_as_people_write() -> None:
    assert set_apart(["a", "film", ",", "dull"]) == ["", " ", "", " "]
    assert set_apart(["我", "爱", "北京"]) == ["", "", ""]
    assert set_apart(list("a b")) == ["", "", ""]
    assert small(" ") == "␣"
    assert small("\n") == "↵"
    assert excerpt(["a", "b c", "d"], 1, 3, 1) == "… <mark>b c</mark> d"
    assert 'style="--s:1.000" data-step="1" title="-2"' in coloured(["x", "yy"], np.array([1.0, -2.0]))


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no browser is installed here: chromium or google-chrome")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, answer: Answer, tmp_path: Path) -> Iterator[Any]:
    """The page, opened from disk; nothing may go wrong on it, and nothing may be asked for elsewhere."""
    file = tmp_path / "page.html"
    file.write_text(render_page(answer), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
    page.goto(file.as_uri())
    yield page
    assert wrong == []
    context.close()


def shown(value: float) -> str:
    """As the script writes it."""
    return f"{value:.2f}" if 0.01 <= abs(value) < 1e4 else ""


def test_picking_a_step_shows_its_numbers(opened: Any, answer: Answer) -> None:
    step = TEXT.split().index("warm")
    opened.locator(".method:visible .text [data-step]").nth(step).hover()
    line = opened.locator(".readout:visible").inner_text()
    assert f"{step + 1} · warm" in line
    record = answer.layers[0]
    for name in ("i", "f", "o"):
        assert f"{name} {shown(float(record.values[name][0, step].mean()))}" in line
    assert f"integrated gradients {shown(float(answer.saliency[0].values[step]))}" in line
    assert opened.locator(".alike:visible h3").inner_text() == "After “warm”"
    opened.locator(".scroll").first.focus()
    opened.keyboard.press("ArrowRight")
    assert f"{step + 2} · film" in opened.locator(".readout:visible").inner_text()


def test_layers_and_values_can_be_chosen(opened: Any) -> None:
    assert opened.locator(".lane.map:visible").count() == 1
    opened.select_option("#which-layer", "1")
    opened.select_option("#which-value", "g")
    shown_maps = opened.locator(".lane.map:visible")
    assert shown_maps.count() == 1
    assert shown_maps.get_attribute("data-value") == "g"
    assert opened.locator(".layer:visible").get_attribute("data-layer") == "1"


def test_any_unit_can_be_picked(opened: Any, answer: Answer) -> None:
    opened.select_option("#unit-value", "1 c")
    opened.fill("#unit-number", "3")
    values = unpacked(packed(answer.layers[1].values["c"][0]))[:, 3]
    pieces = opened.locator(".picker [data-step]")
    strength = [float(pieces.nth(k).evaluate("e => e.style.getPropertyValue('--s')")) for k in range(len(values))]
    assert_close(strength, np.abs(values) / np.abs(values).max(), FLOAT32)
    assert [pieces.nth(k).get_attribute("class").split()[0] for k in range(len(values))] == [
        "up" if value >= 0 else "down" for value in values
    ]
    opened.fill("#unit-number", "99")
    assert opened.input_value("#unit-number") == "5"


def test_methods_can_be_changed(opened: Any) -> None:
    assert opened.locator(".method:visible").count() == 1
    opened.get_by_text("Occlusion", exact=True).click()
    assert opened.locator(".method:visible").get_attribute("data-method") == "1"


@pytest.mark.parametrize("width", [390, 800, 1440])
def test_it_is_as_wide_as_the_screen(opened: Any, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_it_works_without_its_script(browser: Any, answer: Answer, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(render_page(answer), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".lane.map:visible").count() == 4, "both states of both directions"
    assert page.locator(".alike:visible").count() == 1
    assert page.locator(".method:visible").count() == 1
    assert page.locator(".needs-script:visible").count() == 0
    context.close()


def test_it_prints(opened: Any) -> None:
    opened.emulate_media(media="print")
    assert opened.locator(".needs-script:visible").count() == 0
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.pdf(format="A4").startswith(b"%PDF")
