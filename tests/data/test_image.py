"""Pictures become rows, columns or patches of what they show; files that are not what they seem are named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.data import codecs
from everloop.data.files import read_examples
from everloop.data.idx import read_idx
from everloop.data.image import ImageCodec, load
from everloop.testing import FLOAT32, assert_close

Image = pytest.importorskip("PIL.Image", reason="pictures need pillow")


def drawn(count: int, *shape: int) -> list[np.ndarray]:
    """Noise, the same for the same sizes."""
    return list(np.random.default_rng([count, *shape]).integers(0, 256, (count, *shape), dtype=np.uint8))


def same_pixels(found: np.ndarray, expected: Any) -> None:
    """Both from 0 to 255; FLOAT32 is meant for numbers of about 1."""
    assert_close(found / 255, np.asarray(expected) / 255, FLOAT32)


def plain(codec: ImageCodec, picture: Any) -> np.ndarray:
    """What encoding gives, before it was scaled: [H, W, C], 0 to 255."""
    (steps,) = codec.encode_batch([picture])
    assert steps.shape == (codec.steps, codec.features)
    assert steps.dtype == np.float32
    pixels = steps.reshape(codec.height, codec.width, codec.channels)
    return (pixels * codec.scale + codec.mean) * 255


@given(height=st.integers(1, 6), width=st.integers(1, 6), channels=st.sampled_from([1, 3]))
def test_rows_hold_the_pixels_in_their_order(height: int, width: int, channels: int) -> None:
    pictures = drawn(3, height, width, channels)
    codec = ImageCodec.fit(pictures, colour="grey" if channels == 1 else "colour")
    assert (codec.height, codec.width, codec.channels) == (height, width, channels)
    same_pixels(plain(codec, pictures[1]), pictures[1])


def test_columns_are_the_rows_of_the_turned_picture() -> None:
    pictures = drawn(4, 5, 7, 3)
    columns = ImageCodec.fit(pictures, by="columns").encode_batch(pictures)
    turned = [picture.transpose(1, 0, 2) for picture in pictures]
    rows = ImageCodec.fit(turned).encode_batch(turned)
    for a, b in zip(columns, rows, strict=True):
        assert a.shape == (7, 5 * 3)
        assert_close(a, b, FLOAT32)


def test_patches_come_in_reading_order() -> None:
    pictures = drawn(3, 4, 6, 1)
    patches = ImageCodec.fit(pictures, by="patches", patch=2)
    rows = ImageCodec.fit(pictures)
    (found,), (whole,) = patches.encode_batch(pictures[:1]), rows.encode_batch(pictures[:1])
    assert found.shape == (6, 4)
    assert_close(found[0], whole[:2, :2].ravel(), FLOAT32)
    assert_close(found[1], whole[:2, 2:4].ravel(), FLOAT32)
    assert_close(found[5], whole[2:, 4:].ravel(), FLOAT32)
    with pytest.raises(ValueError, match="patches of 4 pixels do not divide pictures of 4 x 6"):
        ImageCodec.fit(pictures, by="patches", patch=4)


def test_each_channel_of_the_training_pictures_has_mean_0_and_deviation_1() -> None:
    pictures = drawn(9, 4, 4, 3)
    values = np.stack(ImageCodec.fit(pictures).encode_batch(pictures)).reshape(-1, 3).astype(np.float64)
    assert_close(values.mean(0), np.zeros(3), FLOAT32)
    assert_close(values.std(0), np.ones(3), FLOAT32)


def test_a_channel_without_contrast_is_zero() -> None:
    codec = ImageCodec.fit([np.full((3, 3), 7, dtype=np.uint8)])
    assert not codec.encode_batch([np.full((3, 3), 7, dtype=np.uint8)])[0].any()


def test_pictures_are_grey_if_all_of_them_are() -> None:
    grey = [np.repeat(picture, 3, axis=-1) for picture in drawn(3, 4, 4, 1)]
    assert ImageCodec.fit(grey).channels == 1
    assert ImageCodec.fit([*grey, *drawn(1, 4, 4, 3)]).channels == 3
    same_pixels(plain(ImageCodec.fit(grey), grey[0]), grey[0][..., :1])


def test_transparent_is_white(tmp_path: Path) -> None:
    picture = np.zeros((2, 2, 4), dtype=np.uint8)
    picture[0, 0, 3], picture[0, 1, 3] = 255, 51  # black, and a fifth of it
    Image.fromarray(picture).save(tmp_path / "a.png")
    codec = ImageCodec.fit([np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)])
    expected = np.array([[0, 204], [255, 255]])[..., None]
    same_pixels(plain(codec, picture), expected)
    assert (load(tmp_path / "a.png") == expected).all()


def test_floats_mean_bytes_by_255() -> None:
    pictures = drawn(3, 4, 4)
    codec = ImageCodec.fit(pictures)
    for a, b in zip(codec.encode_batch(pictures), codec.encode_batch([p / 255 for p in pictures]), strict=True):
        assert_close(a, b, FLOAT32)


def test_other_sizes_are_stretched() -> None:
    codec = ImageCodec.fit(drawn(2, 4, 8), size=(2, 4))
    checks = np.kron(np.array([[0, 100, 200, 50], [10, 20, 30, 40]]), np.ones((2, 2))).astype(np.uint8)
    halves = plain(codec, np.kron(np.array([[100, 200]]), np.ones((4, 8))).astype(np.uint8))
    assert halves.shape == (2, 4, 1)
    same_pixels(halves[:, 0], np.full((2, 1), 100))
    same_pixels(halves[:, 3], np.full((2, 1), 200))
    assert plain(codec, checks).max() < 200, "antialiased"


def test_a_size_that_nobody_asked_for_is_the_usual_one_or_smaller() -> None:
    codec = ImageCodec.fit([*drawn(3, 4, 6), *drawn(2, 9, 9)])
    assert (codec.height, codec.width) == (4, 6)
    codec = ImageCodec.fit(drawn(1, 100, 400))
    assert (codec.height, codec.width) == (32, 128)


@pytest.mark.parametrize("by", ["rows", "columns", "patches"])
def test_a_codec_comes_back_from_its_json(by: Any) -> None:
    pictures = drawn(3, 4, 8, 3)
    codec = ImageCodec.fit(pictures, by=by, patch=2)
    again = codecs.from_json(codec.to_json())
    assert isinstance(again, ImageCodec)
    assert again.describe() == codec.describe()
    assert (np.stack(again.encode_batch(pictures)) == np.stack(codec.encode_batch(pictures))).all()


def test_a_damaged_json_is_refused() -> None:
    text = ImageCodec.fit(drawn(3, 4, 8, 3)).to_json()
    for bad in (text.replace('"by"', '"of"'), text.replace("image", "audio"), "[]", "{"):
        with pytest.raises(ValueError, match="this is no codec of pictures"):
            ImageCodec.from_json(bad)
    with pytest.raises(ValueError, match="is damaged"):
        ImageCodec.from_json(text.replace('"channels": 3', '"channels": 1'))


def test_what_is_no_picture_is_refused() -> None:
    codec = ImageCodec.fit(drawn(1, 4, 4))
    with pytest.raises(ValueError, match=r"of shape \[4\] came"):
        codec.encode_batch([np.zeros(4, np.uint8)])
    with pytest.raises(ValueError, match=r"of shape \[4, 4, 5\] came"):
        codec.encode_batch([np.zeros((4, 4, 5), np.uint8)])
    with pytest.raises(TypeError, match="of type int64 came"):
        codec.encode_batch([np.zeros((4, 4), np.int64)])
    with pytest.raises(ValueError, match="not finite"):
        codec.encode_batch([np.full((4, 4), np.nan)])
    with pytest.raises(ValueError, match="no pictures came"):
        ImageCodec.fit([])
    with pytest.raises(ValueError, match="by='diagonals' came"):
        ImageCodec.fit(drawn(1, 4, 4), by="diagonals")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size: 0 came"):
        ImageCodec.fit(drawn(1, 4, 4), size=0)


# Files


def test_files_give_what_arrays_give(tmp_path: Path) -> None:
    pictures = drawn(3, 5, 6, 3)
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    a, b = ImageCodec.fit(pictures), ImageCodec.fit(paths)
    assert (a.mean, a.scale) == (b.mean, b.scale)
    assert (np.stack(a.encode_batch(pictures)) == np.stack(b.encode_batch(paths))).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_pixel_is_read(tmp_path: Path, mode: str) -> None:
    grey = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    found = load(path)
    assert found.dtype == np.uint8
    assert (found == grey[..., None]).all()


def test_a_picture_is_turned_as_its_camera_was_held(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [3, 4, 5]], dtype=np.uint8) * 50)
    exif = image.getexif()
    exif[0x0112] = 6  # the first row is at the right
    image.save(tmp_path / "a.png", exif=exif)
    assert load(tmp_path / "a.png")[..., 0].tolist() == [[150, 0], [200, 50], [250, 100]]


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(drawn(1, 40, 40, 3)[0]).save(whole)
    cut, text = tmp_path / "cut.png", tmp_path / "text.png"
    cut.write_bytes(whole.read_bytes()[:1500])
    text.write_text("no picture")
    for path in (cut, text):
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read as a picture"):
            load(path)
    with pytest.raises(FileNotFoundError, match=r"none\.png is not there"):
        load(tmp_path / "none.png")


@pytest.mark.parametrize("share", [0.9, 0.4])
def test_a_picture_with_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(1600 * share))
    with pytest.raises(ValueError, match=r"bomb\.png: .*MAX_IMAGE_PIXELS"):
        load(tmp_path / "bomb.png")


def test_a_folder_of_classes_and_one_of_captions(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "classes" / label).mkdir(parents=True)
        Image.fromarray(drawn(1, 4, 4)[0]).save(tmp_path / "classes" / label / "1.png")
    found = read_examples(tmp_path / "classes")
    assert (found.modality, found.targets) == ("image", ["cat", "dog"])
    assert ImageCodec.fit(found.inputs).describe().startswith("grey pictures of 4 x 4")
    (tmp_path / "captions").mkdir()
    Image.fromarray(drawn(1, 4, 4)[0]).save(tmp_path / "captions" / "1.jpg")
    (tmp_path / "captions" / "1.txt").write_text("a cat\n")
    found = read_examples(tmp_path / "captions", want_target="yes")
    assert (found.modality, found.targets) == ("image", ["a cat"])


# idx files


def write_idx(path: Path, array: np.ndarray) -> Path:
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_folder_of_idx_files_brings_its_split(tmp_path: Path, end: str) -> None:
    train, test = np.stack(drawn(3, 4, 5)), np.stack(drawn(2, 4, 5))
    for part, pictures, labels in (("train", train, [1, 2, 1]), ("t10k", test, [0, 2])):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{end}", pictures)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{end}", np.array(labels, dtype=np.uint8))
    found = read_examples(tmp_path)
    assert found.modality == "image"
    by_part = {part: [k for k, p in enumerate(found.parts or ()) if p == part] for part in ("train", "test")}
    assert [(found.targets or [])[k] for k in by_part["train"]] == ["1", "2", "1"]
    assert [(found.targets or [])[k] for k in by_part["test"]] == ["0", "2"]
    assert (np.stack([found.inputs[k] for k in by_part["train"]]) == train).all()
    assert read_examples(tmp_path, want_target="no").targets is None


def test_one_file_of_pictures_alone_has_no_split(tmp_path: Path) -> None:
    write_idx(tmp_path / "images-idx3-ubyte", np.stack(drawn(3, 4, 5)))
    with pytest.raises(FileNotFoundError, match="expected labels-idx1-ubyte"):
        read_examples(tmp_path)
    write_idx(tmp_path / "labels-idx1-ubyte", np.zeros(3, dtype=np.uint8))
    assert read_examples(tmp_path).parts is None
    write_idx(tmp_path / "labels-idx1-ubyte", np.zeros(2, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"holds \[2\] labels for the 3 pictures"):
        read_examples(tmp_path)


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "a-ubyte", np.stack(drawn(3, 4, 5)))
    data = path.read_bytes()
    for bad, message in (
        (data[:-1], r"has 75 bytes; one of shape \[3, 4, 5\] has 76"),
        (data[:9], "ends within the lengths of its 3 axes"),
        (b"PNG" + data, "begins with the bytes 50 4e 47 00"),
        (b"", "begins with the bytes"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=message):
            read_idx(path)
    cut = tmp_path / "b-ubyte.gz"
    cut.write_bytes(gzip.compress(data)[:-9])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        read_idx(cut)
