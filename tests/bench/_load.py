"""A small load generator: signed requests over kept-alive connections, several at once.

It signs with UNSIGNED-PAYLOAD and reads only what it must, so that one Python process can keep the
store busy; what is measured is the server's CPU, not this client's.
"""

import hashlib
import hmac
import http.client
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the store is and who asks."""

    endpoint: str
    access_key: str
    secret_key: str

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own for each thread."""
        return http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=60)


class Signer:
    """SigV4 in the header; the day's key is derived once."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._host = urlsplit(target.endpoint).netloc
        self._day = time.strftime("%Y%m%d", time.gmtime())
        key = ("AWS4" + target.secret_key).encode()
        for part in (self._day, REGION, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key
        self._scope = f"{self._day}/{REGION}/s3/aws4_request"

    def headers(self, method: str, path: str, query: str = "") -> dict[str, str]:
        """What to send with the request."""
        return self._signed(method, path, query, "UNSIGNED-PAYLOAD")[0]

    def chunked(self, method: str, path: str, body: bytes) -> tuple[dict[str, str], bytes]:
        """The same for a body in one signed chunk, and that body. Source: S3 API Reference,
        "Transferring Payload in Multiple Chunks"."""
        form, more = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x-amz-decoded-content-length"
        headers, seed = self._signed(method, path, "", form, {more: str(len(body))})
        parts: list[bytes] = []
        start = f"AWS4-HMAC-SHA256-PAYLOAD\n{headers['x-amz-date']}\n{self._scope}\n"
        for chunk in (body, b""):
            digest = hashlib.sha256(chunk).hexdigest()
            text = f"{start}{seed}\n{hashlib.sha256().hexdigest()}\n{digest}"
            seed = hmac.digest(self._key, text.encode(), "sha256").hex()
            parts += (f"{len(chunk):x};chunk-signature={seed}\r\n".encode(), chunk, b"\r\n")
        return headers, b"".join(parts)

    def _signed(
        self, method: str, path: str, query: str, form: str, more: Mapping[str, str] = {}
    ) -> tuple[dict[str, str], str]:
        """The headers, and the signature in them; `more` sorts behind the others."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        own = {"x-amz-content-sha256": form, "x-amz-date": now, **more}
        names = ";".join(["host", *own])
        lines = "".join([f"{name}:{value}\n" for name, value in own.items()])
        canonical = f"{method}\n{path}\n{query}\nhost:{self._host}\n{lines}\n{names}\n{form}"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{now}\n{self._scope}\n{digest}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        credential = f"{self._target.access_key}/{self._scope}"
        headers = {
            **own,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, "
            f"Signature={signature}",
        }
        return headers, signature


@dataclass(slots=True)
class Result:
    """What one run did."""

    operations: int
    seconds: float


def request(
    connection: http.client.HTTPConnection,
    signer: Signer,
    method: str,
    path: str,
    body: bytes | None = None,
    query: str = "",
) -> bytes:
    """One request that must succeed; the body of its answer."""
    path = quote(path)
    url = f"{path}?{query}" if query else path
    connection.request(method, url, body, signer.headers(method, path, query))
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status < 300, (answer.status, content[:500])
    return content


def run(
    target: Target,
    connections: int,
    seconds: float,
    work: Callable[[http.client.HTTPConnection, Signer, int, int], None],
    limit: int | None = None,
) -> Result:
    """Call `work(connection, signer, thread, turn)` on each connection until time or limit is up."""
    done = [0] * connections
    end = time.monotonic() + seconds
    errors: list[BaseException] = []

    def loop(number: int) -> None:
        connection, signer = target.connect(), Signer(target)
        try:
            while time.monotonic() < end and not errors:
                if limit is not None and done[number] >= limit:
                    break
                work(connection, signer, number, done[number])
                done[number] += 1
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=loop, args=(n,)) for n in range(connections)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Result(sum(done), time.monotonic() - begun)
