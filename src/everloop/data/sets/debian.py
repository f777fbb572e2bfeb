"""Summaries that people wrote for a living: of every package of Debian, its description in one line and in full."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from everloop.data.sets.fetch import Say, run

FILE = "summaries.csv"
_COLUMNS = ("package", "source", "description", "synopsis")


@dataclass(frozen=True)
class DebianLists:
    """The descriptions that apt knows, of the release that this machine has, by `apt-get update` into a folder of
    its own: the system's own lists stay as they are. apt checks signatures; there is no fixed checksum, because the
    lists change."""

    def fetch(self, folder: Path, work: Path, say: Say) -> None:
        options = {
            "Dir::State::lists": work / "lists",
            "Dir::Cache": work / "cache",
            "Acquire::Languages": "en",
            "Acquire::GzipIndexes": "false",
            "APT::Sandbox::User": "",  # else apt fetches as a user of its own, who may not write here
        }
        (work / "lists" / "partial").mkdir(parents=True)
        (work / "cache" / "archives" / "partial").mkdir(parents=True)
        command = ["apt-get", "update", "--error-on=any"]
        run([*command, *(f"-o{name}={value}" for name, value in options.items())], work, self)
        rows = summaries(work / "lists")
        if not rows:
            raise ValueError(f"{self}: the lists that came hold no descriptions in English")
        with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([_COLUMNS, *rows])
        say(f"{len(rows):,} descriptions")

    def __str__(self) -> str:
        return "package descriptions from apt's lists, about 20 MB"


def summaries(lists: Path) -> list[tuple[str, str, str, str]]:
    """Package, source package, description and synopsis, in the order of the packages' names; a pair of the latter
    two comes once. lists: a folder of apt's `*_Packages` and `*_Translation-en` files."""
    sources: dict[str, str] = {}
    for path in sorted(lists.glob("*_Packages")):
        for fields in paragraphs(path):
            name = fields["Package"]
            sources.setdefault(name, fields.get("Source", name).partition(" ")[0])
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for path in sorted(lists.glob("*_Translation-en")):
        for fields in paragraphs(path):
            name = fields["Package"]
            synopsis, _, long = fields.get("Description-en", "").partition("\n")
            description = " ".join(word for word in long.split() if word != ".")
            if name in sources and synopsis and description:
                found.setdefault((description, synopsis), (name, sources[name]))
    return sorted((*package, *pair) for pair, package in found.items())


def paragraphs(path: Path) -> Iterator[dict[str, str]]:
    """The fields of each paragraph of a Debian control file; lines that go on a field keep their line breaks."""
    fields: dict[str, str] = {}
    name = ""
    with path.open(encoding="utf-8") as file:
        for line in file:
            line = line.rstrip("\n")
            if not line.strip():
                if fields:
                    yield fields
                fields, name = {}, ""
            elif line[0] in " \t":
                fields[name] = fields.get(name, "") + "\n" + line[1:]
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
    if fields:
        yield fields
