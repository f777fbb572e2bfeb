"""Reads cells for test_read.py, one JSON line each, and tells whatever Python did meanwhile that reading does not need.

Started as `python canary.py FOLDER`, where FOLDER holds a module `planted`. It watches by an audit hook, which no code
can take off again, and by builtins that note their calls.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from everloop.lang.read import read_cell

# A step runs in a thread of its own; `inspect.signature` of it compares by id.
NEEDED = {"_thread.start_new_thread", "builtins.id"}

seen: list[str] = []
watching = False


def note(event: str) -> None:
    if watching:
        seen.append(event)


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching or event in NEEDED:
        return
    # The parser says `compile`; for the line of an error it looks for a file that is called like the text.
    parsed = event == "compile" and arguments[1] == "<cell>"
    looked_for = event == "open" and arguments[0] == "<cell>" and arguments[1] in ("r", "rb")
    if not parsed and not looked_for:
        note(f"{event}{arguments!r}"[:200])


def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        # The parser itself imports `unicodedata`, to fold the letters of a name.
        if (name, *arguments[:1]) != ("__import__", "unicodedata"):
            note(f"builtin {name} {arguments[:1]!r}"[:200])
        return function(*arguments, **options)

    return call


def only_parsed(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compile`, which may make a tree and no more."""

    def call(source: Any, filename: Any, mode: str, flags: int = 0, *arguments: Any, **options: Any) -> Any:
        if not flags & ast.PyCF_ONLY_AST:
            note(f"builtin compile to code {source!r}"[:200])
        return function(source, filename, mode, flags, *arguments, **options)

    return call


def attempt(text: str) -> dict[str, Any]:
    global watching
    seen.clear()
    message = ""
    watching = True
    start = time.process_time()
    try:
        cell = read_cell(text)
        cell.graph  # noqa: B018
        outcome = "Cell"
    except BaseException as error:
        outcome, message = type(error).__mro__[0].__name__, str(error)
    seconds = time.process_time() - start
    watching = False
    if "planted" in sys.modules or hasattr(builtins, "planted"):
        seen.append("the planted module was imported")
    return {"outcome": outcome, "message": message, "seconds": seconds, "seen": list(seen)}


def provoke(python: str) -> dict[str, Any]:
    """What is noted of a text that is executed: the canary itself is tested by this."""
    global watching
    seen.clear()
    watching = True
    try:
        exec(python, {})
    finally:
        watching = False
    found = {"seen": list(seen), "planted": "planted" in sys.modules}
    sys.modules.pop("planted", None)
    vars(builtins).pop("planted", None)
    return found


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    importlib.invalidate_caches()
    attempt('@cell(states="h", gates="h")\ndef first(x, h, W):\n    return h + W.h @ x')
    for name in ("exec", "eval", "open", "__import__", "input", "breakpoint", "print"):
        setattr(builtins, name, noted(name, getattr(builtins, name)))
    builtins.compile = only_parsed(builtins.compile)
    sys.addaudithook(audit)
    answer, ask = sys.stdout, sys.stdin
    for line in ask:
        given = json.loads(line)
        found = provoke(given["python"]) if "python" in given else attempt(given["text"])
        answer.write(json.dumps(found) + "\n")
        answer.flush()


if __name__ == "__main__":
    main()
