"""Data on disk: sequences that behave as lists, and large files that are read as small ones are."""

import csv
import gzip
import os
import random
from array import array

import numpy as np
import pytest

from everloop.data import stored
from everloop.data.examples import drop_duplicates
from everloop.data.files import read_examples
from everloop.data.stored import Labels, StoredRows, StoredTexts, TextWriter, encode_all, encode_joined
from everloop.data.text import TextCodec, choose_unit

WORDS = ["one", "two", "three", "né", "我", "ÿ", "👩‍💻", "x" * 50]


def texts_of(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(1, 12))) for _ in range(count)]


def on_disk(texts: list[str]) -> StoredTexts:
    writer = TextWriter()
    for text in texts:
        writer.add(text)
    return writer.finish()


@pytest.fixture
def tiny_files_are_large(monkeypatch):
    monkeypatch.setattr(stored, "LARGE", 0)


class TestSequences:
    def test_texts_are_those_that_came(self, monkeypatch):
        monkeypatch.setattr(stored, "_BLOCK", 64)  # so that iterating reads more than once
        texts = [*texts_of(300), "", "end"]
        found = on_disk(texts)
        assert len(found) == len(texts)
        assert list(found) == [found[k] for k in range(len(texts))] == found[:] == texts
        assert (found[-1], found[2:5], found[::-70]) == (texts[-1], texts[2:5], texts[::-70])
        assert found.bytes == sum(len(text.encode()) for text in texts)
        with pytest.raises(IndexError, match="place 302 of 302"):
            found[302]

    def test_a_view_of_a_view(self):
        texts = texts_of(50)
        view = on_disk(texts).take([40, 3, 3, 17]).take([3, 0])
        assert list(view) == [texts[17], texts[40]]
        assert view.bytes == len((texts[17] + texts[40]).encode())

    def test_no_texts(self):
        assert list(on_disk([])) == []
        assert list(on_disk(["a"]).take([])) == []

    def test_labels(self):
        found = stored.keep_texts(iter(["b", "a", "b"]))
        assert isinstance(found, Labels)
        assert (list(found), found[1], found[1:], list(found.take([2, 1]))) == (
            ["b", "a", "b"],
            "a",
            ["a", "b"],
            ["b", "a"],
        )

    def test_labels_that_are_none(self, monkeypatch):
        monkeypatch.setattr(stored, "_MOST_LABELS", 3)
        texts = texts_of(40)
        found = stored.keep_texts(iter(texts))
        assert isinstance(found, StoredTexts)
        assert list(found) == texts

    def test_taken(self):
        assert stored.taken(["a", "b", "c"], [2, 0]) == ["c", "a"]
        assert stored.taken(array("q", [5, 6, 7]), [2, 0]).tolist() == [7, 5]
        assert stored.taken(range(10, 20), [3]) == [13]

    def test_a_sample_is_spread_evenly(self):
        texts = ["0123456789"] * 100
        assert stored.sample(texts, 50) is texts
        numbered = on_disk([f"{k:010d}" for k in range(100)])
        assert [int(text) for text in stored.sample(numbered, 100)] == list(range(0, 100, 10))

    @pytest.mark.skipif(os.name != "posix", reason="other systems keep the name until the file is closed")
    def test_the_files_have_no_name(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        found = on_disk(["a"])
        assert list(tmp_path.iterdir()) == []
        assert found[0] == "a"


class TestIds:
    @pytest.fixture
    def codec(self) -> TextCodec:
        return TextCodec.fit(texts_of(200), unit="words", reversible=False, min_count=1)

    def test_rows_are_those_of_encode_batch(self, codec, monkeypatch):
        monkeypatch.setattr(stored, "_GROUP", 7)
        texts = texts_of(40)
        rows, expected = encode_all(codec, on_disk(texts)), codec.encode_batch(texts)
        assert isinstance(rows, StoredRows)
        assert len(rows) == 40
        assert [row.tolist() for row in rows] == [row.tolist() for row in expected]
        assert rows[3].dtype == expected[3].dtype
        assert rows.lengths.tolist() == [len(row) for row in expected]
        some = rows.take([9, 1]).cut(3)
        assert [row.tolist() for row in some] == [expected[9][:3].tolist(), expected[1][:3].tolist()]
        assert some.lengths.tolist() == [min(3, len(expected[k])) for k in (9, 1)]

    def test_lists_stay_lists(self, codec):
        texts = texts_of(5)
        rows = encode_all(codec, texts)
        assert isinstance(rows, list)
        assert [row.tolist() for row in rows] == [row.tolist() for row in codec.encode_batch(texts)]

    @pytest.mark.parametrize("end", [None, 2])
    def test_one_row(self, codec, end):
        texts = texts_of(30)
        expected, found = encode_joined(codec, texts, end), encode_joined(codec, on_disk(texts), end)
        assert isinstance(expected, np.ndarray)
        assert len(found) == len(expected)
        for part in (slice(None), slice(5, 9), slice(-4, None), slice(9, 5), slice(0, 30, 3)):
            assert found[part].tolist() == expected[part].tolist()

    @pytest.mark.parametrize(("size", "kind"), [(256, "uint8"), (257, "uint16"), (65_537, "int32")])
    def test_the_smallest_type_that_holds_them(self, size, kind):
        assert stored._smallest(size) == np.dtype(kind)

    def test_a_vocabulary_from_a_sample(self, monkeypatch):
        monkeypatch.setattr(stored, "SAMPLE", 500)
        texts = on_disk(["a b c d"] * 1_000)
        assert choose_unit(texts, purpose="classify")[0] == "words"
        codec = TextCodec.fit(texts, unit="words", reversible=False)
        assert len(codec) == 7
        assert codec.about.endswith("; from every 14th text")


class TestLargeFiles:
    """The same file is read as a small one and as a large one."""

    def both(self, monkeypatch, path, **how):
        small = read_examples(path, **how)
        monkeypatch.setattr(stored, "LARGE", 0)
        large = read_examples(path, **how)
        assert isinstance(large.inputs, StoredTexts)
        assert list(large.inputs) == list(small.inputs)
        assert (large.targets is None) == (small.targets is None)
        assert list(large.targets or ()) == list(small.targets or ())
        assert list(large.rows) == list(small.rows)
        assert (large.notes, large.input_name, large.target_name) == (small.notes, small.input_name, small.target_name)
        assert large.digest() == small.digest()
        return large

    def write(self, path, rows, **how):
        with path.open("w", encoding=how.pop("encoding", "utf-8"), newline="") as file:
            csv.writer(file, **how).writerows(rows)
        return path

    def test_csv(self, monkeypatch, tmp_path):
        texts = [f'{text},\n"quoted"\r\nand more' for text in texts_of(500)]
        rows = [("id", "text", "label"), *((k, text, " pos " if k % 3 else "neg") for k, text in enumerate(texts))]
        large = self.both(monkeypatch, self.write(tmp_path / "a.csv", rows))
        assert isinstance(large.targets, Labels)
        assert set(large.targets) == {"pos", "neg"}

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_encodings(self, monkeypatch, tmp_path, encoding):
        rows = [("text", "label"), *((text, "ab"[k % 2]) for k, text in enumerate(texts_of(50)))]
        self.both(monkeypatch, self.write(tmp_path / "a.csv", rows, encoding=encoding))

    def test_no_header_and_another_delimiter(self, monkeypatch, tmp_path):
        rows = [(f"{text}.", "ab"[k % 2]) for k, text in enumerate(texts_of(50))]
        self.both(monkeypatch, self.write(tmp_path / "a.csv", rows, delimiter=";"))

    def test_tabs_without_quoting(self, monkeypatch, tmp_path):
        (tmp_path / "a.tsv").write_text('text\tlabel\nsay "no\ta\n"well\tb\nyes\ta\n' * 1)
        self.both(monkeypatch, tmp_path / "a.tsv")

    def test_gzip(self, monkeypatch, tmp_path):
        with gzip.open(tmp_path / "a.csv.gz", "wt", encoding="utf-8") as file:
            file.write("text,label\n" + "".join(f"{text},{k % 2}\n" for k, text in enumerate(texts_of(50))))
        self.both(monkeypatch, tmp_path / "a.csv.gz")

    def test_rows_that_are_left_out(self, monkeypatch, tmp_path):
        (tmp_path / "a.csv").write_text("text,label\ngood,a\n,b\ntoo,many,fields\nfine,b\nnothing, \nlast,a\n")
        large = self.both(monkeypatch, tmp_path / "a.csv", bad_rows="skip")
        assert list(large.inputs) == ["good", "fine", "last"]

    @pytest.mark.parametrize(
        "content",
        [
            b"text,label\ngood,a\ntoo,many,fields\n",
            b"text,label\ngood,a\n,b\n",
            b'text,label\ngood,a\n"open,b\nmore,c\n',
            b"text,label\ngood,a\nb\xff\xfed,b\n",
            b"text,text\ngood,a\n",
            b"text,label\n",
        ],
    )
    def test_refused_in_the_same_words(self, monkeypatch, tmp_path, content):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(ValueError) as small:
            read_examples(tmp_path / "a.csv", want_target="yes")
        monkeypatch.setattr(stored, "LARGE", 0)
        with pytest.raises(ValueError) as large:
            read_examples(tmp_path / "a.csv", want_target="yes")
        assert str(large.value) == str(small.value)

    def test_a_zero_character_and_half_a_file(self, tiny_files_are_large, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"text,label\ngood,a\nb\0d,b\n")
        with pytest.raises(ValueError, match="line 3: a zero character came"):
            read_examples(tmp_path / "a.csv")
        with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
            file.write("text,label\n" + "good,a\n" * 10_000)
        whole = (tmp_path / "b.csv.gz").read_bytes()
        (tmp_path / "b.csv.gz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"b\.csv\.gz, not a whole gzip file"):
            read_examples(tmp_path / "b.csv.gz")

    def test_groups_and_parts(self, monkeypatch, tmp_path):
        rows = [
            ("text", "label", "who", "part"),
            *((t, "ab"[k % 2], k % 5, ["train", "test"][k % 2]) for k, t in enumerate(texts_of(40))),
        ]
        large = self.both(monkeypatch, self.write(tmp_path / "a.csv", rows), group="who", part="part")
        assert (large.groups, large.parts) == ([str(k % 5) for k in range(40)], ["train", "test"] * 20)

    def test_parquet(self, monkeypatch, tmp_path):
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        texts = texts_of(10_000)
        table = pa.table({"text": texts, "label": [k % 3 for k in range(10_000)]})
        parquet.write_table(table, tmp_path / "a.parquet")
        large = self.both(monkeypatch, tmp_path / "a.parquet", target="label")
        assert set(large.targets or ()) == {"0", "1", "2"}

    def test_one_text(self, monkeypatch, tmp_path):
        monkeypatch.setattr("everloop.data.reading.large._PIECE", 100)
        monkeypatch.setattr("everloop.data.reading.text_files._BLOCK", 333)
        text = "\r\n".join(texts_of(200)) + "x" * 1_000 + "\r"
        (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
        [small] = read_examples(tmp_path / "a.txt").inputs
        monkeypatch.setattr(stored, "LARGE", 0)
        large = read_examples(tmp_path / "a.txt")
        assert large.kind == "text"
        assert "".join(large.inputs) == small
        assert max(map(len, large.inputs)) <= 201
        assert sum(piece.endswith("\n") for piece in large.inputs) > len(large.inputs) / 2

    def test_duplicates(self, monkeypatch, tmp_path):
        rows = [("text", "label"), ("b", "x"), ("a", "x"), (" a ", "y"), ("c", "x"), ("b", "x"), ("a", "x")]
        self.write(tmp_path / "a.csv", rows)
        small = drop_duplicates(read_examples(tmp_path / "a.csv"))
        monkeypatch.setattr(stored, "LARGE", 0)
        large = drop_duplicates(read_examples(tmp_path / "a.csv"))
        assert list(large.inputs) == list(small.inputs) == ["b", "a", "c"]
        assert (list(large.targets or ()), list(large.rows)) == (list(small.targets or ()), list(small.rows))
        assert large.notes == small.notes
        assert "1 of them had another label" in large.notes[-1]
