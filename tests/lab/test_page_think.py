"""Watch it think, in a browser: what the page shows is what `record` has."""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from everloop import Generator, load, record
from everloop.testing import FLOAT32, assert_close

TEXT = "the film was good but the end with music"

# Milliseconds that everything takes which the page does for one frame.
COSTS = """
    window.costs = new Map();
    const before = window.requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (act) => before((now) => {
        const began = performance.now();
        act(now);
        window.costs.set(now, (window.costs.get(now) ?? 0) + performance.now() - began);
    });
"""
FRAME = 1000 / 60


@pytest.fixture(scope="session")
def recorded(lab_runs) -> Any:
    task = load(lab_runs / "reviews")
    inside = task.inside(TEXT)
    return record(inside, loss=lambda output, _: -inside.score(output, None))


@pytest.fixture
def reading(page) -> Any:
    """The panel with the classifier's run, at rest on the first step."""
    page.emulate_media(reduced_motion="reduce")
    page.reload()
    page.locator("[data-panel=think] .stage").wait_for()
    page.locator("[name=source]").select_option("run reviews")
    page.locator("[name=text]").fill(TEXT)
    page.get_by_role("button", name="Watch", exact=True).click()
    page.get_by_text(f"step 1 of {len(TEXT.split())}").wait_for()
    return page


def choose(page: Any, step: int, unit: int) -> None:
    """Both counted from 0: the step by the keyboard, the unit by its number."""
    page.get_by_role("spinbutton", name="Unit", exact=True).fill(str(unit))
    page.locator(".heat .over").focus()
    now = int(re.search(r"step (\d+)", page.locator(".place").inner_text())[1]) - 1
    for _ in range(abs(step - now)):
        page.keyboard.press("ArrowRight" if step > now else "ArrowLeft")
    page.get_by_text(f"step {step + 1} of").wait_for()


def heat_value(page: Any) -> float:
    return float(page.locator(".heat .readout b").get_attribute("data-value"))


class TestDemo:
    def test_it_begins_by_itself(self, page):
        """A network is trained, reads, and is played to the end."""
        page.locator("[data-panel=think] .stage").wait_for()
        assert page.locator(".facts").inner_text().count("trained on brackets") == 1
        page.get_by_text("step 14 of 14").wait_for()
        assert page.get_by_role("button", name="Play", exact=True).is_visible()

    def test_another_cell(self, page):
        page.locator("[data-panel=think] .stage").wait_for()
        page.locator("[name=cell]").select_option("gru")
        page.locator("[name=layers]").select_option("2")
        page.locator("[name=hidden]").select_option("8")
        page.get_by_role("button", name="Watch", exact=True).click()
        layers = page.get_by_role("group", name="Layer").get_by_role("button")
        layers.nth(1).wait_for()
        assert layers.all_inner_texts() == ["layer 1", "layer 2"]
        layers.nth(1).click()
        assert "layer 2 " in page.locator(".where").inner_text()
        assert page.locator(".choices .names button").all_inner_texts()[0] == "h"

    def test_what_cannot_be_read_is_said(self, page):
        page.locator("[data-panel=think] .stage").wait_for()
        page.locator("[name=text]").fill("(" * 3000)
        page.get_by_role("button", name="Watch", exact=True).click()
        message = page.locator("[data-panel=think] > .error")
        message.wait_for()
        assert "3,000" in message.inner_text()


class TestNumbers:
    def test_every_value_of_a_unit(self, reading, recorded):
        layer = recorded.layers[0]
        names = reading.locator(".choices .names button").all_inner_texts()
        assert set(names) == set(layer.values) - {"y"}, "y is h"
        for name in names:
            reading.locator(f".choices [data-value='{name}']").click()
            choose(reading, 3, 2)
            assert_close(heat_value(reading), float(layer.values[name][0, 3, 2]), FLOAT32, name)

    def test_gradients(self, reading, recorded):
        reading.get_by_role("button", name="gradients of the loss").click()
        reading.locator(".choices [data-value='c']").click()
        for step, unit in ((0, 1), (5, 4)):
            choose(reading, step, unit)
            assert_close(heat_value(reading), float(recorded.layers[0].gradients["c"][0, step, unit]), FLOAT32)

    def test_the_loss_and_the_answer(self, reading, recorded, lab_runs):
        shown = reading.locator("[data-fact=loss]").inner_text()
        assert shown == f"{recorded.loss:.3f}"
        [best] = load(lab_runs / "reviews").predict([TEXT])
        assert reading.locator(".facts .said").first.inner_text().startswith(best)

    def test_the_arithmetic(self, reading, recorded):
        """Each equation ends in the number that was recorded."""
        choose(reading, 4, 3)
        reading.locator(".where").filter(has_text="step 5 but · unit 3").wait_for()
        layer = recorded.layers[0]
        for name in ("i", "f", "o", "g", "c", "h"):
            output = reading.locator(f".numbers-of [data-name={name}] output")
            expected = float(layer.values[name][0, 4, 3])
            reading.wait_for_function(
                "([output, text]) => output.textContent === text",
                arg=[output.element_handle(), f"{expected:.3f}".replace("-", "−")],
            )
            assert_close(float(output.get_attribute("data-value")), expected, FLOAT32, name)

    def test_the_lanes_say_their_numbers(self, reading, recorded):
        choose(reading, 2, 5)
        label = reading.locator(".strips canvas")
        expected = f"f {recorded.layers[0].values['f'][0, 2, 5]:.3f}"
        reading.wait_for_function(
            "([canvas, text]) => canvas.ariaLabel.includes(text)", arg=[label.element_handle(), expected]
        )

    def test_the_picture(self, reading, recorded):
        """Blue is above zero, orange below: every pixel of the map has the side of its number."""
        state = recorded.layers[0].values["h"][0]
        assert reading.locator(".choices [aria-pressed=true]").first.inner_text() == "h"
        seen = np.array(
            reading.locator(".heat .plot canvas").first.evaluate(
                """(canvas, [steps, units]) => {
                    const [left, right, bottom] = [40, 8, 24];
                    const scale = canvas.width / canvas.clientWidth;
                    const [wide, high] = [canvas.clientWidth - left - right, canvas.clientHeight - bottom];
                    const x = (step) => scale * (left + ((step + 0.5) / steps) * wide);
                    const y = (unit) => scale * ((unit + 0.5) / units) * high;
                    const context = canvas.getContext("2d");
                    const read = (step, unit) => context.getImageData(x(step), y(unit), 1, 1).data;
                    const sign = ([red, , blue]) => blue - red;
                    return Array.from({ length: steps }, (_, step) =>
                        Array.from({ length: units }, (_, unit) => sign(read(step, unit))));
                }""",
                list(state.shape),
            )
        )
        largest = np.abs(state).max()
        clear = np.abs(state) > 0.05 * largest
        assert clear.sum() > state.size / 2
        assert (np.sign(seen)[clear] == np.sign(state)[clear]).all()


class TestPlaying:
    def test_play_and_pause(self, reading):
        reading.get_by_role("combobox", name="Steps a second").select_option("2")
        reading.get_by_role("button", name="Play", exact=True).focus()
        reading.keyboard.press("Space")
        reading.wait_for_function("() => !document.querySelector('.place').textContent.startsWith('step 1 ')")
        reading.keyboard.press("Space")
        reading.get_by_role("button", name="Play", exact=True).wait_for()
        place = reading.locator(".place").inner_text()
        assert place not in ("step 1 of 9", "step 9 of 9")
        reading.wait_for_timeout(700)
        assert reading.locator(".place").inner_text() == place

    def test_step_by_step(self, reading):
        for key, place in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
            reading.locator("body").press(key)
            reading.get_by_text(f"step {place} of").wait_for()
        reading.get_by_role("button", name="To the start").click()
        reading.get_by_text("step 1 of").wait_for()
        reading.get_by_role("slider", name="Position").fill("5")
        reading.get_by_text("step 6 of").wait_for()

    def test_a_click_on_a_cell(self, reading):
        """The network of 9 steps fits, so that the cells stand evenly behind the names of the rows."""
        network = reading.locator(".unroll")
        box = network.bounding_box()
        pitch = round(min(92, max(62, (box["width"] - 84) / 9)))
        network.click(position={"x": 84 + 3.5 * pitch, "y": box["height"] / 2})
        reading.get_by_text("step 4 of 9").wait_for()
        assert "step 4 good" in reading.locator(".where").inner_text()

    def test_a_click_on_the_map(self, reading):
        heat = reading.locator(".heat .over")
        box = heat.bounding_box()
        heat.click(position={"x": 40 + (box["width"] - 48) * 6.5 / 9, "y": (box["height"] - 24) * 1.5 / 8})
        assert "step 7 end · unit 1" in reading.locator(".where").inner_text()

    def test_keys_on_the_map(self, reading):
        choose(reading, 1, 3)
        reading.keyboard.press("ArrowDown")
        assert reading.get_by_role("spinbutton", name="Unit", exact=True).input_value() == "4"
        reading.keyboard.press("ArrowUp")
        assert reading.get_by_role("spinbutton", name="Unit", exact=True).input_value() == "3"


class TestSpeed:
    @pytest.fixture
    def wide(self, lab_runs) -> Iterator[str]:
        """A network of 256 units that need not have learned anything."""
        text = "to be or not to be, that is the question. "
        options: dict[str, Any] = {
            "device": "cpu",
            "threads": 1,
            "patience": 0,
            "window": 32,
            "batch": 8,
            "unit": "chars",
        }
        Generator(hidden=256, embedding=8, epochs=1, **options).fit([text * 30], out=lab_runs / "wide", quiet=True)
        yield (text * 5)[:200]
        shutil.rmtree(lab_runs / "wide")

    def test_256_units_and_200_steps(self, wide, page):
        """The page's own work leaves most of a frame of 1/60 s to the browser; how many frames there are is then a
        matter of the machine and of what else it does."""
        page.add_init_script(COSTS)
        page.reload()
        page.locator("[data-panel=think] .stage").wait_for()
        page.locator("[name=source]").select_option("run wide")
        page.locator("[name=text]").fill(wide)
        page.get_by_role("button", name="Watch", exact=True).click()
        page.get_by_text("of 200").wait_for()
        page.get_by_role("combobox", name="Steps a second").select_option("15")
        page.evaluate("costs.clear()")
        page.wait_for_timeout(3000)
        costs = page.evaluate("[...costs.values()]")
        assert len(costs) > 30, "it plays"
        assert statistics.median(costs) < FRAME / 2
