"""What stands between values [B, T, F] and recurrent layers: a linear map, or convolutions that look at pictures.

A front takes a padded batch and its lengths (on the CPU) and gives the steps that the recurrent layers read, with
their lengths: `front(x, lengths) -> (y [B, T', E], lengths)`. `output_size` is E.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from everloop.tasks.changes import PictureChanges

Kind = Literal["auto", "linear", "convolutions"]

UNCHANGED = PictureChanges(shift=0.0)
CONVOLUTIONS = 4
"""After each of which height and width are halved while more than 4 pixels of a side are left."""


def front_for(
    codec: Any,
    features_out: int,
    dropout: float = 0.0,
    *,
    kind: Kind = "auto",
    changes: PictureChanges = UNCHANGED,
    filters: int = 8,
    whole: bool = False,
) -> nn.Module:
    """The front that suits what a codec of values gives: any codec with `features`.

    kind: convolutions are for codecs of pictures (`ImageCodec`, by rows) and of clips of pictures (`FramesCodec`);
    auto takes them for those whose sides are 16 pixels or more, and a linear map for everything else. changes: what is
    done to pictures in training; to all frames of a clip alike. filters: of the first convolution; each next one has
    twice as many. whole: after the places of a picture comes one more step, which sees them all at once.
    """
    picture = picture_shape(codec)
    if kind == "convolutions" and picture is None:
        raise ValueError(
            f"a front of convolutions came for {codec.describe()}; expected pictures by rows, or clips of pictures"
        )
    pixels = None if picture is None else Pixels(picture, codec.mean, codec.scale, changes)
    if picture is None or pixels is None or kind == "linear" or (kind == "auto" and min(picture[:2]) < 16):
        return LinearFront(codec.features, features_out, dropout, pixels)
    if codec.modality == "frames":
        return FramesFront(pixels, features_out, dropout, filters)
    return PictureFront(pixels, features_out, dropout, filters, whole)


def picture_shape(codec: Any) -> tuple[int, int, int] | None:
    """(height, width, channels) of the pictures that a codec gives, row by row or frame by frame; None for others."""
    if codec.modality == "image" and codec.by == "rows":
        return codec.height, codec.width, codec.channels
    return codec.picture if codec.modality == "frames" else None


class Pixels(nn.Module):
    """Rows or frames, channels innermost, as pictures [N, C, H, W], which are changed in training. mean, scale: those
    of the codec, which tell what white is. clips: see `PictureChanges`."""

    white: Tensor

    def __init__(
        self, picture: tuple[int, int, int], mean: Sequence[float], scale: Sequence[float], changes: PictureChanges
    ) -> None:
        super().__init__()
        self.picture, self.changes = picture, changes
        self.register_buffer("white", (1 - torch.tensor(mean)) / torch.tensor(scale), persistent=False)

    def forward(self, x: Tensor, clips: int | None = None) -> Tensor:
        pixels = x.reshape(-1, *self.picture).permute(0, 3, 1, 2)
        return self.changes(pixels, self.white, clips) if self.training else pixels


class LinearFront(nn.Module):
    """Each step apart, [B, T, F] -> [B, T, E]: linear, then dropout. pixels: for steps that are rows or frames."""

    def __init__(self, features: int, output_size: int, dropout: float, pixels: Pixels | None = None) -> None:
        super().__init__()
        self.pixels, self.output_size = pixels, output_size
        self.linear, self.dropout = nn.Linear(features, output_size), nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and self.pixels is not None:
            x = self.pixels(x, len(x)).permute(0, 2, 3, 1).reshape(x.shape)
        return self.dropout(self.linear(x)), lengths


class PictureFront(nn.Module):
    """Pictures as rows, [B, H, W * C] -> [B, H' * W', E]: convolutions, whose every place is a step, in reading order.

    What is seen at a place is told where it is by an embedding of its own. grid: rows and columns of places. whole: one
    more step comes last, a linear map of all places: what a picture is as a whole is learned through it in a fraction
    of the updates that the way through the places takes.
    """

    def __init__(self, pixels: Pixels, output_size: int, dropout: float, filters: int, whole: bool) -> None:
        super().__init__()
        self.pixels, self.output_size = pixels, output_size
        self.convolutions, (channels, *self.grid) = _convolutions(pixels.picture, filters)
        self.linear, self.dropout = nn.Linear(channels, output_size), nn.Dropout(dropout)
        places = math.prod(self.grid)
        self.place = nn.Parameter(torch.zeros(places, output_size))
        self.whole = nn.Linear(channels * places, output_size) if whole else None

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.convolutions(self.pixels(x)).flatten(2)
        y = self.linear(seen.transpose(1, 2)) + self.place
        if self.whole is not None:
            y = torch.cat([y, self.whole(seen.flatten(1))[:, None]], 1)
        return self.dropout(y), torch.full_like(lengths, y.shape[1])


class FramesFront(nn.Module):
    """Clips, [B, T, H * W * C] -> [B, T, E]: the same convolutions for each frame, then linear: of what is seen at each
    place, and of the most that is seen anywhere, which stays when things move."""

    def __init__(self, pixels: Pixels, output_size: int, dropout: float, filters: int) -> None:
        super().__init__()
        self.pixels, self.output_size = pixels, output_size
        self.convolutions, left = _convolutions(pixels.picture, filters)
        self.linear, self.dropout = nn.Linear(math.prod(left) + left[0], output_size), nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps, _ = x.shape
        inside = torch.arange(steps, device=x.device)[None, :] < lengths.to(x.device)[:, None]
        seen = self.convolutions(self.pixels(x, batch)[inside.flatten()])
        seen = torch.cat([seen.flatten(1), seen.amax((2, 3))], -1)
        y = x.new_zeros(batch * steps, self.output_size)
        y = y.index_put((inside.flatten().nonzero()[:, 0],), self.linear(seen))
        return self.dropout(y.view(batch, steps, -1)), lengths


def _convolutions(picture: tuple[int, int, int], filters: int) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """The layers, and the (channels, height, width) that they leave."""
    height, width, channels = picture
    layers: list[nn.Module] = []
    for out in (filters * 2**k for k in range(CONVOLUTIONS)):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
        if min(height, width) > 4:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers), (channels, height, width)
