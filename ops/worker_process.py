"""A gateway worker of `serve`: S3 on an inherited socket, and its counts for the keeper."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from gateway.app import Gateway
from gateway.context import Context, Encryption
from gateway.http.access_log import AccessLog
from gateway.http.message import Application, HttpRequest
from gateway.http.server import serve_http
from gateway.http.settings import HttpSettings
from gateway.kms.vault import VaultTransit
from gateway.metrics import DriveReads, RequestCounts
from gateway.operations.registry import OPERATIONS
from gateway.website import WebsitePort
from ops.clients import Clients, connect, log_to_stderr
from ops.process_counts import PROCESS_VERB, ProcessWatch
from ops.settings import ProcessSettings
from placement.rpc.server import Request, RpcServer

COUNTS_VERB = 96
DRAIN_SECONDS = 25.0
BUFFERS = 8
"""Of 2 MiB, for bodies of large writes of one worker: more than its core can code at a time."""


async def run_worker(
    settings: ProcessSettings, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """The role's main."""
    log_to_stderr()
    clients = await connect(settings, buffers=BUFFERS)
    counts = RequestCounts(instance=clients.randomness.token(8))
    watch = ProcessWatch(f"worker-{settings.number}").start()
    vault = _vault(settings, clients)
    context = Context(
        metadata=clients.metadata,
        objects=clients.objects,
        clock=clients.clock,
        randomness=clients.randomness,
        region=settings.region,
        encryption=Encryption(
            store_keys=clients.keys,
            kms=vault or clients.keys,
            at_rest=settings.encrypt_at_rest,
            customer_keys_over_http=settings.customer_keys_over_http,
        ),
    )
    gateway = Gateway(context, OPERATIONS, domains=settings.domains, counts=counts)
    access_log = _access_log(settings, clients.clock)
    if access_log is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, access_log.reopen)
    control = RpcServer(
        {
            COUNTS_VERB: _counts_handler(counts, clients, access_log),
            PROCESS_VERB: watch.handler(clients.commits),
        },
        name="worker",
    )
    await control.listen_unix(settings.worker_socket(settings.number))

    def finished(request: HttpRequest) -> None:
        gateway.finished(request)
        if access_log is not None:
            access_log.write(request)

    def served(fd: int, application: Application, started: asyncio.Event) -> Awaitable[None]:
        return serve_http(
            [socket.socket(fileno=fd)],
            application,
            tls_cert=settings.tls_cert or None,
            tls_key=settings.tls_key or None,
            shutdown=stop,
            drain_seconds=DRAIN_SECONDS,
            settings=HttpSettings(),
            clock=clients.clock,
            randomness=clients.randomness,
            finished=finished,
            started=started,
        )

    started, websites_started = asyncio.Event(), asyncio.Event()
    ports = [served(settings.listen_fd, gateway, started)]
    if settings.website_fd >= 0:
        websites = WebsitePort(context, domains=settings.domains)
        ports.append(served(settings.website_fd, websites, websites_started))
    serving = asyncio.gather(*ports)
    announce = asyncio.create_task(_announce(started, ready))
    try:
        await serving
    finally:
        announce.cancel()
        watch.stop()
        await control.close()
        if vault is not None:
            await vault.close()
        if access_log is not None:
            await access_log.close()
        await clients.close()


def _vault(settings: ProcessSettings, clients: Clients) -> VaultTransit | None:
    if settings.vault is None:
        return None
    return VaultTransit(
        settings.vault, clients.keys, clock=clients.clock, randomness=clients.randomness
    )


async def _announce(started: asyncio.Event, ready: Callable[[], None]) -> None:
    await started.wait()
    ready()


def _counts_handler(
    counts: RequestCounts, clients: Clients, access_log: AccessLog | None
) -> Callable[[Request], None]:
    encoder = msgspec.msgpack.Encoder()

    def handle(request: Request) -> None:
        blobs = clients.objects.counts
        counts.degraded_reads, counts.degraded_writes = blobs.degraded_reads, blobs.degraded_writes
        backlog = clients.metadata.transactions.backlog
        counts.slowed_commits, counts.refused_commits = backlog.slowed, backlog.refused
        counts.drive_reads = {
            drive.hex(): DriveReads(read.reads, read.read_bytes, read.seconds)
            for drive, read in clients.direct_reads.items()
        }
        if access_log is not None:
            counts.lost_log_lines = access_log.lost_total
        request.reply(encoder.encode(counts))

    return handle


def _access_log(settings: ProcessSettings, clock: object) -> AccessLog | None:
    if not settings.access_log:
        return None
    path = None if settings.access_log == "-" else Path(settings.access_log)
    return AccessLog(path, clock=clock)  # type: ignore[arg-type]
