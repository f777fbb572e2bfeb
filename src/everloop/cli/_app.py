"""The command itself: what runs a verb, and turns an error into one clear message."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer

from everloop import __version__
from everloop.cli._console import fail, say

app = typer.Typer(
    help="Recurrent neural networks: a file of sequences becomes a trained model; an equation becomes a layer.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"everloop {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


_UsageError: Any = typer.BadParameter.__bases__[0]
"""What the parser of the command line raises. Not by its module: newer versions of typer bring their own click."""


def main() -> None:
    """Run the command; an error is one clear message and a non-zero exit."""
    warnings.showwarning = _warn
    try:
        code = app(standalone_mode=False, prog_name="everloop")
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except _UsageError as error:
        fail(_usage_message(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, ValueError, TypeError, ImportError, NotImplementedError) as error:
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        fail(_message(error), 1)
    except Exception as error:
        if os.environ.get("EVERLOOP_DEBUG"):
            raise
        if _is_out_of_memory(error):
            fail("there is not enough memory; try a smaller --hidden, --batch, --vocabulary or --length", 1)
        fail(f"unexpected {type(error).__name__}: {error}. EVERLOOP_DEBUG=1 shows where; please report it", 1)
    if code == 130:
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has shown ^C where the cursor was
        fail("stopped", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _is_out_of_memory(error: Exception) -> bool:
    """torch tells so in words only, and in others for each device."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("allocate memory", "out of memory", "not enough memory")
    )


def _usage_message(error: Any) -> str:
    said = error.format_message().rstrip(".")
    return f"{said}; see {error.ctx.command_path} --help" if error.ctx else said


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")


def _message(error: BaseException) -> str:
    from everloop.tasks import TRAINING as needed

    if isinstance(error, ModuleNotFoundError) and error.name in needed:
        return f"this needs the package {error.name}, which is not installed: pip install 'everloop[train]'"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
