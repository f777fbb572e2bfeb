"""A plan as text. Written beside the plan, because a kernel shows its schedule in the same words."""

from everloop.compiler.describe import describe

__all__ = ["describe"]
