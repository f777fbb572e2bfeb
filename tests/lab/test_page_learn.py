"""Watch it learn, in a browser: the figures are those of the training, and every knob turns something."""

from __future__ import annotations

import math
from typing import Any

import pytest

from everloop import cells
from everloop.lab import problems
from everloop.lab.training import Training


@pytest.fixture
def frames(page, said) -> Any:
    """The panel, opened anew, with nothing in training."""
    page.goto("/#learn")
    page.reload()
    page.locator("[data-panel=learn] .learn").wait_for()
    return said


def shown(page: Any, name: str) -> str:
    return page.locator(f"[data-panel=learn] [data-shows={name}]").inner_text()


def percent(share: float) -> str:
    """As JavaScript rounds: halves go up."""
    return f"{math.floor(100 * share + 0.5)} %"


def three_digits(value: float) -> str:
    """As the page writes numbers between 0.001 and 1,000."""
    return f"{float(f'{value:.3g}'):g}"


def turn(page: Any, name: str, position: float) -> None:
    """Moves a slider; a logarithmic one stands at the power of ten."""
    page.get_by_role("slider", name=name).fill(str(position))


def go(page: Any) -> None:
    page.locator("[data-do=go]").click()


def wait_for_update(page: Any, least: int) -> None:
    page.wait_for_function(
        "least => Number(document.querySelector('[data-shows=step]').textContent) >= least", arg=least
    )


def pause(page: Any, frames: Any) -> dict[str, Any]:
    """The last update, which the page shows when its training is paused."""
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_role("button", name="Go on", exact=True).wait_for()
    page.wait_for_timeout(300)
    return frames.events("learn.update")[-1]


class TestFigures:
    def test_are_those_of_the_training(self, page, frames):
        """A training here, with the same knobs, has the same loss, norm and clips after as many updates."""
        go(page)
        wait_for_update(page, 5)
        pause(page, frames)
        start = frames.asked("learn.start")[-1]
        problem = problems.get(start["problem"])
        training = Training(
            cells.get(start["cell"]), problem, start["length"], start["hidden"], start["lr"], start["seed"],
            start["clip"], start["truncation"], start["forget_bias"],
        )  # fmt: skip
        for _ in range(int(shown(page, "step"))):
            made = training.update()
        assert shown(page, "loss") == three_digits(made.loss)
        assert shown(page, "norm") == three_digits(made.norm)
        assert shown(page, "clips") == str(training.clips)
        assert page.get_by_text(f"Parameters {training.model.count:,}").is_visible()

    def test_are_the_last_that_came(self, page, frames):
        go(page)
        wait_for_update(page, 20)
        last = pause(page, frames)
        assert shown(page, "step") == str(last["step"])
        assert shown(page, "score") == percent(last["score"])
        assert shown(page, "seconds") == f"{last['seconds']:.1f}"
        legend = page.locator(".learn .legend").first
        assert three_digits(last["loss"]) in legend.inner_text()
        assert three_digits(problems.get("copy").chance(12)) in legend.inner_text()

    def test_the_example(self, page, frames):
        go(page)
        wait_for_update(page, 20)
        sample = pause(page, frames)["sample"]
        rows = page.locator(".sample .letters")
        for row, name in enumerate(("input", "wanted", "said")):
            cells_of_row = rows.nth(row).locator("span:not(.name)").all_inner_texts()
            assert cells_of_row == ["" if one is None else one for one in sample[name]], name
        right = sum(a == b for a, b in zip(sample["wanted"], sample["said"], strict=True) if a is not None)
        assert page.locator(".sample .right").count() == right
        assert page.locator(".sample .wrong").count() == 4 - right

    @pytest.mark.parametrize("problem", ["adding", "sine"])
    def test_examples_of_values(self, page, frames, problem):
        page.locator("[name=problem]").select_option(problem)
        go(page)
        wait_for_update(page, 3)
        sample = pause(page, frames)["sample"]
        if problem == "adding":
            assert shown(page, "wanted") == three_digits(sample["wanted"][-1])
            assert shown(page, "said").replace("−", "-") == three_digits(sample["said"][-1])
            assert page.locator(".sample .marked").count() == 2
        else:
            assert three_digits(sample["wanted"][-1]) in page.locator(".sample .legend").inner_text()


class TestGradients:
    def test_how_far_back_they_reach(self, page, frames):
        go(page)
        wait_for_update(page, 20)
        norms = pause(page, frames)["gradients"]
        first = next(k for k, norm in enumerate(norms) if norm > 0 and norm >= 0.01 * norms[-1])
        assert shown(page, "reach") == str(len(norms) - 1 - first)
        assert three_digits(norms[-1]) in page.locator(".through .legend").inner_text()

    def test_where_truncation_cuts_nothing_is_drawn(self, page, frames):
        """Windows of 5 in a sequence of 12: the last begins at step 11, and the four answers lie in the last two."""
        turn(page, "Gradients flow back", 5)
        go(page)
        wait_for_update(page, 5)
        norms = pause(page, frames)["gradients"]
        drawn = page.locator(".past canvas").evaluate(
            """canvas => {
                const last = canvas.getContext("2d").getImageData(0, canvas.height - 1, canvas.width, 1).data;
                return Array.from({ length: canvas.width }, (_, k) => last[4 * k + 3] > 0);
            }"""
        )
        assert drawn == [norm > 0 for norm in norms]
        assert set(drawn) == {True, False}


class TestKnobs:
    def test_those_that_take_effect_at_once(self, page, frames):
        go(page)
        wait_for_update(page, 5)
        turn(page, "Learning rate", -3)
        turn(page, "Clip gradients at", -2)
        turn(page, "Gradients flow back", 3)
        for name, value in (("lr", 0.001), ("clip", 0.01), ("truncation", 3)):
            frames.wait_until_asked("learn.set", **{name: value})
        assert len(frames.asked("learn.start")) == 1
        page.wait_for_timeout(1000)
        last = pause(page, frames)
        assert last["clipped"], "nothing has a norm under 0.01 here"
        assert last["gradients"][0] == 0, "cut off by truncation"

    def test_no_clipping(self, page, frames):
        turn(page, "Clip gradients at", 2)
        assert "never" in page.locator("label", has_text="Clip gradients at").inner_text()
        go(page)
        wait_for_update(page, 30)
        assert frames.asked("learn.start")[-1]["clip"] == 0
        assert shown(page, "clips") == "0"

    def test_those_that_begin_again(self, page, frames):
        small = Training(cells.get("elman"), problems.get("copy"), 16, 8, 0.01).model
        go(page)
        wait_for_update(page, 30)
        page.locator("[name=cell]").select_option("elman")
        turn(page, "Units", 8)
        turn(page, "Length of a sequence", 16)
        page.get_by_label("Seed").fill("3")
        page.get_by_text(f"Parameters {small.count:,}", exact=True).wait_for()
        start = frames.wait_until_asked("learn.start", cell="elman", hidden=8, length=16, seed=3)
        assert start["truncation"] == 16, "all steps, as before"
        wait_for_update(page, 2)
        last = pause(page, frames)
        assert len(last["gradients"]) == 16

    def test_the_forget_bias_is_for_cells_that_have_one(self, page, frames):
        turn(page, "Forget bias", 3)
        go(page)
        wait_for_update(page, 1)
        assert frames.asked("learn.start")[-1]["forget_bias"] == 3
        page.locator("[name=cell]").select_option("gru")
        assert page.get_by_role("slider", name="Forget bias").is_disabled()
        assert page.get_by_text("this cell has no forget gate").is_visible()
        frames.wait_until_asked("learn.start", cell="gru", forget_bias=None)


class TestTheRest:
    def test_by_keyboard(self, page, frames):
        body = page.locator("body")
        body.press("Space")
        wait_for_update(page, 1)
        body.press("Space")
        page.get_by_role("button", name="Go on", exact=True).wait_for()
        body.press("Space")
        page.get_by_role("button", name="Pause", exact=True).wait_for()
        body.press("r")
        frames.wait_until_asked("learn.start", count=2)

    def test_another_panel_stops_it(self, page, frames):
        go(page)
        wait_for_update(page, 1)
        page.goto("/#write")
        page.locator("[data-panel=write]").wait_for()
        frames.wait_until_asked("learn.stop")
        assert len(frames.asked("learn.stop")) == 1

    def test_a_refusal_is_said(self, page, frames):
        page.get_by_label("Seed").fill(str(2**40))
        go(page)
        error = page.locator(".learn [role=alert]")
        error.wait_for()
        assert f"seed: {2**40} came" in error.inner_text()
        assert page.get_by_role("button", name="Start", exact=True).is_visible()

    def test_in_chinese_the_knobs_stay(self, page, frames):
        turn(page, "Units", 16)
        page.locator("[data-do=language]").click()
        assert page.get_by_role("slider", name="单元数").input_value() == "16"
        assert page.get_by_role("button", name="开始", exact=True).is_visible()

    def test_a_lost_connection_comes_back_with_its_training(self, page, frames):
        """The session is found again and goes on from where it was."""
        page.add_init_script(
            "const Real = WebSocket; window.WebSocket = class extends Real {"
            " constructor(...given) { super(...given); window.socket = this; } };"
        )
        page.reload()
        page.locator("[data-panel=learn] .learn").wait_for()
        go(page)
        wait_for_update(page, 10)
        page.evaluate("socket.close()")
        before = int(shown(page, "step"))
        wait_for_update(page, before + 20)
        assert len(frames.asked("learn.start")) == 1
        steps = [point[0] for update in frames.events("learn.update") for point in update["points"]]
        assert steps == list(range(1, len(steps) + 1)), "no update was lost or came twice"
