"""Digits spoken in a row, joined from recordings of single ones: speech of which every word and voice is known."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from everloop.data.audio import Waveform, load, save

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PARTS = {"test": range(5), "valid": range(5, 10), "train": range(10, 50)}
"""Which takes of a digit each part is made of; 0 to 4 are the test of the Free Spoken Digit Dataset itself."""
PAUSE = 0.15  # seconds at most, before, between and after


def write_digit_strings(
    recordings: str | Path,
    folder: str | Path,
    *,
    unknown: str | None = None,
    train: int = 1500,
    valid: int = 100,
    test: int = 300,
    seed: int = 0,
) -> Path:
    """Join two to six digits of one speaker, with short pauses; write the sounds and a table of them. Gives its path.

    recordings: a folder of `{digit}_{speaker}_{take}.wav`, as of the Free Spoken Digit Dataset. The table,
    `digits.csv`, has the columns audio, text, speaker and part. Different takes are in different parts. unknown: a
    speaker who is in the test only, alone and with all takes; left out, everybody is in every part. train, valid,
    test: strings in each.
    """
    folder = Path(folder)
    clips = _clips(Path(recordings))
    speakers = sorted(clips)
    if unknown is not None and unknown not in speakers:
        raise ValueError(f"there is no speaker {unknown!r} in {recordings}; there are {', '.join(speakers)}")
    known = [speaker for speaker in speakers if speaker != unknown]
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for part, strings in (("train", train), ("valid", valid), ("test", test)):
        alone = unknown is not None and part == "test"
        for number in range(strings):
            speaker = str(unknown) if alone else known[number % len(known)]
            takes = None if alone else PARTS[part]
            sound, text = _string([clip for clip in clips[speaker] if takes is None or clip[1] in takes], rng)
            name = f"audio/{part}-{number:05d}-{speaker}.wav"
            save(sound, folder / name)
            rows.append((name, text, speaker, part))
    table = folder / "digits.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("audio", "text", "speaker", "part"), *rows])
    return table


def _clips(recordings: Path) -> dict[str, list[tuple[int, int, Waveform]]]:
    """(digit, take, sound) of every speaker."""
    clips: dict[str, list[tuple[int, int, Waveform]]] = defaultdict(list)
    for path in sorted(recordings.glob("*.wav")):
        digit, speaker, take = path.stem.split("_")
        clips[speaker].append((int(digit), int(take), load(path)))
    if not clips:
        raise ValueError(f"{recordings} holds no .wav files; expected 0_jackson_0.wav and so on")
    return clips


def _string(clips: list[tuple[int, int, Waveform]], rng: np.random.Generator) -> tuple[Waveform, str]:
    picked = [clips[k] for k in rng.integers(len(clips), size=rng.integers(2, 7))]
    rate = picked[0][2].rate
    parts = [_pause(rate, rng)]
    for _, _, sound in picked:
        parts += [sound.samples, _pause(rate, rng)]
    return Waveform(np.concatenate(parts), rate), " ".join(WORDS[digit] for digit, _, _ in picked)


def _pause(rate: int, rng: np.random.Generator) -> np.ndarray:
    return np.zeros(int(rng.uniform(0, PAUSE) * rate), np.float32)
