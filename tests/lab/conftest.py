"""A lab that runs on this machine, with three trained runs; a socket to talk to it; a browser to look at it."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from websockets.sync.client import connect

from everloop import Classifier, Generator, Tagger
from everloop.lab.server import listening, make_app, make_server

# Seconds that something which takes a moment may take on a busy machine.
PATIENCE = 60.0

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Server:
    """A lab that is served: its address, its runs, the application behind it."""

    port: int
    runs: Path
    app: FastAPI

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def lab(self) -> Any:
        return self.app.state.lab

    def connect(self, **how: Any) -> Any:
        """A socket as the page opens it, for `with`."""
        how = {"origin": self.address, "max_size": None, "proxy": None} | how
        return connect(f"ws://127.0.0.1:{self.port}/ws", **how)

    @contextmanager
    def tab(self, token: str | None = None) -> Iterator[Tab]:
        """A tab that has said hello."""
        with self.connect() as socket:
            tab = Tab(socket)
            tab.hello = tab.ask("hello", **({} if token is None else {"token": token}))
            yield tab


@dataclass
class Tab:
    """The page's end of a socket, without the page."""

    socket: Any
    hello: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    @property
    def token(self) -> str:
        return self.hello["token"]

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """The reply to a request; AssertionError if it is refused."""
        reply = self.reply(do, **fields)
        assert reply["ok"], reply["error"]
        return reply

    def refusal(self, do: str, **fields: Any) -> str:
        reply = self.reply(do, **fields)
        assert not reply["ok"], reply
        return reply["error"]

    def reply(self, do: str, **fields: Any) -> dict[str, Any]:
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "do": do, **fields}))
        while True:
            message = json.loads(self.socket.recv(PATIENCE))
            if "event" not in message and message["id"] == self.count:
                return message
            self.events.append(message)

    def event(self, name: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The next event of that name, of those that have come and those that come."""
        while True:
            while self.events:
                message = self.events.pop(0)
                assert not message.get("event", "").endswith(".failed"), message
                if message.get("event") == name and wanted(message):
                    return message
            self.events.append(json.loads(self.socket.recv(PATIENCE)))


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"waited {PATIENCE:g} s for this: {what}"
        time.sleep(0.02)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until something holds: `eventually(lambda: ..., "what is waited for")`."""
    return wait_until


@pytest.fixture(scope="session")
def lab_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, a tagger and a generator, each trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    dice = random.Random(0)
    few: dict[str, Any] = {"epochs": 3, "device": "cpu", "threads": 1, "patience": 0}
    words = ("film", "plot", "actor", "scene", "music", "story", "light", "end", "the", "with", "very", "some")
    texts, labels = [], []
    for row in range(160):
        chosen = [dice.choice(words) for _ in range(dice.randint(3, 8))]
        chosen[dice.randrange(len(chosen))] = ("good", "bad")[row % 2]
        texts.append(" ".join(chosen))
        labels.append(("positive", "negative")[row % 2])
    Classifier(hidden=8, embedding=8, unit="words", bidirectional=False, ngrams=0, **few).fit(
        texts, labels, out=folder / "reviews", quiet=True
    )
    kinds = {"dog": "noun", "cat": "noun", "runs": "verb", "sleeps": "verb", "the": "article", "a": "article"}
    sentences = [[dice.choice(list(kinds)) for _ in range(dice.randint(2, 6))] for _ in range(120)]
    Tagger(hidden=8, embedding=8, characters=4, **few).fit(
        sentences, [[kinds[word] for word in sentence] for sentence in sentences], out=folder / "words", quiet=True
    )
    play = "to be or not to be, that is the question. " * 60
    Generator(hidden=16, embedding=8, unit="chars", window=24, batch=8, **few).fit(
        [play], out=folder / "play", quiet=True
    )
    return folder


def serving(app: FastAPI, port: int, listener: Any) -> tuple[uvicorn.Server, threading.Thread]:
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the lab is served")
    return server, thread


@pytest.fixture(scope="session")
def lab_server(lab_runs: Path) -> Iterator[Server]:
    """A live server on a free port, over all tests."""
    yield from served(lab_runs)


def served(runs: Path) -> Iterator[Server]:
    listener = listening(0)
    port = listener.getsockname()[1]
    app = make_app(runs, port)
    server, thread = serving(app, port, listener)
    yield Server(port, runs, app)
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the lab does not end"


@pytest.fixture
def tab(lab_server: Server) -> Iterator[Tab]:
    """A tab that has said hello."""
    with lab_server.tab() as opened:
        yield opened


# A browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"there is no browser: {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, lab_server: Server) -> Iterator[Any]:
    """The page in a fresh context; fails the test on errors in the console and on requests that leave the server."""
    context = browser.new_context(base_url=lab_server.address, locale="en-GB")
    opened = context.new_page()
    wrong: list[str] = []
    watch(opened, lab_server, wrong)
    opened.goto("/")
    yield opened
    context.close()
    assert wrong == []


def watch(page: Any, server: Server, wrong: list[str]) -> None:
    """Note what a page must not do: say errors, or ask anybody else for anything."""
    own = (f"{server.address}/", f"ws://127.0.0.1:{server.port}/", "data:", "blob:")
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(own) else wrong.append(request.url))
    page.on("websocket", lambda socket: None if socket.url.startswith(own) else wrong.append(socket.url))


class Frames:
    """What went over the page's socket, in both directions."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.came: list[dict[str, Any]] = []
        self.went: list[dict[str, Any]] = []
        page.on("websocket", self._listen)

    def _listen(self, socket: Any) -> None:
        socket.on("framereceived", lambda text: self.came.append(json.loads(text)))
        socket.on("framesent", lambda text: self.went.append(json.loads(text)))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [message for message in self.came if message.get("event") == name]

    def of_lane(self, lane: int) -> list[dict[str, Any]]:
        return [message for message in self.events("race.update") if message["lane"] == lane]

    def asked(self, do: str) -> list[dict[str, Any]]:
        return [message for message in self.went if message["do"] == do]

    def wait_until_asked(self, do: str, count: int = 1, **values: Any) -> dict[str, Any]:
        """The last request of this kind, once there are `count` of them with these values: the page may wait a moment
        before it asks, and a message is heard of only while Playwright waits."""
        for _ in range(200):
            found = [asked for asked in self.asked(do) if values.items() <= asked.items()]
            if len(found) >= count:
                return found[-1]
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{do} with {values}: not asked {count} times in 10 s; these were: {self.asked(do)}")


@pytest.fixture
def said(page: Any) -> Frames:
    """All that the page and the server say to each other from here on."""
    return Frames(page)
