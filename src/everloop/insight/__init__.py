"""What happened inside a model and during a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Inside": "everloop.insight.inside",
    "LayerRecord": "everloop.insight.recording",
    "Recording": "everloop.insight.recording",
    "record": "everloop.insight.recording",
}

__all__ = ["Inside", "LayerRecord", "Recording", "record"]

if TYPE_CHECKING:
    from everloop.insight.inside import Inside
    from everloop.insight.recording import LayerRecord, Recording, record


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'everloop.insight' has no attribute {name!r}")
