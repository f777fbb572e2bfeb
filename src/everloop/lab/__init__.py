"""The lab: a page in the browser, and the server on this machine that computes all it shows.

    server      serves the page; guard: who may come; connection: one socket; lab: what all tabs have in common
    session     one tab: its requests, its work, its events
    thinking    Watch it think: a network on one input, every value of every step (demos: networks trained for it)
    equations   ... and the equations of its cell with the numbers put in
    learning    Watch it learn: a small model in training (training, problems: which, and on what)
    racing      Race: several of them side by side
    writing     Write a cell: what follows from a text
    talking     Talk to a model: a run folder that reads and writes, with units held at a value (held, opened, runs)

docs/lab.md has the protocol.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

NEEDED = ("fastapi", "uvicorn", "websockets")


def serve_lab(port: int = 8888, host: str = "127.0.0.1", open_browser: bool = True, runs: str | Path = "runs") -> None:
    """Serve the lab to this machine until Ctrl-C. port 0 takes a free one. runs: whose run folders can be opened."""
    for name in NEEDED:
        if find_spec(name) is None:
            missing = f"the lab needs the package {name}, which is not installed: pip install 'everloop[lab]'"
            raise ModuleNotFoundError(missing, name=name)
    from everloop.lab.server import serve

    serve(port, host, open_browser, runs)
