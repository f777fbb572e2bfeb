"""Pieces of music become a composer, which goes on from a first chord and writes a MIDI file.

python examples/music.py FOLDER|FILE.mat SONG.mid [CHORDS]: a folder of MIDI files, or a .mat of piano rolls. Without
arguments, chords that go round, made up here. CHORDS is what to go on from, such as "C3 G3 E4 C5 | F3 A3 F4 C5".
"""

import sys
import tempfile
from pathlib import Path

from everloop import Generator
from everloop.data import notes
from everloop.data.notes import Notes

ROUND = Notes.of("C3 G3 E4 C5 | C3 A3 F4 C5 | D3 A3 F4 D5 | G2 G3 D4 B4 | " * 5 + "C3 G3 E4 C5", tempo=80, per_beat=1)

real = len(sys.argv) > 1
data = sys.argv[1] if real else [ROUND.transposed(by % 12 - 6) for by in range(24)]
options = (
    {"dropout": 0.3, "averaging": 0.99}
    if real
    else {"hidden": 48, "embedding": 32, "epochs": 20, "lr": 2e-2, "duplicates": "keep", "transpose": 0}
)
song = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp()) / "song.mid"
first = sys.argv[3] if len(sys.argv) > 3 else "C3 G3 E4 C5"

model = Generator(**options).fit(data, quiet=not real)
print(model.verdict())
piece = model.generate(first, length=32, temperature=0.8, seed=2)
print(piece)
notes.save(piece, song)
print(f"{piece.seconds:.0f} seconds of music are in {song}")
