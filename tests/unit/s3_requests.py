"""Requests as the pipeline makes them, for tests of the S3 protocol."""

from typing import ClassVar
from urllib.parse import urlsplit

from gateway.s3.addressing import locate, parse_query
from gateway.s3.message import S3Request


class NoBody:
    size_bytes = 0
    trailers: ClassVar[dict[str, str]] = {}

    async def read_into(self, buffer: memoryview) -> int:
        return 0

    async def read_all(self, limit_bytes: int) -> bytes:
        return b""


def request_of(
    method: str, url: str, headers: dict[str, str], *, domains: tuple[str, ...] = ()
) -> S3Request:
    parts = urlsplit(url)
    lower = {name.lower(): value for name, value in headers.items()}
    lower.setdefault("host", parts.netloc)
    raw_path = parts.path.encode("latin-1") or b"/"
    address = locate(raw_path, lower["host"], domains)
    return S3Request(
        method=method,
        bucket=address.bucket,
        key=address.key,
        query=parse_query(parts.query.encode()),
        headers=lower,
        raw_path=raw_path,
        raw_query=parts.query.encode(),
        body=NoBody(),
        request_id="R",
        virtual_host=address.virtual_host,
    )
