"""Reading examples: every format, the guesses that are announced, and errors by their words."""

import codecs
import csv
import gzip
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everloop.data.files import Examples, drop_duplicates, read_examples

TWO = "text,label\ngood film,pos\nbad film,neg\n"


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a file, and give its bare name, as a user in that folder would."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return name

    return write


def says(*parts: str) -> str:
    """A pattern for these parts in this order."""
    return "(?s)" + ".*".join(map(re.escape, parts))


def test_a_csv_with_usual_names(file):
    examples = read_examples(file("reviews.csv", TWO))
    assert examples == Examples(
        inputs=["good film", "bad film"],
        targets=["pos", "neg"],
        source="reviews.csv",
        kind="table",
        rows=[2, 3],
        notes=(
            'input column "text" (a usual name), target column "label" (2 different values): '
            "--input and --target choose others",
        ),
        input_name="text",
        target_name="label",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", TWO.encode()),
        ("crlf.csv", TWO.replace("\n", "\r\n").encode()),
        ("cr.csv", TWO.replace("\n", "\r").encode()),
        ("bom.csv", codecs.BOM_UTF8 + TWO.encode()),
        ("utf16.csv", TWO.encode("utf-16")),
        ("no newline at the end.csv", TWO.strip().encode()),
        ("blank lines.csv", TWO.replace("\n", "\n\n").encode()),
        ("packed.csv.gz", TWO.encode()),
        ("tabs.tsv", TWO.replace(",", "\t").encode()),
        ("semicolons.csv", TWO.replace(",", ";").encode()),
        ("pipes.csv", TWO.replace(",", "|").encode()),
        ("lines.jsonl", b'{"text": "good film", "label": "pos"}\r\n{"label": "neg", "text": "bad film"}\n'),
        ("lines.ndjson.gz", b'{"text": "good film", "label": "pos"}\n{"text": "bad film", "label": "neg"}'),
        ("list.json", b'[{"text": "good film", "label": "pos"},\n {"text": "bad film", "label": "neg"}]'),
    ],
)
def test_the_same_examples_in_every_text_format(file, name, content):
    examples = read_examples(file(name, content))
    assert (examples.inputs, examples.targets) == (["good film", "bad film"], ["pos", "neg"])
    assert (examples.input_name, examples.target_name) == ("text", "label")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (pd.DataFrame({"text": ["good", "bad"], "label": [1, 0]}), "a table of 2 columns and 2 rows"),
        (pl.DataFrame({"text": ["good", "bad"], "label": [1, 0]}), "a table of 2 columns and 2 rows"),
        (pa.table({"text": ["good", "bad"], "label": [1, 0]}), "a table of 2 columns and 2 rows"),
        ({"text": ["good", "bad"], "label": np.array([1, 0])}, "a table of 2 columns and 2 rows"),
        ([{"text": "good", "label": 1}, {"text": "bad", "label": 0}], "a list of 2 objects"),
        ((["good", "bad"], [1, 0]), "lists"),
        ((np.array(["good", "bad"]), np.array([1, 0])), "lists"),
        ([("good", 1), ["bad", 0]], "lists"),
    ],
    ids=["pandas", "polars", "pyarrow", "dict", "dicts", "texts and labels", "arrays", "pairs"],
)
def test_tables_and_lists(source, told):
    examples = read_examples(source)
    assert (examples.inputs, examples.targets, examples.rows) == (["good", "bad"], ["1", "0"], [1, 2])
    assert examples.source == told


@pytest.mark.parametrize("texts", [["good", "bad"], ("good", "bad"), np.array(["good", "bad"])])
def test_texts_alone(texts):
    examples = read_examples(texts)
    assert (examples.inputs, examples.targets, examples.kind) == (["good", "bad"], None, "lists")


def test_a_tuple_of_two_lists_is_not_a_list_of_two_pairs():
    sides = ["a", "b"], ["c", "d"]
    assert read_examples(sides).targets == ["c", "d"]
    assert read_examples(list(sides)).targets == ["b", "d"]


def test_parquet(tmp_path):
    path = tmp_path / "reviews.parquet"
    pq.write_table(pa.table({"review": ["good", "bad", "fair"], "stars": [5.0, 1.0, 3.0]}), path)
    examples = read_examples(path)
    assert (examples.inputs, examples.targets) == (["good", "bad", "fair"], ["5", "1", "3"])
    assert examples.source == str(path)
    path.write_bytes(b"PAR1 and then nothing of use")
    with pytest.raises(ValueError, match=says("reviews.parquet: not a readable parquet file")):
        read_examples(path)


def test_a_text_file_is_one_text(file):
    examples = read_examples(file("play.txt", "To be,\r\nor not\rto be\n"))
    assert (examples.inputs, examples.kind, examples.rows) == (["To be,\nor not\nto be\n"], "text", [1])
    assert read_examples(file("notes.md.gz", "# Notes\n")).inputs == ["# Notes\n"]
    with pytest.raises(ValueError, match=says('play.txt is read as one text and has no columns; leave "x" out')):
        read_examples("play.txt", input="x")
    with pytest.raises(ValueError, match=says("play.txt is read as one text and has no labels; expected a .csv")):
        read_examples("play.txt", want_target="yes")


class TestFolder:
    def test_a_subfolder_is_a_class(self, file):
        file("films/pos/1.txt", "good")
        file("films/pos/deep/er/2.txt", "great\r\n")
        file("films/neg/1.txt.gz", "bad")
        file("films/neg/.DS_Store", b"\0\0")
        file("films/.git/config", "hidden")
        file("films/README", "about")
        examples = read_examples("films")
        assert examples.inputs == ["bad", "good", "great\n"]
        assert examples.targets == ["neg", "pos", "pos"]
        assert (examples.kind, examples.rows) == ("folder", [1, 2, 3])
        assert examples.notes == ("1 file beside the class folders left out",)
        assert read_examples("films", want_target="no").targets is None

    def test_unreadable_files(self, file):
        file("films/pos/1.txt", "good")
        file("films/neg/1.txt", " \n")
        file("films/neg/2.png", b"\x89PNG\0")
        with pytest.raises(ValueError, match=says("films, neg/1.txt: the file is empty", "--bad-rows skip")):
            read_examples("films")
        examples = read_examples("films", bad_rows="skip")
        assert (examples.inputs, examples.rows) == (["good"], [3])
        assert examples.notes[0].startswith("2 unreadable files left out: neg/1.txt (the file is empty")

    def test_folders_of_parts_as_imdb_has_them(self, file):
        for name, text in {
            "train/pos/0_9.txt": "good",
            "train/neg/0_1.txt": "bad",
            "train/unsup/0_0.txt": "nobody said",
            "train/urls_pos.txt": "a list",
            "test/pos/0_8.txt": "fine",
            "test/neg/0_2.txt": "poor",
            "README": "about it",
        }.items():
            file(f"imdb/{name}", text)
        examples = read_examples("imdb")
        assert dict(zip(examples.inputs, zip(examples.targets, examples.parts, strict=True), strict=True)) == {
            "good": ("pos", "train"),
            "bad": ("neg", "train"),
            "fine": ("pos", "test"),
            "poor": ("neg", "test"),
        }
        told = "; ".join(examples.notes)
        assert 'the folder "unsup" left out: 1 file without labels' in told
        assert "split as it comes: test (test, 2), train (train, 2)" in told
        assert "1 entry beside them left out" in told

    def test_files_of_parts(self, file):
        file("set/en-train.csv", "text,label\na,x\nb,y\n")
        file("set/en-dev.csv", "text,label\nc,x\n")
        file("set/en-test.csv", "text,label\nd,y\n")
        examples = read_examples("set", input="text", target="label")
        assert examples.inputs == ["c", "d", "a", "b"]
        assert examples.parts == ["valid", "test", "train", "train"]

    def test_empty_folders(self, file, tmp_path):
        (tmp_path / "bare").mkdir()
        with pytest.raises(ValueError, match=says("bare has no subfolders; expected one subfolder")):
            read_examples("bare")
        (tmp_path / "bare" / "pos").mkdir()
        with pytest.raises(ValueError, match=says("bare: its subfolders hold no files")):
            read_examples("bare")


class TestCsv:
    def test_quotes_newlines_and_the_line_where_a_record_starts(self, file):
        content = 'text,label\n"one, ""two""\nthree",pos\nfour,neg\n'
        examples = read_examples(file("quoted.csv", content))
        assert examples.inputs == ['one, "two"\nthree', "four"]
        assert examples.rows == [2, 4]

    def test_another_delimiter_is_announced(self, file):
        examples = read_examples(file("export.csv", "text;label\ngood, really good;1\nbad;0\n"))
        assert examples.inputs == ["good, really good", "bad"]
        assert examples.notes[0] == "fields are separated by a semicolon"

    def test_tsv_means_tab_and_lone_quotes_are_characters(self, file):
        examples = read_examples(file("t.tsv", 'text\tlabel\n"Hi" he said\tx\na, b\ty\n'))
        assert examples.inputs == ['"Hi" he said', "a, b"]
        assert examples.notes[0].startswith("quotation marks do not pair up")
        assert read_examples(file("u.tsv", 'text\tlabel\n"a\tb"\tx\nc\ty\n')).inputs == ["a\tb", "c"]

    @pytest.mark.parametrize(
        ("first", "why"),
        [
            ("good,1", '"1" is a number'),
            ("A good film.,pos", '"A good film." ends like a sentence'),
            ("good,pos", '"pos" comes again in its column'),
            (f"{'so ' * 30}good,pos", "is 94 characters long"),
        ],
    )
    def test_no_header(self, file, first, why):
        examples = read_examples(file("bare.csv", f"{first}\nbad,neg\nfair,pos\nworse,neg\n"))
        assert (len(examples.inputs), examples.rows) == (4, [1, 2, 3, 4])
        assert why in examples.notes[0]
        assert examples.notes[0].endswith('columns are called "1" and "2"')
        assert (examples.input_name, examples.target_name) == ("1", "2")
        assert read_examples("bare.csv", input="1", target="2").inputs == examples.inputs

    def test_a_usual_or_asked_name_makes_a_header(self, file):
        assert read_examples(file("a.csv", "text,2020\ntext,x\nb,y\nc,x\n")).inputs == ["text", "b", "c"]
        examples = read_examples(file("b.csv", "Any good?,verdict\nyes,x\nno,y\n"), input="Any good?")
        assert examples.inputs == ["yes", "no"]

    def test_a_column_without_a_name_is_called_by_its_place(self, file):
        examples = read_examples(file("index.csv", ",text,label\n0,good,pos\n1,bad,neg\n"), target="1")
        assert examples.targets == ["0", "1"]

    def test_a_row_of_the_wrong_length(self, file):
        name = file("reviews.csv", TWO + "a, b,pos\nonly\nfair,neg\n")
        with pytest.raises(
            ValueError,
            match=says(
                'reviews.csv, row 4: 3 fields came, the header has 2 ("text" and "label")',
                "--bad-rows skip leaves such rows out",
            ),
        ):
            read_examples(name)
        examples = read_examples(name, bad_rows="skip")
        assert (examples.inputs, examples.rows) == (["good film", "bad film", "fair"], [2, 3, 6])
        assert examples.notes[-1].startswith("2 unreadable rows left out: row 4 (3 fields came")
        assert "row 5 (1 field came" in examples.notes[-1]

    def test_missing_inputs_and_targets(self, file):
        name = file("gaps.csv", TWO + " ,pos\nfair,\n")
        with pytest.raises(ValueError, match=says('gaps.csv, row 4: input column "text": empty or missing')):
            read_examples(name)
        examples = read_examples(name, bad_rows="skip")
        assert (examples.inputs, examples.targets) == (["good film", "bad film"], ["pos", "neg"])
        assert 'row 5 (target column "label": empty or missing' in examples.notes[-1]
        assert read_examples(name, bad_rows="skip", want_target="no").inputs[-1] == "fair"

    def test_broken_quotes(self, file):
        name = file("broken.csv", TWO + '"never ""closed"" b,pos\nfair,neg\n')
        with pytest.raises(ValueError, match=says("broken.csv, row 4: a quotation mark", "up to line 5")):
            read_examples(name, bad_rows="skip")
        name = file("stray.csv", TWO + '"great" film,pos\nfair,neg\n')
        with pytest.raises(ValueError, match=says("stray.csv, row 4: not CSV: ',' expected after '\"'")):
            read_examples(name)
        assert read_examples(name, bad_rows="skip").rows == [2, 3, 5]
        name = file("span.csv", TWO + '"open,pos\n"shut" up,neg\nfair,neg\n')
        assert "rows 4-5 (not CSV" in read_examples(name, bad_rows="skip").notes[-1]

    def test_a_field_longer_than_the_csv_modules_limit(self, file):
        before = csv.field_size_limit()
        long = "word " * 40_000
        examples = read_examples(file("long.csv", f'text,label\n"{long}",a\nb,c\n'))
        assert examples.inputs[0] == long
        assert csv.field_size_limit() == before

    def test_two_columns_of_one_name(self, file):
        with pytest.raises(ValueError, match=says('d.csv: columns 1 and 3 are both called "text"; rename one')):
            read_examples(file("d.csv", "text,label,text\na,b,c\n"))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "empty.csv is empty"),
            ("\n \n", "empty.csv is empty"),
            ("text,label\n", 'empty.csv has columns "text" and "label" and no rows'),
            ("text,label\na,b,c\n", "unreadable row left out: row 2"),
            ("text,label\n,b\n", "empty.csv has no readable example: input column"),
        ],
    )
    def test_nothing_to_read(self, file, content, words):
        with pytest.raises(ValueError, match=says(words)):
            read_examples(file("empty.csv", content), bad_rows="skip")


class TestEncoding:
    def test_gb18030(self, file):
        name = file("chinese.csv", "文本,标签\n很好,正\n很差,负\n".encode("gb18030"))
        with pytest.raises(
            ValueError,
            match=says("chinese.csv, line 1: byte 0xCE is not UTF-8", "--encoding gb18030", "--encoding latin-1"),
        ):
            read_examples(name)
        examples = read_examples(name, encoding="gb18030")
        assert (examples.inputs, examples.targets) == (["很好", "很差"], ["正", "负"])

    def test_the_line_is_named(self, file):
        with pytest.raises(ValueError, match=says("latin.txt, line 3: byte 0xE9 is not UTF-8")):
            read_examples(file("latin.txt", b"one\ntwo\ncaf\xe9\n"))
        assert read_examples("latin.txt", encoding="latin-1").inputs == ["one\ntwo\ncafé\n"]
        with pytest.raises(ValueError, match=says("latin.txt, line 3: byte 0xE9 is not ascii")):
            read_examples("latin.txt", encoding="ascii")

    def test_no_such_encoding(self, file):
        for encoding in ("klingon", "base64"):
            with pytest.raises(ValueError, match=says(f'there is no text encoding "{encoding}"')):
                read_examples(file("a.txt", "a"), encoding=encoding)

    def test_binary_files(self, file):
        with pytest.raises(ValueError, match=says("model.bin, byte 3: a zero byte came", "expected a .csv")):
            read_examples(file("model.bin", b"ab\0c"))
        with pytest.raises(ValueError, match=says("model.bin, line 1: a zero character came", "is latin-1 its")):
            read_examples("model.bin", encoding="latin-1")

    def test_gzip_that_is_cut_or_none(self, file, tmp_path):
        (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"some text" * 100)[:-20])
        (tmp_path / "none.txt.gz").write_bytes(b"plain text")
        for name in ("cut.txt.gz", "none.txt.gz"):
            with pytest.raises(ValueError, match=says(f"{name}, not a whole gzip file")):
                read_examples(tmp_path / name)

    def test_encoding_is_for_text_files(self, file):
        with pytest.raises(ValueError, match=says('encoding "utf-8" came with a list')):
            read_examples(["a"], encoding="utf-8")


class TestJson:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("{'text': 'a'}", "x.jsonl, row 2: not JSON: Expecting property name"),
            ('["a", "b"]', "x.jsonl, row 2: a JSON list came, an object"),
            ('{"label": "b"}', 'x.jsonl, row 2: input column "text": empty or missing'),
            ('{"text": null, "label": "b"}', 'x.jsonl, row 2: input column "text": empty or missing'),
            ('{"text": "a"}', 'x.jsonl, row 2: target column "label": empty or missing'),
            ('{"text": ["a"], "label": "b"}', 'x.jsonl, row 2: input column "text": a list came'),
            (
                '{"text": "\\ud800", "label": "b"}',
                'input column "text": character 1 is half of a surrogate pair',
            ),
            ("[" * 100_000, "x.jsonl, row 2: not JSON: nested too deeply"),
        ],
    )
    def test_unreadable_lines(self, file, line, words):
        name = file("x.jsonl", f'{{"text": "a", "label": "b"}}\n{line}\n\n{{"text": "c", "label": "d"}}\n')
        with pytest.raises(ValueError, match=says(words)):
            read_examples(name)
        examples = read_examples(name, bad_rows="skip")
        assert (examples.inputs, examples.targets, examples.rows) == (["a", "c"], ["b", "d"], [1, 4])

    def test_json_that_is_not_a_list_of_objects(self, file):
        with pytest.raises(ValueError, match=says("a.json: a JSON object came; expected a list of objects")):
            read_examples(file("a.json", '{"text": "a"}'))
        with pytest.raises(ValueError, match=says("b.json: not JSON: Extra data: line 2", "name the file .jsonl")):
            read_examples(file("b.json", '{"text": "a"}\n{"text": "b"}'))
        with pytest.raises(ValueError, match=says("c.json, row 2: a str came, an object (dict) expected")):
            read_examples(file("c.json", '[{"text": "a"}, "b"]'))
        with pytest.raises(ValueError, match=says("d.json has no columns and no rows")):
            read_examples(file("d.json", "[]"))


class TestColumns:
    def test_unknown_names(self, file):
        with pytest.raises(
            ValueError,
            match=says('reviews.csv has no column "txt"; it has "text" and "label"; did you mean "text"?'),
        ):
            read_examples(file("reviews.csv", TWO), input="txt")
        with pytest.raises(ValueError, match=says('reviews.csv has no column "zzz"; it has "text" and "label"')):
            read_examples("reviews.csv", target="zzz")

    def test_several_columns_are_one_input(self, file):
        content = "story,question,answer\nJohn ran.,Who ran?,John\nMary sat.,Who sat?,Mary\n"
        examples = read_examples(file("qa.csv", content), input="story,question", target="answer")
        assert examples.inputs == [("John ran.", "Who ran?"), ("Mary sat.", "Who sat?")]
        assert (examples.targets, examples.input_name) == (["John", "Mary"], "story,question")
        with pytest.raises(ValueError, match=says('has no column "who"')):
            read_examples("qa.csv", input="story,who")

    def test_parts_and_groups(self, file):
        content = "text,label,part,by\na,x,train,A\nb,y,training,B\nc,x,dev,A\nd,y,Test,C\n"
        examples = read_examples(file("set.csv", content), part="part", group="by")
        assert (examples.parts, examples.groups) == (["train", "train", "valid", "test"], ["A", "B", "A", "C"])
        with pytest.raises(ValueError, match=says("row 2: column \"by\" holds 'A'; expected train, valid or test")):
            read_examples("set.csv", part="by")

    def test_named_columns_are_not_announced(self, file):
        examples = read_examples(file("reviews.csv", TWO), input="label", target="text")
        assert (examples.inputs, examples.targets, examples.notes) == (
            ["pos", "neg"],
            ["good film", "bad film"],
            (),
        )

    def test_one_column_twice(self, file):
        with pytest.raises(ValueError, match=says('column "text" is named as input and as target')):
            read_examples(file("reviews.csv", TWO), input="text", target="text")

    def test_guesses_from_the_values(self):
        table = {
            "id": [f"id{i}" for i in range(200)],
            "what was said": [f"some rather long words, number {i}" for i in range(200)],
            "source": [f"s{i % 7}" for i in range(200)],
            "verdict": ["yes", "no"] * 100,
            "language": ["en"] * 200,
        }
        examples = read_examples(table)
        assert (examples.input_name, examples.target_name) == ("what was said", "verdict")
        assert examples.notes == (
            'input column "what was said" (longest texts), target column "verdict" (2 different values): '
            "--input and --target choose others",
        )
        examples = read_examples(table, input="source")
        assert examples.notes == ('target column "verdict" (2 different values): --target chooses another',)

    def test_usual_names_in_their_order_and_any_case(self):
        table = {"Title": ["a", "b"], "Y": ["p", "q"], "CONTENT": ["c", "d"], "Sentiment": ["r", "s"]}
        examples = read_examples(table)
        assert (examples.input_name, examples.target_name) == ("CONTENT", "Sentiment")
        chinese = read_examples({"编号": [1, 2], "评论": ["好", "差"], "情感": ["正", "负"]})
        assert (chinese.input_name, chinese.target_name) == ("评论", "情感")

    @pytest.mark.parametrize(
        "other",
        [["same"] * 60, [f"v{i}" for i in range(60)], [f"v{i % 51}" for i in range(60)]],
        ids=["one value", "all different", "51 of 60"],
    )
    def test_no_target_to_guess(self, other):
        table = {"text": [f"text {i}" for i in range(60)], "other": other}
        examples = read_examples(table)
        assert examples.targets is None
        assert examples.notes[-1] == 'no target: of "other" none looks like labels; --target names one'
        with pytest.raises(
            ValueError,
            match=says("has no column that looks like labels", '"text" and "other"; name the labels with --target'),
        ):
            read_examples(table, want_target="yes")
        assert read_examples(table, want_target="yes", target="other").targets == other

    def test_one_column(self, file):
        examples = read_examples(file("one.csv", "remark\ngood\nbad\ngood\n"))
        assert (examples.inputs, examples.targets) == (["good", "bad", "good"], None)
        assert examples.notes == ('input column "remark" (the only one): --input chooses another',)
        with pytest.raises(ValueError, match=says("one.csv has no column beside the target")):
            read_examples("one.csv", target="remark")

    def test_want_target_no(self, file):
        assert read_examples(file("reviews.csv", TWO), want_target="no").target_name is None
        with pytest.raises(ValueError, match=says('"label" was named where no target is wanted')):
            read_examples("reviews.csv", want_target="no", target="label")

    @pytest.mark.parametrize(
        ("values", "texts"),
        [
            ([1, 2, 1], ["1", "2", "1"]),
            ([1.0, 2.0, 1.0], ["1", "2", "1"]),
            ([1.0, 2.5, 1.0], ["1.0", "2.5", "1.0"]),
            ([True, False, True], ["true", "false", "true"]),
            ([" a", "b ", "a"], ["a", "b", "a"]),
        ],
    )
    def test_labels_as_text(self, values, texts):
        texts_in = ["x", "y", "z"]
        assert read_examples((texts_in, values)).targets == texts
        assert read_examples((texts_in, np.array(values))).targets == texts
        assert read_examples((texts_in, np.array(values, dtype=object))).targets == texts
        for frame in (pd.DataFrame, pl.DataFrame, pa.table):
            assert read_examples(frame({"text": texts_in, "label": values})).targets == texts

    @pytest.mark.parametrize("gap", [None, float("nan"), pd.NA, pd.NaT])
    def test_missing_values_in_tables(self, gap):
        frame = pd.DataFrame({"text": ["x", "y", "z"], "label": pd.Series([1, gap, 2], dtype=object)})
        with pytest.raises(ValueError, match=says('a table of 2 columns and 3 rows, row 2: target column "label"')):
            read_examples(frame)
        assert read_examples(frame, bad_rows="skip").targets == ["1", "2"]

    def test_a_float_column_with_a_gap_holds_integers(self):
        frame = pd.DataFrame({"text": ["x", "y", "z"], "label": [1, None, 2]})
        assert read_examples(frame, bad_rows="skip").targets == ["1", "2"]


class TestWrongSources:
    def test_missing_files(self, file):
        file("reviews.csv", TWO)
        with pytest.raises(FileNotFoundError) as caught:
            read_examples("review.csv")
        assert str(caught.value) == 'there is no file review.csv; similar names there: "reviews.csv"'
        with pytest.raises(FileNotFoundError) as caught:
            read_examples("nowhere/review.csv")
        assert str(caught.value) == "there is no file nowhere/review.csv: there is no folder nowhere"

    @pytest.mark.parametrize(
        ("source", "kind", "words"),
        [
            (42, TypeError, "a int came; expected a path"),
            ((text for text in ["a"]), TypeError, "a generator came; expected a path"),
            (pl.LazyFrame({"text": ["a"]}), TypeError, "a LazyFrame came; expected a path"),
            ([], ValueError, "an empty list came"),
            (([], []), ValueError, "lists has no readable example"),
            ([1, 2], TypeError, "the first item of the list is a int; expected a text"),
            ((["a", "b"], ["x"]), ValueError, "2 texts and 1 label came; expected as many labels as texts"),
            (
                [["a", "b", "c"], ["x", "y", "z"]],
                ValueError,
                "a list of 3 came, a pair (text, label) expected",
            ),
            ({"text": ["a"], "label": []}, ValueError, 'different lengths: "text" has 1, "label" has 0'),
            ({"text": "a"}, TypeError, 'column "text" of the dict is a str; expected a list'),
            ({}, ValueError, "has no columns and no rows"),
            (
                pd.DataFrame({"text": []}),
                ValueError,
                'a table of 1 column and 0 rows has columns "text" and no rows',
            ),
            (["a", None], ValueError, "lists, row 2: input: empty or missing"),
            (["a", "\udc80"], ValueError, "lists, row 2: input: character 1 is half of a surrogate pair"),
        ],
    )
    def test_in_memory(self, source, kind, words):
        with pytest.raises(kind, match=says(words)):
            read_examples(source)

    def test_labels_wanted_from_texts_alone(self):
        with pytest.raises(ValueError, match=says("2 texts came without labels; expected a tuple")):
            read_examples(["a", "b"], want_target="yes")
        assert read_examples([("a", "x")], want_target="no").targets is None
        with pytest.raises(ValueError, match=says("the data is lists and has no columns")):
            read_examples(["a", "b"], input="text")

    def test_misspelt_choices(self):
        with pytest.raises(ValueError, match=says("bad_rows='ignore' came; expected 'stop' or 'skip'")):
            read_examples(["a"], bad_rows="ignore")  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match=says("want_target=True came; expected 'yes' or 'no' or 'if there'")):
            read_examples(["a"], want_target=True)  # pyright: ignore[reportArgumentType]


class TestDuplicates:
    def test_the_first_of_each_text_stays(self):
        examples = read_examples([("a", 1), ("b", 1), (" a\n", 1), ("a", 2), ("c", 2)])
        kept = drop_duplicates(examples)
        assert (kept.inputs, kept.targets, kept.rows) == (["a", "b", "c"], ["1", "1", "2"], [1, 2, 5])
        assert kept.notes == (
            "2 duplicate rows left out before splitting (a text that is in two splits would leak); "
            "1 of them had another label than the first",
        )

    def test_nothing_to_drop(self):
        examples = read_examples(["a", "b"])
        assert drop_duplicates(examples) is examples

    def test_without_labels(self):
        kept = drop_duplicates(read_examples(["a", "a"]))
        assert (kept.inputs, kept.targets) == (["a"], None)
        assert kept.notes[0].startswith("1 duplicate row left out")


def test_reading_a_csv_imports_nothing_heavy(file):
    name = file("reviews.csv", TWO)
    program = (
        "import sys, json; from everloop.data import read_examples; "
        f"read_examples({name!r}); print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"pandas", "polars", "pyarrow", "tokenizers", "torch"}
    assert not heavy & set(json.loads(done.stdout))


def test_missing_pyarrow_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=says("a.parquet: reading parquet needs pyarrow", "everloop[train]")):
        read_examples(file("a.parquet", b"PAR1"))


def test_examples_are_given_back() -> None:
    examples = read_examples((["a", "b"], ["x", "y"]))
    assert read_examples(examples) is examples
    with pytest.raises(ValueError, match="the data is Examples and has no columns"):
        read_examples(examples, input="text")
