"""Talk to a model, in a browser: it reads along, writes on, and units of it are held."""

from __future__ import annotations

from typing import Any

import pytest

from everloop import load
from everloop.testing import FLOAT32, assert_close


@pytest.fixture
def talking(page) -> Any:
    page.goto("/#talk")
    page.locator(".conversation").wait_for()
    return page


def open_run(page: Any, name: str) -> None:
    page.locator("[name=run]").select_option(name)
    page.locator(f"[data-open='{name}']").wait_for()


def shares(page: Any) -> dict[str, float]:
    return {
        bar.get_attribute("data-name"): float(bar.locator("output").get_attribute("data-value"))
        for bar in page.locator(".shares .bar").all()
    }


def pieces(page: Any) -> list[str]:
    return page.locator(".coloured .ink").all_text_contents()


def wait_for_pieces(page: Any, expected: list[str]) -> None:
    shown = "[...document.querySelectorAll('.coloured .ink')].map(ink => ink.textContent)"
    page.wait_for_function(f"expected => {shown}.join('|') === expected", arg="|".join(expected))


class TestClassifier:
    text = "the film with good music"

    def test_it_reads_along(self, talking, lab_runs):
        open_run(talking, "reviews")
        talking.locator("[name=typed]").fill("")
        talking.locator("[name=typed]").type(self.text)
        wait_for_pieces(talking, self.text.split())
        task = load(lab_runs / "reviews")
        probabilities = task.predict_proba([self.text])[0]
        said = shares(talking)
        assert list(said) == list(task.classes_)
        assert_close(list(said.values()), probabilities, FLOAT32)

    def test_as_it_was_at_an_earlier_word(self, talking, lab_runs):
        open_run(talking, "reviews")
        talking.locator("[name=typed]").fill(self.text)
        wait_for_pieces(talking, self.text.split())
        talking.locator(".coloured .piece").nth(1).click()
        talking.locator(".coloured .piece.here").wait_for()
        expected = load(lab_runs / "reviews").predict_proba(["the film"])[0]
        assert_close(list(shares(talking).values()), expected, FLOAT32)

    def test_the_colour_is_the_unit_or_a_label(self, talking):
        open_run(talking, "reviews")
        talking.locator("[name=typed]").fill(self.text)
        wait_for_pieces(talking, self.text.split())
        by_unit = talking.locator(".coloured .ink").nth(3).get_attribute("style")
        talking.get_by_role("button", name="positive", exact=True).click()
        talking.wait_for_function(
            "before => document.querySelectorAll('.coloured .ink')[3].getAttribute('style') !== before", arg=by_unit
        )
        title = talking.locator(".coloured .piece").last.get_attribute("title")
        assert title.endswith(f"{shares(talking)['positive']:.3f}")

    def test_a_unit_that_is_held(self, talking):
        """It is what it is held at after every word, the answer becomes another, and comes back when it is freed."""
        open_run(talking, "reviews")
        talking.locator("[name=typed]").fill(self.text)
        wait_for_pieces(talking, self.text.split())
        before = shares(talking)
        talking.get_by_role("spinbutton", name="Unit", exact=True).fill("2")
        talking.get_by_role("spinbutton", name="Hold the unit at").fill("0.9")
        talking.get_by_role("button", name="Hold", exact=True).click()
        talking.locator(".held-unit").wait_for()
        titles = "[...document.querySelectorAll('.coloured .piece')].map(e => e.title.split('  ')[1])"
        talking.wait_for_function(f"() => {titles}.every(value => value === '0.900')")
        held = shares(talking)
        assert held != before
        talking.get_by_role("button", name="Let go of unit 2").click()
        talking.get_by_text("Nothing is held").wait_for()
        talking.wait_for_function(
            "before => Number(document.querySelector('.shares output').dataset.value) === before",
            arg=next(iter(before.values())),
        )


class TestTagger:
    def test_a_tag_below_each_word(self, talking, lab_runs):
        open_run(talking, "words")
        words = ["the", "dog", "sleeps"]
        talking.locator("[name=typed]").fill(" ".join(words))
        wait_for_pieces(talking, words)
        [expected] = load(lab_runs / "words").predict([words])
        assert talking.locator(".coloured .tag").all_inner_texts() == list(expected)


class TestGenerator:
    def generate(self, page: Any, prompt: str, length: int, temperature: str = "0") -> None:
        page.locator("[name=prompt]").fill(prompt)
        page.locator("[name=length]").fill(str(length))
        page.locator("[name=temperature]").fill(temperature)
        page.get_by_role("button", name="Write on").click()

    def test_what_it_writes(self, talking, lab_runs):
        open_run(talking, "play")
        self.generate(talking, "to be", 12)
        talking.wait_for_function("() => document.querySelectorAll('.coloured .piece').length === 12")
        expected = load(lab_runs / "play").generate("to be", length=12, temperature=0)
        assert "".join(pieces(talking)) == expected.removeprefix("to be")
        boxes = [piece.bounding_box() for piece in talking.locator(".coloured .piece").all()[:3]]
        assert len({box["y"] for box in boxes}) == 1, "on one line"
        assert [box["x"] for box in boxes] == sorted({box["x"] for box in boxes})
        talking.wait_for_function("() => !document.querySelector('button[type=submit].primary').disabled")

    def test_the_state_streams_beside_it(self, talking):
        open_run(talking, "play")
        self.generate(talking, "to be", 5)
        talking.wait_for_function("() => document.querySelectorAll('.coloured .piece').length === 5")
        readout = talking.locator(".heat .readout")
        readout.filter(has_text="step 5").wait_for()
        unit = talking.get_by_role("spinbutton", name="Unit", exact=True).input_value()
        assert f"unit {unit} " in readout.inner_text()
        shown = float(readout.locator("b").get_attribute("data-value"))
        assert (
            talking.locator(".coloured .piece").last.get_attribute("title").endswith(f"{shown:.3f}".replace("-", "−"))
        )
        assert len(shares(talking)) == 5, "what it weighed"

    def test_stop(self, talking):
        open_run(talking, "play")
        self.generate(talking, "to", 2000, "1")
        talking.locator(".coloured .piece").nth(3).wait_for()
        talking.get_by_role("button", name="Stop").click()
        talking.wait_for_function("() => !document.querySelector('button[type=submit].primary').disabled")
        count = len(pieces(talking))
        talking.wait_for_timeout(300)
        assert len(pieces(talking)) == count < 2000
