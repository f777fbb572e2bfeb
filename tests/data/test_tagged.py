"""Tagged words in every form that they come in, and what is said of those that do not fit."""

import gzip
import re
from pathlib import Path

import pandas as pd
import pytest

from everloop.data.files import read_examples
from everloop.data.tagged import Asked, form_of, from_lists, read_tagged

SENTENCES = [["我", "吃", "苹果"], ["I", "eat", "and/or", "drink"]]
TAGS = [["r", "v", "n"], ["PRON", "VERB", "CCONJ", "VERB"]]
SLASHES = "我/r 吃/v  苹果/n\n\nI/PRON eat/VERB and/or/CCONJ drink/VERB\n"
COLUMNS = "我\tr\n吃\tv\n苹果\tn\n\nI\tPRON\neat\tVERB\nand/or\tCCONJ\ndrink\tVERB\n"
CONLLU = """# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tV\tMood=Imp\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\tS\t_\t5\tcase\t_\t_
4\tel\tel\tDET\tD\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\tN\t_\t1\tobl\t_\t_
5.1\tnada\t_\t_\t_\t_\t_\t_\t_\t_

# text = sí
1\tsí\tsí\tINTJ\tI\t_\t0\troot\t_\t_
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write a file and read it by its bare name."""
    monkeypatch.chdir(tmp_path)

    def of(name: str, content: str | bytes, **asked):
        data = content if isinstance(content, bytes) else content.encode()
        Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return read_tagged(Path(name), name, Asked(**{"want_target": "yes"} | asked))

    return of


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.txt", SLASHES),
            ("a.txt.gz", SLASHES),
            ("a.txt", SLASHES.replace("\n", "\r\n")),
            ("a.conll", COLUMNS),
            ("a.txt", COLUMNS),
            ("a.txt", COLUMNS.replace("\t", " ")),
            ("a.tsv", COLUMNS + "\n\n"),
        ],
    )
    def test_slashes_and_columns(self, read, name, content):
        examples = read(name, content)
        assert examples.inputs == SENTENCES
        assert examples.targets == TAGS
        assert examples.modality == "words"
        assert examples.source == name

    def test_conllu(self, read):
        for name in ("a.conllu", "a.conllu.gz", "sniffed.txt"):
            examples = read(name, CONLLU)
            assert examples.inputs == [["vamos", "nos", "a", "el", "mar"], ["sí"]]
            assert examples.targets == [["VERB", "PRON", "ADP", "DET", "NOUN"], ["INTJ"]]
            assert list(examples.rows) == [2, 12]
        assert read("a.conllu", CONLLU, target="xpos").targets == [["V", "P", "S", "D", "N"], ["I"]]
        assert read("a.conllu", CONLLU, target="deprel").targets[1] == ["root"]

    def test_a_column_by_its_number(self, read):
        content = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"
        assert read("a.txt", content).targets == [["B-ORG", "O"]]
        assert read("a.txt", content).inputs == [["EU", "rejects"]]
        assert read("a.txt", content, target="2").targets == [["NNP", "VBZ"]]

    def test_untagged_text(self, read):
        assert read("a.txt", "I eat\n\nyou drink tea\n", want_target="no").inputs == [
            ["I", "eat"],
            ["you", "drink", "tea"],
        ]
        assert read("a.txt", SLASHES, want_target="no").targets is None
        assert read("a.txt", SLASHES, want_target="if there").targets == TAGS
        assert read("a.txt", "I eat\n", want_target="if there").targets is None

    def test_a_folder_of_parts(self, tmp_path):
        for name in ("train.txt", "dev.txt", "test.txt"):
            (tmp_path / name).write_text(f"{name}/n works/v\n")
        examples = read_tagged(tmp_path, "folder", Asked(want_target="yes"))
        parts = {words[0]: part for words, part in zip(examples.inputs, examples.parts, strict=True)}
        assert parts == {"train.txt": "train", "dev.txt": "valid", "test.txt": "test"}

    def test_by_read_examples(self, tmp_path):
        path = tmp_path / "a.conllu"
        path.write_text(CONLLU)
        examples = read_examples(path)
        assert examples.inputs[1] == ["sí"]
        assert examples.targets == [["VERB", "PRON", "ADP", "DET", "NOUN"], ["INTJ"]]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.txt", SLASHES * 9 + "one/n two\n", "a.txt, line 28: 'two' came; expected word/tag; --bad-rows skip"),
            (
                "a.conll",
                "a\tb\n\nc\td\ne\n",
                "a.conll, line 4: 1 column came; expected a word and its tag in 2 columns",
            ),
            ("a.conllu", CONLLU + "2\tword\n", "a.conllu, line 13: 2 columns came; expected ten columns apart by tabs"),
            ("a.conllu", CONLLU.replace("INTJ", "_"), "a.conllu, line 12: the word 'sí' came with the tag '_'"),
            (
                "a.txt",
                "plain words here\nno tags\n",
                "a.txt holds no tagged words: its first line is 'plain words here'",
            ),
            ("a.txt", " \n", "a.txt is empty; expected sentences of tagged words"),
            ("a.txt", b"\xff/n", "a.txt, line 1: byte 0xFF is not UTF-8"),
        ],
    )
    def test_name_file_and_line(self, read, name, content, said):
        with pytest.raises(ValueError, match=re.escape(said)):
            read(name, content)

    def test_bad_sentences_are_left_out_on_request(self, read):
        examples = read("a.txt", SLASHES * 9 + "one/n two\n", bad_rows="skip")
        assert len(examples) == 18
        assert examples.notes == ("1 unreadable sentence left out: line 28 ('two' came; expected word/tag)",)
        examples = read("a.conllu", CONLLU + "2\tword\n", bad_rows="skip")
        assert examples.inputs == [["vamos", "nos", "a", "el", "mar"]]

    def test_one_bad_line_hides_no_columns(self, read):
        with pytest.raises(ValueError, match=r"a.txt, line 72: 1 column came"):
            read("a.txt", COLUMNS.replace("\n\n", "\n") * 10 + "\nword\n")
        examples = read("a.txt", (COLUMNS + "\n") * 10 + "word\n", bad_rows="skip")
        assert len(examples) == 20

    def test_columns_that_are_not_there(self, read):
        with pytest.raises(ValueError, match="CoNLL-U has no column 'tag'; it has id, form, lemma, upos"):
            read("a.conllu", CONLLU, target="tag")
        with pytest.raises(ValueError, match="its columns have no names; 'ner' came, expected a number from 1"):
            read("a.conll", COLUMNS, target="ner")
        with pytest.raises(ValueError, match='is sentences of tagged words and has no columns; leave "x" out'):
            read("a.conll", COLUMNS, input="x")
        with pytest.raises(ValueError, match="line 1: 2 columns came; expected a word and its tag in 4 columns"):
            read("a.conll", COLUMNS, target="4")


class TestPython:
    @pytest.mark.parametrize(
        "data",
        [
            (SENTENCES, TAGS),
            [list(zip(*pair, strict=True)) for pair in zip(SENTENCES, TAGS, strict=True)],
            [[list(item) for item in zip(*pair, strict=True)] for pair in zip(SENTENCES, TAGS, strict=True)],
            list(zip(SENTENCES, TAGS, strict=True)),
            SLASHES.replace("\n\n", "\n").strip().split("\n"),
        ],
        ids=["two lists", "pairs", "pairs in lists", "sentences with tags", "lines"],
    )
    def test_every_form(self, data):
        examples = from_lists(data, Asked(want_target="yes"))
        assert examples.inputs == SENTENCES
        assert examples.targets == TAGS

    def test_sentences_alone(self):
        for data in (SENTENCES, [" ".join(words) for words in SENTENCES], [tuple(words) for words in SENTENCES]):
            examples = from_lists(data, Asked(want_target="no"))
            assert examples.inputs == SENTENCES
            assert examples.targets is None
        assert from_lists(["and/or"], Asked(want_target="no")).inputs == [["and/or"]]

    def test_a_sentence_of_two_pairs_is_no_pair_of_sentences(self):
        examples = from_lists([[("he", "PRON"), ("goes", "VERB")]], Asked(want_target="yes"))
        assert examples.inputs == [["he", "goes"]]

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            ((SENTENCES, TAGS[:1]), "2 sentences and 1 list of tags came; expected as many"),
            ((SENTENCES, TAGS[::-1]), "lists, row 1: 3 words and 4 tags came; expected as many"),
            ([[("a", "b", "c")]], "lists, row 1: [('a', 'b', 'c')] came; expected words, (word, tag) pairs"),
            ([7], "lists, row 1: 7 came; expected a sentence of one word or more"),
            ([[]], "lists, row 1: [] came; expected a sentence of one word or more"),
            (["a/b c/d", "e f"], "lists, row 2: a sentence without tags came; expected a tag for every word"),
            ([], "an empty list came; expected at least one sentence"),
        ],
    )
    def test_what_does_not_fit(self, data, said):
        with pytest.raises(ValueError, match=re.escape(said)):
            from_lists(data, Asked(want_target="yes"))

    def test_tables(self):
        table = pd.DataFrame({"id": [1, 2], "tokens": SENTENCES, "ner_tags": TAGS})
        examples = read_examples(table, modality="words")
        assert examples.inputs == SENTENCES
        assert examples.targets == TAGS
        table["part"], table["by"] = ["train", "dev"], ["x", "y"]
        examples = read_examples(table, modality="words", part="part", group="by")
        assert (examples.parts, examples.groups) == (["train", "valid"], ["x", "y"])
        with pytest.raises(ValueError, match="the part 'x' came; expected train, valid or test"):
            read_examples(table, modality="words", part="by")
        texts = pd.DataFrame({"a": [" ".join(row) for row in SENTENCES], "b": [" ".join(row) for row in TAGS]})
        assert read_examples(texts, modality="words", input="a", target="b").targets == TAGS
        with pytest.raises(ValueError, match=r"has no column 'words' of words; it has \"a\" and \"b\""):
            read_examples(texts, modality="words")


def test_form_of():
    assert form_of(["a/b c/d", "e/f"]) == "slashes"
    assert form_of(["a and/or b", "one thing"]) is None
    assert form_of(["a b", "", "c d"]) == "columns"
    assert form_of(["a\tb", "c\td"]) == "columns"
    assert form_of(["a b", "c d"]) is None
    assert form_of(["1\ta\t_\tX\t_\t_\t0\troot\t_\t_"]) == "conllu"


def test_the_real_files(shared_data):
    examples = read_examples(shared_data / "ewt", modality="words")
    assert {part: examples.parts.count(part) for part in ("train", "valid", "test")} == {
        "train": 12_544,
        "valid": 2_001,
        "test": 2_077,
    }
    assert len({tag for tags in examples.targets for tag in tags}) == 17
