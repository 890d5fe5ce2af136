"""The pipeline every S3 request passes: address, authenticate, route, carry out, answer, count.

An operation states only what differs (`gateway.operation`); this is the one place where requests
become operations, and where errors become answers.
"""

import logging
from collections.abc import Awaitable, Sequence
from typing import Final

from gateway.authorization import (
    ANONYMOUS,
    admit,
    demand_admission,
    demand_service,
    is_plain,
    refuse_of_anonymous,
)
from gateway.context import Context
from gateway.http.message import BodyTooLargeError, HttpRequest
from gateway.iam.service import QueryService, is_query_request
from gateway.identification import identify, session_token_of
from gateway.metadata.accounts import Identity
from gateway.metadata.errors import NotBucketOwner
from gateway.metrics import RequestCounts
from gateway.operation import AnyOperation, Resource
from gateway.operations.cors import PREFLIGHT, answer_preflight, headers_of_answer
from gateway.operations.error_map import to_s3_error
from gateway.router import Router
from gateway.s3.addressing import locate, parse_query, split_target
from gateway.s3.authentication import Claim, parse_claim
from gateway.s3.errors import ClientDisconnected, ErrorCode, S3Error, render_error
from gateway.s3.known import refuse_unoffered
from gateway.s3.message import Body, S3Request, S3Response
from gateway.s3.payload import RawBody, gather_unsized, make_payload, tells_of_body
from gateway.s3.signature import UNSIGNED_PAYLOAD, Verified

_NANOSECONDS = 1_000_000_000
_CREATE_BUCKET: Final = "CreateBucket"
UNROUTED = "Unrouted"
"""Label of requests that failed before an operation was found."""

log = logging.getLogger("ostraka.gateway")


class Gateway:
    """The application behind the S3 port of one process."""

    def __init__(
        self,
        context: Context,
        operations: Sequence[AnyOperation],
        *,
        domains: Sequence[str],
        counts: RequestCounts,
    ) -> None:
        self._context = context
        self._router = Router(operations)
        self._domains = tuple(domain.lower() for domain in domains)
        self._counts = counts
        self._query_service = QueryService(context)

    def __call__(self, http: HttpRequest) -> S3Response | Awaitable[S3Response]:
        """Answer one request, at once if nothing has to be waited for; errors are answers."""
        if "origin" in http.headers:
            return self._answer_across_origins(http)
        return self._respond(http)

    async def _answer_across_origins(self, http: HttpRequest) -> S3Response:
        """The answer with what the bucket's rules tell a browser about it, refusals included."""
        answer = self._respond(http)
        response = answer if isinstance(answer, S3Response) else await answer
        if http.bucket and http.operation != PREFLIGHT:
            added = await headers_of_answer(self._context, http.bucket, http.method, http.headers)
            response.headers = [*response.headers, *added]
        return response

    def _respond(self, http: HttpRequest) -> S3Response | Awaitable[S3Response]:
        try:
            answer = self._answer(http)
        except Exception as error:
            return self._refuse(http, error)
        return answer if isinstance(answer, S3Response) else self._settle(http, answer)

    async def _settle(self, http: HttpRequest, answer: Awaitable[S3Response]) -> S3Response:
        self._counts.inflight += 1
        try:
            return await answer
        except ClientDisconnected:
            raise
        except Exception as error:
            return self._refuse(http, error)
        finally:
            self._counts.inflight -= 1

    def _answer(self, http: HttpRequest) -> S3Response | Awaitable[S3Response]:
        request = self._address(http)
        if request.method == "OPTIONS" and request.bucket is not None:
            http.operation = PREFLIGHT
            return answer_preflight(self._context, request)
        if request.bucket is None and request.method == "POST" and is_query_request(request):
            return self._query_service(request, http)
        verified = self._authenticate(request, http)
        if verified is None or isinstance(verified, Verified):
            return self._route(request, http, verified)
        return self._answer_to_stranger(request, http, verified)

    def _authenticate(self, request: S3Request, http: HttpRequest) -> Verified | Claim | None:
        """A proof, or the claim of a caller who has to be looked up first; None: nobody signed."""
        claim = parse_claim(request, region=self._context.region)
        if claim is None:
            return None
        http.access_key = claim.access_key
        identity = self._context.metadata.identity_now(claim.access_key)
        return claim if identity is None else self._verify(request, claim, identity)

    async def _answer_to_stranger(
        self, request: S3Request, http: HttpRequest, claim: Claim
    ) -> S3Response:
        """For a claim whose caller is not known yet."""
        token = session_token_of(request)
        identity = await identify(self._context.metadata, claim.access_key, token)
        answer = self._route(request, http, self._verify(request, claim, identity))
        return answer if isinstance(answer, S3Response) else await answer

    def _verify(self, request: S3Request, claim: Claim, identity: Identity) -> Verified:
        request.principal, secret = identity
        return claim.verify(secret, self._context.clock.now_ns() / _NANOSECONDS)

    def _route(
        self, request: S3Request, http: HttpRequest, verified: Verified | None
    ) -> S3Response | Awaitable[S3Response]:
        operation = self._router.resolve(
            request.method, request.bucket, request.key, request.query, request.headers
        )
        http.operation = operation.name
        if operation.authenticates_itself:
            return self._carry_out_form(operation, request, http, verified)
        refuse_unoffered(operation.name, request.headers, request.query)
        principal = request.principal
        if principal is None or not is_plain(self._context, request, principal):
            return self._admit_and_carry_out(operation, request, http, verified)
        assert verified is not None
        if operation.handle_now is not None:
            response = self._carry_out_now(operation, request, http, verified)
            if response is not None:
                return response
        return self._carry_out_plain(operation, request, http, verified)

    def _carry_out_now(
        self, operation: AnyOperation, request: S3Request, http: HttpRequest, verified: Verified
    ) -> S3Response | None:
        """The answer to a request without a body, if it is to be had without waiting."""
        assert operation.handle_now is not None
        if http.body.size_bytes != 0 or tells_of_body(request.headers, verified):
            return None
        try:
            result = operation.handle_now(self._context, operation.decode(request))
        except NotBucketOwner:
            return None
        return None if result is None else operation.encode(result)

    async def _carry_out_plain(
        self, operation: AnyOperation, request: S3Request, http: HttpRequest, verified: Verified
    ) -> S3Response:
        """For what seems plainly the caller's own."""
        try:
            return await self._carry_out(operation, request, http, verified)
        except NotBucketOwner:
            # It is so no more, or never was.
            return await self._admit_and_carry_out(operation, request, http, verified)

    async def _admit_and_carry_out(
        self,
        operation: AnyOperation,
        request: S3Request,
        http: HttpRequest,
        verified: Verified | None,
    ) -> S3Response:
        """For a request that policies and lists must be asked about."""
        principal = request.principal
        if principal is None:
            refuse_of_anonymous(request)
            principal, verified = ANONYMOUS, _unproved(request)
        request.principal = principal = admit(
            self._context, request, principal, operation.permission, name=operation.name
        )
        try:
            if operation.match.resource is Resource.SERVICE or operation.name == _CREATE_BUCKET:
                demand_service(principal)
            elif operation.document_limit_bytes or http.body.size_bytes is None:
                # No body is read before it is known that it may be sent.
                await demand_admission(self._context, request, principal)
            return await self._carry_out(operation, request, http, verified)
        finally:
            request.principal = None  # its admission refers to the request: a cycle

    async def _carry_out(
        self,
        operation: AnyOperation,
        request: S3Request,
        http: HttpRequest,
        verified: Verified | None,
    ) -> S3Response:
        assert verified is not None
        raw: RawBody = http.body
        # aws-chunked bodies tell their decoded length; others that HTTP's chunks hide are gathered.
        if raw.size_bytes is None and not verified.content_sha256.startswith("STREAMING-"):
            raw = await gather_unsized(raw)
        payload = make_payload(
            request.headers,
            raw,
            verified,
            length_required=operation.length_required,
            body_checksums=operation.body_checksums,
        )
        request.body = payload
        if operation.document_limit_bytes and not request.document:
            request.document = await payload.read_document(operation.document_limit_bytes)
        decoded = operation.decode(request)
        return operation.encode(await operation.handle(self._context, decoded))

    async def _carry_out_form(
        self,
        operation: AnyOperation,
        request: S3Request,
        http: HttpRequest,
        verified: Verified | None,
    ) -> S3Response:
        """For an operation whose body says who asks."""
        if verified is not None:
            raise S3Error(ErrorCode.INVALID_ARGUMENT, "Only one auth mechanism allowed")
        refuse_unoffered(operation.name, request.headers, request.query)
        raw = await gather_unsized(http.body)
        request.body = make_payload(request.headers, raw, _UNPROVED, body_checksums=False)
        decoded = operation.decode(request)
        try:
            return operation.encode(await operation.handle(self._context, decoded))
        finally:
            if request.principal is not None:
                http.access_key = request.principal.access_key
                http.key = request.key or ""
                request.principal = None  # its admission refers to the request: a cycle

    def _address(self, http: HttpRequest) -> S3Request:
        raw_path, raw_query = split_target(http.target)
        headers = http.headers
        address = locate(raw_path, headers.get("host", ""), self._domains)
        http.bucket, http.key = address.bucket or "", address.key or ""
        return S3Request(
            method=http.method,
            bucket=address.bucket,
            key=address.key,
            query=parse_query(raw_query) if raw_query else {},
            headers=headers,
            raw_path=raw_path,
            raw_query=raw_query,
            body=NO_BODY,
            request_id=http.request_id,
            secure=http.secure,
            remote=http.remote,
            virtual_host=address.virtual_host,
        )

    def _refuse(self, http: HttpRequest, error: Exception) -> S3Response:
        refusal = self._refusal_of(http, error)
        http.error_code = refusal.code.code
        resource = http.target.partition(b"?")[0].decode("latin-1")
        document = render_error(refusal, resource, http.request_id, http.host_id)
        headers = [("Content-Type", "application/xml"), *refusal.headers.items()]
        if http.method == "HEAD":
            return S3Response(refusal.code.status, headers, b"", content_length=None)
        return S3Response(refusal.code.status, headers, document)

    def _refusal_of(self, http: HttpRequest, error: Exception) -> S3Error:
        if isinstance(error, S3Error):
            return error
        if isinstance(error, BodyTooLargeError):
            return S3Error(ErrorCode.MAX_MESSAGE_LENGTH_EXCEEDED)
        known = to_s3_error(error)
        if known is None or known.code is ErrorCode.INTERNAL_ERROR:
            http.met_bug = True
            log.error("request %s failed", http.request_id, exc_info=error)
        return known or S3Error(ErrorCode.INTERNAL_ERROR)

    def finished(self, http: HttpRequest) -> None:
        """Count a request when its last byte has gone out."""
        if http.met_bug:
            self._counts.internal_errors += 1
        counts = self._counts.operation(http.operation or UNROUTED)
        code = http.error_code or str(http.status)
        counts.codes[code] = counts.codes.get(code, 0) + 1
        counts.latency.observe(http.total_seconds)
        counts.first_byte.observe(http.first_byte_seconds)
        counts.received_bytes += http.bytes_in
        counts.sent_bytes += http.bytes_out


class _NoBody:
    """Stands in until the request is authenticated: nothing may read a body before."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.trailers: dict[str, str] = {}

    async def read_into(self, buffer: memoryview) -> int:
        raise AssertionError("a body is read only after authentication")

    async def read_all(self, limit_bytes: int) -> bytes:
        raise AssertionError("a body is read only after authentication")


NO_BODY: Final[Body] = _NoBody()
"""Stands for the body of a request that has none."""

_UNPROVED: Final = Verified(UNSIGNED_PAYLOAD)
"""Stands for the header signature that a form does not have: nothing covers its bytes."""


def _unproved(request: S3Request) -> Verified:
    """The payload form of a request that nobody signed: a body in chunks is sent without a signature
    too, and a hash may be told all the same."""
    return Verified(request.headers.get("x-amz-content-sha256", UNSIGNED_PAYLOAD))
