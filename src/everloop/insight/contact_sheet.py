"""Pictures with words under them as one picture: to look at what captions, or labels, a model gives."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELL, _LINE, _MARGIN, _LETTERS = 96, 12, 8, 24


def contact_sheet(pictures: Sequence[NDArray[Any]], lines: Sequence[Sequence[str]], *, columns: int = 6) -> bytes:
    """A PNG with each picture ([H, W], or [H, W, C] with C 1 or 3; uint8, or floats from 0 to 1) above its lines.

    The second line and those after it are grey: the truth under a caption.
    """
    if len(pictures) != len(lines):
        raise ValueError(f"{len(pictures)} pictures and {len(lines)} texts came; expected lines for every picture")
    from PIL import Image, ImageDraw

    wrapped = [[textwrap.wrap(line, _LETTERS)[:3] or [""] for line in several] for several in lines]
    tallest = max((sum(map(len, several)) for several in wrapped), default=0)
    width, height = 168, _CELL + tallest * _LINE + 2 * _MARGIN
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (picture, several) in enumerate(zip(pictures, wrapped, strict=True)):
        left, top = k % columns * width + _MARGIN, k // columns * height + _MARGIN
        sheet.paste(_shown(picture, width - 2 * _MARGIN), (left, top))
        top += _CELL
        for number, parts in enumerate(several):
            for part in parts:
                draw.text((left, top), part, fill="black" if number == 0 else "#888888")
                top += _LINE
    data = io.BytesIO()
    sheet.save(data, "PNG")
    return data.getvalue()


def _shown(picture: NDArray[Any], width: int) -> Any:
    """As large as its cell allows."""
    from PIL import Image

    if picture.dtype != np.uint8:
        picture = (picture.clip(0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture).convert("RGB")
    scale = min((_CELL - _MARGIN) / image.height, width / image.width)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
