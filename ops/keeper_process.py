"""The keeper process of `serve`: background duties, and the admin port."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import uvicorn

from gateway.metadata import uploads
from gateway.s3.addressing import parse_query
from gateway.s3.authentication import parse_claim
from gateway.s3.errors import S3Error
from gateway.s3.message import S3Request
from gateway.s3.payload import BytesBody
from ops.admin_api import AdminError, admin_app
from ops.admin_backend import AdminBackend
from ops.clients import Clients, connect, log_to_stderr
from ops.keeper.garbage import Garbage
from ops.keeper.keeper import Duty, Keeper
from ops.keeper.reencode import Reencode
from ops.keeper.repair import Repair, View
from ops.keeper.sweep import Sweep
from ops.process_counts import ProcessWatch
from ops.settings import ProcessSettings
from placement.hashing import Placement
from storage_node.port import DriveCondition

BUFFERS = 2
REGION = "us-east-1"
"""Region of the admin port's signatures, whatever the store's own is."""


class Duties:
    """The duties of one machine's keeper, and the view of the cluster that they work with."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._placement = Placement(clients.topology.map)
        nodes = clients.live_nodes
        self.garbage = Garbage(clients.metastore, clients.objects, nodes, clients.clock)
        self.sweep = Sweep(clients.metastore, nodes, clients.clock)
        self.repair = Repair(clients.metastore, clients.objects, nodes, self.view, clients.clock)
        self.reencode = Reencode(
            clients.metastore,
            clients.objects,
            clients.clock,
            clients.randomness,
            self._full_width,
        )

    def view(self) -> View:
        """The present map, and the drives that take writes."""
        topology = self._clients.topology
        if self._placement.map != topology.map:
            self._placement = Placement(topology.map)
        live = frozenset(d.drive_id for d in topology.map.drives if d.slot in topology.writable)
        return View(self._placement, live)

    async def _tidy_uploads(self) -> None:
        now_ms = self._clients.clock.now_ns() // 1_000_000
        await uploads.tidy(self._clients.metastore, now_ms=now_ms)

    def _full_width(self) -> bool:
        return len(self.view().live) >= self._clients.topology.map.scheme.width

    def keeper(self) -> Keeper:
        """All duties with their pace."""
        return Keeper(
            [
                Duty("repair", self.repair.work, every_seconds=0.5),
                Duty("garbage", self.garbage.work, every_seconds=3.0),
                Duty("re-encoding", self.reencode.work, every_seconds=1.0),
                Duty("sweep", self.sweep.work, every_seconds=600.0, first_after_seconds=35.0),
                Duty("uploads", self._tidy_uploads, every_seconds=60.0, first_after_seconds=5.0),
            ],
            self._clients.clock,
        )


async def run_keeper(
    settings: ProcessSettings, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """The role's main."""
    log_to_stderr()
    clients = await connect(settings, buffers=BUFFERS)
    duties = Duties(clients)
    watch = ProcessWatch("keeper").start()
    backend = AdminBackend(settings, clients, duties, watch)
    app = admin_app(backend, _authorizer(clients))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
            ssl_certfile=settings.tls_cert or None,
            ssl_keyfile=settings.tls_key or None,
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]
    serving = asyncio.create_task(server.serve([socket.socket(fileno=settings.admin_fd)]))
    working = asyncio.create_task(duties.keeper().run())
    try:
        while not server.started and not serving.done():
            await clients.clock.sleep(0.02)
        ready()
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        watch.stop()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        server.should_exit = True
        await serving
        await backend.close()
        await clients.close()


def _authorizer(
    clients: Clients,
) -> Callable[[str, bytes, bytes, dict[str, str], bytes], "asyncio.Future[None]"]:
    async def authorize(
        method: str, raw_path: bytes, raw_query: bytes, headers: dict[str, str], body: bytes
    ) -> None:
        request = S3Request(
            method=method,
            bucket=None,
            key=None,
            query=parse_query(raw_query) if raw_query else {},
            headers=headers,
            raw_path=raw_path,
            raw_query=raw_query,
            body=BytesBody(body),  # type: ignore[arg-type]
            request_id="",
        )
        try:
            claim = parse_claim(request, region=REGION)
            if claim is None:
                raise AdminError(403, "AccessDenied", "The request must be signed.")
            identity = await clients.metadata.identity(claim.access_key)
            if identity is None:
                raise AdminError(403, "InvalidAccessKeyId", "The access key is not known.")
            verified = claim.verify(identity.secret, clients.clock.now_ns() / 1e9)
        except S3Error as error:
            raise AdminError(403, error.code.code, error.message) from error
        if not identity.principal.is_root:
            raise AdminError(403, "AccessDenied", "Only root may administer the store.")
        _check_body(verified.content_sha256, body)

    return authorize  # type: ignore[return-value]


def _check_body(announced: str, body: bytes) -> None:
    import hashlib
    import hmac

    computed = hashlib.sha256(body).hexdigest()
    if not hmac.compare_digest(announced.lower().encode(), computed.encode()):
        raise AdminError(403, "XAmzContentSHA256Mismatch", "The body is not the one signed.")


def wants_repair(condition: DriveCondition) -> bool:
    """Whether a drive in that condition leaves objects with less than their full tolerance."""
    return condition not in (DriveCondition.UP, DriveCondition.FULL)
