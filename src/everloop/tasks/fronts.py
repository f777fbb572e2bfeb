"""What stands between values [B, T, F] and recurrent layers: a linear map, or convolutions that look at pictures.

A front takes a padded batch and its lengths (on the CPU) and gives the steps that the recurrent layers read, with
their lengths: `front(x, lengths) -> (y [B, T', E], lengths)`. `output_size` is E.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["auto", "linear", "convolutions"]

CHANNELS = (8, 16, 32, 64)
"""Of the convolutions, after each of which height and width are halved while more than 4 pixels of a side are left."""


def front_for(
    codec: Any, features_out: int, dropout: float = 0.0, *, kind: Kind = "auto", shift: float = 0.1
) -> nn.Module:
    """The front that suits what a codec of values gives: any codec with `features`.

    kind: convolutions are for codecs of pictures (`ImageCodec`, by rows) and of clips of pictures (`FramesCodec`);
    auto takes them for those whose sides are 16 pixels or more, and a linear map for everything else. shift: pictures
    are moved in training by up to this share of their sides, at random; all frames of a clip alike.
    """
    picture = picture_shape(codec)
    if kind == "convolutions" and picture is None:
        raise ValueError(
            f"a front of convolutions came for {codec.describe()}; expected pictures by rows, or clips of pictures"
        )
    if picture is None or kind == "linear" or (kind == "auto" and min(picture[:2]) < 16):
        return LinearFront(codec.features, features_out, dropout, picture, shift)
    if codec.modality == "frames":
        return FramesFront(picture, features_out, dropout, shift)
    return PictureFront(picture, features_out, dropout, shift)


def picture_shape(codec: Any) -> tuple[int, int, int] | None:
    """(height, width, channels) of the pictures that a codec gives, row by row or frame by frame; None for others."""
    if codec.modality == "image" and codec.by == "rows":
        return codec.height, codec.width, codec.channels
    return codec.picture if codec.modality == "frames" else None


class LinearFront(nn.Module):
    """Each step apart, [B, T, F] -> [B, T, E]: linear, then dropout. picture: of what the steps are rows or frames."""

    def __init__(
        self,
        features: int,
        output_size: int,
        dropout: float,
        picture: tuple[int, int, int] | None = None,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.picture, self.output_size, self.shift = picture, output_size, shift
        self.linear, self.dropout = nn.Linear(features, output_size), nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and self.shift and self.picture:
            moved = shifted(_as_pixels(x, self.picture), self.shift, len(x))
            x = moved.permute(0, 2, 3, 1).reshape(x.shape)
        return self.dropout(self.linear(x)), lengths


class PictureFront(nn.Module):
    """Pictures as rows, [B, H, W * C] -> [B, H' * W', E]: convolutions, whose every place is a step, in reading order.

    What is seen at a place is told where it is by an embedding of its own.
    """

    def __init__(self, picture: tuple[int, int, int], output_size: int, dropout: float, shift: float) -> None:
        super().__init__()
        self.picture, self.output_size, self.shift = picture, output_size, shift
        self.convolutions, (channels, height, width) = _convolutions(picture)
        self.linear, self.dropout = nn.Linear(channels, output_size), nn.Dropout(dropout)
        self.place = nn.Parameter(torch.zeros(height * width, output_size))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        pixels = _as_pixels(x, self.picture)
        if self.training and self.shift:
            pixels = shifted(pixels, self.shift)
        y = self.convolutions(pixels).flatten(2).transpose(1, 2)
        y = self.dropout(self.linear(y) + self.place)
        return y, torch.full_like(lengths, y.shape[1])


class FramesFront(nn.Module):
    """Clips, [B, T, H * W * C] -> [B, T, E]: the same convolutions for each frame, then linear: of what is seen at each
    place, and of the most that is seen anywhere, which stays when things move."""

    def __init__(self, picture: tuple[int, int, int], output_size: int, dropout: float, shift: float) -> None:
        super().__init__()
        self.picture, self.output_size, self.shift = picture, output_size, shift
        self.convolutions, left = _convolutions(picture)
        self.linear, self.dropout = nn.Linear(math.prod(left) + left[0], output_size), nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps, _ = x.shape
        inside = torch.arange(steps, device=x.device)[None, :] < lengths.to(x.device)[:, None]
        pixels = _as_pixels(x, self.picture)
        if self.training and self.shift:
            pixels = shifted(pixels, self.shift, batch)
        seen = self.convolutions(pixels[inside.flatten()])
        seen = torch.cat([seen.flatten(1), seen.amax((2, 3))], -1)
        y = x.new_zeros(batch * steps, self.output_size)
        y = y.index_put((inside.flatten().nonzero()[:, 0],), self.linear(seen))
        return self.dropout(y.view(batch, steps, -1)), lengths


def shifted(pixels: Tensor, share: float, clips: int | None = None) -> Tensor:
    """Pictures [N, C, H, W], each moved by up to this share of its height and width; what comes in repeats the edge.

    clips: the pictures are the frames of so many clips, one after another; those of a clip move alike.
    """
    count, _, height, width = pixels.shape
    clips = clips or count
    moved = pixels
    for axis, side in ((2, height), (3, width)):
        reach = round(share * side)
        by = torch.randint(-reach, reach + 1, (clips,), device=pixels.device).repeat_interleave(count // clips)
        places = (torch.arange(side, device=pixels.device)[None, :] - by[:, None]).clamp(0, side - 1)
        shape = [count, 1, 1, 1]
        shape[axis] = side
        moved = moved.gather(axis, places.view(shape).expand(moved.shape))
    return moved


def _as_pixels(x: Tensor, picture: tuple[int, int, int]) -> Tensor:
    """Rows or frames, channels innermost, as pictures [N, C, H, W]."""
    return x.reshape(-1, *picture).permute(0, 3, 1, 2)


def _convolutions(picture: tuple[int, int, int]) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """The layers, and the (channels, height, width) that they leave."""
    height, width, channels = picture
    layers: list[nn.Module] = []
    for out in CHANNELS:
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
        if min(height, width) > 4:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            height, width = -(-height // 2), -(-width // 2)
    return nn.Sequential(*layers), (channels, height, width)
