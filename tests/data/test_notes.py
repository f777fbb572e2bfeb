"""Music: chords as text, MIDI files written and read, piano rolls in .mat files, the codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from everloop.data import codecs
from everloop.data.files import read_examples
from everloop.data.notes import KEYS, Notes, NotesCodec, key_name, load, save

mido = pytest.importorskip("mido", reason="music needs mido: pip install 'everloop[music]'")


@pytest.fixture
def song() -> Notes:
    """Chances of every kind: held and repeated notes, silence at the end of a bar, the keys at both ends."""
    roll = np.random.default_rng(0).random((40, KEYS)) < 0.1
    roll[0, [0, KEYS - 1]] = roll[-1, 3] = True
    roll[10:13] = False
    return Notes(roll, tempo=96.0, per_beat=4)


def written(path: Path, *tracks: list, ticks: int = 96) -> Path:
    """A file of tracks of messages."""
    file = mido.MidiFile(ticks_per_beat=ticks)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack(messages))
    file.save(str(path))
    return path


def on(note: int, time: int, **how: int) -> mido.Message:
    return mido.Message("note_on", note=note, time=time, **how)


def off(note: int, time: int) -> mido.Message:
    return mido.Message("note_off", note=note, time=time)


class TestNotes:
    def test_chords_as_text_and_back(self, song):
        assert (Notes.of(str(song)).roll == song.roll).all()
        assert str(Notes.of("c4 E4  G4|-|60 Bb2 | F#3")) == "C4 E4 G4 | - | A#2 C4 | F#3"

    def test_chords_as_numbers(self):
        notes = Notes.of([[21, 60], [], [108]], tempo=60, per_beat=2)
        assert [np.flatnonzero(row).tolist() for row in notes.roll] == [[0, 39], [], [87]]
        assert notes.seconds == 1.5

    def test_names_of_keys(self):
        assert [key_name(key) for key in (0, 2, 3, 39, 87)] == ["A0", "B0", "C1", "C4", "C8"]
        assert [np.flatnonzero(Notes.of(key_name(key)).roll[0]).tolist() for key in range(KEYS)] == [
            [key] for key in range(KEYS)
        ]

    def test_what_sounds_is_the_roll(self, song):
        again = np.zeros_like(song.roll)
        for begin, end, key in song.sounding():
            assert begin == 0 or not song.roll[begin - 1, key]
            assert end == len(song) or not song.roll[end, key]
            again[begin:end, key] = True
        assert (again == song.roll).all()

    def test_transposed(self):
        assert str(Notes.of("C4 E4").transposed(-3)) == "A3 C#4"
        with pytest.raises(ValueError, match=r"\+2 semitones take B7 to B7 beyond the piano"):
            Notes.of("B7").transposed(2)

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Notes.of("C4 H4"), "the note 'H4' came; expected a name such as C4"),
            (lambda: Notes.of("G0"), "the MIDI number 19 came; a piano has those from 21"),
            (lambda: Notes.of([[109]]), "the MIDI number 109 came"),
            (lambda: Notes(np.zeros((3, 12))), r"a roll of shape \(3, 12\) came"),
            (lambda: Notes(np.full((3, KEYS), 0.5)), "other numbers than 0 and 1"),
            (lambda: Notes(np.zeros((3, KEYS)), tempo=0), "tempo: 0 came"),
            (lambda: Notes(np.zeros((3, KEYS)), per_beat=0), "per_beat: 0 came"),
        ],
    )
    def test_what_is_refused(self, make, words):
        with pytest.raises(ValueError, match=words):
            make()


class TestMidi:
    @pytest.mark.parametrize("per_beat", [1, 2, 4, 7])
    def test_what_is_written_is_read_again(self, song, tmp_path, per_beat):
        song = Notes(song.roll, 96.0, per_beat)
        save(song, tmp_path / "song.mid")
        again = load(tmp_path / "song.mid", per_beat)
        assert (again.roll == song.roll).all()
        assert (again.tempo, again.per_beat) == (96.0, per_beat)

    def test_another_library_reads_the_same(self, song, tmp_path):
        symusic = pytest.importorskip("symusic", reason="the second reader of MIDI files")
        save(song, tmp_path / "song.mid")
        score = symusic.Score(str(tmp_path / "song.mid"))
        step = score.ticks_per_quarter // song.per_beat
        found = sorted((n.time // step, n.end // step, n.pitch - 21) for track in score.tracks for n in track.notes)
        assert found == sorted(song.sounding())
        assert [tempo.qpm for tempo in score.tempos] == [96.0]

    def test_steps_are_the_nearest_and_a_note_lasts_one_at_least(self, tmp_path):
        track = [on(60, 10), off(60, 3), on(62, 30), off(62, 50)]
        assert str(load(written(tmp_path / "a.mid", track), 4)) == "C4 | - | D4 | D4"

    def test_silence_comes_off_the_beginning_and_stays_inside(self, tmp_path):
        track = [on(60, 960), off(60, 24), on(60, 48), off(60, 24)]
        assert str(load(written(tmp_path / "a.mid", track), 4)) == "C4 | - | - | C4"

    def test_tracks_sound_together_and_drums_do_not(self, tmp_path):
        drums = [on(40, 0, channel=9), mido.Message("note_off", note=40, channel=9, time=24)]
        tracks = [[on(60, 0), off(60, 24)], [on(64, 0), off(64, 48)], drums]
        assert str(load(written(tmp_path / "a.mid", *tracks), 4)) == "C4 E4 | E4"

    def test_loudness_nought_lets_go_and_so_does_the_end(self, tmp_path):
        track = [on(60, 0), on(60, 24, velocity=0), on(62, 0), mido.MetaMessage("end_of_track", time=48)]
        assert str(load(written(tmp_path / "a.mid", track), 4)) == "C4 | D4 | D4"

    def test_the_first_tempo_counts(self, tmp_path):
        tempi = [mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm), time=24) for bpm in (150, 80)]
        assert load(written(tmp_path / "a.mid", tempi, [on(60, 0), off(60, 24)])).tempo == 150.0
        assert load(written(tmp_path / "b.mid", [on(60, 0), off(60, 24)])).tempo == 120.0

    def test_keys_that_no_piano_has(self, tmp_path):
        with pytest.raises(ValueError, match=r"a\.mid has no notes for a piano"):
            load(written(tmp_path / "a.mid", [on(5, 0), off(5, 24)]))

    def test_files_that_are_none(self, tmp_path):
        (tmp_path / "a.mid").write_bytes(b"MThd and no more")
        with pytest.raises(ValueError, match=r"a\.mid cannot be read as MIDI"):
            load(tmp_path / "a.mid")
        with pytest.raises(FileNotFoundError, match=r"there is no file .*b\.mid"):
            load(tmp_path / "b.mid")


class TestData:
    def test_a_folder_of_files(self, song, tmp_path):
        for name in ("b.mid", "a.midi", "notes.txt"):
            save(song, tmp_path / name)
        examples = read_examples(tmp_path)
        assert examples.modality == "notes"
        assert [path.name for path in examples.inputs] == ["a.midi", "b.mid"]

    def test_piano_rolls_with_their_split(self, song, tmp_path):
        scipy = pytest.importorskip("scipy.io")
        rolls = {"traindata": [song.roll, song.roll[:7]], "validdata": [song.roll[5:]], "testdata": [song.roll[:3]]}
        cells = {name: np.empty((1, len(parts)), object) for name, parts in rolls.items()}
        for name, parts in rolls.items():
            for k, part in enumerate(parts):
                cells[name][0, k] = part.astype(np.uint8)
        scipy.savemat(tmp_path / "rolls.mat", cells)
        examples = read_examples(tmp_path / "rolls.mat")
        assert examples.parts == ["train", "train", "valid", "test"]
        assert [len(piece) for piece in examples.inputs] == [40, 7, 35, 3]
        assert (examples.inputs[1].roll == song.roll[:7]).all()

    def test_another_mat(self, tmp_path):
        scipy = pytest.importorskip("scipy.io")
        scipy.savemat(tmp_path / "other.mat", {"weights": np.zeros(3)})
        with pytest.raises(ValueError, match=r"other\.mat holds weights; expected cells traindata"):
            read_examples(tmp_path / "other.mat")
        (tmp_path / "no.mat").write_text("no matrices, but text that is longer than the header of such a file" * 9)
        with pytest.raises(ValueError, match=r"no\.mat cannot be read as a \.mat file"):
            read_examples(tmp_path / "no.mat")

    @pytest.mark.parametrize(
        ("name", "sizes"), [("JSB_Chorales", (229, 76, 77)), ("Nottingham", (694, 173, 170))], ids=str
    )
    def test_the_published_ones(self, shared_data, name, sizes):
        pytest.importorskip("scipy.io")
        examples = read_examples(shared_data / "music" / f"{name}.mat")
        assert examples.parts is not None
        assert tuple(examples.parts.count(part) for part in ("train", "valid", "test")) == sizes

    def test_lists(self, song):
        assert read_examples([song, song]).modality == "notes"


class TestCodec:
    def test_pieces_to_rolls_and_back(self, song, tmp_path):
        save(song, tmp_path / "song.mid")
        codec = NotesCodec.fit([song, Notes(song.roll, 100.0, 4)])
        assert (codec.tempo, codec.per_beat, codec.features) == (98.0, 4, KEYS)
        rolls = codec.encode_batch([song, tmp_path / "song.mid", song.roll.astype(int)])
        assert all(roll.dtype == np.float32 and (roll == song.roll).all() for roll in rolls)
        assert (codec.decode(rolls[0]).roll == song.roll).all()

    def test_json(self, song):
        codec = NotesCodec.fit([song])
        again = codecs.from_json(codec.to_json())
        assert isinstance(again, NotesCodec)
        assert again.describe() == codec.describe() == "notes, 88 keys, 4 steps in a beat (1 piece, A0 to C8)"
        with pytest.raises(ValueError, match="the codec of notes is damaged"):
            codecs.from_json('{"modality": "notes"}')

    def test_what_does_not_fit_together(self, song):
        with pytest.raises(ValueError, match=r"pieces of \[1, 4\] steps in a beat came"):
            NotesCodec.fit([song, Notes(song.roll, per_beat=1)])
        with pytest.raises(ValueError, match="no music came"):
            NotesCodec.fit([])
