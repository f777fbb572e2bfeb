"""Machine code on disk, so that no process waits for what another has compiled.

An entry is run, not only read. It is therefore used only if this user wrote it, nobody else can write to it, and its
checksum holds; anything else counts as absent. That a folder cannot be used is no error: the code is compiled again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path

# How many bytes all entries may have together; what was used longest ago goes first.
LIMIT = 256 * 2**20

# How many entries a process writes from one look at the size of the folder to the next.
BETWEEN_LOOKS = 64

_MAGIC = b"everloop code 1\n"
_SUFFIX, _UNFINISHED = ".everloop", ".everloop-tmp"

# So many seconds after its last change, an unfinished entry is taken for that of a process that has died.
_ABANDONED = 3600

_written = count()


def read(name: str) -> bytes | None:
    """What was written under a name, or None if there is nothing that can be trusted."""
    folder = _folder()
    if folder is None or not _is_ours(folder):
        return None
    path = folder / f"{name}{_SUFFIX}"
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read() if stat.S_ISREG(status.st_mode) and _only_we_write(status) else b""
        payload = content[len(_MAGIC) + hashlib.sha256().digest_size :]
        if content != _entry(name, payload):
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        _report(folder, error.strerror)
        return None
    with suppress(OSError):  # where nothing can be written, nothing is removed either
        os.utime(path)  # the time of its last use
    return payload


def write(name: str, payload: bytes) -> None:
    folder = _folder()
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            _report(folder, "it belongs to somebody else")
            return
        if next(_written) % BETWEEN_LOOKS == 0:
            _make_room(folder)
        # Others see an entry whole or not at all. A temporary file is for its owner alone.
        handle, temporary = tempfile.mkstemp(suffix=_UNFINISHED, dir=folder)
        try:
            with open(handle, "wb") as file:
                file.write(_entry(name, payload))
            os.replace(temporary, folder / f"{name}{_SUFFIX}")
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        _report(folder, error.strerror)


def _folder() -> Path | None:
    """Where EVERLOOP_CACHE says, with nothing at all if it is empty; otherwise among this user's caches."""
    named = os.environ.get("EVERLOOP_CACHE")
    if named is not None:
        return Path(named) if named else None
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "everloop"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "everloop" / "cache"
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (caches if caches.is_absolute() else home / ".cache") / "everloop"


def _entry(name: str, payload: bytes) -> bytes:
    """With its name in the checksum, an entry under another name is none."""
    return _MAGIC + hashlib.sha256(name.encode() + payload).digest() + payload


def _is_ours(folder: Path) -> bool:
    try:
        return _is_own(folder.stat())
    except OSError:
        return False


def _is_own(status: os.stat_result) -> bool:
    return sys.platform == "win32" or status.st_uid == os.geteuid()


def _only_we_write(status: os.stat_result) -> bool:
    return sys.platform == "win32" or (_is_own(status) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _make_room(folder: Path) -> None:
    """Remove what others left unfinished, and the entries above three quarters of the limit if it is passed."""
    entries = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:  # another process has just renamed or removed it
            continue
        if path.suffix == _SUFFIX:
            entries.append((status.st_mtime, status.st_size, path))
        elif path.suffix == _UNFINISHED and time.time() - status.st_mtime > _ABANDONED:
            path.unlink(missing_ok=True)
    total = sum(size for _, size, _ in entries)
    if total <= LIMIT:
        return
    for _, size, path in sorted(entries):
        if total <= LIMIT * 3 // 4:
            break
        path.unlink(missing_ok=True)
        total -= size


@cache
def _report(folder: Path, reason: str) -> None:
    """Once, and only for who asks: the code is there, it only took longer."""
    logging.getLogger(__name__).debug("the cache of compiled code in %s is not used: %s", folder, reason)
