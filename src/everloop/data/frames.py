"""Clips as sequences: a frame is a step. Moving pictures, and tracks of points.

A clip is an array: [T, H, W] or [T, H, W, C] of pictures (as in `everloop.data.image`), or [T, F], the numbers of a
track, such as the x and y of some points; or a path: of an animated picture (GIF, WebP, APNG), of a folder with one
picture per frame, numbered, or of an array kept by NumPy (.npy, .npz).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import numpy as np
from numpy.typing import NDArray

from everloop.data import image
from everloop.data._asked import Asked
from everloop.data.examples import Examples
from everloop.data.image import Colour, Floats

EXTENSIONS = (".gif", ".apng")
"""Other files of clips are taken for those where the modality is named: a .webp or .png may be a single picture."""

_LOOKED_AT = 512  # clips, evenly spaced, that size, colour and scale are taken from
_CLIPS = (*EXTENSIONS, ".webp", ".png", ".npy", ".npz")


@dataclass(frozen=True, eq=False)
class FramesCodec:
    """Clips to float32 [T, F]: T frames, of every `every`-th only. Made by `fit` or `from_json`, never changed after.

    picture: (H, W, C) of the frames, F = H * W * C, channels innermost; None for tracks, whose F is `features`. Over
    the training clips each channel, and each number of a track, has mean 0 and standard deviation 1.
    """

    features: int
    picture: tuple[int, int, int] | None
    every: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    modality: ClassVar[str] = "frames"

    @classmethod
    def fit(
        cls,
        inputs: Sequence[Any],
        *,
        size: int | tuple[int, int] | None = None,
        colour: Colour = "auto",
        every: int = 1,
    ) -> Self:
        """A codec for clips like these (training) ones.

        size: of a frame, (height, width) or one number for both; others are stretched to it. Left out, it is that of
        most clips, made smaller where a side is longer than 128 pixels. every: 2 leaves out every other frame.
        """
        image.check_one_of("colour", colour, get_args(Colour))
        if every < 1:
            raise ValueError(f"every: {every} came; expected 1 or more, as 2 for every other frame")
        if not len(inputs):
            raise ValueError("no clips came; expected at least one to fit a codec to")
        some = [_clip(inputs[k])[::every] for k in range(0, len(inputs), -(-len(inputs) // _LOOKED_AT))]
        if some[0].ndim == 2:
            return cls._of_tracks(some, every)
        height, width, channels = image.usual_form([clip[0] for clip in _pictures(some)], size, colour)
        whole = np.concatenate([_fit_frames(clip, (height, width, channels)) for clip in some])
        mean, scale = image.statistics(whole)
        return cls(height * width * channels, (height, width, channels), every, mean, scale)

    @classmethod
    def _of_tracks(cls, clips: Sequence[Floats], every: int) -> Self:
        features = clips[0].shape[1]
        for clip in clips:
            _check_track(clip, features)
        mean, scale = image.statistics(np.concatenate(clips))
        return cls(features, None, every, mean, scale)

    def encode_batch(self, inputs: Sequence[Any]) -> list[Floats]:
        mean, scale = (np.array(v, dtype=np.float32) for v in (self.mean, self.scale))
        found = []
        for one in inputs:
            clip = _clip(one)[:: self.every]
            if self.picture is None:
                _check_track(clip, self.features)
            else:
                clip = _fit_frames(clip, self.picture)
            found.append(((clip - mean) / scale).reshape(len(clip), self.features))
        return found

    def describe(self) -> str:
        every = "" if self.every == 1 else f", one of every {self.every}"
        if self.picture is None:
            return f"tracks of {self.features} numbers a step{every}"
        height, width, channels = self.picture
        return f"clips of {'grey' if channels == 1 else 'colour'} frames of {height} x {width}{every}"

    def to_json(self) -> str:
        return json.dumps({"modality": self.modality, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        try:
            facts = json.loads(text)
            if facts.pop("modality") != cls.modality:
                raise ValueError("its modality is another one")
            picture = None if facts["picture"] is None else tuple(facts["picture"])
            codec = cls(**facts | {"picture": picture, "mean": tuple(facts["mean"]), "scale": tuple(facts["scale"])})
            numbers = np.array([codec.mean, codec.scale], dtype=np.float64)
            of_each = codec.features if picture is None else picture[2]
            whole = numbers.shape == (2, of_each) and np.isfinite(numbers).all() and codec.every > 0
            whole = whole and (picture is None or int(np.prod(picture)) == codec.features)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(
                f"this is no codec of clips ({type(error).__name__}: {error}); expected what FramesCodec.to_json() gave"
            ) from None
        if not whole:
            raise ValueError("the codec of clips is damaged: its numbers do not fit one another")
        return codec


# Files


def load(path: str | Path) -> NDArray[Any]:
    """The clip of a file or of a folder of numbered pictures: [T, H, W, C], uint8; of an array, what it holds."""
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if path.suffix.lower() in (".npy", ".npz"):
        return _load_array(path)
    with image.opened(path) as moving:
        frames = []
        for k in range(getattr(moving, "n_frames", 1)):
            moving.seek(k)
            frames.append(image.picture_array(moving.copy()))
    return _of_one_form(frames, path)


def _load_folder(folder: Path) -> NDArray[np.uint8]:
    """Frames in the order of the numbers in their names."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in image.EXTENSIONS]
    if not files:
        raise ValueError(f"{folder} holds no pictures; expected the frames of a clip, one picture each")
    files.sort(key=lambda file: ([int(number) for number in re.findall(r"\d+", file.stem)], file.name))
    return _of_one_form([image.load(file) for file in files], folder)


def _of_one_form(frames: Sequence[NDArray[np.uint8]], path: Path) -> NDArray[np.uint8]:
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f"{path} has frames of {len(sizes)} sizes, {sorted(sizes)[0]} and others; expected one")
    channels = max(frame.shape[2] for frame in frames)
    return np.stack([np.broadcast_to(frame, (*frame.shape[:2], channels)) for frame in frames])


def _load_array(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected an array kept by NumPy")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = list(found)
            name = "frames" if "frames" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise ValueError(
                    f"it holds {len(names)} arrays ({', '.join(names)}); expected one, or one named frames"
                )
            return found[name]
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as a clip: {error}") from None


def read_folder(folder: Path, name: str, asked: Asked) -> Examples | None:
    """Clips in one subfolder per class: files, or folders of numbered pictures. Where the modality is asked for only,
    since such folders may as well hold pictures that do not belong together."""
    if asked.modality != "frames":
        return None
    asked.refuse_columns(f"{name} is a folder of clips")
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    clips = [
        (clip, path.name) for path in visible if path.is_dir() for clip in sorted(path.iterdir()) if _is_clip(clip)
    ]
    if not clips:
        return None
    labels = None if asked.want_target == "no" else [label for _, label in clips]
    rows = list(range(1, len(clips) + 1))
    return Examples([clip for clip, _ in clips], labels, name, "folder", rows, modality="frames")


def _is_clip(path: Path) -> bool:
    if path.is_dir():
        return any(file.suffix.lower() in image.EXTENSIONS for file in path.iterdir())
    return path.suffix.lower() in _CLIPS


# Frames


def _clip(one: Any) -> Floats:
    """A clip as float32: pictures [T, H, W, C], 0 to 1, C 1 or 3; or a track [T, F]."""
    array = load(one) if isinstance(one, str | Path) else np.asarray(one)
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"a clip of shape {list(array.shape)} came; expected [T, H, W], [T, H, W, C], or a track [T, F]"
        )
    if array.ndim > 2:
        return image.pixels_of(array if array.ndim == 4 else array[..., None], "a clip")
    track = array.astype(np.float32)
    if not np.isfinite(track).all():
        raise ValueError("a track has values that are not finite")
    return track


def _pictures(clips: Sequence[Floats]) -> Sequence[Floats]:
    for clip in clips:
        if clip.ndim != 4:
            raise ValueError(f"a track of shape {list(clip.shape)} came among clips of pictures")
    return clips


def _fit_frames(clip: Floats, picture: tuple[int, int, int]) -> Floats:
    (clip,) = _pictures([clip])
    if clip.shape[1:] == picture:
        return clip
    return np.stack([image.fit_to(frame, *picture) for frame in clip])


def _check_track(clip: Floats, features: int) -> None:
    if clip.ndim != 2 or clip.shape[1] != features:
        raise ValueError(f"a clip of shape {list(clip.shape)} came; expected a track [T, {features}] as the others are")
