"""What is said, and where: results to standard output, all else to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console


def output() -> Console:
    """Results: in a file or a pipe, no line is cut to the width of a terminal that is not there."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 1_000)


def say(text: str, quiet: bool = False) -> None:
    if not quiet:
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False, emoji=False)


def fail(message: str, code: int) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False, emoji=False)
    sys.exit(code)


@contextmanager
def writing(path: Path) -> Iterator[Any]:
    """A new file to write text to; one that exists is left alone."""
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            yield file
    except FileExistsError:
        raise FileExistsError(f"{path} exists; give another --out") from None
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from None
