"""The admin port as a running server: uvicorn around the admin application, and who may use it."""

import asyncio
import contextlib
import hashlib
import hmac
import socket
from collections.abc import Callable

import uvicorn

from gateway.s3.addressing import parse_query
from gateway.s3.authentication import parse_claim
from gateway.s3.errors import S3Error
from gateway.s3.message import S3Request
from gateway.s3.payload import BytesBody
from ops.admin_api import AdminApplication, Authorize
from ops.admin_errors import AdminError
from ops.clients import Clients

REGION = "us-east-1"
"""Region of the admin port's signatures, whatever the store's own is."""


class AdminPort:
    """Serves an application on one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        app: AdminApplication,
        tls_cert: str = "",
        tls_key: str = "",
    ) -> None:
        self._listener = listener
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                loop="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
                ssl_certfile=tls_cert or None,
                ssl_keyfile=tls_key or None,
            )
        )
        # Signals belong to the process's own main.
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]
        self.serving: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        await self._server.serve([self._listener])

    async def start(self) -> None:
        """Until connections are accepted."""
        while not self._server.started and not self.serving.done():  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Answer what is open, then end."""
        self._server.should_exit = True
        await self.serving


def authorizer(clients_of: Callable[[], Clients | None]) -> Authorize:
    """Root's signature, checked against the accounts; nobody is let in before there are clients."""

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
        clients = clients_of()
        if clients is None:
            raise AdminError(503, "ServiceUnavailable", "The cluster cannot be reached yet.")
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

    return authorize


def _check_body(announced: str, body: bytes) -> None:
    computed = hashlib.sha256(body).hexdigest()
    if not hmac.compare_digest(announced.lower().encode(), computed.encode()):
        raise AdminError(403, "XAmzContentSHA256Mismatch", "The body is not the one signed.")
