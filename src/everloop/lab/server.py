"""The server of the lab: the page and its socket, on this machine, for this machine."""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
import webbrowser
from collections.abc import AsyncIterator
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, WebSocket
from starlette.staticfiles import StaticFiles

from everloop.lab.connection import LARGEST, Connection
from everloop.lab.guard import LOOPBACK, Guard
from everloop.lab.lab import Lab, known_cells

ASSETS = Path(__file__).parent / "assets"


def make_app(runs: str | Path = "runs", port: int = 8000, assets: Path = ASSETS) -> FastAPI:
    """The lab as an ASGI application that is reached on this machine at that port.

    runs: the folder whose run folders can be opened. Nothing outside it is read.
    """
    lab = Lab(Path(runs))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Takes a moment, which the first page need not wait for.
        threading.Thread(target=known_cells, daemon=True).start()
        yield
        await lab.close()

    app = FastAPI(title="Everloop lab", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.lab = lab
    app.add_middleware(Guard, port=port)

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await Connection(lab, socket).serve()

    app.mount("/", StaticFiles(directory=assets, html=True, check_dir=False))
    return app


def serve(port: int, host: str, open_browser: bool, runs: str | Path) -> None:
    """See `everloop.lab.serve_lab`."""
    if host not in LOOPBACK:
        raise ValueError(f"host: {host} came; the lab is for this machine only: expected {' or '.join(LOOPBACK)}")
    if not (ASSETS / "index.html").is_file():
        raise FileNotFoundError(f"{ASSETS} has no page; from a checkout, build it: cd lab && npm ci && npm run build")
    # Networks here are small: more threads cost them more than they bring.
    torch.set_num_threads(1)
    with listening(port) as listener:
        port = listener.getsockname()[1]
        address = f"http://{host}:{port}/"
        print(f"the lab is at {address} (Ctrl-C ends it)", flush=True)
        if open_browser:
            # Where the browser is one of the terminal, this lasts as long as it is open.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        # Ctrl-C is how it ends.
        with contextlib.suppress(KeyboardInterrupt):
            make_server(make_app(runs, port)).run(sockets=[listener])


def listening(port: int) -> sockets.socket:
    """A socket on this machine at that port, or at a free one (0); who comes from now on waits to be let in."""
    listener = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM)
    listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(f"port {port} cannot be used ({error}); --port 0 takes a free one") from None
    return listener


def make_server(app: FastAPI) -> uvicorn.Server:
    """What runs the application; `run(sockets=[...])` serves until it is stopped."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            ws_max_size=LARGEST,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
