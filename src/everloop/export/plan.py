"""A plan as text: what runs before, in and after the loop."""

from __future__ import annotations

from everloop.compiler.plan import Plan, Stage, label
from everloop.lang.expr import Expr


def describe(schedule: Plan) -> str:
    return schedule.kind
