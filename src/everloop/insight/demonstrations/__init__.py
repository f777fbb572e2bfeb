"""The classic demonstrations: small networks, trained then and there, and a figure that tells what became of them.

One file each: `run(**options)` gives what was found as data, `found.summary` says it in a sentence, and
`draw(found, look)` makes the figure.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everloop.insight.figures import checked, look_of, save, styled

NAMES = {
    "order": "a feed-forward network beside a recurrent one: shuffle the words, and see who notices",
    "vanishing": "how little of an error at the end reaches the beginning of a tanh network, and why",
    "exploding": "what large weights do to gradients, and to two runs that begin almost alike",
    "clipping": "a cliff in the loss, and a training that falls off it, with and without clipping",
    "carrying": "cells side by side, on two problems over growing delays: who still carries the beginning?",
}


@dataclass(frozen=True)
class Demonstrated:
    """data: what `run` found. summary: in a sentence, with the numbers. path: where the figure is."""

    name: str
    summary: str
    data: Any
    path: Path | None


def demonstrate(
    name: str, out: str | Path | None = None, options: Mapping[str, Any] | None = None, *, theme: str = "auto"
) -> Demonstrated:
    """Run one of NAMES, and keep its figure as .png or .svg if `out` says where.

    options: of that demonstration, by name, such as {"seed": 1, "cells": ["gru", "lstm"]}; a list may also be a text,
    "gru,lstm". theme: "light", "dark", or "auto", an SVG that follows
    the page around it. Takes seconds; "carrying" some two minutes.
    """
    if name not in NAMES:
        raise ValueError(f"demonstration: {name!r} came; there are {', '.join(NAMES)}")
    # Before the work and not after it.
    look, path = look_of(theme), None if out is None else checked(out)
    module = importlib.import_module(f"{__name__}.{name}")
    known = {option: given.default for option, given in inspect.signature(module.run).parameters.items()}
    asked: dict[str, Any] = {}
    for option, value in (options or {}).items():
        if option not in known:
            raise ValueError(f"{name}: option {option!r} came; there are {', '.join(known)}")
        asked[option] = _read(f"{name}: option {option}", value, known[option])
    import torch

    # The networks start from torch's own generator, which the caller finds as it was.
    with torch.random.fork_rng(devices=[]):
        found = module.run(**asked)
    if path is None:
        return Demonstrated(name, found.summary, found, None)
    with styled(look):
        figure = module.draw(found, look)
    return Demonstrated(name, found.summary, found, save(figure, path, theme))


def _read(what: str, value: Any, default: Any) -> Any:
    """A value as its default is: one of several, or one."""
    if not isinstance(default, tuple):
        return _one(what, value, default)
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if not parts:
        raise ValueError(f"{what}: none came; expected one or more, such as {default[0]}")
    return tuple(_one(what, part, default[0]) for part in parts)


def _one(what: str, value: Any, default: Any) -> Any:
    kind = type(default)
    try:
        found = kind(value.strip() if isinstance(value, str) else value)
    except (TypeError, ValueError):
        found = None
    if found is None or (not isinstance(value, str) and found != value):
        raise ValueError(f"{what}: {value!r} came; expected something like {default!r}")
    return found
