"""Pictures as sequences: rows, columns or patches of pixels, and the files that pictures lie in.

A picture is a path that Pillow can read, or an array [H, W] or [H, W, C] with 1 (grey), 2 (grey and alpha), 3
(colour) or 4 (colour and alpha) channels: whole numbers of 8 bits, or floats, which mean what those mean divided by
255. What is transparent is white.
"""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from everloop.data.idx import read_folder

__all__ = ["EXTENSIONS", "ImageCodec", "load", "opened", "picture_array", "read_folder"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")

By = Literal["rows", "columns", "patches"]
Colour = Literal["auto", "grey", "colour"]
Floats = NDArray[np.float32]

LONGEST_SIDE = 128
"""Pixels at most, where nobody says a size."""

_LOOKED_AT = 4_096  # pictures, evenly spaced, that size, colour and brightness are taken from
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's own grey


@dataclass(frozen=True, eq=False)
class ImageCodec:
    """Pictures to float32 [T, F]. Made by `fit` or `from_json`, never changed afterwards.

    With pictures of H rows, W columns, C channels (1 or 3): by rows T = H, F = W * C; by columns T = W, F = H * C; by
    patches of P x P pixels, left to right and top to bottom, T = H * W / P^2, F = P^2 * C. Channels lie innermost.
    Each channel has mean 0 and standard deviation 1 over the training pictures.
    """

    height: int
    width: int
    channels: int
    by: By
    patch: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    modality: ClassVar[str] = "image"

    @classmethod
    def fit(
        cls,
        inputs: Sequence[Any],
        *,
        size: int | tuple[int, int] | None = None,
        colour: Colour = "auto",
        by: By = "rows",
        patch: int = 8,
    ) -> Self:
        """A codec for pictures like these (training) ones.

        size: (height, width), or one number for both; pictures of another size are stretched to it. Left out, it is
        that of most pictures, made smaller where a side is longer than 128 pixels. colour: auto is grey if all
        pictures looked at (4,096 at most) are. patch: side of a patch; it must divide height and width.
        """
        check_one_of("colour", colour, get_args(Colour))
        check_one_of("by", by, get_args(By))
        if not len(inputs):
            raise ValueError("no pictures came; expected at least one to fit a codec to")
        some = [_pixels(inputs[k]) for k in range(0, len(inputs), -(-len(inputs) // _LOOKED_AT))]
        height, width, channels = usual_form(some, size, colour)
        if by == "patches" and (patch < 1 or height % patch or width % patch):
            raise ValueError(
                f"patches of {patch} pixels do not divide pictures of {height} x {width}; give another size"
            )
        mean, scale = statistics(np.stack([fit_to(pixels, height, width, channels) for pixels in some]))
        return cls(height, width, channels, by, patch, mean, scale)

    @property
    def features(self) -> int:
        """F, the values of a step."""
        side = {"rows": self.width, "columns": self.height, "patches": self.patch**2}[self.by]
        return side * self.channels

    @property
    def steps(self) -> int:
        """T, the same for every picture."""
        return self.height * self.width * self.channels // self.features

    def encode_batch(self, inputs: Sequence[Any]) -> list[Floats]:
        mean, scale = (np.array(v, dtype=np.float32) for v in (self.mean, self.scale))
        found = []
        for one in inputs:
            pixels = (fit_to(_pixels(one), self.height, self.width, self.channels) - mean) / scale
            found.append(np.ascontiguousarray(self._as_steps(pixels)))
        return found

    def _as_steps(self, pixels: Floats) -> Floats:
        if self.by == "patches":
            across = self.width // self.patch
            pixels = pixels.reshape(self.height // self.patch, self.patch, across, self.patch, self.channels)
            pixels = pixels.transpose(0, 2, 1, 3, 4)
        elif self.by == "columns":
            pixels = pixels.transpose(1, 0, 2)
        return pixels.reshape(self.steps, self.features)

    def describe(self) -> str:
        kind = "grey" if self.channels == 1 else "colour"
        steps = f"{self.by} of {self.patch} x {self.patch}" if self.by == "patches" else self.by
        return f"{kind} pictures of {self.height} x {self.width}, {self.steps} {steps}, {self.features} values each"

    def to_json(self) -> str:
        return json.dumps({"modality": self.modality, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            facts = json.loads(text)
            if facts.pop("modality") != cls.modality:
                raise ValueError("its modality is another one")
            codec = cls(**facts | {"mean": tuple(facts["mean"]), "scale": tuple(facts["scale"])})
            numbers = np.array([codec.mean, codec.scale], dtype=np.float64)
            whole = numbers.shape == (2, codec.channels) and np.isfinite(numbers).all() and codec.features > 0
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"this is no codec of pictures ({type(error).__name__}: {error}); "
                "expected what ImageCodec.to_json() gave"
            ) from None
        if not whole:
            raise ValueError("the codec of pictures is damaged: its means and scales do not fit its channels")
        return codec


# Files


def load(path: str | Path) -> NDArray[np.uint8]:
    """The picture of a file, uint8 [H, W, C], C 1 (grey) or 3 (colour): turned as its camera was held, the first
    frame if it moves, on white where it is transparent.

    ValueError names a file that is broken, cut short, or has more pixels than Pillow's guard allows
    (PIL.Image.MAX_IMAGE_PIXELS).
    """
    with opened(path) as image:
        return picture_array(image)


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A picture opened by Pillow, whose many kinds of trouble become a ValueError that names the file."""
    image_module, path = pillow(), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a picture")
    bombs = (image_module.DecompressionBombError, image_module.DecompressionBombWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image_module.DecompressionBombWarning)
            with image_module.open(path) as image:
                yield image
    except bombs as error:
        raise ValueError(f"{path}: {error} If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS first") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from None


def pillow() -> Any:
    """The module PIL.Image."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ImportError("pictures need the package pillow: pip install 'everloop[images]'") from None
    return Image


def picture_array(image: Any) -> NDArray[np.uint8]:
    """The pixels of a Pillow picture as uint8 [H, W, C], C 1 or 3."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits per pixel, of which convert("L") would keep the lowest
        wide = np.asarray(image).astype(np.int64)
        return (wide.clip(0, 65_535) >> 8).astype(np.uint8)[..., None]
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits per channel, or give arrays")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = pillow().alpha_composite(pillow().new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


# Pixels


def _pixels(one: Any) -> Floats:
    """A picture as float32 [H, W, C], 0 to 1, C 1 or 3; without transparency."""
    if isinstance(one, str | Path):
        one = load(one)
    return pixels_of(np.asarray(one), "a picture")


def pixels_of(array: NDArray[Any], what: str) -> Floats:
    """Pixels [H, W] or [H, W, C], or several such pictures [..., H, W, C], as float32, C 1 or 3, on white."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim < 3 or 0 in array.shape or array.shape[-1] not in (1, 2, 3, 4):
        raise ValueError(
            f"{what} of shape {list(array.shape)} came; expected [H, W], or [H, W, C] with 1 to 4 channels"
        )
    if array.dtype in (np.uint8, np.bool_):
        pixels = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    elif np.issubdtype(array.dtype, np.floating):
        pixels = array.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise ValueError(f"{what} has values that are not finite")
    else:
        raise TypeError(f"{what} of type {array.dtype} came; expected uint8, bool, or floats")
    if array.shape[-1] in (2, 4):
        alpha = pixels[..., -1:]
        pixels = pixels[..., :-1] * alpha + (1 - alpha)
    return pixels


def fit_to(pixels: Floats, height: int, width: int, channels: int) -> Floats:
    """One picture [H, W, C] with other channels and another size, antialiased."""
    if channels == 1 and pixels.shape[-1] == 3:
        pixels = (pixels @ _LUMA)[..., None]
    elif channels == 3 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if pixels.shape[:2] == (height, width):
        return pixels
    image_module = pillow()
    planes = [image_module.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(channels)]
    how = image_module.Resampling.BILINEAR
    return np.stack([np.asarray(plane.resize((width, height), how)) for plane in planes], axis=-1)


def usual_form(pictures: Sequence[Floats], size: int | tuple[int, int] | None, colour: Colour) -> tuple[int, int, int]:
    """Height, width and channels for pictures like these, as asked, or those that most have."""
    height, width = _usual_size(pictures) if size is None else _asked_size(size)
    grey = colour == "grey" or (colour == "auto" and all(map(_is_grey, pictures)))
    return height, width, 1 if grey else 3


def statistics(values: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation along the last axis; 1 in place of a deviation of 0."""
    axes = tuple(range(values.ndim - 1))
    mean, deviation = values.mean(axes, dtype=np.float64), values.std(axes, dtype=np.float64)
    return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def _usual_size(pictures: Sequence[Floats]) -> tuple[int, int]:
    sizes, often = np.unique([pixels.shape[:2] for pixels in pictures], axis=0, return_counts=True)
    height, width = map(int, sizes[often.argmax()])
    shrink = max(1.0, max(height, width) / LONGEST_SIDE)
    return max(1, round(height / shrink)), max(1, round(width / shrink))


def _asked_size(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size: {size!r} came; expected pixels, 1 or more: one number, or (height, width)")
    return int(height), int(width)


def _is_grey(pixels: Floats) -> bool:
    return pixels.shape[-1] == 1 or bool((pixels == pixels[..., :1]).all())


def check_one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}={value!r} came; expected one of {', '.join(map(repr, known))}")
