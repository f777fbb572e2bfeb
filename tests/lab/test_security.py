"""Who may speak to the lab, what may be said, and what nobody gets to see."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from everloop.lab.connection import LARGEST
from everloop.lab.guard import Guard
from everloop.lab.server import ASSETS, make_app

OWN = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    """A page in a folder, beside which lies something that is nobody's business."""
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "index.html").write_text("the page")
    (tmp_path / "secret.txt").write_text("nobody's business")
    return TestClient(make_app(tmp_path / "runs", 8000, assets), base_url="http://127.0.0.1:8000")


# -- who may speak ----------------------------------------------------------------------------------------------------


def test_the_page_itself_may(client: TestClient) -> None:
    for name in ("127.0.0.1", "localhost"):
        own = {"host": f"{name}:8000", "origin": f"http://{name}:8000"}
        with client.websocket_connect("/ws", headers=own) as socket:
            socket.send_json({"id": 1, "do": "hello"})
            assert socket.receive_json()["ok"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8000"},
        {"host": "127.0.0.1:8000", "origin": "null"},
        {"host": "127.0.0.1:8000", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"},
        {"host": "127.0.0.1:8000", "origin": "https://127.0.0.1:8000"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000.evil.example"},
        {"host": "127.0.0.1:8000", "origin": "http://localhost:8000"},
        {"host": "evil.example:8000", "origin": "http://evil.example:8000"},
        {"host": "evil.example", "origin": "http://127.0.0.1:8000"},
        {"host": "127.0.0.1:9000", "origin": "http://127.0.0.1:9000"},
        {"host": "127.0.0.1", "origin": "http://127.0.0.1"},
    ],
    ids=lambda headers: " ".join(map(str, headers.values())),
)
def test_other_origins_and_hosts_get_no_socket(client: TestClient, headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/ws", headers=headers):
        pass
    assert refused.value.code == 1008
    assert "came; expected" in refused.value.reason


@pytest.mark.parametrize("origin", [None, "http://evil.example"])
def test_a_browser_elsewhere_sees_403(lab_server: Any, origin: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{lab_server.port}/ws", origin=origin, proxy=None).__enter__()
    assert refused.value.response.status_code == 403


def test_a_name_that_somebody_gave_this_address_gets_no_page(client: TestClient) -> None:
    """DNS rebinding: the browser believes that the page of another site is here."""
    reply = client.get("/", headers={"host": "evil.example:8000"})
    assert reply.status_code == 403
    assert reply.text == "Host evil.example:8000 came; expected 127.0.0.1:8000 or localhost:8000"
    assert client.get("/", headers={"host": "localhost:8000"}).status_code == 200


def test_a_page_elsewhere_may_not_fetch(client: TestClient) -> None:
    assert client.get("/", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/", headers={"origin": "http://127.0.0.1:8000"}).status_code == 200


def test_two_hosts_are_one_too_many() -> None:
    guard = Guard(None, 8000)
    scope = {"type": "http", "headers": [(b"host", b"127.0.0.1:8000"), (b"Host", b"evil.example")]}
    assert "127.0.0.1:8000, evil.example came" in str(guard._wrong(scope))


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/nothing"):
        headers = client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["connect-src"].split()[0] == "'self'"
        assert set(policy["connect-src"].split()) == {"'self'", "ws://127.0.0.1:8000", "ws://localhost:8000"}
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "script-src" not in policy, "scripts are those of default-src: no inline ones"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.skipif(not (ASSETS / "index.html").is_file(), reason="the page is not built")
def test_the_page_names_nothing_elsewhere() -> None:
    """Addresses that stand in the page as names only, such as that of SVG, are no requests."""
    page = (ASSETS / "index.html").read_text(encoding="utf-8")
    assert "http:" not in page.replace("http://www.w3.org/", "")
    assert "https:" not in page
    assert "<script>" not in page


# -- what may be said -------------------------------------------------------------------------------------------------


def test_a_message_that_is_too_large_ends_the_connection(lab_server: Any) -> None:
    with lab_server.tab() as tab:
        text = "a" * (LARGEST + 1)
        with pytest.raises(ConnectionClosedError) as closed:
            tab.ask("cell.check", text=text)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    with lab_server.tab() as other:
        assert "too long to be a cell" in other.ask("cell.check", text="a" * (LARGEST - 1_000))["message"]


def test_large_bytes_end_it_too(client: TestClient) -> None:
    with client.websocket_connect("/ws", headers=OWN) as socket:
        socket.send_bytes(b"a" * (LARGEST + 1))
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1009


@pytest.mark.parametrize(
    "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/assets/../../secret.txt", "//etc/passwd"]
)
def test_no_path_leads_out_of_the_assets(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 404
    assert "nobody's business" not in reply.text


@pytest.mark.parametrize("run", ["../runs0/play", "..", ".", "", "/etc", "play/../reviews", "play\x00", "PLAY/"])
def test_no_name_leads_out_of_the_runs(tab: Any, run: str) -> None:
    for refusal in (
        tab.refusal("talk.open", run=run),
        tab.refusal("think", source={"kind": "run", "run": run}, text="a"),
    ):
        assert "came; there are play, reviews, words" in refusal


def test_a_file_is_no_cell(tab: Any, tmp_path: Path) -> None:
    """A name that ends in .py is a file elsewhere in Everloop; here nobody names files."""
    file = tmp_path / "mine.py"
    file.write_text(
        '@cell(states="h", gates="h")\ndef mine(x, h, W, U, b):\n    return tanh(W.h @ x + U.h @ h + b.h)\n'
    )
    told = "expected a name of the catalogue or {'text': ...}"
    assert told in tab.refusal("learn.start", cell=str(file), problem="copy")
    assert told in tab.refusal("race.start", cells=[str(file)], problem="copy")
    demo = {"kind": "demo", "demo": "counting", "cell": str(file)}
    assert told in tab.refusal("think", source=demo, text="a")


HOSTILE = [
    "import os",
    "__import__('os').system('true')",
    "open('/etc/passwd').read()",
    "().__class__.__bases__[0].__subclasses__()",
    "exec('1')",
    "(lambda: h)()",
    "[h for h in h]",
    "h.__class__",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_text_that_is_no_cell_is_read_and_not_run(tab: Any, hostile: str) -> None:
    text = f'@cell(states="h", gates="h")\ndef mine(x, h, W, U, b):\n    h = {hostile}\n    return h\n'
    assert not tab.ask("cell.check", text=text)["found"]
    assert "line 3" in tab.refusal("learn.start", cell={"text": text}, problem="copy")
    assert "line 3" in tab.refusal("race.start", cells=["lstm", {"text": text}], problem="copy")
    demo = {"kind": "demo", "demo": "counting", "cell": {"text": text}}
    assert "line 3" in tab.refusal("think", source=demo, text="a")


def test_an_error_of_ours_is_told_as_one_and_goes_to_the_log(
    tab: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: str) -> None:
        raise ZeroDivisionError("no cell can do this")

    monkeypatch.setattr("everloop.lab.writing.typed_cell", broken)
    assert tab.refusal("cell.check", text="") == "unexpected ZeroDivisionError: no cell can do this"
    assert "no cell can do this" in caplog.text


# -- what is over when a tab is gone ----------------------------------------------------------------------------------


def working() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in ("lab learn", "lab race", "lab talk")]


def test_a_closed_socket_stops_all_work(lab_server: Any, eventually: Any) -> None:
    with lab_server.tab() as tab:
        tab.ask("learn.start", cell="gru", problem="copy", hidden=4)
        tab.ask("race.start", cells=["gru", "elman"], problem="copy", hidden=4)
        tab.ask("talk.open", run="play")
        tab.ask("talk.generate", length=10_000)
        assert sorted(working()) == ["lab learn", "lab race", "lab talk"]
    eventually(lambda: working() == [], "all threads have ended")


def test_a_token_is_long_and_guessing_gives_nothing(lab_server: Any) -> None:
    with lab_server.tab() as tab:
        assert len(tab.token) >= 24
    for token in ("", tab.token[:-1], tab.token.lower() + "x", None, 7, ["a"]):
        with lab_server.connect() as socket:
            socket.send(json.dumps({"id": 1, "do": "hello", "token": token}))
            assert not json.loads(socket.recv())["resumed"]
