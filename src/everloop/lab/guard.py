"""Who may speak to the server of the lab: its own page, on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

LOOPBACK = ("127.0.0.1", "localhost")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Guard:
    """Lets in who speaks to this server by its own name, from its own page.

    A page elsewhere can make a browser send requests here, and can give its own name this address (DNS rebinding);
    what it cannot do is to send another Host or Origin than its own.
    """

    def __init__(self, app: Any, port: int) -> None:
        self.app = app
        self._hosts = {f"{name}:{port}" for name in LOOPBACK} | (set(LOOPBACK) if port == 80 else set())
        self._headers = [(name.encode(), value.encode()) for name, value in _headers(port).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wrong = None if scope["type"] == "lifespan" else self._wrong(scope)
        if wrong is None:
            await self.app(scope, receive, self._adding_headers(send))
        elif scope["type"] == "websocket":
            # Before it is accepted, which the client sees as 403.
            await send({"type": "websocket.close", "code": 1008, "reason": wrong})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": wrong.encode()})

    def _wrong(self, scope: Scope) -> str | None:
        """Why this one is not let in."""
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return f"Host {', '.join(hosts) or '(none)'} came; expected {' or '.join(sorted(self._hosts))}"
        if not origins and scope["type"] != "websocket":
            return None
        if origins != [f"http://{hosts[0]}"]:
            return f"Origin {', '.join(origins) or '(none)'} came; expected http://{hosts[0]}"
        return None

    def _adding_headers(self, send: Send) -> Send:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        return sending


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for key, value in scope["headers"] if key.lower() == name]


def _headers(port: int) -> dict[str, str]:
    own = " ".join(f"ws://{name}:{port}" for name in LOOPBACK)
    policy = {
        "default-src": "'self'",
        "connect-src": f"'self' {own}",
        "img-src": "'self' data:",
        # Formulas and diagrams place their parts by inline styles.
        "style-src": "'self' 'unsafe-inline'",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
