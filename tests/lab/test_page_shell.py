"""What is around the panels: language, theme, keyboard, tabs that share nothing, a connection that comes back."""

from __future__ import annotations

from typing import Any

import pytest

SOCKETS = """
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...given) { super(...given); window.sockets.push(this); }
    };
"""

PANELS = ["Watch it think", "Watch it learn", "Race", "Write a cell", "Talk to a model"]


@pytest.fixture
def watched(page) -> Any:
    """The page, whose sockets the test can close; at rest, so that nothing moves by itself."""
    page.add_init_script(SOCKETS)
    page.emulate_media(reduced_motion="reduce")
    page.reload()
    page.locator("[data-panel=think] .stage").wait_for()
    return page


def read(page: Any, text: str) -> None:
    page.locator("[name=text]").fill(text)
    page.get_by_role("button", name="Watch", exact=True).click()
    page.get_by_text(f"step 1 of {len(text)}").wait_for()


class TestLanguage:
    def test_switched_and_remembered(self, watched):
        watched.get_by_role("button", name="中文").click()
        watched.get_by_role("heading", name="看它思考", level=1).wait_for()
        assert watched.locator("html").get_attribute("lang") == "zh-CN"
        watched.reload()
        watched.get_by_role("heading", name="看它思考", level=1).wait_for()
        watched.locator("body").press("l")
        watched.get_by_role("heading", name="Watch it think", level=1).wait_for()

    @pytest.mark.parametrize("key", range(1, 6))
    def test_every_panel_in_chinese(self, watched, key):
        """Each has its title, and no control of the page around it is left in English."""
        watched.get_by_role("button", name="中文").click()
        watched.get_by_role("heading", name="看它思考", level=1).wait_for()
        watched.locator("body").press(str(key))
        tab = watched.locator(".tabs a").nth(key - 1)
        watched.get_by_role("heading", name=tab.inner_text(), level=1).wait_for()
        assert tab.inner_text() not in PANELS
        assert not any(word in watched.locator("h1, h2").all_inner_texts() for word in PANELS)

    def test_the_browser_says_which(self, browser, lab_server):
        context = browser.new_context(base_url=lab_server.address, locale="zh-TW")
        page = context.new_page()
        page.goto("/#race")
        page.get_by_role("heading", name="赛跑", level=1).wait_for()
        context.close()


class TestKeyboard:
    def test_numbers_open_panels(self, watched):
        for key, title in enumerate(PANELS, 1):
            watched.locator("body").press(str(key))
            watched.get_by_role("heading", name=title, level=1).wait_for()

    def test_one_stop_for_all_tabs(self, watched):
        stops = watched.locator(".tabs a").evaluate_all("tabs => tabs.map(tab => tab.tabIndex)")
        assert stops == [0, -1, -1, -1, -1]
        watched.locator(".tabs a").first.focus()
        watched.keyboard.press("ArrowRight")
        watched.get_by_role("heading", name="Watch it learn", level=1).wait_for()
        assert watched.evaluate("document.activeElement.textContent") == "Watch it learn"
        watched.keyboard.press("ArrowLeft")
        watched.keyboard.press("ArrowLeft")
        watched.get_by_role("heading", name="Talk to a model", level=1).wait_for()

    def test_the_list_of_keys(self, watched):
        watched.locator("body").press("?")
        dialog = watched.get_by_role("dialog", name="Keyboard")
        assert "play or pause" in dialog.inner_text()
        watched.keyboard.press("Escape")
        dialog.wait_for(state="detached")

    def test_keys_that_are_typed_are_text(self, watched):
        watched.locator("[name=text]").fill("")
        watched.locator("[name=text]").type("2tl?")
        assert watched.locator("[name=text]").input_value() == "2tl?"
        assert watched.locator("h1").inner_text() == "Watch it think"

    def test_what_has_the_focus_is_seen(self, watched):
        for _ in range(12):
            watched.keyboard.press("Tab")
            outline = watched.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", watched.evaluate("document.activeElement.outerHTML")


class TestTheme:
    def test_light_dark_and_as_the_system(self, watched):
        paper = "getComputedStyle(document.body).backgroundColor"
        watched.emulate_media(color_scheme="dark", reduced_motion="reduce")
        dark = watched.evaluate(paper)
        watched.locator("body").press("t")
        light = watched.evaluate(paper)
        assert light != dark
        watched.locator("body").press("t")
        assert watched.evaluate(paper) == dark
        watched.reload()
        watched.locator("[data-panel=think] .stage").wait_for()
        watched.emulate_media(color_scheme="light", reduced_motion="reduce")
        assert watched.evaluate(paper) == dark, "it was chosen"


class TestWidth:
    @pytest.mark.parametrize("width", [390, 768, 1440])
    @pytest.mark.parametrize("key", range(1, 6))
    def test_nothing_sticks_out(self, watched, width, key):
        watched.set_viewport_size({"width": width, "height": 800})
        watched.locator("body").press(str(key))
        watched.get_by_role("heading", name=PANELS[key - 1], level=1).wait_for()
        assert watched.evaluate("document.documentElement.scrollWidth") <= width


class TestConnection:
    def test_it_comes_back_with_its_session(self, watched):
        read(watched, "([a])")
        watched.evaluate("sockets.at(-1).close()")
        watched.get_by_text("Connected again.").wait_for()
        # The recording is still there to be asked about.
        watched.locator("body").press("ArrowRight")
        watched.locator(".where").filter(has_text="step 2 [").wait_for()
        watched.wait_for_function("() => document.querySelectorAll('.numbers-of section').length > 5")
        assert watched.locator(".numbers-of .error").count() == 0
        assert watched.evaluate("sockets.length") == 2

    def test_what_is_asked_meanwhile_waits(self, watched):
        read(watched, "([a])")
        watched.evaluate("sockets.at(-1).close()")
        watched.locator("[name=text]").fill("[b]")
        watched.get_by_role("button", name="Watch", exact=True).click()
        watched.get_by_text("step 1 of 3").wait_for()

    def test_a_session_that_is_gone(self, watched, lab_server):
        """The page says so and begins again."""
        read(watched, "([a])")
        watched.evaluate(
            """() => {
                const send = WebSocket.prototype.send;
                WebSocket.prototype.send = function (text) {
                    send.call(this, text.replace(/"token":"[^"]*"/, '"token":"gone"'));
                };
                sockets.at(-1).close();
            }"""
        )
        watched.get_by_text("The lab was started anew").wait_for()
        watched.get_by_text("step 1 of 5").wait_for()

    def test_two_tabs_share_nothing(self, watched):
        """Each keeps what it read, and the numbers of the one are not those of the other."""
        other = watched.context.new_page()
        other.emulate_media(reduced_motion="reduce")
        other.goto("/")
        other.locator("[data-panel=think] .stage").wait_for()
        read(watched, "([a])")
        read(other, "{b}")
        watched.locator("body").press("ArrowRight")
        watched.locator(".where").filter(has_text="step 2 [").wait_for()
        assert watched.get_by_text("step 2 of 5").is_visible()
        assert other.get_by_text("step 1 of 3").is_visible()
        own = watched.locator(".numbers-of [data-name=h] output")
        value = watched.locator(".heat .readout b").get_attribute("data-value")
        watched.wait_for_function(
            "([output, value]) => Math.abs(output.dataset.value - value) < 1e-5", arg=[own.element_handle(), value]
        )
