"""One socket of the page: requests in, replies and events out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from everloop.lab.lab import Lab
from everloop.lab.session import Session, log, refused, told, written

# A message from the page: a cell, a text. What it gets is larger.
LARGEST = 2**20


class Connection:
    """One socket: requests in, replies and events out. From `hello` on it has a session."""

    def __init__(self, lab: Lab, socket: WebSocket) -> None:
        self._lab, self._socket = lab, socket
        self._session: Session | None = None
        self._sender: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        await self._socket.accept()
        try:
            while (message := await self._socket.receive())["type"] != "websocket.disconnect":
                text = message.get("text")
                if len(text or message.get("bytes") or "") > LARGEST:
                    await self._socket.close(1009, f"a message is at most {LARGEST:,} bytes long")
                    break
                await self._take(text)
        except WebSocketDisconnect:
            log.debug("the connection broke while something was sent")
        finally:
            if self._sender is not None:
                self._sender.cancel()
            if self._session is not None:
                await self._lab.leave(self._session)

    async def _take(self, text: str | None) -> None:
        message = _read(text)
        if isinstance(message, str):
            await self._send(refused(None, message))
        elif message.get("do") == "hello":
            await self._greet(message.get("id"), message.get("token"))
        elif self._session is None:
            await self._send(refused(message.get("id"), f"do: {message.get('do')!r} came first; expected hello"))
        else:
            task = asyncio.create_task(self._answer(self._session, message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _greet(self, id: Any, token: Any) -> None:
        """A new session, or the one of the token if it is still there."""
        try:
            if self._session is not None:
                raise ValueError("do: hello came twice; a socket has one session")
            about = await asyncio.to_thread(self._lab.about)
            found = await self._lab.find(token)
            self._session = session = found or await self._lab.open()
        except Exception as error:
            await self._send(refused(id, told(error)))
            return
        known = {"token": session.token, "resumed": found is not None, "running": session.come_back()}
        await self._send({"id": id, "ok": True, **known, **about})
        self._sender = asyncio.create_task(self._send_all(session))

    async def _answer(self, session: Session, message: dict[str, Any]) -> None:
        await asyncio.get_running_loop().run_in_executor(session.lane(message.get("do")), session.take, message)

    async def _send_all(self, session: Session) -> None:
        """What the session has to say, in order, as it comes."""
        loop, there = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(there.set)

        session.outbox.tell = tell
        while True:
            there.clear()
            while (message := session.outbox.first()) is not None:
                await self._socket.send_text(message)
                session.outbox.sent()
            await there.wait()

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(written(message))


def _read(text: str | None) -> dict[str, Any] | str:
    """A request, or what is wrong with it."""
    if text is None:
        return "bytes came; expected a JSON object as text"
    try:
        message = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return f"the message is not JSON: {error}"
    if not isinstance(message, dict):
        return "the message is JSON, but no object; expected {id, do, ...}"
    id = message.get("id")
    return message if isinstance(id, int | str | None) else f"id: {id!r} came; expected a whole number or a text"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
