"""The website port: buckets that are websites, read by anybody whom policies and lists let in.

The bucket is BUCKET in a host BUCKET.DOMAIN of the domains that are served, else the host itself.
"""

import html
import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from gateway.app import NO_BODY
from gateway.authorization import ANONYMOUS, admit
from gateway.context import Context
from gateway.domain.website import (
    MOVED,
    RoutingRule,
    Website,
    document_key,
    folder_location,
    location_of,
    routed,
)
from gateway.http.message import HttpRequest
from gateway.metadata.website import stored_website
from gateway.operations.error_map import to_s3_error
from gateway.operations.object_headers import WEBSITE_REDIRECT
from gateway.operations.objects import OPERATIONS
from gateway.s3.addressing import bucket_of_host, locate, split_target
from gateway.s3.errors import ClientDisconnected, ErrorCode, S3Error
from gateway.s3.message import S3Request, S3Response

WEBSITE: Final = "Website"
"""Label of the website port's requests in logs and metrics."""
_READS: Final = {
    name: operation
    for operation in OPERATIONS
    for name in ("GET", "HEAD")
    if operation.name == f"{name.capitalize()}Object"
}
_HOST: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,253}")

log = logging.getLogger("ostraka.website")


class WebsitePort:
    """The application behind the website port of one process."""

    def __init__(self, context: Context, *, domains: Sequence[str]) -> None:
        self._context = context
        self._domains = tuple(domain.lower() for domain in domains)

    async def __call__(self, http: HttpRequest) -> S3Response:
        """Answer one request; errors are pages."""
        http.operation = WEBSITE
        try:
            return await self._answer(http)
        except ClientDisconnected:
            raise
        except Exception as error:
            return _page(http, _refusal(error, http))

    async def _answer(self, http: HttpRequest) -> S3Response:
        if http.method not in _READS:
            raise S3Error(ErrorCode.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        host = http.headers.get("host", "")
        raw_path, _ = split_target(http.target)
        bucket = bucket_of_host(host, self._domains) or _name_of(host)
        http.bucket = bucket
        if _HOST.fullmatch(bucket) is None:
            raise S3Error(ErrorCode.NO_SUCH_BUCKET, details={"BucketName": bucket})
        key = locate(b"/" + bucket.encode() + raw_path, "").key or ""
        http.key = key
        entry = await self._context.metadata.buckets.read_unasked(bucket)
        website = stored_website(entry.record.website, bucket)
        if website is None:
            raise S3Error(ErrorCode.NO_SUCH_WEBSITE, details={"BucketName": bucket})
        if website.redirect_all is not None:
            return _redirect(http, RoutingRule(redirect=website.redirect_all), key)
        rule = routed(website, key)
        if rule is not None:
            return _redirect(http, rule, key)
        try:
            return await self._document(http, document_key(website, key))
        except ClientDisconnected:
            raise
        except Exception as error:
            refusal = _refusal(error, http)
            if not 400 <= refusal.code.status < 500:
                raise refusal from error
            return await self._instead(http, website, key, refusal)

    async def _document(self, http: HttpRequest, key: str) -> S3Response:
        """The object, or where it says that it is."""
        found = await self._read(http, "HEAD", key, http.headers)
        moved = _moved(found)
        if moved is not None:
            return moved
        return found if http.method == "HEAD" else await self._read(http, "GET", key, http.headers)

    async def _instead(
        self, http: HttpRequest, website: Website, key: str, refusal: S3Error
    ) -> S3Response:
        """What is answered when the document cannot be: a redirect, or the page for errors."""
        status = refusal.code.status
        missing = refusal.code in (ErrorCode.NO_SUCH_KEY, ErrorCode.ACCESS_DENIED)
        if missing and key and not key.endswith("/"):
            try:
                await self._read(http, "HEAD", document_key(website, f"{key}/"), {})
            except Exception as error:
                _refusal(error, http)
            else:
                return S3Response(302, [("Location", folder_location(key))])
        rule = routed(website, key, status)
        if rule is not None:
            return _redirect(http, rule, key)
        if website.error_key:
            try:
                page = await self._read(http, http.method, website.error_key, {})
            except ClientDisconnected:
                raise
            except Exception as error:
                _refusal(error, http)
            else:
                http.error_code = refusal.code.code
                moved = _moved(page)  # S3 follows the word of the page for errors, too
                if moved is not None:
                    return moved
                page.status = status
                return page
        return _page(http, refusal)

    async def _read(
        self, http: HttpRequest, method: str, key: str, headers: dict[str, str]
    ) -> S3Response:
        """An object of the bucket as somebody who did not sign reads it."""
        request = S3Request(
            method=method,
            bucket=http.bucket,
            key=key,
            query={},
            headers={name: text for name, text in headers.items() if _is_readers(name)},
            raw_path=http.target,
            raw_query=b"",
            body=NO_BODY,
            request_id=http.request_id,
            secure=http.secure,
            remote=http.remote,
        )
        operation = _READS[method]
        request.principal = admit(
            self._context, request, ANONYMOUS, operation.permission, name=operation.name
        )
        asked = operation.decode(request)
        request.principal = None  # its admission refers to the request: a cycle
        return operation.encode(await operation.handle(self._context, asked))


def _moved(found: S3Response) -> S3Response | None:
    """The redirect of an object that says that it is elsewhere."""
    target = dict(found.headers).get(WEBSITE_REDIRECT)
    return None if target is None else S3Response(MOVED, [("Location", target)])


def _is_readers(name: str) -> bool:
    """Headers that a browser sends of itself; no signatures, no keys."""
    return not name.startswith("x-amz-") and name != "authorization"


def _name_of(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and (port.isdigit() or not port) else host.lower()


def _redirect(http: HttpRequest, rule: RoutingRule, key: str) -> S3Response:
    protocol = "https" if http.secure else "http"
    host = http.headers.get("host", "")
    location = location_of(rule, key, protocol=protocol, host=host)
    return S3Response(rule.redirect.code, [("Location", location)])


def _refusal(error: Exception, http: HttpRequest) -> S3Error:
    """The error as one of S3's; a bug is logged."""
    if isinstance(error, S3Error):
        return error
    known = to_s3_error(error)
    if known is None or known.code is ErrorCode.INTERNAL_ERROR:
        http.met_bug = True
        log.error("request %s failed", http.request_id, exc_info=error)
    return known or S3Error(ErrorCode.INTERNAL_ERROR)


def _page(http: HttpRequest, refusal: S3Error) -> S3Response:
    """A page of our own that says what was refused."""
    http.error_code = refusal.code.code
    status = refusal.code.status
    title = f"{status} {HTTPStatus(status).phrase}"
    told = {"Code": refusal.code.code, "Message": str(refusal), "RequestId": http.request_id}
    items = "".join(f"<li>{name}: {html.escape(text)}</li>" for name, text in told.items())
    text = (
        f"<html><head><title>{title}</title></head>"
        f"<body><h1>{title}</h1><ul>{items}</ul></body></html>\n"
    ).encode()
    headers = [("Content-Type", "text/html; charset=utf-8"), *refusal.headers.items()]
    if http.method == "HEAD":
        return S3Response(status, headers, b"", content_length=len(text))
    return S3Response(status, headers, text)
