"""Clips that say what they show: the digit is where the sentence says it goes, and splits share nothing."""

from __future__ import annotations

import numpy as np
import pytest

from everloop.data.examples import Examples
from everloop.data.sets.moving_digits import (
    DIGITS,
    DIRECTIONS,
    FRAMES,
    PATHS,
    SIDE,
    Digits,
    caption,
    held_out_combinations,
    moving_digits,
)

pytest.importorskip("PIL", reason="digits are made smaller with pillow")


def solid(brightness: int) -> Digits:
    """Digits that are squares of one brightness."""
    return Digits(np.full((40, 28, 28), brightness, dtype=np.uint8), [k % 10 for k in range(40)])


@pytest.fixture(scope="module")
def clips() -> Examples:
    return moving_digits(solid(255), solid(100), clips=(300, 40, 60))


def test_the_digit_moves_as_the_sentence_says(clips: Examples) -> None:
    for clip, said in zip(clips.inputs, clips.targets or (), strict=True):
        assert clip.shape == (FRAMES, SIDE, SIDE)
        first, _, then = said.split(" moves ")[1].partition(", then ")
        rows, columns = np.nonzero(clip[0])
        corner = np.array([rows.min(), columns.min()])
        assert (clip.astype(bool).sum((1, 2)) == len(rows)).all(), "the digit is all there in every frame"
        places = [np.argwhere(frame).min(0) for frame in clip]
        for end, direction in (
            (places[FRAMES // 2] - corner, first),
            (places[-1] - places[FRAMES // 2], then or first),
        ):
            assert (np.sign(end) == DIRECTIONS[direction]).all(), said


def test_splits_share_no_combination_and_no_picture(clips: Examples) -> None:
    parts = np.array(clips.parts)
    said = {part: {t for t, p in zip(clips.targets or (), parts, strict=True) if p == part} for part in set(parts)}
    assert not said["train"] & said["test"]
    assert not said["valid"] & (said["train"] | said["test"])
    brightest = {part: {clip.max() for clip, p in zip(clips.inputs, parts, strict=True) if p == part} for part in said}
    assert brightest == {"train": {255}, "valid": {255}, "test": {100}}


@pytest.mark.parametrize("seed", range(5))
def test_training_and_test_have_every_digit_and_every_path(seed: int) -> None:
    found = held_out_combinations(np.random.default_rng(seed))
    assert {part: len(pairs) for part, pairs in found.items()} == {"train": 136, "valid": 8, "test": 16}
    assert len({pair for pairs in found.values() for pair in pairs}) == 160
    for pairs in (found["train"], found["test"]):
        assert {digit for digit, _ in pairs} == set(range(10))
        assert {path for _, path in pairs} == set(PATHS)


def test_a_seed_fixes_the_clips() -> None:
    one, same, other = (moving_digits(solid(255), solid(100), clips=(9, 2, 2), seed=seed) for seed in (1, 1, 2))
    assert one.digest() == same.digest() != other.digest()


def test_sentences() -> None:
    assert caption(7, ("left", "up")) == "a seven moves left, then up"
    assert caption(8, ("down", "down")) == "an eight moves down"


def test_the_digit_or_the_path_alone_can_be_asked_for() -> None:
    digits, paths = (
        moving_digits(solid(255), solid(100), clips=(200, 50, 50), target=target) for target in ("digit", "path")
    )
    assert set(digits.targets or ()) == set(DIGITS)
    assert len(set(paths.targets or ())) == len(PATHS)
    assert (np.stack(digits.inputs) == np.stack(paths.inputs)).all()


def test_a_digit_without_pictures_is_named() -> None:
    few = Digits(np.zeros((10, 28, 28), dtype=np.uint8), list(range(10)))
    with pytest.raises(ValueError, match="1 pictures of a zero came for training and 4 for the test"):
        moving_digits(few, solid(100))
