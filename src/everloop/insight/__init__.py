"""What happened inside a model and during a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Hold": "everloop.insight.interventions",
    "Inside": "everloop.insight.inside",
    "LayerRecord": "everloop.insight.recording",
    "Recording": "everloop.insight.recording",
    "demonstrate": "everloop.insight.demonstrations",
    "edit_state": "everloop.insight.interventions",
    "explain_answer": "everloop.insight.explanation",
    "find_units": "everloop.insight.units",
    "intervene": "everloop.insight.interventions",
    "record": "everloop.insight.recording",
    "render_page": "everloop.insight.page",
}

__all__ = [
    "Hold",
    "Inside",
    "LayerRecord",
    "Recording",
    "demonstrate",
    "edit_state",
    "explain_answer",
    "find_units",
    "intervene",
    "record",
    "render_page",
]

if TYPE_CHECKING:
    from everloop.insight.demonstrations import demonstrate
    from everloop.insight.explanation import explain_answer
    from everloop.insight.inside import Inside
    from everloop.insight.interventions import Hold, edit_state, intervene
    from everloop.insight.page import render_page
    from everloop.insight.recording import LayerRecord, Recording, record
    from everloop.insight.units import find_units


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'everloop.insight' has no attribute {name!r}")
