"""Bringing a dataset here: one archive by the ordinary client of its registry, checked, unpacked whole or not at all.

Where it comes from is one of `Url`, `NpmPackage`, `PythonPackage` and `DebianPackage`, each with a fixed version and
the SHA-256 of its archive; the clients know their registries. `DebianLists` is the exception: package descriptions,
which change from day to day and which apt checks by their signatures (`everloop.data.sets.debian`).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from everloop.data.sets.unpack import unpack

Say = Callable[[str], None]

_CHUNK = 1 << 20
_TOLD_EVERY = 5.0  # seconds
_TIMEOUT = 60.0  # seconds without a byte
_CLIENT_TIMEOUT = 3_600.0


class Recipe(Protocol):
    """How the folder of a dataset is made."""

    def fetch(self, folder: Path, work: Path, say: Say) -> None:
        """Fill the folder; `work` is for whatever is needed on the way."""
        ...

    def __str__(self) -> str:
        """Where it comes from, and what that means for the user."""
        ...


class Origin(Protocol):
    """Where an archive comes from."""

    def bring(self, folder: Path, say: Say) -> Path:
        """Put the archive, checked, into a folder of its own."""
        ...

    def __str__(self) -> str: ...


def cache() -> Path:
    """The folder of fetched datasets: EVERLOOP_DATA, else `everloop/datasets` in the user's folder for caches."""
    own = os.environ.get("EVERLOOP_DATA")
    if own:
        return Path(own).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "everloop" / "datasets"


def fetch(name: str, recipe: Recipe, folder: Path, say: Say) -> None:
    """Make the folder of a dataset, whole or not at all. One that is there already is left as it is."""
    if folder.exists():
        say(f"{name} is in {folder} already")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"fetching {name}: {recipe}")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        whole, work = Path(temporary) / "whole", Path(temporary) / "work"
        whole.mkdir()
        work.mkdir()
        recipe.fetch(whole, work, say)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    say(f"{name} is in {folder}")


@dataclass(frozen=True)
class Archives:
    """A dataset made of some files of one or more archives.

    keep, strip: which, and how many folders are cut off their names (see `unpack`). size: roughly, in bytes.
    """

    origins: tuple[Origin, ...]
    keep: tuple[str, ...] = ("*",)
    strip: int = 0
    size: int = 0

    def fetch(self, folder: Path, work: Path, say: Say) -> None:
        for k, origin in enumerate(self.origins):
            place = work / str(k)
            place.mkdir()
            unpack(origin.bring(place, say), folder, self.keep, strip=self.strip)

    def __str__(self) -> str:
        size = f", about {self.size / 1e6:,.0f} MB" if self.size else ""
        return f"{' and '.join(map(str, self.origins))}{size}"


@dataclass(frozen=True)
class Url:
    """A file at an address, fetched with urllib; a transfer that was cut short goes on where it stopped.

    size: exactly, in bytes; no more than that is ever taken.
    """

    address: str
    sha256: str
    size: int

    def bring(self, folder: Path, say: Say) -> Path:
        archive = folder / self.address.rpartition("/")[2]
        part = cache() / f"{self.sha256[:16]}-{archive.name}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        if have < self.size:
            self._transfer(part, have, say)
        try:
            check(part, self.sha256, str(self))
        except ValueError:
            part.unlink()
            raise
        shutil.move(part, archive)
        return archive

    def _transfer(self, part: Path, have: int, say: Say) -> None:
        request = urllib.request.Request(self.address, headers={"Range": f"bytes={have}-"} if have else {})
        told = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                goes_on = getattr(response, "status", None) == 206
                have = have if goes_on else 0
                if goes_on:
                    say(f"going on after {have / 1e6:,.1f} MB of an earlier try")
                with part.open("ab" if goes_on else "wb") as file:
                    while have < self.size and (chunk := response.read(min(_CHUNK, self.size - have))):
                        file.write(chunk)
                        have += len(chunk)
                        if time.monotonic() - told > _TOLD_EVERY:
                            told = time.monotonic()
                            say(f"{have / 1e6:,.1f} of {self.size / 1e6:,.1f} MB")
        except urllib.error.HTTPError as error:
            raise OSError(f"{self.address}: the server answers {error.code} ({error.reason})") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise OSError(f"{self.address}: {reason}; {_kept(part)}") from None
        if have < self.size:
            raise OSError(f"{self.address}: {have:,} bytes of {self.size:,} came; {_kept(part)}")

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry, by `npm pack`: nothing of it is run."""

    name: str
    version: str
    sha256: str

    def bring(self, folder: Path, say: Say) -> Path:
        run(["npm", "pack", f"{self.name}@{self.version}", "--ignore-scripts", "--silent"], folder, self)
        return _checked(folder, "*.tgz", self.sha256, self)

    def __str__(self) -> str:
        return f"npm package {self.name} {self.version}"


@dataclass(frozen=True)
class PythonPackage:
    """A package of the Python package index, by `pip download` with the hash that it must have."""

    name: str
    version: str
    sha256: str

    def bring(self, folder: Path, say: Say) -> Path:
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--disable-pip-version-check", "--quiet"]
        run([sys.executable, "-m", "pip", "download", *options, "-r", wanted.name], folder, self)
        return _checked(folder, f"{self.name.replace('-', '_')}*", self.sha256, self)

    def __str__(self) -> str:
        return f"Python package {self.name} {self.version}"


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package, by `apt-get download`: nothing is installed."""

    name: str
    version: str
    sha256: str

    def bring(self, folder: Path, say: Say) -> Path:
        run(["apt-get", "download", f"{self.name}={self.version}"], folder, self)
        return _checked(folder, "*.deb", self.sha256, self)

    def __str__(self) -> str:
        return f"Debian package {self.name} {self.version}"


def check(path: Path, sha256: str, what: str) -> None:
    """ValueError unless the file has this SHA-256."""
    with path.open("rb") as file:
        came = hashlib.file_digest(file, "sha256").hexdigest()
    if came != sha256:
        raise ValueError(
            f"{what}: the file that came has SHA-256 {came}; expected {sha256}. It was damaged on its way or is "
            "another one than was tested, and has been removed; try again"
        )


def _checked(folder: Path, pattern: str, sha256: str, what: Origin) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(f"{what}: {len(found)} files like {pattern} came; expected one")
    check(found[0], sha256, str(what))
    return found[0]


def run(command: Sequence[str], folder: Path, what: object) -> None:
    """Run a client in a folder; OSError says what is missing, or what the client said last."""
    client = command[0]
    if shutil.which(client) is None:
        hints = {"npm": "it comes with Node.js", "apt-get": "it is part of Debian, Ubuntu and their relatives"}
        raise OSError(f"{what}: {client} is not installed here, and brings it; {hints.get(client, 'install it')}")
    # apt as root fetches as a user of its own, who may not write into a private folder.
    folder.chmod(0o755)
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CLIENT_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{what}: {client} has not finished in {_CLIENT_TIMEOUT / 60:.0f} minutes") from None
    if done.returncode:
        name = "pip" if client == sys.executable else client
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        said = [line for line in lines if line.lower().startswith(("error", "e:", "npm err"))] or lines[-1:]
        raise OSError(f"{what}: {name} failed: {' '.join(line.strip() for line in said[:3]) or 'it said nothing'}")


def _kept(part: Path) -> str:
    size = part.stat().st_size if part.exists() else 0
    return f"{size:,} bytes are kept: run it again to go on" if size else "is there a network?"
