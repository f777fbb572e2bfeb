"""Text as numbers and back: one codec for characters, words and subwords.

A codec is a Hugging Face tokenizer, and its JSON is an ordinary `tokenizer.json` that other programs can
load; our own few facts lie inside its `pre_tokenizer`, where those programs ignore them.

What a piece is:

- characters: every Unicode character, newlines too.
- words, not reversible (for reading): lowercased, runs of letters and digits, every other visible character
  alone, spaces gone. `can't` is `can` and `'t`. Letters of scripts without spaces between words (Chinese,
  Japanese, Thai, Lao, Khmer, Burmese) stand alone.
- words, reversible (for writing): the same cuts, but nothing is lowercased and a piece carries the space
  before it; any other space, and every newline, is a piece of its own.
- subwords: byte-level byte pair encoding (Sennrich et al. 2016, Radford et al. 2019), which knows every text.

Reversible means that `decode(encode(text)) == text` whenever all pieces are known. A codec that is not
reversible composes characters (NFC), lowercases, and takes the curly apostrophe for the straight one.
"""

import codecs
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from everloop.data._say import count
from everloop.data.stored import StoredTexts, sample

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

Unit = Literal["chars", "words", "subwords"]
Purpose = Literal["classify", "generate"]

_SPECIAL = ("<pad>", "<unknown>", "<end>")
_UNKNOWN = "\ufffd".encode()

_LONG_TEXT = 20_000_000  # characters from which a generator learns subwords faster than characters
_MANY_UNKNOWN = 0.15
_ENOUGH_WORDS = 50_000
_SUBWORDS = 8_000
_CHARACTERS_PER_SUBWORD = 250  # of training text, so that each of the learned subwords is seen often

_SEGMENT = 4_096  # characters; the tokenizer is several times slower on one long text than on many short ones
_GROUP = 1_000_000  # characters encoded at once: the tokenizer needs some 100 bytes for each piece

_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"(?:[{_SPACELESS}]\p{{M}}*|[\w&&[^{_SPACELESS}]]+)"
_CLITIC = r"(?<=\w)['’](?:s|t|re|ve|ll|d|m)(?!\w)"
# Every pattern ends a piece at a newline, so a text can be cut after one and encoded in parts.
_CHARS = r"(?m:.)"
_WORDS = rf"{_CLITIC}|{_WORD}|[^\w\s]"
_SPACED_WORDS = rf"{_CLITIC}| ?{_WORD}| ?[^\w\s]|\s"
_SUBWORD_RUNS = r" ?[\p{L}\p{M}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+|\n|[^\S\n]+(?!\S)|\s"

# Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters
_SPACELESS_LETTERS = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def choose_unit(texts: Sequence[str], *, purpose: Purpose) -> tuple[Unit, str]:
    """The unit that suits these texts, and a sentence that says why, with what was measured.

    Scripts without spaces between words: characters. A classifier reads words, or subwords when there are
    50,000 words or more and over 15 % of those in a held-out tenth are unknown. A generator writes
    characters, or subwords when there are more than 20 million.
    """
    if purpose not in get_args(Purpose):
        raise ValueError(f"purpose={purpose!r} came; expected 'classify' or 'generate'")
    looked_at = sample(texts)
    _check_texts(looked_at)
    characters = texts.bytes if isinstance(texts, StoredTexts) else sum(map(len, texts))
    segments = [segment for text in looked_at for segment in _segments(text)]
    some = segments[:: 1 + sum(map(len, segments)) // 5_000_000]
    seen = Counter(character for segment in some for character in segment)
    letters = sum(n for character, n in seen.items() if character.isalpha())
    spaceless = sum(n for character, n in seen.items() if _SPACELESS_LETTERS.match(character))
    if spaceless > letters / 2:
        share = 100 * min(spaceless / letters, 1)
        return (
            "chars",
            f"characters: {share:.0f} % of the letters are of scripts without spaces between words",
        )
    if purpose == "generate":
        if characters > _LONG_TEXT:
            return "subwords", f"subwords: {characters:,} characters are enough to learn them"
        return "chars", f"characters: there are {characters:,}; subwords are for more than {_LONG_TEXT:,}"
    rest, held_out = _count_pieces(some, "words", reversible=False)
    words = rest.total() + held_out.total()
    unknown = _unknown_share(rest, held_out, min_count=2)
    if unknown is None:
        return "words", f"words: {count(words, 'word')} in {count(len(texts), 'text')}"
    measured = f"{100 * unknown:.1f} % of the words of a held-out tenth are seen fewer than 2 times in the rest"
    if unknown > _MANY_UNKNOWN and words >= _ENOUGH_WORDS:
        return "subwords", f"subwords: {measured}"
    return "words", f"words: {measured}"


@dataclass(frozen=True, eq=False)
class TextCodec:
    """Pieces of text to ids and back. Made by `fit` or `from_json`, never changed afterwards."""

    unit: Unit
    reversible: bool
    about: str  # how the vocabulary was made and what was measured, for `describe`
    tokenizer: "Tokenizer"

    modality: ClassVar[str] = "text"

    pad = 0
    unknown = 1
    end = 2

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        *,
        unit: Unit,
        reversible: bool,
        min_count: int | None = None,
        vocabulary: int = 30_000,
    ) -> "TextCodec":
        """A codec whose vocabulary comes from these (training) texts only.

        min_count: how often a piece must be seen; left out, it is 1 for reversible characters, else 2.
        vocabulary: the size of the vocabulary at most, with padding, unknown and end. Of subwords there are
        fewer: one per 250 characters of text, between 500 and 8,000.
        """
        if unit not in get_args(Unit):
            raise ValueError(f"unit={unit!r} came; expected 'chars', 'words' or 'subwords'")
        looked_at = sample(texts)
        _check_texts(looked_at)
        if min_count is None:
            min_count = 1 if unit == "chars" and reversible else 2
        if min_count < 1:
            raise ValueError(f"min_count={min_count} came; expected 1 or more")
        segments = [segment for text in looked_at for segment in _segments(text)]
        if not any(segments):
            raise ValueError("only empty texts came; expected some text to make a vocabulary from")
        make = _fit_subwords if unit == "subwords" else _fit_whole_pieces
        tokenizer, about = make(segments, unit, reversible, min_count, vocabulary)
        if len(looked_at) < len(texts):
            about += f"; from every {round(len(texts) / len(looked_at))}th text"
        return cls(unit, reversible, about, tokenizer)

    @classmethod
    def from_json(cls, text: str) -> "TextCodec":
        from tokenizers import Tokenizer

        try:
            content = json.loads(text)
            facts = content["pre_tokenizer"].pop("everloop")
            unit, reversible, about = facts["unit"], facts["reversible"], facts["about"]
            pieces = content["model"]["vocab"]
            ids = sorted(pieces.values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"this is no text codec of Everloop ({type(error).__name__}: {error}); "
                "expected what TextCodec.to_json() gave"
            ) from None
        if unit not in get_args(Unit) or not isinstance(reversible, bool):
            raise ValueError(f"the text codec has unit={unit!r} and reversible={reversible!r}; it is damaged")
        if ids != list(range(len(ids))) or [pieces.get(name) for name in _SPECIAL] != [0, 1, 2]:
            raise ValueError(f"the ids of the text codec are not 0, 1, 2 ... with {', '.join(_SPECIAL)} first")
        try:
            tokenizer = Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise ValueError(f"the tokenizers library cannot read the text codec: {error}") from None
        return cls(unit, reversible, str(about), tokenizer)

    def to_json(self) -> str:
        content = json.loads(self.tokenizer.to_str())
        content["pre_tokenizer"]["everloop"] = {
            "unit": self.unit,
            "reversible": self.reversible,
            "about": self.about,
        }
        return json.dumps(content, ensure_ascii=False, indent=1)

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text, int64 `[T]`; never empty: a text without any piece gives the unknown one."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        _check_texts(texts)
        if self.unit == "chars":
            return [self._encode_characters(text) for text in texts]
        parts = [_segments(text) for text in texts]
        encoded = self._encode_segments([segment for segments in parts for segment in segments])
        found = []
        for segments in parts:
            ids = np.concatenate([next(encoded) for _ in segments])
            found.append(ids if len(ids) else np.array([self.unknown]))
        return found

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids: nothing for padding and end, U+FFFD for unknown and for broken UTF-8.

        Words that are not reversible come with a space between them.
        """
        spelled = [self._spelling(i) for i in np.asarray(ids).tolist() if i not in (self.pad, self.end)]
        return self._glue.join(spelled).decode("utf-8", "replace")

    def stream_decoder(self) -> "Decoder":
        return Decoder(self)

    def pieces(self, text: str) -> list[str]:
        """The pieces as this text spells them, one for each id of `encode`, the unknown ones too.

        A character that is cut over several subwords is shown by each of them; an accent that is a character
        of its own may be missing where the codec composes.
        """
        _check_texts([text])
        segments = _segments(text)
        spelled = [
            segment[start:end]
            for segment, encoding in zip(
                segments, self.tokenizer.encode_batch(segments, add_special_tokens=False), strict=True
            )
            for start, end in encoding.offsets
        ]
        return spelled or [text]

    def piece(self, id: int) -> str:
        return _SPECIAL[id] if 0 <= id < len(_SPECIAL) else self._spelling(id).decode("utf-8", "replace")

    def describe(self) -> str:
        name = {"chars": "characters", "words": "words", "subwords": "subwords"}[self.unit]
        return f"{name}, {len(self) - len(_SPECIAL):,} of them ({self.about})"

    def __len__(self) -> int:
        return len(self._spellings)

    @cached_property
    def _spellings(self) -> list[bytes]:
        vocabulary = self.tokenizer.get_vocab()
        pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
        if self.unit == "subwords":
            table = _byte_of_letter()
            learned = [bytes(table[letter] for letter in piece) for piece in pieces[len(_SPECIAL) :]]
        else:
            learned = [piece.encode() for piece in pieces[len(_SPECIAL) :]]
        return [b"", _UNKNOWN, b"", *learned]

    @property
    def _glue(self) -> bytes:
        return b" " if self.unit == "words" and not self.reversible else b""

    def _spelling(self, id: int) -> bytes:
        if not 0 <= id < len(self):
            raise IndexError(f"id {id} came; this vocabulary has the ids 0 to {len(self) - 1:,}")
        return self._spellings[id]

    def _encode_characters(self, text: str) -> np.ndarray:
        """What the tokenizer gives, by a table, many times as fast."""
        normalizer = self.tokenizer.normalizer
        plain = text if normalizer is None else normalizer.normalize_str(text)
        ids = self._id_of_character[np.frombuffer(plain.encode("utf-32-le"), dtype=np.uint32)]
        return ids if len(ids) else np.array([self.unknown])

    @cached_property
    def _id_of_character(self) -> np.ndarray:
        ids = np.full(sys.maxunicode + 1, self.unknown, dtype=np.int64)
        for piece, id in self.tokenizer.get_vocab().items():
            if len(piece) == 1:
                ids[ord(piece)] = id
        return ids

    def _encode_segments(self, segments: list[str]) -> Iterator[np.ndarray]:
        for group in _groups(segments):
            for encoding in self.tokenizer.encode_batch_fast(group, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int64)


class Decoder:
    """Decodes ids as they come: what `push` and at the end `finish` return, joined, is `decode`'s text."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._glue = b""

    def push(self, id: int) -> str:
        """The text that this id completes: empty while a character still lacks some of its bytes."""
        if id in (self._codec.pad, self._codec.end):
            return ""
        spelled = self._glue + self._codec._spelling(id)
        self._glue = self._codec._glue
        return self._bytes.decode(spelled)

    def finish(self) -> str:
        """What is left: U+FFFD for a character that never became whole."""
        return self._bytes.decode(b"", final=True)


def _fit_whole_pieces(
    segments: list[str], unit: Unit, reversible: bool, min_count: int, vocabulary: int
) -> tuple["Tokenizer", str]:
    """Characters or words: the most frequent ones, each with an id of its own."""
    from tokenizers import Tokenizer, decoders, models

    if vocabulary <= len(_SPECIAL):
        raise ValueError(f"vocabulary={vocabulary} came; expected more than {len(_SPECIAL)}")
    rest, held_out = _count_pieces(segments, unit, reversible)
    seen = rest + held_out
    frequent = sorted((-n, piece) for piece, n in seen.items() if n >= min_count)
    name = "character" if unit == "chars" else "word"
    if not frequent:
        raise ValueError(
            f"no {name} comes {min_count} times in the texts ({count(seen.total(), name)}, all different or "
            "none at all); more text is needed, or min_count=1 (--set min_count=1), which keeps every one"
        )
    kept = [piece for _, piece in frequent[: vocabulary - len(_SPECIAL)]]
    ids = {piece: i for i, piece in enumerate((*_SPECIAL, *kept))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=_SPECIAL[TextCodec.unknown]))
    _set_cuts(tokenizer, unit, reversible)
    if reversible or unit == "chars":
        tokenizer.decoder = decoders.Fuse()

    about = f"those seen at least {count(min_count, 'time')}"
    if len(kept) < len(frequent):
        about = f"the most frequent of {len(frequent):,} seen at least {count(min_count, 'time')}"
    unknown = _unknown_share(rest, held_out, min_count)
    if unknown is not None:
        about += f"; {100 * unknown:.1f} % of a held-out tenth is unknown"
    return tokenizer, about


def _fit_subwords(
    segments: list[str], unit: Unit, reversible: bool, min_count: int, vocabulary: int
) -> tuple["Tokenizer", str]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bytes_and_special = 256 + len(_SPECIAL)
    if vocabulary < bytes_and_special:
        raise ValueError(
            f"vocabulary={vocabulary} came; subwords need {bytes_and_special} or more: one for each byte, and "
            f"{', '.join(_SPECIAL)}"
        )
    characters = sum(map(len, segments))
    size = min(vocabulary, _SUBWORDS, max(500, characters // _CHARACTERS_PER_SUBWORD))
    trained = Tokenizer(models.BPE())
    _set_cuts(trained, unit, reversible)
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(_SPECIAL),
        min_frequency=min_count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(segments, trainer)
    # A trainer's own special tokens would also be found inside texts; those put in front afterwards are not.
    model = json.loads(trained.to_str())["model"]
    learned = sorted(model["vocab"], key=lambda piece: model["vocab"][piece])
    ids = {piece: i for i, piece in enumerate((*_SPECIAL, *learned))}
    tokenizer = Tokenizer(models.BPE(ids, [tuple(pair) for pair in model["merges"]]))
    _set_cuts(tokenizer, unit, reversible)
    tokenizer.decoder = decoders.ByteLevel()

    some = segments[:: 1 + characters // _GROUP]
    pieces = sum(len(found.ids) for found in tokenizer.encode_batch_fast(some, add_special_tokens=False))
    return tokenizer, f"byte pairs; {sum(map(len, some)) / max(pieces, 1):.1f} characters each on average"


def _set_cuts(tokenizer: "Tokenizer", unit: Unit, reversible: bool) -> None:
    normalizer = _normalizer(reversible)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = _pre_tokenizer(unit, reversible)


def _normalizer(reversible: bool) -> "Normalizer | None":
    from tokenizers import normalizers

    if reversible:
        return None
    straight = normalizers.Replace("’", "'")
    return normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), straight])


def _pre_tokenizer(unit: Unit, reversible: bool) -> "PreTokenizer":
    from tokenizers import Regex, pre_tokenizers

    if unit == "chars":
        return pre_tokenizers.Split(Regex(_CHARS), "isolated")
    if unit == "words" and reversible:
        return pre_tokenizers.Split(Regex(_SPACED_WORDS), "isolated")
    if unit == "words":
        return pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    runs = pre_tokenizers.Split(Regex(_SUBWORD_RUNS), "isolated")
    return pre_tokenizers.Sequence([runs, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _count_pieces(segments: Iterable[str], unit: Unit, reversible: bool) -> tuple[Counter[str], Counter[str]]:
    """How often each piece comes in nine tenths of the segments, and in the held-out tenth (every tenth)."""
    normalizer, pre_tokenizer = _normalizer(reversible), _pre_tokenizer(unit, reversible)
    rest: Counter[str] = Counter()
    held_out: Counter[str] = Counter()
    for i, segment in enumerate(segments):
        seen = held_out if i % 10 == 9 else rest
        text = segment if normalizer is None else normalizer.normalize_str(segment)
        seen.update(text if unit == "chars" else (piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)))
    return rest, held_out


def _unknown_share(rest: Counter[str], held_out: Counter[str], min_count: int) -> float | None:
    """The share of the held-out pieces that a vocabulary from the rest lacks; None when none are held out."""
    if not held_out:
        return None
    return sum(n for piece, n in held_out.items() if rest[piece] < min_count) / held_out.total()


def _segments(text: str) -> list[str]:
    """The text cut after newlines into parts of some thousand characters."""
    parts = []
    start = 0
    while len(text) - start > _SEGMENT:
        newline = text.find("\n", start + _SEGMENT)
        if newline < 0:
            break
        parts.append(text[start : newline + 1])
        start = newline + 1
    return [*parts, text[start:]]


def _groups(segments: list[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for segment in segments:
        group.append(segment)
        size += len(segment)
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _check_texts(texts: Any) -> None:
    if isinstance(texts, str):
        raise TypeError("one string came; expected a list of texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {i + 1} of {len(texts):,} is a {type(text).__name__}; expected a str")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"text {i + 1} of {len(texts):,}: character {error.start + 1} is half of a surrogate "
                    "pair; expected whole characters"
                ) from None


def _byte_of_letter() -> dict[str, int]:
    """Byte-level pieces are written with one printable letter per byte: this is GPT-2's table of them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
