"""Fronts: what stands between values and recurrent layers keeps sequences apart and lengths true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from everloop.data.frames import FramesCodec
from everloop.data.image import ImageCodec
from everloop.tasks.changes import PictureChanges, shifted
from everloop.tasks.fronts import FramesFront, LinearFront, PictureFront, front_for
from everloop.testing import FLOAT32, SAME, assert_close

DICE = np.random.default_rng(0)


def pictures(height: int = 16, width: int = 20, channels: int = 3) -> list[np.ndarray]:
    return list(DICE.integers(0, 256, (4, height, width, channels), dtype=np.uint8))


def clips(*lengths: int, side: int = 16) -> list[np.ndarray]:
    return [DICE.integers(0, 256, (steps, side, side), dtype=np.uint8) for steps in lengths]


def padded(rows: list[np.ndarray], fill: float = 0.0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    x = torch.full((len(rows), int(lengths.max()), rows[0].shape[1]), fill)
    for k, row in enumerate(rows):
        x[k, : len(row)] = torch.from_numpy(row)
    return x, lengths


def codec_of(kind: str) -> tuple[Any, list[np.ndarray]]:
    inputs = {"image": pictures(), "frames": clips(5, 2, 3), "track": [DICE.normal(size=(n, 4)) for n in (5, 2, 3)]}
    codec = (ImageCodec if kind == "image" else FramesCodec).fit(inputs[kind])
    return codec, codec.encode_batch(inputs[kind])


@pytest.mark.parametrize(
    ("kind", "expected"), [("image", PictureFront), ("frames", FramesFront), ("track", LinearFront)]
)
def test_a_front_fits_its_codec_and_learns(kind: str, expected: type) -> None:
    codec, rows = codec_of(kind)
    front = front_for(codec, 7, 0.1)
    assert type(front) is expected
    x, lengths = padded(rows)
    y, after = front(x, lengths)
    assert y.shape == (len(rows), int(after.max()), 7)
    assert front.output_size == 7
    assert after.device.type == "cpu"
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in front.parameters())


def test_a_step_of_a_picture_is_a_place() -> None:
    codec, rows = codec_of("image")
    front = front_for(codec, 7)
    y, lengths = front(*padded(rows))
    assert y.shape == (4, 4 * 5, 7)
    assert lengths.tolist() == [20] * 4
    x, _ = padded(rows)
    changed = x.clone()
    changed[:, 0] += 1  # the topmost row of pixels is not seen at the bottom
    front.eval()
    with torch.no_grad():
        before, after = front(x, lengths)[0], front(changed, lengths)[0]
    assert not torch.equal(before[:, :5], after[:, :5])
    assert torch.equal(before[:, -5:], after[:, -5:])


def test_the_last_step_of_a_picture_may_be_the_whole() -> None:
    codec, rows = codec_of("image")
    front = front_for(codec, 7, whole=True).eval()
    x, lengths = padded(rows)
    with torch.no_grad():
        before, after = (front(values, lengths) for values in (x, x + torch.eye(16)[0, :, None]))
    assert before[1].tolist() == [21] * 4
    assert torch.equal(before[0][:, 15:20], after[0][:, 15:20]), "the lowest places do not see the topmost row"
    assert bool((before[0][:, 20] != after[0][:, 20]).any(-1).all())


def test_padding_changes_nothing() -> None:
    codec, rows = codec_of("frames")
    front = front_for(codec, 7, changes=PictureChanges(0.0))
    zeros, ones = (front(*padded(rows, fill))[0] for fill in (0.0, 1.0))
    for k, row in enumerate(rows):
        assert torch.equal(zeros[k, : len(row)], ones[k, : len(row)]), "not even what the layers normalise by"
    front.eval()
    with torch.no_grad():
        together = front(*padded(rows))[0]
        for k, row in enumerate(rows):
            alone = front(*padded([row]))[0]
            assert_close(together[k, : len(row)], alone[0], FLOAT32)


@pytest.mark.parametrize("modality", ["image", "frames"])
@pytest.mark.parametrize("kind", ["linear", "convolutions"])
def test_pictures_move_in_training_only(modality: str, kind: Any) -> None:
    codec, rows = codec_of(modality)
    front = front_for(codec, 7, kind=kind, changes=PictureChanges(0.3)).eval()
    x, lengths = padded(rows)
    assert torch.equal(front(x, lengths)[0], front(x, lengths)[0])
    front.train()
    assert not torch.equal(front(x, lengths)[0], front(x, lengths)[0])


def test_what_moves_is_there_still_and_the_edge_comes_in() -> None:
    torch.manual_seed(0)
    picture = torch.arange(100.0).view(1, 1, 10, 10)
    seen = set()
    for moved in shifted(picture.expand(200, 1, 10, 10), 0.2)[:, 0]:
        down, across = divmod(22 - int(moved[2, 2]), 10)
        seen.add((down, across) if across < 5 else (down + 1, across - 10))
        assert moved[5, 5] - moved[5, 4] == 1
        assert moved[5, 5] - moved[4, 5] == 10
    assert seen == {(down, across) for down in range(-2, 3) for across in range(-2, 3)}
    assert_close(shifted(picture, 0.0), picture, SAME)


def test_frames_of_a_clip_move_alike() -> None:
    torch.manual_seed(0)
    frames = torch.arange(64.0).view(1, 1, 8, 8).expand(6 * 5, 1, 8, 8)
    moved = shifted(frames, 0.25, clips=6).view(6, 5, 8, 8)
    assert all(torch.equal(clip[0], frame) for clip in moved for frame in clip)
    assert len({tuple(clip[0].flatten().tolist()) for clip in moved}) > 1


def test_what_a_front_is_chosen_by() -> None:
    assert type(front_for(ImageCodec.fit(pictures(8, 28, 1)), 7)) is LinearFront, "small pictures"
    assert type(front_for(ImageCodec.fit(pictures(), by="columns"), 7)) is LinearFront
    assert type(front_for(ImageCodec.fit(pictures()), 7, kind="linear")) is LinearFront
    assert type(front_for(FramesCodec.fit(clips(3, side=8)), 7, kind="convolutions")) is FramesFront
    with pytest.raises(ValueError, match="a front of convolutions came for tracks of 4 numbers"):
        front_for(codec_of("track")[0], 7, kind="convolutions")


def test_a_picture_turned_and_seen_in_a_mirror_is_that_picture() -> None:
    """Of a picture wider than high: what leaves it and comes back is lost, so that its middle is compared."""
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(1, 3, 4, 6), (24, 36), mode="bicubic")
    white = torch.zeros(3)
    mirrored = PictureChanges(shift=0.0, mirror=True)(smooth.expand(32, -1, -1, -1), white)
    plain, other = ((mirrored - one).abs().amax((1, 2, 3)) < FLOAT32.absolute for one in (smooth, smooth.flip(-1)))
    assert bool((plain ^ other).all())
    assert 4 < int(other.sum()) < 28
    places = PictureChanges(shift=0.0, turn=90.0)._places(64, smooth)
    in_pixels = places[:, :, :2] * torch.tensor([18.0, 12.0])[:, None] / torch.tensor([18.0, 12.0])
    assert_close(in_pixels @ in_pixels.transpose(1, 2), torch.eye(2).expand(64, 2, 2), FLOAT32)


def test_zoom_and_shift_stay_within_what_was_asked() -> None:
    torch.manual_seed(0)
    places = PictureChanges(shift=0.1, zoom=0.2)._places(500, torch.zeros(1, 3, 8, 8))
    high, moved = places[:, 1, 1], places[:, :, 2]
    assert 1 / 1.2 - 1e-6 <= float(high.min()) < 0.9
    assert 1.1 < float(high.max()) <= 1.2 + 1e-6
    assert 0.19 < float(moved.abs().max()) <= 0.2, "of sides of length 2"


def test_colours_change_around_white() -> None:
    torch.manual_seed(0)
    codec, rows = codec_of("image")
    front = front_for(codec, 7, changes=PictureChanges(shift=0.0, colour=0.3))
    assert isinstance(front, PictureFront)
    white = torch.tensor([(1 - m) / s for m, s in zip(codec.mean, codec.scale, strict=True)])
    assert_close(front.pixels.white, white, FLOAT32)
    x, _ = padded(rows)
    x[:, 0] = white.repeat(20)
    pixels = front.pixels(x)
    assert_close(pixels[:, :, 0], white[None, :, None].expand(4, 3, 20), FLOAT32)
    assert not torch.equal(pixels, front.eval().pixels(x))


def test_frames_of_a_clip_change_alike() -> None:
    torch.manual_seed(0)
    frames = torch.rand(1, 3, 8, 8).expand(6 * 5, 3, 8, 8)
    changes = PictureChanges(turn=20, zoom=0.2, mirror=True, colour=0.2)
    changed = changes(frames, torch.ones(3), clips=6).view(6, 5, 3, 8, 8)
    assert_close(changed, changed[:, :1].expand_as(changed), SAME)
    assert not torch.equal(changed[0], changed[1])
