"""Digits spoken in a row: recordings and their texts become a recognizer, and words with the times at which they are
said.

python examples/transcribe.py RECORDINGS [UNKNOWN]

RECORDINGS: a folder of `{digit}_{speaker}_{take}.wav`, as of the Free Spoken Digit Dataset. UNKNOWN: a speaker whom
training does not hear; left out, everybody is in training, with other takes. Without arguments, on tones for words.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from everloop.data.audio import Waveform, save
from everloop.data.sets.spoken_digits import write_digit_strings
from everloop.tasks.recognizer import Recognizer

FULL = {"train": 1500, "valid": 100, "test": 300}
SLICE = {"train": 60, "valid": 10, "test": 10}
QUICK = {"epochs": 12, "hidden": 32, "channels": 32, "flat_start": 0.5}


def tones(folder: Path) -> Path:
    """Ten takes of each digit by one voice, which is a tone higher for each: enough to see that everything runs."""
    for digit in range(10):
        steps = np.arange(1_600) / 8_000
        for take in range(0, 50, 5):
            sound = 0.3 * np.sin(2 * np.pi * 200 * 1.25**digit * (1 + take / 2_000) * steps)
            save(Waveform(sound, 8_000), folder / f"{digit}_tone_{take}.wav")
    return folder


folder = Path(tempfile.mkdtemp())
recordings = Path(sys.argv[1]) if len(sys.argv) > 1 else tones(folder)
size, options = (FULL, {}) if len(sys.argv) > 1 else (SLICE, QUICK)
table = write_digit_strings(recordings, folder / "strings", unknown=(sys.argv[2:] or [None])[0], **size)
model = Recognizer(**options).fit(table, input="audio", target="text", part="part", group="speaker")
print(model.verdict())
for name, metrics in model.results_:
    print(name, {metric: round(value, 4) for metric, value in metrics.items()})
sound = sorted((table.parent / "audio").glob("test-*.wav"))[0]
print(model.predict([sound])[0])
for piece in model.align(sound):
    print(f"{piece.begin:5.2f} s  {piece.text}")
