"""Running a step on symbols: its result, the names of its local variables, and where it went wrong."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import CodeType, TracebackType
from typing import Any

from everloop.lang.expr import Expr
from everloop.lang.family import Bundle
from everloop.lang.trace import Trace, running


def run_step(
    step: Callable[..., Any], arguments: dict[str, Any], options: dict[str, Any], trace: Trace
) -> tuple[Any, dict[Expr, str]]:
    """Call the step; also say which local variable held each value last.

    In a thread of its own, because a thread has a profile hook of its own: one that is in use (a profiler, a
    coverage tool) is left alone. A step that was read from text (`read_cell`) knows its variables by itself.
    """
    with ThreadPoolExecutor(1) as thread:
        result, variables = thread.submit(_run, step, arguments, options, trace).result()
    return result, _names(variables)


def _run(step: Any, arguments: dict[str, Any], options: dict[str, Any], trace: Trace) -> tuple[Any, dict[str, Any]]:
    with running(trace):
        if hasattr(step, "run"):
            return step.run(arguments, options)
        variables: dict[str, Any] = {}

        def watch(frame: Any, event: str, _: Any) -> None:
            if event == "return" and frame.f_code is step.__code__:
                variables.update(frame.f_locals)

        sys.setprofile(watch)
        try:
            return step(**arguments, **options), variables
        except Exception as error:
            sys.setprofile(None)
            raise _with_line(error, step.__code__) from error
        finally:
            sys.setprofile(None)


def _names(variables: dict[str, Any]) -> dict[Expr, str]:
    names = {value: name for name, value in variables.items() if isinstance(value, Expr) and value.args}
    for name, value in variables.items():
        if isinstance(value, Bundle):
            for gate, part in value._parts.items():
                if isinstance(part, Expr):
                    names.setdefault(part, f"{name}_{gate}")
    return names


def _with_line(error: Exception, code: CodeType) -> Exception:
    line = _line_in(error.__traceback__, code)
    return located(error, f"{code.co_filename}, line {line}: {linecache.getline(code.co_filename, line).strip()}")


def located(error: Exception, where: str) -> Exception:
    """The same error, its message ending with the line of the step that it comes from."""
    if len(error.args) == 1 and type(error).__module__ == "builtins" and not isinstance(error, KeyError):
        return type(error)(f"{error.args[0]}\n  {where}").with_traceback(error.__traceback__)
    error.add_note(where)
    return error


def place_of(step: Any, *words: str) -> str:
    """Where a step first mentions one of the words, as the last line of a message; "" where its text is not at hand."""
    if hasattr(step, "run"):
        filename, first, lines = step.filename, 1, step.text.splitlines()
    else:
        try:
            lines, first = inspect.getsourcelines(step)
        except (OSError, TypeError):
            return ""
        filename = step.__code__.co_filename
    body = next((k + 1 for k, line in enumerate(lines) if line.rstrip().endswith(":")), 0)
    for word in words:
        for number, line in enumerate(lines[body:], first + body):
            if re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", line):
                return f"\n  {filename}, line {number}: {line.strip()}"
    return ""


def _line_in(traceback: TracebackType | None, code: CodeType) -> int:
    line = code.co_firstlineno
    while traceback is not None:
        if traceback.tb_frame.f_code is code:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
