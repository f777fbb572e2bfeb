"""Pictures above their words, as a picture."""

from __future__ import annotations

import io

import numpy as np
import pytest

from everloop.insight.contact_sheet import contact_sheet

Image = pytest.importorskip("PIL.Image", reason="pictures need pillow")


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_pictures_stand_in_rows_with_words_under_them() -> None:
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    grey = np.full((20, 4), 0.5)
    sheet = pixels(contact_sheet([red, grey, red], [["red", "rot"], ["grey"], [""]], columns=2))
    top, bottom = np.split(sheet, 2)
    left, right = np.split(top, 2, axis=1)
    is_red = (sheet == [255, 0, 0]).all(-1)
    assert is_red[: len(top), : left.shape[1]].any()
    assert is_red[len(top) :, : left.shape[1]].any()
    assert not is_red[:, left.shape[1] :].any()
    assert (right == 127).all(-1).any()
    assert (bottom[:, left.shape[1] :] == 255).all(), "nothing in the last place"
    words = pixels(contact_sheet([red], [["red", "rot"]])) != pixels(contact_sheet([red], [["", ""]]))
    assert words.any()


def test_every_picture_has_lines() -> None:
    with pytest.raises(ValueError, match="1 pictures and 2 texts came"):
        contact_sheet([np.zeros((2, 2))], [["a"], ["b"]])
