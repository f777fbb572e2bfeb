"""Taking files out of an archive that somebody else made: ordinary files only, inside the folder, not without end."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

from everloop.data._say import names_of

MOST_BYTES = 4_000_000_000
MOST_FILES = 500_000
_CHUNK = 1 << 20


def unpack(
    archive: Path,
    into: Path,
    keep: Sequence[str] = ("*",),
    *,
    strip: int = 0,
    most_bytes: int = MOST_BYTES,
    most_files: int = MOST_FILES,
) -> list[Path]:
    """Write the files of a .tar (any compression), .zip, .whl or .deb that match a pattern of `keep`; others are not
    looked at.

    keep: `fnmatch` patterns on whole names, in which * goes over slashes. strip: folders that are cut off in front.

    ValueError, before the file in question is written, for a name that leads out of the folder, for anything kept
    that is neither file nor folder (links, devices), for more than `most_bytes` or `most_files`, for a damaged
    archive, and where nothing matches. What was written until then is left to the caller to remove.
    """
    written: list[Path] = []
    left = most_bytes
    with _members(archive) as members:
        for name, kind, data in members:
            name = name.removeprefix("./")
            if kind == "folder" or not any(fnmatchcase(name, pattern) for pattern in keep):
                continue
            if kind != "file":
                raise ValueError(f"{archive.name} holds {kind} {name!r}; only plain files are taken out")
            path = into / _inside(name, strip, archive.name)
            if len(written) == most_files:
                raise ValueError(f"{archive.name} holds more than {most_files:,} files: it is not what was expected")
            path.parent.mkdir(parents=True, exist_ok=True)
            left -= _copy(data(), path, left, f"{archive.name} unpacks to more than {most_bytes:,} bytes")
            written.append(path)
    if not written:
        raise ValueError(f"{archive.name} holds no file like {names_of(keep)}")
    return written


def _inside(name: str, strip: int, archive: str) -> Path:
    """The name without its first folders, if it leads nowhere but down."""
    path = PurePosixPath(name)
    parts = path.parts[strip:]
    odd = path.is_absolute() or ".." in path.parts or any(sign in name for sign in ("\\", ":", "\0"))
    if odd or not parts:
        raise ValueError(f"{archive} holds a file named {name!r}, which is not a place inside a folder")
    return Path(*parts)


def _copy(data: IO[bytes], path: Path, most: int, too_much: str) -> int:
    size = 0
    with data, path.open("xb") as file:
        while chunk := data.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise ValueError(too_much)
            file.write(chunk)
    return size


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, str, Any]]]:
    """Name, kind ("file", "folder", or what else) and a function that opens it, of each member in its order."""
    try:
        if archive.suffix in (".zip", ".whl"):
            with zipfile.ZipFile(archive) as file:
                yield _of_zip(file)
        elif archive.suffix == ".deb":
            with _deb(archive) as data, tarfile.open(fileobj=data, mode="r|") as file:
                yield _of_tar(file)
        else:
            with tarfile.open(archive, mode="r|*") as file:
                yield _of_tar(file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive.name} is damaged or cut short: {error}") from None
    except FileExistsError as error:
        raise ValueError(f"{archive.name} holds two files named {Path(str(error.filename)).name!r}") from None


def _of_zip(file: zipfile.ZipFile) -> Iterator[tuple[str, str, Any]]:
    for member in file.infolist():
        mode = member.external_attr >> 16
        link = (mode & 0o170000) == 0o120000
        kind = "folder" if member.is_dir() else "the link" if link else "file"
        # The library turns a backslash into a slash on some systems only: the name that was written is judged.
        yield member.orig_filename, kind, lambda member=member: file.open(member)


def _of_tar(file: tarfile.TarFile) -> Iterator[tuple[str, str, Any]]:
    for member in file:
        link = member.issym() or member.islnk()
        kind = "file" if member.isreg() else "folder" if member.isdir() else "the link" if link else "the device"
        yield member.name, kind, lambda member=member: file.extractfile(member)


@contextmanager
def _deb(archive: Path) -> Iterator[IO[bytes]]:
    """The files of a Debian package as a tar stream."""
    if shutil.which("dpkg-deb") is None:
        raise ValueError(f"{archive.name} is a Debian package, and dpkg-deb, which opens those, is not installed here")
    command = ["dpkg-deb", "--fsys-tarfile", str(archive.resolve())]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
        except (tarfile.TarError, EOFError):
            process.kill()
            raise ValueError(f"{archive.name} is damaged or cut short") from None
        except BaseException:
            process.kill()
            raise
        process.stdout.read()
        said = process.stderr.read().decode("utf-8", "replace").strip()
    if process.returncode:
        raise ValueError(f"{archive.name}: {said.splitlines()[-1] if said else 'dpkg-deb failed'}")
