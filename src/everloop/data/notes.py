"""Music as numbers: which of the 88 keys of a piano sound at each step of a beat.

A piano roll does not tell a key that is struck again at once from one that is held; both are written as one long note.
Loudness, instruments and pedals are not kept, drums (channel 10) are left out, and of several tempos a piece has the
first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from everloop.data._asked import Asked
from everloop.data._say import count
from everloop.data.examples import Examples

if TYPE_CHECKING:
    from mido import MidiFile

EXTENSIONS = (".mid", ".midi")

KEYS = 88
LOWEST = 21  # the MIDI number of A0, the first key
PER_BEAT = 4
TEMPO = 120.0
TICKS = 480  # of a beat, in files that are written
LOUDNESS = 80  # of 127
DRUMS = 9  # channel 10, counted from 0

# The rolls that Boulanger-Lewandowski et al. 2012 sampled; the .mat files made of them do not name their step.
_MAT_TEMPO, _MAT_PER_BEAT = 100.0, 2

_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass(frozen=True, eq=False)
class Notes:
    """A piece of music. roll: bool [T, 88], True where a key sounds, A0 first; tempo: beats per minute; per_beat: steps
    of the roll in a beat (4: sixteenth notes, where the beat is a quarter).
    """

    modality: ClassVar[str] = "notes"

    roll: np.ndarray
    tempo: float = TEMPO
    per_beat: int = PER_BEAT

    def __post_init__(self) -> None:
        roll = np.asarray(self.roll)
        if roll.ndim != 2 or roll.shape[1] != KEYS:
            raise ValueError(f"a roll of shape {roll.shape} came; expected [T, {KEYS}], one column for each key")
        if roll.dtype != bool and not np.isin(roll, (0, 1)).all():
            raise ValueError("the roll holds other numbers than 0 and 1; expected True where a key sounds")
        if not 0 < self.tempo < math.inf:
            raise ValueError(f"tempo: {self.tempo} came; expected beats per minute, such as 120")
        if self.per_beat < 1:
            raise ValueError(f"per_beat: {self.per_beat} came; expected 1 step in a beat or more")
        object.__setattr__(self, "roll", roll.astype(bool))

    def __len__(self) -> int:
        return len(self.roll)

    def __str__(self) -> str:
        """The chords, as `of` reads them."""
        return " | ".join(" ".join(map(key_name, np.flatnonzero(row).tolist())) or "-" for row in self.roll)

    @property
    def seconds(self) -> float:
        return len(self.roll) * 60 / (self.tempo * self.per_beat)

    @classmethod
    def of(cls, chords: str | Iterable[Iterable[int]], tempo: float = TEMPO, per_beat: int = PER_BEAT) -> Self:
        """A step for each chord: a text such as "C3 G3 E4 | C3 A3 F4 | -" (middle C is C4, - a rest), or MIDI numbers
        such as [[48, 55, 64], [48, 57, 65], []] (middle C is 60)."""
        steps = [_numbers(chord) for chord in chords.split("|")] if isinstance(chords, str) else [*map(list, chords)]
        roll = np.zeros((len(steps), KEYS), bool)
        for row, numbers in zip(roll, steps, strict=True):
            row[[_key(number) for number in numbers]] = True
        return cls(roll, tempo, per_beat)

    def transposed(self, by: int) -> Self:
        """The same, `by` semitones higher. ValueError if a key would leave the piano."""
        used = np.flatnonzero(self.roll.any(0))
        if len(used) and not 0 <= used[0] + by <= used[-1] + by < KEYS:
            raise ValueError(f"{by:+} semitones take {key_name(used[0])} to {key_name(used[-1])} beyond the piano")
        return type(self)(np.roll(self.roll, by, 1), self.tempo, self.per_beat)

    def sounding(self) -> Iterator[tuple[int, int, int]]:
        """Every note as (first step, step after the last, key), in the order of their beginnings."""
        edges = np.diff(np.pad(self.roll, ((1, 1), (0, 0))).astype(np.int8), axis=0)
        begins = [np.argwhere(column == 1)[:, 0] for column in edges.T]
        ends = [np.argwhere(column == -1)[:, 0] for column in edges.T]
        yield from sorted(
            (int(begin), int(end), key)
            for key in range(KEYS)
            for begin, end in zip(begins[key], ends[key], strict=True)
        )


def load(path: str | Path, per_beat: int = PER_BEAT) -> Notes:
    """The notes of a MIDI file, at `per_beat` steps a beat: a note begins at the step nearest to where it is struck and
    lasts one step at least. The silence before the first note is left out."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    file = _opened(path)
    if file.ticks_per_beat < 1:
        raise ValueError(f"{path} counts time in frames of film, not in beats; expected a file of beats and bars")
    played, tempo = _played(file)
    scale = per_beat / file.ticks_per_beat
    notes = [(round(on * scale), round(off * scale), number - LOWEST) for on, off, number in played]
    notes = [(on, max(off, on + 1), key) for on, off, key in notes if 0 <= key < KEYS]
    if not notes:
        raise ValueError(f"{path} has no notes for a piano (drums and keys beyond A0 to C8 do not count)")
    first, last = min(on for on, *_ in notes), max(off for _, off, _ in notes)
    roll = np.zeros((last - first, KEYS), bool)
    for on, off, key in notes:
        roll[on - first : off - first, key] = True
    return Notes(roll, tempo, per_beat)


def save(notes: Notes, path: str | Path) -> None:
    """Write a MIDI file of one piano."""
    mido = _mido()
    ticks = TICKS // notes.per_beat if TICKS % notes.per_beat == 0 else TICKS
    # At one moment a key is let go before it is struck again.
    events = sorted(
        event for on, off, key in notes.sounding() for event in ((off, 0, LOWEST + key), (on, LOUDNESS, LOWEST + key))
    )
    file = mido.MidiFile(type=0, ticks_per_beat=ticks * notes.per_beat)
    track = mido.MidiTrack()
    file.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(notes.tempo)))
    track.append(mido.Message("program_change", program=0))
    at = 0
    for step, loudness, number in events:
        message = "note_on" if loudness else "note_off"
        track.append(mido.Message(message, note=number, velocity=loudness, time=(step - at) * ticks))
        at = step
    track.append(mido.MetaMessage("end_of_track", time=(len(notes) - at) * ticks))
    file.save(str(path))


def read_mat(path: Path, name: str, asked: Asked) -> Examples:
    """A .mat file of piano rolls: cells `traindata`, `validdata`, `testdata` of arrays [T, 88] of 0 and 1, as the
    benchmarks on polyphonic music are kept (Boulanger-Lewandowski et al. 2012)."""
    asked.refuse_columns(f"{name} holds piano rolls")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ImportError(f"reading {name} needs scipy: pip install 'everloop[music]'") from None
    try:
        content = loadmat(str(path))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{name} cannot be read as a .mat file: {error}") from None
    found = [(part, roll) for part in ("train", "valid", "test") for roll in _cells(content.get(f"{part}data"))]
    if not found:
        held = ", ".join(key for key in content if not key.startswith("__")) or "nothing"
        raise ValueError(f"{name} holds {held}; expected cells traindata, validdata, testdata of arrays [T, {KEYS}]")
    pieces = [Notes(roll, _MAT_TEMPO, _MAT_PER_BEAT) for _, roll in found]
    return Examples(
        pieces,
        None,
        name,
        "lists",
        list(range(1, len(pieces) + 1)),
        modality="notes",
        parts=[part for part, _ in found],
    )


DATASETS = {".mat": read_mat}


@dataclass(frozen=True, eq=False)
class NotesCodec:
    """Pieces to rolls, float32 [T, 88] of 0 and 1, and back.

    An input is a path, `Notes`, or an array [T, 88] of 0 and 1. `fit` takes the tempo that is written later, the median
    of the training pieces, and the steps in a beat: those of the pieces, or of per_beat for what is read from files.
    """

    modality: ClassVar[str] = "notes"
    features: ClassVar[int] = KEYS

    tempo: float
    per_beat: int
    about: str

    @classmethod
    def fit(cls, inputs: Sequence[Any], *, per_beat: int = PER_BEAT) -> Self:
        if not len(inputs):
            raise ValueError("no music came; expected at least one piece")
        pieces = [piece_of(value, per_beat) for value in inputs]
        used = np.flatnonzero(np.any([piece.roll.any(0) for piece in pieces], axis=0))
        span = f"{key_name(used[0])} to {key_name(used[-1])}" if len(used) else "silence"
        steps = {piece.per_beat for piece in pieces}
        if len(steps) > 1:
            raise ValueError(f"pieces of {sorted(steps)} steps in a beat came; expected the same number in all of them")
        about = f"{count(len(pieces), 'piece')}, {span}"
        return cls(float(np.median([piece.tempo for piece in pieces])), steps.pop(), about)

    def encode_batch(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        return [piece_of(value, self.per_beat).roll.astype(np.float32) for value in inputs]

    def decode(self, roll: np.ndarray) -> Notes:
        return Notes(roll, self.tempo, self.per_beat)

    def describe(self) -> str:
        return f"notes, {KEYS} keys, {count(self.per_beat, 'step')} in a beat ({self.about})"

    def to_json(self) -> str:
        content = {"modality": self.modality, "tempo": self.tempo, "per_beat": self.per_beat, "about": self.about}
        return json.dumps(content, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        try:
            tempo, per_beat, about = float(content["tempo"]), int(content["per_beat"]), str(content["about"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the codec of notes is damaged ({error!r}); expected what to_json() gave") from None
        return cls(tempo, per_beat, about)


def piece_of(value: Any, per_beat: int = PER_BEAT) -> Notes:
    """The notes of any input; per_beat is for what does not say it: files and arrays."""
    if isinstance(value, Notes):
        return value
    if isinstance(value, str | Path):
        return load(value, per_beat)
    return Notes(np.asarray(value), TEMPO, per_beat)


def key_name(key: int) -> str:
    """That of the MIDI standard: key 39 is C4, middle C."""
    number = int(key) + LOWEST
    return f"{_NAMES[number % 12]}{number // 12 - 1}"


def _numbers(chord: str) -> list[int]:
    return [_number(word) for word in chord.split() if word != "-"]


def _number(word: str) -> int:
    if word.isdigit():
        return int(word)
    found = re.fullmatch(r"([A-Ga-g])([#♯b♭]?)(-?\d)", word)
    if found is None:
        raise ValueError(f"the note {word!r} came; expected a name such as C4, F#3 or Bb2, or a MIDI number such as 60")
    letter, sign, octave = found.groups()
    shift = 0 if not sign else 1 if sign in "#♯" else -1
    return 12 * (int(octave) + 1) + _LETTERS[letter.upper()] + shift


def _key(number: int) -> int:
    if not LOWEST <= number < LOWEST + KEYS:
        raise ValueError(f"the MIDI number {number} came; a piano has those from {LOWEST} (A0) to {LOWEST + KEYS - 1}")
    return number - LOWEST


def _cells(cells: Any) -> list[np.ndarray]:
    return [] if cells is None else [np.asarray(roll) for roll in np.ravel(cells)]


def _mido() -> Any:
    try:
        import mido
    except ImportError:
        raise ImportError("MIDI files need mido: pip install 'everloop[music]'") from None
    return mido


def _opened(path: Path) -> MidiFile:
    mido = _mido()
    try:
        return mido.MidiFile(str(path))
    except (OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path} cannot be read as MIDI: {error or type(error).__name__}") from None


def _played(file: MidiFile) -> tuple[list[tuple[int, int, int]], float]:
    """(tick on, tick off, MIDI number) of every note, and the first tempo. A key that never is let go ends with the
    piece."""
    mido = _mido()
    tempo, notes = None, []
    longest = 0
    for track in file.tracks:
        at, struck = 0, {}
        for message in track:
            at += message.time
            if message.type == "set_tempo" and tempo is None:
                tempo = mido.tempo2bpm(message.tempo)
            if message.type not in ("note_on", "note_off") or message.channel == DRUMS:
                continue
            key = (message.channel, message.note)
            if key in struck:
                notes.append((struck.pop(key), at, message.note))
            if message.type == "note_on" and message.velocity:
                struck[key] = at
        longest = max(longest, at)
        notes += [(on, at, number) for (_, number), on in struck.items()]
    return notes, tempo or TEMPO
