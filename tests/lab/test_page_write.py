"""Write a cell, in a browser: beside the text stands what the library makes of it, and errors are marked in place."""

from __future__ import annotations

import re
from typing import Any

import pytest

from everloop import cells
from everloop.compiler.ahead import plan_ahead
from everloop.compiler.cost import parameters, usual_sizes
from everloop.compiler.describe import describe
from everloop.export import diagram, formula
from everloop.lang.read import read_cell

HIGHWAY = """@cell(states="h", gates="t n")
def highway(x, h, W, U, b):
    t = sigmoid(W.t @ x + U.t @ h + b.t)
    n = tanh(W.n @ x + U.n @ h + b.n)
    return h + t * (n - h)
"""


@pytest.fixture
def writing(page) -> Any:
    """The panel, opened anew, with its first text read."""
    page.goto("/#write")
    page.reload()
    page.locator(".verdict.good").wait_for()
    return page


def area(page: Any) -> Any:
    return page.get_by_role("textbox", name="Equations of one step")


def write(page: Any, text: str, verdict: str = "good") -> None:
    """Types a text in place of the one there, and waits for what is said about it."""
    area(page).fill(text)
    name = re.search(r"def (\w+)", text)
    page.locator(f".verdict.{verdict}", has_text=name[1] if name and verdict == "good" else "").wait_for()


def tex(page: Any, name: str) -> str:
    return page.locator(f"[data-shows={name}] annotation").text_content()


class TestWhatFollows:
    def test_from_a_text(self, writing):
        write(writing, HIGHWAY)
        graph = read_cell(HIGHWAY).graph
        plan, sizes = plan_ahead(graph), usual_sizes(graph, 64, 64)
        assert tex(writing, "formula") == "\n".join(formula.aligned(formula.forward(graph, formula.LATEX)))
        assert tex(writing, "backward") == "\n".join(formula.aligned(formula.backward(graph, formula.LATEX)))
        assert writing.locator("[data-shows=plan]").inner_text().strip() == describe(plan, sizes).strip()
        verdict = writing.locator(".verdict").inner_text()
        assert verdict == f"highway works: {plan.kind}, {parameters(graph, sizes):,} weights at 64 inputs and 64 units."

    def test_the_drawing(self, writing):
        """All of it but its own colours: those are the page's."""
        write(writing, HIGHWAY)
        svg = diagram.step(read_cell(HIGHWAY).graph)
        drawn = writing.locator(".diagram svg")
        for shape in ("path", "rect", "circle", "text"):
            assert drawn.locator(shape).count() == len(re.findall(f"<{shape}[ >]", svg)), shape
        assert drawn.locator("style").count() == 0
        assert drawn.bounding_box()["width"] > 300

    @pytest.mark.parametrize("example", range(1, 6))
    def test_every_example_works(self, writing, example):
        choice = writing.get_by_label("Begin from")
        choice.select_option(index=example)
        name = choice.locator("option").nth(example).inner_text()
        writing.wait_for_timeout(400)
        writing.locator(".verdict.good").wait_for()
        graph = read_cell(area(writing).input_value()).graph
        assert tex(writing, "formula") == "\n".join(formula.aligned(formula.forward(graph, formula.LATEX)))
        twin = {"LSTM": "lstm", "tanh": "elman"}.get(name)
        if twin:
            assert parameters(graph, usual_sizes(graph, 64, 64)) == parameters(
                cells.get(twin).graph, usual_sizes(cells.get(twin).graph, 64, 64)
            )

    def test_a_wide_formula_does_not_widen_the_page(self, writing):
        writing.set_viewport_size({"width": 390, "height": 844})
        writing.get_by_label("Begin from").select_option("LSTM")
        writing.wait_for_timeout(400)
        writing.locator(".verdict.good").wait_for()
        assert writing.evaluate("document.documentElement.scrollWidth") <= 390


class TestErrors:
    @pytest.mark.parametrize(
        ("wrong", "right", "line", "words"),
        [
            ("tan(", "tanh(", 4, "there is no function tan; did you mean tanh?"),
            ("b.q)", "b.n)", 4, "no gate or state of that name"),
            ("return", "retrun", None, ""),
            ("@cell", "@sell", None, ""),
        ],
    )
    def test_stand_where_they_are(self, writing, wrong, right, line, words):
        """The first two are said with their line; whatever it says, the page says the same."""
        text = HIGHWAY.replace(right, wrong) if line else HIGHWAY.replace(wrong, right)
        write(writing, HIGHWAY)
        write(writing, text, "bad")
        message = writing.locator("[data-shows=message]").inner_text()
        with pytest.raises((SyntaxError, AttributeError, TypeError, ValueError)) as refused:
            _ = read_cell(text).graph
        assert " ".join(message.split()) == " ".join(str(refused.value).split())
        assert words in message
        assert area(writing).get_attribute("aria-invalid") == "true"
        if line:
            assert writing.locator(".editor .numbers .wrong").inner_text() == str(line)
            writing.get_by_role("button", name="Go there").click()
            before = area(writing).evaluate("area => area.value.slice(0, area.selectionStart)")
            assert before.count("\n") == line - 1
            assert area(writing).evaluate("area => area === document.activeElement")

    def test_the_last_that_worked_stays_and_pales(self, writing):
        write(writing, HIGHWAY)
        before = tex(writing, "formula")
        write(writing, HIGHWAY + "    )", "bad")
        assert tex(writing, "formula") == before
        assert writing.locator(".follows.stale").count() == 1
        assert writing.get_by_role("button", name="Race it against LSTM").is_disabled()
        write(writing, HIGHWAY)
        assert writing.locator(".follows.stale").count() == 0
        assert writing.locator(".editor .wrong").count() == 0

    def test_a_text_is_shown_as_text(self, writing):
        """Nothing in it becomes a part of the page."""
        write(writing, HIGHWAY.replace("h + t", "h + <img src=x onerror=alert(1)> t"), "bad")
        assert writing.locator(".editor img, .verdict img").count() == 0
        assert "<img src=x" in writing.locator(".editor .colours").inner_text()


class TestTyping:
    def test_key_by_key(self, writing):
        """A line begins where the one before began; the colours have the letters of the text."""
        area(writing).fill("")
        area(writing).press_sequentially(
            '@cell(states="h", gates="h")\ndef typed(x, h, W, U, b):\nreturn tanh(W.h @ x + U.h @ h + b.h)'
        )
        writing.locator(".verdict.good", has_text="typed works").wait_for()
        text = area(writing).input_value()
        assert text.split("\n")[2].startswith("    return")
        assert writing.locator(".editor .colours").text_content().rstrip("\n") == text
        assert writing.locator(".editor .numbers span").count() == 3

    def test_tab_leaves(self, writing):
        area(writing).focus()
        writing.keyboard.press("Tab")
        assert not area(writing).evaluate("area => area === document.activeElement")

    def test_the_text_stays(self, writing):
        write(writing, HIGHWAY)
        writing.locator("[data-do=language]").click()
        writing.locator(".verdict.good").wait_for()
        assert writing.get_by_role("textbox", name="一步的方程").input_value() == HIGHWAY
        assert "highway 可用" in writing.locator(".verdict").inner_text()


class TestRace:
    def test_against_lstm(self, writing):
        write(writing, HIGHWAY)
        writing.get_by_role("button", name="Race it against LSTM").click()
        writing.locator("[data-lane='1']").wait_for()
        assert writing.locator(".lane h2").all_inner_texts() == ["highway", "lstm"]
        for place in (0, 1):
            writing.locator(f"[data-lane='{place}']", has_text="%").wait_for()
        writing.get_by_role("button", name="Stop", exact=True).click()
        writing.get_by_role("button", name="Race it against LSTM").wait_for()

    def test_from_within_the_text_and_on_another_problem(self, writing):
        writing.locator("[name=problem]").select_option("adding")
        area(writing).press("Control+Enter")
        writing.locator("[data-lane='0']", has_text="of the variance explained").wait_for()
        area(writing).press("Control+Enter")
        writing.get_by_role("button", name="Race it against LSTM").wait_for()
