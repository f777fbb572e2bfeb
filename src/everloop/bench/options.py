"""What was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """threads: of everybody. repeats, seconds: rounds of one row at most, and the time for them. quick: a few small
    shapes, to see that all works. cell: this one instead of those that a class has.
    """

    threads: int = 1
    repeats: int = 25
    seconds: float = 20.0
    quick: bool = False
    cell: str | None = None

    def cells(self, usual: Sequence[str]) -> Sequence[str]:
        """Those to be measured; of a quick look, the first."""
        return (self.cell,) if self.cell else usual[:1] if self.quick else usual
