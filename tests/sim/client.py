"""A client of the simulated store: sends S3 requests to gateways, and notes what each key saw."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.http.message import HttpRequest
from gateway.objects.errors import BlobOutOfReach
from gateway.s3.errors import ClientDisconnected
from gateway.s3.message import S3Response
from tests.sim.loop import Process
from tests.sim.members import GatewayLife

PATIENCE_SECONDS = 60.0
BODY_SECONDS = 25.0
"""What was replaced meanwhile can be read for so long, and a little more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status 0: the connection broke, or nobody answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "").strip('"')

    @property
    def code(self) -> str:
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""


NOBODY = Answer(0, {}, b"")


class SentBody:
    """A request's body as HTTP frames it."""

    def __init__(self, data: bytes, gate: asyncio.Event | None = None) -> None:
        self._gate = gate
        self.size_bytes: int | None = len(data)
        self._data = data
        self._position = 0

    async def read_into(self, buffer: memoryview) -> int:
        await self._sent()
        piece = self._data[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    async def _sent(self) -> None:
        await asyncio.sleep(0.001)
        if self._gate is not None:
            await self._gate.wait()

    async def read_all(self, limit_bytes: int) -> bytes:
        if self._gate is not None:
            await self._sent()
        rest, self._position = self._data[self._position :], len(self._data)
        assert len(rest) <= limit_bytes
        return rest

    def take_now(self) -> bytes | None:
        if self._gate is not None:
            return None
        rest, self._position = self._data[self._position :], len(self._data)
        return rest


class Connection:
    """Sends one request after the other, each to the gateway it is told."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._requests = 0
        self.gate: asyncio.Event | None = None
        """Bodies are sent when it opens."""

    async def send(
        self,
        gateway: GatewayLife,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        pace: float = 0.0,
    ) -> Answer:
        """One request and its whole answer, taken with a pause of `pace` seconds a piece."""
        if gateway.app is None or not gateway.process.alive:
            await asyncio.sleep(0.01)
            return NOBODY
        self._requests += 1
        http = HttpRequest(
            method=method,
            target=path.encode(),
            headers={"host": "s3", "content-length": str(len(body)), **(headers or {})},
            body=SentBody(body, self.gate),
            secure=True,
            remote="10.0.0.1",
            received_monotonic=gateway.process.monotonic(),
            request_id=f"{self._process.name}-{self._requests}",
        )
        loop = self._process.loop
        done: asyncio.Future[Answer] = loop.create_future()

        def gone() -> None:
            if not done.done():
                done.set_result(NOBODY)

        gateway.process.on_death.append(gone)
        await asyncio.sleep(self._process.random.uniform(0.0001, 0.002))
        gateway.process.start(_serve(gateway, http, done, pace))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await done
            await asyncio.sleep(self._process.random.uniform(0.0001, 0.002))
        except TimeoutError:
            return NOBODY
        finally:
            gateway.process.on_death.remove(gone)
        return answer


async def _serve(
    gateway: GatewayLife, http: HttpRequest, done: "asyncio.Future[Answer]", pace: float
) -> None:
    assert gateway.app is not None
    answer, began = NOBODY, gateway.process.loop.time()
    try:
        response = gateway.app(http)
        if not isinstance(response, S3Response):
            response = await response
        answer = Answer(response.status, _headers(response), await _whole(response, pace))
    except ClientDisconnected:
        pass
    except BlobOutOfReach:
        pass  # too many drives are away
    except Exception as error:  # an error within a body cuts the connection
        if gateway.process.loop.time() - began < BODY_SECONDS:
            gateway.cut_bodies.append(f"{http.method} {http.target!r}: {error!r}")
    finally:
        if not done.done():
            done.set_result(answer)


def _headers(response: S3Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers}


async def _whole(response: S3Response, pace: float) -> bytes:
    if isinstance(response.body, bytes | bytearray | memoryview):
        return bytes(response.body)
    parts: list[bytes] = []
    async for group in response.body.chunks():
        parts += [bytes(piece) for piece in group]
        if pace:
            await asyncio.sleep(pace)
    data = b"".join(parts)
    if len(data) != response.body.size_bytes:
        raise RuntimeError("a body of another length than it said")
    return data


def etag_of(data: bytes) -> str:
    """Of a body put in one piece."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def etag_of_parts(parts: Sequence[bytes]) -> str:
    """Of a multipart upload."""
    digests = b"".join(hashlib.md5(part, usedforsecurity=False).digest() for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
