"""Serves the S3 port: uvicorn keeps sockets, TLS and the drain, our protocol class the rest."""

import asyncio
import contextlib
import functools
import math
import socket
from collections.abc import Generator
from typing import Any, NoReturn

import uvicorn

from gateway.http.message import Application, Finished, Overloaded
from gateway.http.protocol import HttpProtocol
from gateway.http.service import HttpService
from gateway.http.settings import HttpSettings
from placement.clock import Clock, Randomness

_BACKLOG = 4096
_CANCELLED_SECONDS = 2.0
"""How long cancelled requests may take to clean up."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (the worker has its own), and telling when it is up."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event | None) -> None:
        super().__init__(config)
        self._started_event = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._started_event is not None:
            self._started_event.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve_http(
    sockets: list[socket.socket],
    application: Application,
    *,
    tls_cert: str | None,
    tls_key: str | None,
    shutdown: asyncio.Event,
    drain_seconds: float,
    settings: HttpSettings,
    clock: Clock,
    randomness: Randomness,
    finished: Finished | None = None,
    overloaded: Overloaded | None = None,
    started: asyncio.Event | None = None,
) -> None:
    """Serve on listening sockets until `shutdown` is set, then drain and return.

    The sockets are closed here (in this process only). Requests that are not answered within
    `drain_seconds` are cancelled and their connections cut. OSError or ssl.SSLError when the
    certificate or key cannot be used. `started` is set once connections are accepted.
    """
    service = HttpService(
        application,
        settings=settings,
        clock=clock,
        randomness=randomness,
        finished=finished,
        overloaded=overloaded,
    )
    server = _Server(_config(service, tls_cert, tls_key, drain_seconds), started)
    service.start()
    watcher = asyncio.create_task(_stop_when(shutdown, server, service))
    try:
        await server.serve(sockets=sockets)
    finally:
        watcher.cancel()
        await _cut(service)
        service.stop()


def _config(
    service: HttpService, tls_cert: str | None, tls_key: str | None, drain_seconds: float
) -> uvicorn.Config:
    return uvicorn.Config(
        _never_called,
        http=functools.partial(HttpProtocol, service),  # type: ignore[arg-type]
        ws="none",
        interface="asgi3",
        lifespan="off",
        loop="none",
        workers=1,
        backlog=_BACKLOG,
        proxy_headers=False,
        forwarded_allow_ips=[],
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        timeout_graceful_shutdown=math.ceil(drain_seconds),
    )


async def _never_called(_scope: Any, _receive: Any, _send: Any) -> NoReturn:
    """Uvicorn wants an ASGI application; our protocol class calls ours instead."""
    raise AssertionError


async def _stop_when(shutdown: asyncio.Event, server: uvicorn.Server, service: HttpService) -> None:
    await shutdown.wait()
    service.draining = True
    server.should_exit = True


async def _cut(service: HttpService) -> None:
    """Cut what the drain left, and let cancelled requests come to their end."""
    tasks = [connection.abort() for connection in list(service.connections)]
    running = [task for task in tasks if task is not None and not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=_CANCELLED_SECONDS)
