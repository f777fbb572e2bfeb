"""Emoji and their names, from a folder of the form that the packages have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from everloop.data.sets.emoji import emoji_pictures

ENTRIES = [
    ("1F9D9", "MAGE", "person-fantasy", ["1F3FB", "1F3FF"]),
    ("1F9D9-200D-2640-FE0F", "WOMAN  MAGE", "person-fantasy", []),
    ("1F468-200D-1F373", "MAN COOK", "person-role", []),
    ("1F469-200D-1F373", "WOMAN COOK", "person-role", []),
    ("1F468", "MAN", "person", []),
    ("1F1E9-1F1EA", "Germany Flag", "country-flag", []),
    ("1F346", "AUBERGINE", "food-vegetable", []),
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    pictures = tmp_path / "img" / "vendor" / "64"
    pictures.mkdir(parents=True)
    entries = []
    for unified, name, subcategory, tones in ENTRIES:
        entry = {"unified": unified, "name": name, "category": "C", "subcategory": subcategory}
        forms = {tone: {"image": f"{unified}-{tone}.png"} for tone in tones}
        entries.append(entry | {"image": f"{unified}.png"} | ({"skin_variations": forms} if forms else {}))
        for image in (f"{unified}.png", *(form["image"] for form in forms.values())):
            (pictures / image).write_bytes(image.encode())
    component = {"unified": "1F3FB", "name": "TONE", "category": "Component", "subcategory": "skin-tone"}
    entries.append(component | {"image": "1F3FB.png"})
    (pictures / "1F346.png").unlink()  # not every vendor has drawn everything
    (tmp_path / "emoji.json").write_text(json.dumps(entries))
    return tmp_path


def test_pictures_have_their_names(package: Path) -> None:
    found = emoji_pictures(package, kinds=False)
    assert found.targets == ["mage", "woman mage", "man cook", "woman cook", "man", "germany flag"]
    assert [path.name for path in found.inputs][:2] == ["1F9D9.png", "1F9D9-200D-2640-FE0F.png"]
    assert found.modality == "image"


def test_forms_of_one_emoji_are_one_group(package: Path) -> None:
    found = emoji_pictures(package, skin_tones=True, kinds=False)
    assert (found.targets or [])[:4] == ["mage", "mage", "mage", "woman mage"]
    assert found.groups == ["1F9D9"] * 4 + ["1F373"] * 2 + ["1F468", "1F1E9-1F1EA"]
    two = emoji_pictures([package, package])
    assert (two.groups or [])[:6] == (two.groups or [])[6:]


def test_flags_can_be_left_out(package: Path) -> None:
    assert "country flag: germany flag" in (emoji_pictures(package).targets or ())
    assert "country flag: germany flag" not in (emoji_pictures(package, flags=False).targets or ())


def test_drawings_are_held_out_of_emoji_that_have_others(package: Path) -> None:
    found = emoji_pictures([package] * 10, held_out="drawings")
    names, parts = found.targets or [], found.parts or []
    assert {"train", "valid", "test"} == set(parts)
    for name, part in zip(names, parts, strict=True):
        assert part == "train" or (name, "train") in set(zip(names, parts, strict=True))
    assert parts == emoji_pictures([package] * 10, held_out="drawings").parts
    assert parts != emoji_pictures([package] * 10, held_out="drawings", seed=1).parts
    with pytest.raises(ValueError, match="no emoji has two drawings"):
        emoji_pictures(package, held_out="drawings")


def test_a_caption_begins_with_its_kind(package: Path) -> None:
    found = emoji_pictures(package).targets or []
    assert found[0] == "person fantasy: mage"
    assert [caption.partition(":")[0] for caption in found[:3]] == ["person fantasy", "person fantasy", "person role"]


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"emoji\.json is not there"):
        emoji_pictures(tmp_path)
    (tmp_path / "emoji.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match="holds no pictures of 64 pixels"):
        emoji_pictures(tmp_path)
