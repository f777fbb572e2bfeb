"""Pictures a little changed, for training: as another hand might have drawn them, or another camera seen them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class PictureChanges:
    """What may be done to a picture, drawn anew each time. 0 leaves a change out.

    shift: share of its sides by which it is moved. turn: degrees by which it is turned. zoom: share by which it becomes
    larger or smaller, and half of that by which it becomes wider alone. mirror: every second one is seen in a mirror,
    which is not for digits, letters, or what "left" is said of. colour: how far its channels are mixed, white staying
    white. What comes in at an edge repeats it.
    """

    shift: float = 0.1
    turn: float = 0.0
    zoom: float = 0.0
    mirror: bool = False
    colour: float = 0.0

    def __call__(self, pixels: Tensor, white: Tensor, clips: int | None = None) -> Tensor:
        """Pictures [N, C, H, W] changed; white [C] is what white is among their values. clips: they are the frames of
        so many clips, one after another; those of a clip change alike."""
        clips = clips or len(pixels)
        each = len(pixels) // clips
        if self.turn or self.zoom or self.mirror:
            places = self._places(clips, pixels).repeat_interleave(each, 0)
            grid = F.affine_grid(places, list(pixels.shape), align_corners=False)
            pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        elif self.shift:
            pixels = shifted(pixels, self.shift, clips)
        if self.colour:
            channels = pixels.shape[1]
            mixing = (
                torch.eye(channels).to(pixels) + self.colour * pixels.new_empty(clips, channels, channels).normal_()
            )
            white = white.to(pixels)[:, None, None]
            pixels = torch.einsum("nij,njhw->nihw", mixing.repeat_interleave(each, 0), pixels - white) + white
        return pixels

    def _places(self, count: int, like: Tensor) -> Tensor:
        """[N, 2, 3]: from where in a picture, whose edges are at -1 and 1, each place of the changed one is taken."""

        def within(reach: float) -> Tensor:
            return like.new_empty(count).uniform_(-reach, reach)

        height, width = like.shape[2:]
        angle, zoom = within(math.radians(self.turn)), within(math.log1p(self.zoom))
        high, wide = zoom.exp(), (zoom + within(math.log1p(self.zoom) / 2)).exp()
        if self.mirror:
            wide = torch.where(like.new_empty(count).uniform_() < 0.5, -wide, wide)
        # A turn is one of pixels, and places are in halves of sides, which may differ.
        sine, cosine = angle.sin(), angle.cos()
        across = torch.stack([cosine * wide, -sine * high * height / width, within(2 * self.shift)], -1)
        down = torch.stack([sine * wide * width / height, cosine * high, within(2 * self.shift)], -1)
        return torch.stack([across, down], 1)


def shifted(pixels: Tensor, share: float, clips: int | None = None) -> Tensor:
    """Pictures [N, C, H, W], each moved by whole pixels, up to this share of its height and width."""
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
