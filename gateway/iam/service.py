"""What a query request passes: authenticate, read the form, authorise, carry out, answer.

The body is what the signature covers, so it is read before the signature is proved, but not before
the access key is known; it is small.
"""

import hashlib
import logging
import re
from typing import Final

import msgspec

from gateway.authorization import ANONYMOUS
from gateway.context import Context
from gateway.domain.access import may_by_identity
from gateway.domain.iam import IamRefused, Refusal, not_authorized
from gateway.http.message import BodyTooLargeError, HttpRequest
from gateway.iam.action import VERSIONS, Action, Call, Wire, resource_of
from gateway.iam.answers import answer, refusal
from gateway.iam.facts import question_of
from gateway.iam.form import Form, read_form
from gateway.iam.provider_keys import ProviderKeys
from gateway.iam.registry import ACTIONS
from gateway.identification import identify, session_token_of
from gateway.metadata.errors import Contended
from gateway.operations.error_map import to_s3_error
from gateway.s3 import sigv4
from gateway.s3.errors import ClientDisconnected, ErrorCode, S3Error
from gateway.s3.message import Principal, S3Request, S3Response
from gateway.s3.payload import gather_unsized, make_payload
from gateway.s3.signature import UNSIGNED_PAYLOAD, Verified

BODY_SIZE_BYTES_MAX: Final = 256 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_SERVICE: Final = re.compile(r"/(iam|sts)/aws4_request\b")
_NANOSECONDS: Final = 1_000_000_000
_UNPROVED: Final = Verified(UNSIGNED_PAYLOAD)
_RENAMED: Final = {
    "InvalidAccessKeyId": ("InvalidClientTokenId", 403),
    "InvalidToken": ("InvalidClientTokenId", 403),
    "ExpiredToken": ("ExpiredToken", 403),
    "RequestTimeTooSkewed": ("SignatureDoesNotMatch", 403),
    "AuthorizationHeaderMalformed": ("IncompleteSignature", 400),
    "MaxMessageLengthExceeded": ("ValidationError", 400),
    "InternalError": ("ServiceFailure", 500),
}
"""What S3 calls otherwise."""

log = logging.getLogger("ostraka.iam")


def is_query_request(request: S3Request) -> bool:
    """Whether a POST to the service is one of IAM's or STS's forms."""
    return request.headers.get("content-type", "").lower().startswith(_FORM)


class QueryService:
    """IAM and STS of one gateway process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._provider_keys = ProviderKeys(context.clock)

    async def __call__(self, request: S3Request, http: HttpRequest) -> S3Response:
        """Answer one request; errors are answers."""
        service = _SERVICE.search(request.headers.get("authorization", ""))
        name = "sts" if service is None else service[1]
        try:
            return await self._answer(request, http, None if service is None else name)
        except IamRefused as refused:
            code, status = refused.refusal.value
            message = refused.message
        except ClientDisconnected:
            raise
        except Contended:
            code, status = Refusal.CONCURRENT_MODIFICATION.value
            message = "The request was rejected because others change the same just now."
        except BodyTooLargeError:
            code, status, message = "ValidationError", 400, "The request is too long."
        except Exception as error:
            known = to_s3_error(error) or S3Error(ErrorCode.INTERNAL_ERROR)
            if known.code is ErrorCode.INTERNAL_ERROR:
                log.exception("request %s failed", http.request_id)
            code, status = _RENAMED.get(known.code.code, (known.code.code, known.code.status))
            message = known.message
        http.error_code = code
        return refusal(name, code, status, message, http.request_id)

    async def _answer(
        self, request: S3Request, http: HttpRequest, service: str | None
    ) -> S3Response:
        if service is None:
            principal, form = ANONYMOUS, await self._unsigned_form(request, http)
        else:
            principal, form = await self._signed_form(request, http, service)
        request.principal = principal
        action = _action_of(form, service or "sts")
        if service is None and not action.unsigned:
            raise IamRefused(Refusal.MISSING_TOKEN, "Request is missing Authentication Token")
        http.operation = action.name
        wire = Wire(self._context, request, self._provider_keys)
        call = Call(self._context.metadata, principal, form, wire)
        await self._authorize(action, call, principal)
        result = await action.handle(call)
        return answer(action.service, action.name, result, http.request_id)

    async def _unsigned_form(self, request: S3Request, http: HttpRequest) -> Form:
        if "authorization" in request.headers:
            raise S3Error(
                ErrorCode.SIGNATURE_DOES_NOT_MATCH,
                "Credential should be scoped to the service iam or sts.",
            )
        return read_form(await _read_body(request, http))

    async def _signed_form(
        self, request: S3Request, http: HttpRequest, service: str
    ) -> tuple[Principal, Form]:
        claim = sigv4.parse_header(request, self._context.region, service=service)
        http.access_key = claim.access_key
        principal, secret = await identify(
            self._context.metadata, claim.access_key, session_token_of(request)
        )
        body = await _read_body(request, http)
        claim = msgspec.structs.replace(claim, content_sha256=hashlib.sha256(body).hexdigest())
        claim.verify(secret, self._context.clock.now_ns() / _NANOSECONDS)
        return principal, read_form(body)

    async def _authorize(self, action: Action, call: Call, principal: Principal) -> None:
        if action.free or principal.plain_account == principal.account_id:
            return
        resource, tags = await resource_of(action, call)
        for permission in action.permissions(call.form):
            question = question_of(
                call, permission, resource, principal.account_id, resource_tags=tags
            )
            if not may_by_identity(question, principal.policies, principal.session_policy):
                raise not_authorized(principal.arn, permission, resource)


async def _read_body(request: S3Request, http: HttpRequest) -> bytes:
    raw = await gather_unsized(http.body)
    payload = make_payload(request.headers, raw, _UNPROVED, body_checksums=False)
    return await payload.read_document(BODY_SIZE_BYTES_MAX)


def _action_of(form: Form, service: str) -> Action:
    name, version = form.get("Action"), form.get("Version")
    if name is None:
        raise IamRefused(Refusal.INVALID_ACTION, "The request names no Action.")
    action = ACTIONS.get(name)
    if action is None or action.service != service or version not in (None, VERSIONS[service]):
        shown = name[:128]
        raise IamRefused(
            Refusal.INVALID_ACTION,
            f"Could not find operation {shown} for version {(version or 'NO_VERSION')[:32]}; it is "
            "not implemented by this server.",
        )
    return action
