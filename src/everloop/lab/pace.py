"""How often something is said."""

from __future__ import annotations

import time


class Pace:
    """`due()` is true so many times a second at most."""

    def __init__(self, times: float) -> None:
        self._apart, self._last = 1 / times, float("-inf")

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._apart:
            return False
        self._last = now
        return True


EVENTS = 30.0
"""Events of one kind a second: more, no screen shows."""
