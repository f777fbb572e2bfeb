"""The text codec: what is a piece, that text comes back, and that the vocabulary is what was asked for."""

import json
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from everloop.data.text import TextCodec, Unit, choose_unit

UNITS: tuple[Unit, ...] = ("chars", "words", "subwords")
VARIANTS = [(unit, reversible) for unit in UNITS for reversible in (False, True)]
TEXTS = ["The cat can't sit.\n", "the cat sat, the dog can sit", "它坐。它坐！ สวัสดี 😀 <pad>"] * 2
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda v: f"{v[0]}-{'reversible' if v[1] else 'reading'}")
def codec(request) -> TextCodec:
    unit, reversible = request.param
    return TextCodec.fit(TEXTS, unit=unit, reversible=reversible)


@pytest.fixture(scope="module")
def subwords() -> TextCodec:
    return TextCodec.fit(TEXTS, unit="subwords", reversible=True)


class TestEveryCodec:
    def test_ids_of_padding_unknown_and_end(self, codec):
        assert (codec.pad, codec.unknown, codec.end) == (0, 1, 2)
        assert [codec.piece(i) for i in range(3)] == ["<pad>", "<unknown>", "<end>"]
        assert codec.decode([codec.pad, codec.unknown, codec.end]) == "\ufffd"

    def test_ids_are_int64_in_range_and_never_none(self, codec):
        batch = codec.encode_batch([*TEXTS, "", "Zebra ∑"])
        assert all(ids.dtype == np.int64 and ids.ndim == 1 and len(ids) for ids in batch)
        assert all(ids.min() > 0 and ids.max() < len(codec) and codec.end not in ids for ids in batch)
        assert codec.encode("").tolist() == [codec.unknown]
        assert codec.encode_batch([]) == []

    def test_training_texts_are_known(self, codec):
        assert all(codec.unknown not in ids for ids in codec.encode_batch(TEXTS))

    def test_decoding_step_by_step_is_decoding_at_once(self, codec):
        for ids in (*codec.encode_batch(TEXTS), range(len(codec)), np.arange(len(codec))[::-1]):
            stream = codec.stream_decoder()
            assert "".join([*(stream.push(int(i)) for i in ids), stream.finish()]) == codec.decode(list(ids))

    def test_json_is_the_same_codec_and_an_ordinary_tokenizer(self, codec):
        again = TextCodec.from_json(codec.to_json())
        plain = Tokenizer.from_str(codec.to_json())
        assert again.to_json() == codec.to_json()
        assert (again.unit, again.reversible, again.describe()) == (
            codec.unit,
            codec.reversible,
            codec.describe(),
        )
        for text in (*TEXTS, "Zebra ∑"):
            assert again.encode(text).tolist() == codec.encode(text).tolist() == plain.encode(text).ids
            assert again.decode(again.encode(text)) == codec.decode(codec.encode(text))
        assert plain.decode(plain.encode(TEXTS[1]).ids) == codec.decode(codec.encode(TEXTS[1]))

    def test_fitting_twice_gives_the_same(self, codec):
        again = TextCodec.fit(TEXTS, unit=codec.unit, reversible=codec.reversible)
        assert again.to_json() == codec.to_json()

    def test_a_long_text_is_encoded_in_parts_without_a_trace(self, codec):
        text = "\n\nThe  cat can't sit.\n 它坐。\r\n\t" * 1_000
        whole = codec.tokenizer.encode(text).ids
        assert codec.encode(text).tolist() == whole
        assert len(codec.pieces(text)) == len(whole)

    @settings(deadline=None)
    @given(text=ANY_TEXT)
    def test_one_piece_for_each_id(self, codec, text):
        assert len(codec.pieces(text)) == len(codec.encode(text))

    def test_what_is_not_a_text(self, codec):
        with pytest.raises(TypeError, match="text 2 of 2 is a int; expected a str"):
            codec.encode_batch(["a", 1])
        with pytest.raises(TypeError, match="one string came; expected a list of texts"):
            codec.encode_batch("text")
        with pytest.raises(ValueError, match="text 1 of 1: character 2 is half of a surrogate pair"):
            codec.encode("a\ud800")

    def test_ids_out_of_range(self, codec):
        for call in (codec.piece, lambda i: codec.decode([i]), codec.stream_decoder().push):
            for i in (len(codec), -1):
                with pytest.raises(IndexError, match=rf"id {i} came; this vocabulary has the ids 0 to"):
                    call(i)


class TestPieces:
    def pieces(self, unit: Unit, text: str, reversible: bool) -> list[str]:
        codec = TextCodec.fit([text], unit=unit, reversible=reversible, min_count=1)
        return [codec.piece(int(i)) for i in codec.encode(text)]

    def test_words_for_reading(self):
        text = "I CAN'T say ‘hello’; it’s 3.5 foo_bar o'clock,\n它坐 สวัสดี rnn模型"
        assert self.pieces("words", text, reversible=False) == [
            *("i", "can", "'t", "say", "‘", "hello", "'", ";", "it", "'s", "3", ".", "5", "foo_bar"),
            *("o", "'", "clock", ",", "它", "坐", "ส", "วั", "ส", "ดี", "rnn", "模", "型"),
        ]

    def test_words_for_writing(self):
        text = "I can't  say:\n\n 'No'\t它坐。"
        assert self.pieces("words", text, reversible=True) == [
            *("I", " can", "'t", " ", " say", ":", "\n", "\n", " '", "No", "'", "\t", "它", "坐", "。")
        ]

    def test_characters(self):
        assert self.pieces("chars", "Aé\n它😀", reversible=True) == ["A", "é", "\n", "它", "😀"]
        assert self.pieces("chars", "Ae\u0301", reversible=False) == ["a", "é"]

    def test_pieces_are_as_the_text_spells_them(self):
        codec = TextCodec.fit(["known known"], unit="words", reversible=False)
        assert codec.pieces("KNOWN Café it’s") == ["KNOWN", "Café", "it", "’s"]
        assert codec.encode("KNOWN Café").tolist() == [3, 1]
        assert codec.pieces(" ") == [" "]

    def test_names_of_special_ids_in_a_text_are_only_text(self, subwords):
        for text in ("<pad>", "a<end>b", "<unknown>"):
            assert not {0, 1, 2} & set(subwords.encode(text).tolist())
            assert subwords.decode(subwords.encode(text)) == text


class TestReversible:
    @settings(deadline=None)
    @given(text=ANY_TEXT)
    def test_subwords_give_any_text_back(self, subwords, text):
        assert subwords.decode(subwords.encode(text)) == text or text == ""

    @pytest.mark.parametrize("unit", ["chars", "words"])
    @settings(deadline=None)
    @given(text=ANY_TEXT.filter(bool))
    def test_known_pieces_give_the_text_back(self, unit, text):
        codec = TextCodec.fit([text], unit=unit, reversible=True, min_count=1)
        assert codec.decode(codec.encode(text)) == text
        assert "".join(codec.pieces(text)) == text

    @settings(deadline=None)
    @given(text=ANY_TEXT)
    def test_reading_composes_and_lowercases(self, text):
        codec = TextCodec.fit([text, "x"], unit="chars", reversible=False, min_count=1)
        assert codec.encode(text).tolist() == codec.encode(unicodedata.normalize("NFD", text)).tolist()
        assert codec.decode(codec.encode("X")) == "x"

    def test_a_stream_holds_back_broken_characters(self, subwords):
        ids = [int(i) for i in subwords.encode("∑")]
        assert len(ids) == 3
        stream = subwords.stream_decoder()
        assert [stream.push(i) for i in ids] == ["", "", "∑"]
        assert stream.push(ids[0]) == ""
        assert stream.finish() == "\ufffd"


class TestVocabulary:
    def test_min_count_and_max_size(self):
        texts = ["a a a b b c", "d"]
        codec = TextCodec.fit(texts, unit="words", reversible=False)
        assert [codec.piece(i) for i in range(3, len(codec))] == ["a", "b"]
        assert codec.describe() == "words, 2 of them (those seen at least 2 times)"
        codec = TextCodec.fit(texts, unit="words", reversible=False, min_count=1, vocabulary=5)
        assert [codec.piece(i) for i in range(3, len(codec))] == ["a", "b"]
        assert codec.describe() == "words, 2 of them (the most frequent of 4 seen at least 1 time)"
        assert codec.decode(codec.encode("A c b")) == "a \ufffd b"

    def test_reversible_characters_are_all_kept(self):
        assert len(TextCodec.fit(["abcc"], unit="chars", reversible=True)) == 6
        assert len(TextCodec.fit(["abcc"], unit="chars", reversible=False)) == 4

    def test_the_unknown_share_is_measured_on_a_held_out_tenth(self):
        texts = ["same same"] * 9 + ["same new other another"]
        codec = TextCodec.fit(texts, unit="words", reversible=False)
        assert codec.describe() == (
            "words, 1 of them (those seen at least 2 times; 75.0 % of a held-out tenth is unknown)"
        )

    def test_subwords_are_fewer_on_short_texts(self):
        random = np.random.default_rng(0)
        syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
        text = " ".join("".join(random.choice(syllables, 3)) for _ in range(30_000))
        long = TextCodec.fit([text], unit="subwords", reversible=True)
        assert len(long) == len(text) // 250 > 500
        short = TextCodec.fit([text[:10_000]], unit="subwords", reversible=True)
        assert len(short) == 500
        assert len(TextCodec.fit([text], unit="subwords", reversible=True, vocabulary=300)) == 300
        assert len(long.encode(text)) < len(short.encode(text)) < len(text)
        per_piece = len(text[:10_000]) / len(short.encode(text[:10_000]))
        assert short.describe() == (f"subwords, 497 of them (byte pairs; {per_piece:.1f} characters each on average)")

    @pytest.mark.parametrize(
        ("texts", "options", "words"),
        [
            ([], {}, "only empty texts came"),
            (["", ""], {}, "only empty texts came"),
            (["a b c"], {}, "no word comes 2 times in the texts (3 words, all different"),
            (["a"], {"min_count": 0}, "min_count=0 came; expected 1 or more"),
            (["a"], {"vocabulary": 3}, "vocabulary=3 came; expected more than 3"),
            (["a"], {"unit": "subwords", "vocabulary": 258}, "vocabulary=258 came; subwords need 259 or more"),
            (["a"], {"unit": "letters"}, "unit='letters' came; expected 'chars', 'words' or 'subwords'"),
        ],
    )
    def test_what_cannot_be_fitted(self, texts, options, words):
        with pytest.raises(ValueError, match=re.escape(words)):
            TextCodec.fit(texts, **{"unit": "words", "reversible": False, **options})

    def test_a_string_is_not_a_list_of_texts(self):
        with pytest.raises(TypeError, match="one string came"):
            TextCodec.fit("text", unit="chars", reversible=True)


class TestDamagedJson:
    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda c: c["pre_tokenizer"].pop("everloop"), "this is no text codec of Everloop (KeyError"),
            (lambda c: c.pop("model"), "this is no text codec of Everloop (KeyError"),
            (lambda c: c.update(pre_tokenizer=None), "this is no text codec of Everloop (AttributeError"),
            (lambda c: c["pre_tokenizer"]["everloop"].update(unit="bits"), "unit='bits' and reversible=True"),
            (
                lambda c: c["model"]["vocab"].update(a=77),
                "are not 0, 1, 2 ... with <pad>, <unknown>, <end> first",
            ),
            (lambda c: c["model"]["vocab"].update({"<pad>": 1, "<unknown>": 0}), "are not 0, 1, 2"),
            (
                lambda c: c["model"].update(type="Nothing"),
                "the tokenizers library cannot read the text codec",
            ),
            (lambda c: c.update(version="9"), "the tokenizers library cannot read the text codec"),
        ],
    )
    def test_parts(self, damage, words):
        content = json.loads(TextCodec.fit(["ab"], unit="chars", reversible=True).to_json())
        damage(content)
        with pytest.raises(ValueError, match=re.escape(words)):
            TextCodec.from_json(json.dumps(content))

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '"a"'])
    def test_other_json(self, text):
        with pytest.raises(ValueError, match="this is no text codec of Everloop"):
            TextCodec.from_json(text)


class TestChooseUnit:
    @pytest.mark.parametrize("purpose", ["classify", "generate"])
    def test_scripts_without_spaces(self, purpose):
        for text in ("我喜欢这本书 OK", "この本が好きです", "ฉันชอบหนังสือเล่มนี้"):
            unit, why = choose_unit([text], purpose=purpose)
            assert unit == "chars"
            assert re.fullmatch(r"characters: \d+ % of the letters are of scripts without spaces between words", why)
        assert choose_unit(["저는 이 책을 좋아합니다"], purpose="classify")[0] == "words"

    def test_a_classifier_reads_words(self):
        assert choose_unit(["good film", "bad film"], purpose="classify") == (
            "words",
            "words: 4 words in 2 texts",
        )
        unit, why = choose_unit(["good film"] * 9 + ["fine film"], purpose="classify")
        assert unit == "words"
        assert why == "words: 50.0 % of the words of a held-out tenth are seen fewer than 2 times in the rest"

    def test_a_classifier_reads_subwords_when_many_words_are_unknown(self):
        texts = [f"film {i}x {i}y {i}z" for i in range(13_000)]
        unit, why = choose_unit(texts, purpose="classify")
        assert unit == "subwords"
        assert why == "subwords: 75.0 % of the words of a held-out tenth are seen fewer than 2 times in the rest"

    def test_a_generator_writes_characters_until_the_text_is_large(self):
        line = "a line of text that is fifty characters in length\n"
        assert choose_unit([line * 400_000], purpose="generate")[0] == "chars"
        assert choose_unit([line * 400_000, "x"], purpose="generate") == (
            "subwords",
            "subwords: 20,000,001 characters are enough to learn them",
        )

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="purpose='tag' came; expected 'classify' or 'generate'"):
            choose_unit(["a"], purpose="tag")  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="one string came"):
            choose_unit("a", purpose="classify")


def test_tokenizers_is_imported_only_when_used():
    program = "import sys, everloop.data.text; assert not {'tokenizers', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
