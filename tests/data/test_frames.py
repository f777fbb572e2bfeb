"""Clips become frames; moving pictures, folders of numbered ones and arrays are read, and nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from everloop.data import codecs
from everloop.data.files import read_examples
from everloop.data.frames import FramesCodec, load
from everloop.testing import FLOAT32, assert_close

Image = pytest.importorskip("PIL.Image", reason="moving pictures need pillow")

DICE = np.random.default_rng(0)


def drawn(*shape: int) -> np.ndarray:
    return DICE.integers(0, 256, shape, dtype=np.uint8)


def save_moving(path: Path, clip: np.ndarray, **options: Any) -> Path:
    first, *others = [Image.fromarray(frame) for frame in clip]
    first.save(path, save_all=True, append_images=others, **options)
    return path


def same_pixels(found: np.ndarray, expected: Any) -> None:
    """Both from 0 to 255; FLOAT32 is meant for numbers of about 1."""
    assert_close(found / 255, np.asarray(expected) / 255, FLOAT32)


def plain(codec: FramesCodec, clip: Any) -> np.ndarray:
    """What encoding gives, before it was scaled: [T, H, W, C], 0 to 255."""
    (steps,) = codec.encode_batch([clip])
    assert codec.picture is not None
    assert steps.dtype == np.float32
    assert steps.shape[1] == codec.features
    return (steps.reshape(-1, *codec.picture) * codec.scale + codec.mean) * 255


def test_a_frame_is_a_step() -> None:
    clips = [drawn(5, 3, 4), drawn(2, 3, 4)]
    codec = FramesCodec.fit(clips)
    assert codec.picture == (3, 4, 1)
    for clip in clips:
        same_pixels(plain(codec, clip), clip[..., None])


def test_each_channel_of_the_training_clips_has_mean_0_and_deviation_1() -> None:
    clips = [drawn(5, 3, 4, 3), drawn(2, 3, 4, 3)]
    values = np.concatenate(FramesCodec.fit(clips).encode_batch(clips)).reshape(-1, 3).astype(np.float64)
    assert_close(values.mean(0), np.zeros(3), FLOAT32)
    assert_close(values.std(0), np.ones(3), FLOAT32)


def test_frames_are_made_smaller_and_fewer_if_asked() -> None:
    clip = np.repeat(np.arange(5, dtype=np.uint8)[:, None, None] * 50, 16, axis=1).repeat(16, axis=2)
    codec = FramesCodec.fit([clip], size=4, every=2)
    found = plain(codec, clip)
    assert found.shape == (3, 4, 4, 1)
    same_pixels(found[:, 0, 0, 0], [0, 100, 200])
    assert "one of every 2" in codec.describe()


def test_a_track_is_numbers_each_scaled_by_itself() -> None:
    tracks = [DICE.normal([1, 100], [2, 30], (steps, 2)) for steps in (4, 7)]
    codec = FramesCodec.fit(tracks)
    assert (codec.picture, codec.features) == (None, 2)
    values = np.concatenate(codec.encode_batch(tracks)).astype(np.float64)
    whole = np.concatenate(tracks)
    assert_close(values, (whole - whole.mean(0)) / whole.std(0), FLOAT32)


def test_clips_and_tracks_do_not_mix() -> None:
    clip, track = drawn(5, 3, 4), np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"a track of shape \[5, 2\] came among clips of pictures"):
        FramesCodec.fit([clip, track])
    with pytest.raises(ValueError, match=r"expected a track \[T, 2\]"):
        FramesCodec.fit([track, clip])
    with pytest.raises(ValueError, match=r"expected a track \[T, 2\]"):
        FramesCodec.fit([track]).encode_batch([np.zeros((5, 3))])
    with pytest.raises(ValueError, match="a track has values that are not finite"):
        FramesCodec.fit([np.full((5, 2), np.inf)])
    with pytest.raises(ValueError, match=r"a clip of shape \[5\] came"):
        FramesCodec.fit([np.zeros(5)])
    with pytest.raises(ValueError, match="no clips came"):
        FramesCodec.fit([])
    with pytest.raises(ValueError, match="every: 0 came"):
        FramesCodec.fit([clip], every=0)


@pytest.mark.parametrize("clip", [drawn(5, 4, 6, 3), DICE.normal(size=(6, 4))], ids=["pictures", "track"])
def test_a_codec_comes_back_from_its_json(clip: np.ndarray) -> None:
    codec = FramesCodec.fit([clip], every=2)
    again = codecs.from_json(codec.to_json())
    assert isinstance(again, FramesCodec)
    assert again.describe() == codec.describe()
    assert (again.encode_batch([clip])[0] == codec.encode_batch([clip])[0]).all()
    with pytest.raises(ValueError, match="this is no codec of clips"):
        FramesCodec.from_json(codec.to_json().replace("every", "each"))
    with pytest.raises(ValueError, match="is damaged"):
        FramesCodec.from_json(codec.to_json().replace('"features": ', '"features": 1'))


# Files


def test_moving_pictures_are_read_frame_by_frame(tmp_path: Path) -> None:
    clip = np.zeros((4, 8, 8), dtype=np.uint8)
    for k in range(4):
        clip[k, k * 2 : k * 2 + 2] = 255
    for path, options in (("a.gif", {}), ("a.webp", {"lossless": True}), ("a.png", {})):
        found = load(save_moving(tmp_path / path, clip, **options))
        assert (found[..., 0] == clip).all()


def test_a_folder_of_pictures_is_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for k in (10, 2, 1):
        Image.fromarray(np.full((2, 2), k, np.uint8)).save(tmp_path / f"frame{k}.png")
    assert load(tmp_path)[:, 0, 0, 0].tolist() == [1, 2, 10]
    Image.fromarray(np.zeros((3, 2), np.uint8)).save(tmp_path / "frame3.png")
    with pytest.raises(ValueError, match="has frames of 2 sizes"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        load(tmp_path / "empty")


def test_arrays_are_read_without_unpickling(tmp_path: Path) -> None:
    clip = drawn(3, 2, 2)
    np.save(tmp_path / "a.npy", clip)
    np.savez(tmp_path / "a.npz", frames=clip, rate=25)
    np.savez(tmp_path / "b.npz", clip)
    np.savez(tmp_path / "c.npz", clip, clip)
    for name in ("a.npy", "a.npz", "b.npz"):
        assert (load(tmp_path / name) == clip).all()
    with pytest.raises(ValueError, match="it holds 2 arrays"):
        load(tmp_path / "c.npz")
    np.save(tmp_path / "pickled.npy", np.array([clip, "text"], dtype=object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-3])
    for name in ("pickled.npy", "cut.npy"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a clip"):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.npy is not there"):
        load(tmp_path / "none.npy")


def test_a_cut_moving_picture_is_named(tmp_path: Path) -> None:
    path = save_moving(tmp_path / "a.gif", drawn(4, 30, 30))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"a\.gif cannot be read as a picture"):
        load(path)


def test_clips_in_a_folder_per_class(tmp_path: Path) -> None:
    for label in ("up", "down"):
        folder = tmp_path / label / "1"
        folder.mkdir(parents=True)
        for k in range(3):
            Image.fromarray(drawn(2, 2)).save(folder / f"{k}.png")
        np.save(tmp_path / label / "2.npy", drawn(4, 2, 2))
    found = read_examples(tmp_path, modality="frames")
    assert (found.modality, found.targets) == ("frames", ["down", "down", "up", "up"])
    assert [len(clip) for clip in FramesCodec.fit(found.inputs).encode_batch(found.inputs)] == [3, 4, 3, 4]
    assert read_examples(tmp_path, modality="frames", want_target="no").targets is None


def test_a_column_of_moving_pictures(tmp_path: Path) -> None:
    for k in range(2):
        save_moving(tmp_path / f"{k}.gif", drawn(3, 4, 4))
    (tmp_path / "clips.csv").write_text("clip,caption\n0.gif,it moves up\n1.gif,it moves down\n")
    found = read_examples(tmp_path / "clips.csv", input="clip", target="caption")
    assert (found.modality, found.targets) == ("frames", ["it moves up", "it moves down"])
    assert FramesCodec.fit(found.inputs).encode_batch(found.inputs)[0].shape == (3, 16)
