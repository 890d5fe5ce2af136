"""The admin process of a gateway: health, metrics and the admin API beside the S3 workers."""

import asyncio
import signal
import socket
from collections.abc import Callable

from ops.admin_api import admin_app
from ops.admin_port import AdminPort, authorizer
from ops.clients import Clients, connect, log_to_stderr
from ops.cluster_backend import ClusterBackend, WaitingBackend
from ops.process_counts import ProcessWatch
from ops.settings import ProcessSettings

BUFFERS = 1


async def run_gateway_admin(
    settings: ProcessSettings, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """The role's main. It answers from the first moment on: alive, and ready when the cluster is."""
    log_to_stderr()
    watch = ProcessWatch("admin").start()
    waiting = WaitingBackend()
    # Load balancers are told first that this gateway leaves; its workers drain after that.
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, waiting.leave)
    clients: list[Clients] = []
    port = AdminPort(
        socket.socket(fileno=settings.admin_fd),
        admin_app(waiting, authorizer(lambda: clients[0] if clients else None)),
        settings.tls_cert,
        settings.tls_key,
    )
    await port.start()
    ready()
    backend: ClusterBackend | None = None
    connecting = asyncio.create_task(connect(settings, buffers=BUFFERS))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({connecting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            clients.append(connecting.result())
            waiting.backend = backend = ClusterBackend(settings, clients[0], watch)
            await asyncio.wait({port.serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        connecting.cancel()
        stopped.cancel()
        watch.stop()
        await port.stop()
        if backend is not None:
            await backend.close()
        for connected in clients:
            await connected.close()
