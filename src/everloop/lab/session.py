"""One tab of the page: what it asked for, the work that goes on for it, the events on their way to it."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

log = logging.getLogger("everloop.lab")

# Events on their way to a page that reads slowly, before work waits for it.
WAITING = 64


class Asked(BaseModel):
    """The fields of a request. A field that is not there, too large or unknown is refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Answer = dict[str, Any]
Handler = Callable[[Any], Answer]


@dataclass(frozen=True)
class Request:
    """What is asked, and who answers."""

    asked: type[Asked]
    answer: Handler


class Panel(Protocol):
    """One part of the page: the requests that it answers, by name, and its works that may run."""

    requests: dict[str, Request]


class Work(Protocol):
    """Something that takes long, done a little at a time; between two steps it may be left and taken up again."""

    def step(self) -> bool:
        """Do a little. Whether there is more to do."""
        ...


class Outbox:
    """Messages as they are sent, in order, from any thread; whoever sends them is told when there are some."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self.tell: Callable[[], None] = lambda: None

    def put(self, message: dict[str, Any]) -> None:
        self._waiting.append(written(message))
        self.tell()

    def first(self) -> str | None:
        return self._waiting[0] if self._waiting else None

    def sent(self) -> None:
        """The first one has arrived."""
        self._waiting.popleft()

    def __len__(self) -> int:
        return len(self._waiting)


def written(message: dict[str, Any]) -> str:
    """A message as text, in ASCII: half a surrogate pair, which a page may send, has no UTF-8."""
    return json.dumps(message, allow_nan=False)


class Worker:
    """Does a work in a thread of its own until it is done or told to stop. What the work holds stays: `start` goes on
    from there.
    """

    def __init__(self, name: str, work: Work, outbox: Outbox) -> None:
        self.name, self.work, self._outbox = name, work, outbox
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.done = False

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stop.is_set()

    def start(self) -> None:
        self.stop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name=f"lab {self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended: after the step that it is in."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.done = not self.work.step()
                if self.done:
                    break
                while len(self._outbox) > WAITING and not stop.is_set():
                    stop.wait(0.01)
        except Exception as error:
            self.done = True
            self._outbox.put({"event": f"{self.name}.failed", "error": told(error)})


class Session:
    """A tab. Requests of one panel are answered one after the other, those of different panels side by side."""

    def __init__(self, panels: Callable[[Session], Sequence[Panel]]) -> None:
        self.token = secrets.token_urlsafe(18)
        self.outbox = Outbox()
        self._workers: dict[str, Worker] = {}
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        # While nobody is there, nothing runs: these will, once the page is back.
        self._away = threading.Lock()
        self._left: list[Worker] | None = None
        self.requests = {name: request for panel in panels(self) for name, request in panel.requests.items()}

    # Requests

    def lane(self, do: Any) -> ThreadPoolExecutor:
        """The thread that answers the requests of a panel."""
        name = do.partition(".")[0] if isinstance(do, str) and do in self.requests else ""
        if name not in self._lanes:
            self._lanes[name] = ThreadPoolExecutor(1, thread_name_prefix=f"lab {name}".strip())
        return self._lanes[name]

    def take(self, message: dict[str, Any]) -> None:
        """Answer a request."""
        reply = self.answer(message)
        try:
            self.outbox.put(reply)
        except ValueError as error:
            self.outbox.put(refused(reply["id"], told(error)))

    def answer(self, message: dict[str, Any]) -> Answer:
        """The reply to a request: what it asks for, or why not."""
        fields = dict(message)
        id, do = fields.pop("id", None), fields.pop("do", None)
        try:
            request = self.requests.get(do) if isinstance(do, str) else None
            if request is None:
                raise ValueError(f"do: {do!r} came; expected {', '.join(self.requests)}")
            return {"id": id, "ok": True, **request.answer(request.asked.model_validate(fields))}
        except Exception as error:
            return refused(id, told(error))

    # Work and events

    def emit(self, event: str, **fields: Any) -> None:
        self.outbox.put({"event": event, **fields})

    def begin(self, name: str, work: Work) -> None:
        """Do a work from now on; what went on under this name is stopped."""
        self.end(name)
        self._workers[name] = Worker(name, work, self.outbox)
        self._start(self._workers[name])

    def _start(self, worker: Worker) -> None:
        with self._away:
            if self._left is None:
                worker.start()
            else:
                self._left.append(worker)

    def pause(self, name: str) -> None:
        """Stop a work where it is, for `go_on`."""
        if name in self._workers:
            self._workers[name].stop()

    def go_on(self, name: str) -> None:
        worker = self._workers.get(name)
        if worker is not None and not worker.running and not worker.done:
            self._start(worker)

    def end(self, name: str) -> bool:
        """Stop a work for good; whether there was one that had more to do."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return False
        worker.stop()
        return not worker.done

    def leave(self) -> None:
        """The connection broke: no thread goes on."""
        with self._away:
            self._left = [worker for worker in self._workers.values() if worker.running]
            for worker in self._left:
                worker.stop()

    def come_back(self) -> list[str]:
        """The page is there: what ran when it left goes on. Their names."""
        with self._away:
            left, self._left = self._left or [], None
        going_on = [worker for worker in left if self._workers.get(worker.name) is worker and not worker.done]
        for worker in going_on:
            worker.start()
        return [worker.name for worker in going_on]

    def close(self) -> None:
        """Over: nothing of it stays."""
        for name in list(self._workers):
            self.end(name)
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)


def refused(id: Any, error: str) -> Answer:
    return {"id": id, "ok": False, "error": error}


def told(error: Exception) -> str:
    """An error in words for the page; one that is a mistake of ours goes to the log as well."""
    if isinstance(error, ValidationError):
        return "; ".join(_told(one) for one in error.errors())
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | TypeError | OSError | ImportError | NotImplementedError):
        log.info("refused", exc_info=error)
        return str(error)
    log.error("unexpected error", exc_info=error)
    return f"unexpected {type(error).__name__}: {error}"


def _told(one: Any) -> str:
    where = ".".join(map(str, one["loc"])) or "the request"
    if one["type"] == "missing":
        return f"{where} is missing"
    if one["type"] == "extra_forbidden":
        return f"{where}: this request has no such field"
    reason = one["msg"].replace("Input should be", "expected")
    shown = repr(one["input"])
    return f"{where}: {shown if len(shown) < 60 else shown[:56] + ' ...'} came; {reason}"
