"""Emoji pictures and their names, as the packages emoji-datasource-* (npm) hold them: emoji.json and img/*/64/*.png."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from everloop.data.examples import Examples

# Code points that make another form of an emoji, not another emoji: joiner, variation, man, woman, person, the signs
# for both, facing right, and skin tones.
_FORMS = {"200D", "FE0F", "1F468", "1F469", "1F9D1", "2640", "2642", "27A1", *(f"1F3F{k}" for k in "BCDEF")}


def emoji_pictures(
    folder: str | Path | Sequence[str | Path],
    *,
    kinds: bool = True,
    held_out: Literal["emoji", "drawings"] = "emoji",
    skin_tones: bool = False,
    flags: bool = True,
    seed: int = 0,
) -> Examples:
    """Pictures of emoji, each with a caption: Unicode's subcategory and name, "animal mammal: water buffalo".

    folder: that of a package, or of several, whose drawings of an emoji differ. kinds: with the subcategory, without
    which there is little to learn about emoji that have never been seen: most words come in one name only. held_out:
    emoji: all forms of an emoji (woman, man, skin tones, every drawing) are one group, so that a test asks for what has
    never been seen. drawings: of every fifth emoji one drawing is for the test, of every tenth one for validation;
    others of them are in training. skin_tones: people in five more colours, under the same name. flags: those of
    countries, too.
    """
    folders = [folder] if isinstance(folder, str | Path) else folder
    found = [
        (file, caption_of(entry, kinds), _base(entry["unified"]))
        for one in folders
        for entry, file in _drawn(Path(one), skin_tones)
        if flags or entry["subcategory"] != "country-flag"
    ]
    inputs, targets, groups = (
        [file for file, _, _ in found],
        [name for _, name, _ in found],
        [base for *_, base in found],
    )
    rows, source = list(range(1, len(found) + 1)), ", ".join(str(one) for one in folders)
    examples = Examples(inputs, targets, source, "folder", rows, modality="image")
    if held_out == "emoji":
        return replace(examples, groups=groups)
    return replace(examples, parts=_parts(targets, np.random.default_rng(seed)))


def _parts(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One drawing of every fifth name is for the test, one of every tenth for validation."""
    drawings: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        drawings.setdefault(name, []).append(k)
    several = [places for places in drawings.values() if len(places) > 1]
    if not several:
        raise ValueError("no emoji has two drawings; to hold out drawings, give the folders of two packages or more")
    parts = ["train"] * len(names)
    for k, place in enumerate(rng.permutation(len(several))):
        part = {0: "test", 5: "test", 2: "valid"}.get(k % 10)
        if part:
            parts[rng.choice(several[place])] = part
    return parts


def caption_of(entry: dict[str, Any], kinds: bool = True) -> str:
    name = " ".join(entry["name"].lower().split())
    return f"{entry['subcategory'].replace('-', ' ')}: {name}" if kinds else name


def _drawn(folder: Path, skin_tones: bool) -> Iterator[tuple[dict[str, Any], Path]]:
    """Every emoji that there is a picture of, and the picture; with skin tones, more than one."""
    entries, pictures = _entries(folder), _pictures(folder)
    for entry in entries:
        forms = [entry, *entry.get("skin_variations", {}).values()] if skin_tones else [entry]
        for file in (pictures / form["image"] for form in forms):
            if file.is_file():
                yield entry, file


def _entries(folder: Path) -> list[dict[str, Any]]:
    file = folder / "emoji.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; expected the folder of a package emoji-datasource-*")
    return [entry for entry in json.loads(file.read_text(encoding="utf-8")) if entry["category"] != "Component"]


def _pictures(folder: Path) -> Path:
    found = sorted((folder / "img").glob("*/64"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no pictures of 64 pixels; expected them in {folder}/img/*/64")
    return found[0]


def _base(unified: str) -> str:
    """What is common to all forms of an emoji."""
    points = unified.split("-")
    return "-".join([point for point in points if point not in _FORMS] or points)
