"""What all tabs of a lab have in common: which folder of runs, what there is to choose from. And who is here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from everloop import __version__
from everloop.lab.demos import DEMOS, Demos
from everloop.lab.learning import Learning
from everloop.lab.problems import PROBLEMS
from everloop.lab.racing import Racing
from everloop.lab.runs import Runs
from everloop.lab.session import Panel, Session
from everloop.lab.talking import Talking
from everloop.lab.thinking import Thinking
from everloop.lab.writing import Writing

# A page that was cut off finds its session again for so many seconds.
KEPT = 60.0

# A page that is loaded again may say hello before its old connection has ended: so many seconds are given to that.
PARTING = 1.0

# Tabs at once: each may train, and keeps what it recorded.
MOST = 32


@dataclass
class _Tab:
    """A session, and whether a connection holds it; else since when none does."""

    session: Session
    held: bool = True
    left: float = 0.0


class Lab:
    """The sessions of a server. Its methods are called on the event loop."""

    def __init__(self, runs: Path, kept: float = KEPT) -> None:
        self.runs, self.demos, self.kept = Runs(runs), Demos(), kept
        self._tabs: dict[str, _Tab] = {}

    @property
    def tokens(self) -> list[str]:
        """Of the sessions that there are."""
        return list(self._tabs)

    def about(self) -> dict[str, Any]:
        """What there is to choose from."""
        return {
            "version": __version__,
            "cells": known_cells(),
            "problems": [problem.about() for problem in PROBLEMS.values()],
            "runs": self.runs.about(),
            "demos": [demo.about() for demo in DEMOS.values()],
        }

    async def open(self) -> Session:
        """A new session."""
        await self._sweep(room=1)
        if len(self._tabs) >= MOST:
            raise ValueError(f"{len(self._tabs)} tabs are open; close one of them")
        session = Session(self._panels)
        self._tabs[session.token] = _Tab(session)
        return session

    async def find(self, token: Any) -> Session | None:
        """The session of a token, if it is still there and nobody holds it: a copied tab must not take it over."""
        await self._sweep()
        tab = self._tabs.get(token) if isinstance(token, str) else None
        if tab is None:
            return None
        until = time.monotonic() + PARTING
        while tab.held and time.monotonic() < until:
            await asyncio.sleep(0.02)
        if tab.held:
            return None
        tab.held = True
        return tab.session

    async def leave(self, session: Session) -> None:
        """Its connection has ended. The session stays for a while, its work does not go on."""
        tab = self._tabs.get(session.token)
        if tab is None:
            return
        session.outbox.tell = _nobody
        await asyncio.to_thread(session.leave)
        tab.held, tab.left = False, time.monotonic()
        asyncio.get_running_loop().call_later(self.kept, lambda: asyncio.ensure_future(self._sweep()))

    async def close(self) -> None:
        """Everybody leaves."""
        tabs = list(self._tabs.values())
        self._tabs.clear()
        for tab in tabs:
            await asyncio.to_thread(tab.session.close)

    async def _sweep(self, room: int = 0) -> None:
        """Forget the sessions that nobody came back for; and where there is no room for more, those left longest."""
        now = time.monotonic()
        left = sorted((tab for tab in self._tabs.values() if not tab.held), key=lambda tab: tab.left)
        too_many = max(0, len(self._tabs) + room - MOST)
        gone = [tab for k, tab in enumerate(left) if k < too_many or now - tab.left >= self.kept]
        for tab in gone:
            del self._tabs[tab.session.token]
        for tab in gone:
            await asyncio.to_thread(tab.session.close)

    def _panels(self, session: Session) -> list[Panel]:
        return [
            Thinking(session, self.demos, self.runs),
            Learning(session),
            Racing(session),
            Writing(),
            Talking(session, self.runs),
        ]


def _nobody() -> None:
    """Tells nobody that there are messages."""


@cache
def known_cells() -> list[dict[str, Any]]:
    """The cells of the catalogue that a sequence of vectors is enough for."""
    from everloop import cells
    from everloop.compiler.ahead import plan_ahead

    found = []
    for name in cells.names():
        cell = cells.get(name)
        kind = plan_ahead(cell.graph).kind
        found.append({"name": name, "about": cell.when, "kind": kind, "forget_bias": "b.f" in cell.graph.held})
    return found
