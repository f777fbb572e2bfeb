"""Race, in a browser: every lane shows its own figures, and the moment when it forgets is marked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from everloop import cells
from everloop.lab import problems
from everloop.lab.training import Training


@pytest.fixture
def frames(page, said) -> Any:
    """The panel, opened anew, with nobody on the track."""
    page.goto("/#race")
    page.reload()
    page.locator("[data-panel=race] .race").wait_for()
    return said


def lane(page: Any, place: int) -> Any:
    return page.locator(f"[data-lane='{place}']")


def start(page: Any) -> None:
    page.get_by_role("button", name="Start the race", exact=True).click()
    lane(page, 0).wait_for()


def stop(page: Any) -> None:
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Start the race", exact=True).wait_for()
    page.wait_for_timeout(300)


def percent(share: float) -> str:
    """As JavaScript rounds: halves go up."""
    return f"{math.floor(100 * share + 0.5)} %"


def wait_for_update(page: Any, place: int, least: int) -> None:
    page.wait_for_function(
        """([place, least]) => {
            const said = document.querySelector(`[data-lane='${place}'] [data-shows=step]`)?.textContent;
            return Number(said?.match(/\\d+/)?.[0] ?? 0) >= least;
        }""",
        arg=[place, least],
    )


def turns(updates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The updates at which a lane began to be better than guessing, or fell back to it."""
    remembers, found = False, []
    for update in updates:
        if update["forgets"] == remembers:
            remembers = not remembers
            found.append(update)
    return found


class TestLanes:
    def test_each_shows_its_own(self, page, frames):
        start(page)
        for place in range(3):
            wait_for_update(page, place, 12)
        stop(page)
        for place, name in enumerate(("elman", "lstm", "gru")):
            last, text = frames.of_lane(place)[-1], lane(page, place).inner_text()
            assert lane(page, place).locator("h2").inner_text() == name
            assert lane(page, place).locator("[data-shows=score]").inner_text() == percent(last["score"])
            assert f"update {last['step']}" in text
            model = Training(cells.get(name), problems.get("order"), 10, 24, 0.01).model
            assert f"{model.count:,} weights" in text

    def test_losses_are_those_of_a_training(self, page, frames):
        """The last loss of the second lane, beside the same training here."""
        start(page)
        wait_for_update(page, 1, 12)
        stop(page)
        asked, last = frames.asked("race.start")[-1], frames.of_lane(1)[-1]
        training = Training(
            cells.get("lstm"), problems.get(asked["problem"]), asked["length"], asked["hidden"], asked["lr"], 0, 1.0
        )
        for _ in range(last["step"]):
            if training.step and training.step % 100 == 0:
                training.grow_to(training.length + asked["grow"])
            made = training.update()
        shown = page.locator(".curve .legend .item", has_text="lstm").locator(".value").inner_text()
        assert shown == f"{float(f'{made.loss:.3g}'):g}"

    def test_the_moment_when_one_forgets(self, page, frames):
        """A plain network learns the order of two letters in 10 steps, and forgets it when sequences grow by 20."""
        for name in ("lstm", "gru"):
            page.get_by_role("button", name=f"Take {name} out").click()
        page.get_by_role("slider", name="Longer per 100 updates").fill("20")
        start(page)
        word = lane(page, 0).locator(".word")
        page.get_by_text("Forgot at update").wait_for()
        stop(page)
        found = turns(frames.of_lane(0))
        last = found[-1]
        assert len(found) >= 2
        if last["forgets"]:
            expected = f"Forgot at update {last['step']}, at length {last['length']}."
        else:
            expected = f"Better than guessing since update {last['step']}."
        assert word.inner_text() == expected
        assert page.locator("[data-shows=length]").inner_text() == str(frames.of_lane(0)[-1]["length"])


class TestKnobs:
    def test_which_cells(self, page, frames):
        page.get_by_role("button", name="Take gru out").click()
        page.get_by_role("combobox", name="Add a cell").select_option("mgu")
        page.get_by_role("combobox", name="Add a cell").select_option("janet")
        start(page)
        assert page.locator(".lane h2").all_inner_texts() == ["elman", "lstm", "mgu", "janet"]
        frames.wait_until_asked("race.start", cells=["elman", "lstm", "mgu", "janet"])

    def test_the_last_cell_stays(self, page, frames):
        for name in ("elman", "gru"):
            page.get_by_role("button", name=f"Take {name} out").click()
        assert page.get_by_role("button", name="Take lstm out").is_disabled()

    def test_the_numbers(self, page, frames):
        page.get_by_role("button", name="copy", exact=True).click()
        for name, position in (("Length at the start", 15), ("Units", 12), ("Learning rate", -3), ("Longer per", 0)):
            page.get_by_role("slider", name=name).fill(str(position))
        page.get_by_label("Seed").fill("7")
        start(page)
        frames.wait_until_asked("race.start", problem="copy", length=15, hidden=12, lr=0.001, grow=0, seed=7)

    @pytest.mark.parametrize("problem", list(problems.PROBLEMS))
    def test_every_problem(self, page, frames, problem):
        page.get_by_role("button", name=problem, exact=True).click()
        start(page)
        wait_for_update(page, 2, 4)
        kind = "right" if problems.get(problem).names else "of the variance explained"
        assert kind in lane(page, 0).inner_text()
        stop(page)
        assert "guessing" in page.locator(".curve .legend").last.inner_text()

    def test_by_keyboard(self, page, frames):
        page.locator("body").press("Space")
        wait_for_update(page, 0, 4)
        page.locator("body").press("Space")
        page.get_by_role("button", name="Start the race", exact=True).wait_for()

    def test_a_refusal_is_said(self, page, frames):
        page.get_by_label("Seed").fill(str(2**40))
        page.get_by_role("button", name="Start the race", exact=True).click()
        error = page.locator(".race [role=alert]")
        error.wait_for()
        assert f"seed: {2**40} came" in error.inner_text()

    def test_in_chinese(self, page, frames):
        page.locator("[data-do=language]").click()
        assert page.get_by_role("button", name="先后", exact=True).get_attribute("aria-pressed") == "true"
        page.get_by_role("button", name="开始", exact=True).click()
        wait_for_update(page, 0, 4)
        page.get_by_role("button", name="停止", exact=True).click()
