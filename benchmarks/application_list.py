"""The applications: a task, a modality and a file each, with the options that they are run with in full."""

from __future__ import annotations

import atexit
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from everloop.data import datasets, read_examples
from everloop.insight.metrics import is_better, lower_is_better

Source = Callable[[Path, int], tuple[Any, Any]]
"""(folder of the plain files, seed) -> data for `fit`, and how to read it; None and why it is not here."""


@dataclass(frozen=True, kw_only=True)
class Application:
    """metric: what it is judged by. wanted: what it should reach. published: a figure of others, with its source.
    also: what else to measure on the fitted task, for the page."""

    name: str
    title: str
    about: str
    task: str
    data: Source
    command: str
    metric: str
    wanted: float | None
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    published: str = ""
    also: Callable[[Any], dict[str, str]] | None = None

    @property
    def lower_is_better(self) -> bool:
        return lower_is_better(self.metric)

    def reaches(self, value: float) -> bool:
        assert self.wanted is not None
        return value == self.wanted or is_better(self.metric, value, self.wanted)


def file(name: str, **how: Any) -> Source:
    """A plain file, or folder, of --data."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        path = folder / name
        return (str(path), how) if path.exists() else (None, f"there is no {name} in --data")

    return source


def dataset(name: str) -> Source:
    """A dataset by name, fetched when it is not there yet."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        if datasets.get(name).recipe is not None:
            fetched(name)
        return name, {}

    return source


def babi(task: int) -> Source:
    """Stories, questions and answers of one task."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        from everloop.data.sets.babi import babi as read

        path = folder / "babi" / "babi_en.tar.xz"
        if not path.exists():
            return None, "there is no babi/babi_en.tar.xz in --data"
        return read(path, task), {"input": "story,question", "target": "answer", "part": "part", "group": "group"}

    return source


def digit_strings(unknown: str | None) -> Source:
    """Digits spoken in a row, written into a folder that is gone when the process ends."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        from everloop.data.sets.spoken_digits import write_digit_strings

        recordings = folder / "fsdd" / "recordings"
        if not recordings.is_dir():
            return None, "there is no fsdd/recordings in --data"
        place = tempfile.TemporaryDirectory()
        atexit.register(place.cleanup)
        table = write_digit_strings(recordings, place.name, unknown=unknown, seed=seed)
        return table, {"input": "audio", "target": "text", "part": "part", "group": "speaker"}

    return source


def moving(target: Literal["caption", "digit", "path"]) -> Source:
    """Clips of digits of MNIST on paths; those of the test were in no clip of training."""

    def source(folder: Path, seed: int) -> tuple[Any, Any]:
        from everloop.data.sets.moving_digits import Digits, moving_digits

        read = read_examples(str(fetched("mnist")))
        assert read.parts is not None
        assert read.targets is not None
        by_part = []
        for part in ("train", "test"):
            rows = [k for k, its in enumerate(read.parts) if its == part]
            by_part.append(Digits(np.stack([read.inputs[k] for k in rows]), [int(read.targets[k]) for k in rows]))
        return moving_digits(*by_part, seed=seed, target=target), {}

    return source


def fetched(name: str) -> Path:
    """The folder of a dataset, fetched when it is not there yet."""
    found = datasets.get(name)
    if not found.installed:
        found.get(say=print)
    return found.path


def victoria(folder: Path, seed: int) -> tuple[Any, Any]:
    """Electricity with the true temperature as known ahead."""
    return str(fetched("vic-elec")), VICTORIA


VICTORIA = {"time": "Time", "target": "Demand", "known": "Temperature Holiday", "zone": "Australia/Melbourne"}


# What else is measured


def form_kept(model: Any) -> dict[str, str]:
    """How many of 200 poems keep the form: a title is given, four lines of 5 or of 7 characters come."""
    poems = model.generate_batch(
        [f"{title}\n" for title in TITLES for _ in range(20)], seed=0, length=60, temperature=0.7
    )
    kept = sum(in_form(poem) for poem in poems)
    return {f"form kept in {kept} of {len(poems)} poems": " / ".join(poems[:3]).replace("\n", " ")}


TITLES = ("春望", "秋夜", "江上", "送友人", "山居", "懷古", "早行", "月", "梅花", "宮詞")


def in_form(text: str) -> bool:
    """Whether it is a title and four verses of 5, or of 7, Chinese characters each."""
    verses = [verse for verse in re.split("[，。！？；\n]", text.partition("\n")[2]) if verse]
    chinese = all(re.fullmatch("[\u3400-\u9fff]+", verse) for verse in verses)
    return chinese and len(verses) == 4 and {len(verse) for verse in verses} in ({5}, {7})


def sentences(model: Any) -> dict[str, str]:
    """Ten of the test part."""
    part = model._parts["test"]
    inputs = [part.inputs[k] for k in range(min(10, len(part.inputs)))]
    written = model.predict(inputs)
    return {str(source): text for source, text in zip(inputs, written, strict=True)}


BABI = (50, 20, 20, 61, 70, 48, 49, 45, 64, 44, 72, 74, 94, 27, 21, 23, 51, 52, 8, 91)
"""The published LSTM, percent of answers right (Weston et al. 2015, as quoted with the data)."""
READING: dict[str, Any] = {
    "copy": True, "batch": 16, "min_count": 1, "dropout": 0.1, "smoothing": 0.0, "beam": 1, "metric": "exact_match",
    "hidden": 64, "embedding": 64, "epochs": 40, "lr": 5e-3, "length": 2_000, "patience": 0,
}  # fmt: skip

APPLICATIONS: list[Application] = [
    Application(
        name="sentiment-en",
        title="sentiment, English",
        about="Sentences of film reviews, positive or negative (Pang and Lee 2005), 10,662.",
        command="everloop train reviews_mr.csv",
        task="classifier",
        data=file("reviews_mr.csv"),
        metric="accuracy",
        wanted=0.775,
    ),
    Application(
        name="sentiment-zh",
        title="sentiment, Chinese",
        about="Reviews of books, hotels and computers, 17,363 after duplicates are dropped.",
        command="everloop train chinese-reviews",
        task="classifier",
        data=dataset("chinese-reviews"),
        metric="accuracy",
        wanted=0.855,
    ),
    Application(
        name="tags-en",
        title="part of speech, English",
        about="UD English-EWT in its own split; UPOS, 17 tags.",
        command="everloop train ewt",
        task="tagger",
        data=file("ewt"),
        metric="accuracy",
        wanted=0.952,
    ),
    Application(
        name="tags-zh",
        title="part of speech, Chinese",
        about="The People's Daily of January 1998, words apart as they come, 44 tags.",
        command="everloop train chinese-tags --hidden 256 --dropout 0.3 --batch 20 --epochs 6 ...",
        task="tagger",
        data=dataset("chinese-tags"),
        options={
            "hidden": 256,
            "characters": 64,
            "dropout": 0.3,
            "word_dropout": 0.1,
            "embedding_dropout": 0.2,
            "batch": 20,
            "epochs": 6,
        },
        metric="accuracy",
        wanted=0.965,
    ),
    Application(
        name="letters",
        title="next letter",
        about="tinyshakespeare; nats per letter of the last tenth.",
        command="everloop train tinyshakespeare.txt --hidden 512 --epochs 20 --set weight_drop=0.3 ...",
        task="generator",
        data=file("tinyshakespeare.txt"),
        options={
            "hidden": 512,
            "dropout": 0.3,
            "embedding_dropout": 0.1,
            "weight_drop": 0.3,
            "averaging": 0.999,
            "epochs": 20,
            "lr": 4e-3,
            "patience": 0,
        },
        metric="loss",
        wanted=1.46,
        seeds=(0,),
    ),
    Application(
        name="next-word",
        title="next word",
        about="The King James Bible, words with capitals, a vocabulary of the training part.",
        command="everloop train kjv --unit words --set tied=true ...",
        task="generator",
        data=dataset("kjv"),
        options={
            "unit": "words",
            "hidden": 320,
            "embedding": 256,
            "window": 48,
            "dropout": 0.4,
            "embedding_dropout": 0.2,
            "tied": True,
            "averaging": 0.995,
            "lr": 4e-3,
            "epochs": 5,
            "patience": 0,
        },
        metric="perplexity",
        wanted=None,
        seeds=(0,),
    ),
    Application(
        name="poems",
        title="poems",
        about="Tang quatrains, each with its title; 200 are written to ten usual titles.",
        command="everloop train chinese-poems",
        task="generator",
        data=dataset("chinese-poems"),
        options={"hidden": 384, "embedding": 128, "dropout": 0.3, "averaging": 0.99, "epochs": 12},
        metric="loss",
        wanted=None,
        seeds=(0,),
        also=form_kept,
    ),
    Application(
        name="music-jsb",
        title="music, chorales",
        about="JSB chorales, plain split, nats per step over 88 keys; the keys of a chord depend on each other.",
        command="everloop train JSB_Chorales.mat --dropout 0.3 --averaging 0.99",
        task="generator",
        data=file("music/JSB_Chorales.mat"),
        options={"dropout": 0.3, "averaging": 0.99, "patience": 0},
        metric="loss",
        wanted=8.1,
        published="LSTM 8.45, TCN 8.10, with independent keys (Bai et al. 2018)",
    ),
    Application(
        name="music-jsb-independent",
        title="music, chorales, independent keys",
        about="The same, each key by itself, as the published figures have it.",
        command="everloop train JSB_Chorales.mat --set chords=independent --dropout 0.5 --averaging 0.99",
        task="generator",
        data=file("music/JSB_Chorales.mat"),
        options={"dropout": 0.5, "averaging": 0.99, "patience": 0, "chords": "independent"},
        metric="loss",
        wanted=8.1,
        seeds=(0,),
        published="LSTM 8.45, TCN 8.10 (Bai et al. 2018)",
    ),
    Application(
        name="music-nottingham",
        title="music, folk tunes",
        about="Nottingham, plain split, nats per step over 88 keys; the keys of a chord depend on each other.",
        command="everloop train Nottingham.mat --dropout 0.3 --averaging 0.99 --epochs 16 --set transpose=0",
        task="generator",
        data=file("music/Nottingham.mat"),
        options={"dropout": 0.3, "averaging": 0.99, "patience": 0, "transpose": 0, "epochs": 16},
        metric="loss",
        wanted=3.2,
        seeds=(0,),
        published="LSTM 3.29, TCN 3.07, with independent keys (Bai et al. 2018)",
    ),
    Application(
        name="etth1-96",
        title="forecast, ETTh1, look-back 96",
        about="Seven sensors of a transformer, scaled by training statistics, 12 / 4 / 4 months; 96 hours ahead.",
        command="everloop train ETTh1.csv --set horizon=96 --set lookback=96 --set counts=[8640,2880,2880]",
        task="forecaster",
        data=file("ETTh1.csv"),
        options={"horizon": 96, "lookback": 96, "counts": (8640, 2880, 2880)},
        metric="mse",
        wanted=0.385,
        published="SegRNN .368 (Lin et al. 2023)",
    ),
    Application(
        name="etth1-336",
        title="forecast, ETTh1, look-back 336",
        about="The same, from two weeks.",
        command="everloop train ETTh1.csv --dropout 0.7 --set horizon=96 --set lookback=336 ...",
        task="forecaster",
        data=file("ETTh1.csv"),
        options={"horizon": 96, "lookback": 336, "counts": (8640, 2880, 2880), "dropout": 0.7},
        metric="mse",
        wanted=0.375,
    ),
    Application(
        name="vic-elec",
        title="forecast, electricity",
        about="Demand of Victoria every half hour, a day ahead; the true temperature is taken as known ahead, which a "
        "forecast of the weather would have to stand in for.",
        command="everloop train vic-elec --target Demand --known Temperature,Holiday --set horizon=48",
        task="forecaster",
        data=victoria,
        options={"horizon": 48},
        metric="mase",
        wanted=None,
        seeds=(0,),
    ),
    Application(
        name="air-passengers",
        title="forecast, passengers",
        about="Passengers of airlines by the month, 1949 to 1960; a year ahead.",
        command="everloop train air-passengers --set counts=[96,24,24]",
        task="forecaster",
        data=dataset("air-passengers"),
        options={"counts": (96, 24, 24), "horizon": 12},
        metric="mase",
        wanted=None,
    ),
    Application(
        name="vowels",
        title="Japanese vowels",
        about="Nine speakers, 12 features, 7 to 29 steps, 270 for training and 370 for the test, as they come.",
        command="everloop train japanese-vowels --cell gru --set drift=0.4 --set noise=0.2 --valid 0.04 --patience 0",
        task="classifier",
        data=dataset("japanese-vowels"),
        options={"cell": "gru", "drift": 0.4, "noise": 0.2, "valid": 0.04, "patience": 0},
        metric="accuracy",
        wanted=0.985,
        published="",
    ),
    Application(
        name="mnist1d",
        title="MNIST-1D",
        about="Ten shapes on a line of 40 steps (Greydanus 2020), 4,000 and 1,000.",
        command="everloop train mnist1d",
        task="classifier",
        data=dataset("mnist1d"),
        metric="accuracy",
        wanted=0.98,
        published="GRU 0.91, CNN 0.94 (Greydanus 2020)",
    ),
    Application(
        name="gestures",
        title="gesture tracks",
        about="16 places of a fingertip, 4 gestures; blocks of neighbouring rows, 20 left out between.",
        command="everloop train point_history.csv --modality vectors --set channels=2 --split blocks --set gap=20",
        task="classifier",
        data=file("gesture/point_history.csv", modality="vectors"),
        options={"channels": 2, "split": "blocks", "gap": 20},
        metric="accuracy",
        wanted=0.97,
    ),
    Application(
        name="mnist-rows",
        title="a picture read row by row",
        about="MNIST, 28 steps of 28 pixels.",
        command="everloop train mnist",
        task="classifier",
        data=dataset("mnist"),
        metric="accuracy",
        wanted=0.985,
        seeds=(0,),
    ),
    Application(
        name="translation-en-zh",
        title="translation, English to Chinese",
        about="Tatoeba, 26,388 pairs; a sentence of either side is in one split only.",
        command="everloop train tatoeba_en_zh.tsv --input 1 --target 2",
        task="seq2seq",
        data=file("tatoeba_en_zh.tsv", input="1", target="2"),
        metric="bleu",
        wanted=None,
        seeds=(0,),
        also=sentences,
    ),
    Application(
        name="translation-zh-en",
        title="translation, Chinese to English",
        about="The same, the other way.",
        command="everloop train tatoeba_en_zh.tsv --input 2 --target 1",
        task="seq2seq",
        data=file("tatoeba_en_zh.tsv", input="2", target="1"),
        metric="bleu",
        wanted=None,
        seeds=(0,),
        also=sentences,
    ),
    Application(
        name="summaries",
        title="summaries",
        about="Descriptions of Debian's packages to their one-line synopses, split by source package.",
        command="everloop train debian-summaries --set copy=true",
        task="seq2seq",
        data=dataset("debian-summaries"),
        options={"copy": True, "length": 100, "target_length": 20, "unit": "words"},
        metric="rouge_l",
        wanted=None,
        seeds=(0,),
        also=sentences,
    ),
    *(
        Application(
            name=f"babi-{task:02}",
            title=f"reading, bAbI {task}",
            about=f"bAbI task {task}, 1,000 questions for training and 1,000 for the test.",
            command=f"examples/answer.py babi_en.tar.xz {task}",
            task="seq2seq",
            data=babi(task),
            options=READING,
            metric="exact_match",
            wanted=share / 100,
            seeds=(0,),
            published=f"LSTM {share} % (Weston et al. 2015)",
        )
        for task, share in enumerate(BABI, start=1)
    ),
    Application(
        name="emoji",
        title="captions of pictures",
        about="Emoji 64 x 64, with kind and name; emoji of the test in no form in training.",
        command="everloop train emoji --metric chrf --dropout 0.1 --set mirror=true --set turn=10 ...",
        task="seq2seq",
        data=dataset("emoji"),
        options={
            "target_unit": "words",
            "metric": "chrf",
            "batch": 32,
            "dropout": 0.1,
            "averaging": 0.99,
            "epochs": 60,
            "patience": 0,
            "turn": 10.0,
            "zoom": 0.2,
            "mirror": True,
            "colour": 0.1,
        },
        metric="kind_match",
        wanted=None,
        seeds=(0,),
    ),
    Application(
        name="moving-digits",
        title="captions of clips",
        about="A digit of MNIST on a path; combinations of digit and path of the test are in no clip of training.",
        command="examples/video.py FOLDER",
        task="seq2seq",
        data=moving("caption"),
        options={
            "hidden": 128,
            "embedding": 128,
            "target_unit": "words",
            "metric": "exact_match",
            "epochs": 16,
            "batch": 32,
        },
        metric="exact_match",
        wanted=0.95,
        seeds=(0,),
    ),
    Application(
        name="moving-paths",
        title="labels of clips",
        about="The same clips, which of 16 paths.",
        command="examples/video.py FOLDER",
        task="classifier",
        data=moving("path"),
        options={"hidden": 64, "epochs": 16, "batch": 32},
        metric="accuracy",
        wanted=None,
        seeds=(0,),
    ),
    Application(
        name="speech-known",
        title="spoken digits, known speakers",
        about="Two to six digits in a row, joined from FSDD; takes 0 to 4 are the test.",
        command="examples/transcribe.py RECORDINGS",
        task="recognizer",
        data=digit_strings(None),
        metric="wer",
        wanted=0.02,
        seeds=(0,),
    ),
    Application(
        name="phone-prompts",
        title="spoken sentences",
        about="What a telephone exchange says, 563 recordings of one voice, letter by letter.",
        command="everloop train phone-prompts",
        task="recognizer",
        data=dataset("phone-prompts"),
        metric="wer",
        wanted=None,
        seeds=(0,),
    ),
    *(
        Application(
            name=f"speech-without-{speaker}",
            title=f"spoken digits, {speaker} unknown",
            about=f"The same; {speaker} is in the test only.",
            command=f"examples/transcribe.py RECORDINGS {speaker}",
            task="recognizer",
            data=digit_strings(speaker),
            metric="wer",
            wanted=0.15,
            seeds=(0,),
        )
        for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    ),
]
