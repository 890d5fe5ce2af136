"""Admission of one request: what was read of buckets and objects is judged by the rules in
`gateway.domain.access`.

The pipeline gives a request an admission unless it is plainly its owner's; the metadata repository
asks it with the very entries that the operation then works on, so that no decision is made on
anything older.
"""

import re
from typing import Final

import msgspec

from gateway.context import Context
from gateway.domain.access import (
    OF_OBJECTS,
    BucketRules,
    ObjectRules,
    PublicAccessBlock,
    is_denied,
)
from gateway.domain.access import is_permitted as judge
from gateway.domain.policy.question import ANYBODY, Caller, Question
from gateway.domain.tags import Tags
from gateway.metadata.entries import BucketEntry, ObjectEntry
from gateway.request_facts import RequestFacts
from gateway.s3.errors import ErrorCode, S3Error
from gateway.s3.message import Principal, S3Request

EXPECTED_OWNER: Final = "x-amz-expected-bucket-owner"
EXPECTED_SOURCE_OWNER: Final = "x-amz-source-expected-bucket-owner"
_ACCOUNT_ID: Final = re.compile("[0-9]{12}")
ANONYMOUS_ACCOUNT_ID: Final = "anonymous"
ANONYMOUS: Final = Principal(
    account_id=ANONYMOUS_ACCOUNT_ID,
    # The id that AWS shows for what nobody signed for.
    canonical_id="65a011a29cdf8ec533ec3d1ccaae921c",
    name="anonymous",
    email="",
    access_key="",
)
_OF_VERSIONS: Final = {
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:GetObjectAcl": "s3:GetObjectVersionAcl",
    "s3:PutObjectAcl": "s3:PutObjectVersionAcl",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
    "s3:DeleteObjectTagging": "s3:DeleteObjectVersionTagging",
    "s3:GetObjectAttributes": "s3:GetObjectVersionAttributes",
    "s3:DeleteObject": "s3:DeleteObjectVersion",
}
"""The permission that the same operation needs when it names a version."""
_BESIDE_PUT: Final = {
    "x-amz-tagging": "s3:PutObjectTagging",
    "x-amz-acl": "s3:PutObjectAcl",
    "x-amz-grant-full-control": "s3:PutObjectAcl",
    "x-amz-grant-read": "s3:PutObjectAcl",
    "x-amz-grant-read-acp": "s3:PutObjectAcl",
    "x-amz-grant-write-acp": "s3:PutObjectAcl",
    "x-amz-object-lock-mode": "s3:PutObjectRetention",
    "x-amz-object-lock-legal-hold": "s3:PutObjectLegalHold",
}
"""What a PutObject with these headers needs besides."""
_OF_WRITERS: Final = frozenset({"s3:PutObjectTagging", "s3:PutObjectAcl"})
PUT_OBJECT: Final = "s3:PutObject"
_DELETE_MANY: Final = "DeleteObjects"


class RequestAdmission:
    """Implements `gateway.s3.message.Admission`. `action` is asked of `bucket`/`key`, or of the
    bucket when `key` is None."""

    __slots__ = (
        "_bucket",
        "_context",
        "_expected_owner",
        "_fixed_key",
        "_per_key",
        "_request",
        "_version_id",
        "action",
        "principal",
    )

    def __init__(
        self,
        context: Context,
        request: S3Request,
        principal: Principal,
        action: str,
        *,
        per_key: bool = False,
    ) -> None:
        self._context = context
        self._request = request
        self._bucket = request.bucket or ""
        self._fixed_key: str | None = None
        self._version_id = request.query.get("versionId")
        self._expected_owner = _said(request, EXPECTED_OWNER)
        self._per_key = per_key
        self.action = action if self._version_id is None else _OF_VERSIONS.get(action, action)
        self.principal = principal

    def for_source(self, bucket: str, key: str, version_id: str | None = None) -> "Principal":
        """Who reads the source of this request's copy."""
        source = RequestAdmission(self._context, self._request, self.principal, "s3:GetObject")
        source._bucket, source._fixed_key, source._version_id = bucket, key, version_id
        source._expected_owner = _said(self._request, EXPECTED_SOURCE_OWNER)
        if version_id is not None:
            source.action = "s3:GetObjectVersion"
        return with_admission(self.principal, source)

    def for_key(self, key: str, action: str, version_id: str | None = None) -> "Principal":
        """Who does something to one of the keys that this request names in its body."""
        one = RequestAdmission(self._context, self._request, self.principal, action)
        one._fixed_key, one._version_id = key, version_id
        if version_id is not None:
            one.action = _OF_VERSIONS.get(action, action)
        return with_admission(self.principal, one)

    # What the metadata repository asks

    def to_service(self, action: str = "") -> None:
        """To what concerns no bucket that exists: ListBuckets, CreateBucket; or to another `action`
        that the same request comes to. Raises AccessDenied."""
        account_id = self.principal.account_id
        if self.principal is ANONYMOUS:
            if self.action == "s3:ListAllMyBuckets":
                return  # nobody's buckets: an empty list, which tells nothing
            raise denied()
        resource = f"arn:aws:s3:::{self._bucket or '*'}"
        if not self._permits(BucketRules(account_id), action or self.action, resource, None):
            raise denied()

    def to_bucket(self, entry: BucketEntry) -> None:
        """Raises AccessDenied."""
        self._demand_owner(entry)
        if self._per_key:
            return
        self._demand(entry, None)

    def to_object(self, entry: BucketEntry, current: ObjectEntry | None) -> None:
        """Raises AccessDenied. Where there is no object, only those who may list learn so."""
        self._demand_owner(entry)
        if current is None and self.action in OF_OBJECTS:
            key = self._key or ""
            arn = f"arn:aws:s3:::{entry.name}"
            if not self._permits(rules_of(entry), "s3:ListBucket", arn, None, prefix=key):
                raise denied()
            return
        self._demand(entry, current)

    def may(self, entry: BucketEntry, action: str, key: str) -> bool:
        """Whether another action on a key of the bucket is permitted as well."""
        return self._permits(rules_of(entry), action, f"arn:aws:s3:::{entry.name}/{key}", None)

    @property
    def _key(self) -> str | None:
        return self._request.key if self._fixed_key is None else self._fixed_key

    def _demand_owner(self, entry: BucketEntry) -> None:
        expected = self._expected_owner
        if expected is not None and expected != entry.record.owner:
            raise denied()

    def _demand(self, entry: BucketEntry, current: ObjectEntry | None) -> None:
        key = self._key
        arn = f"arn:aws:s3:::{entry.name}" + ("" if key is None else f"/{key}")
        rules = rules_of(entry)
        if not self._permits(rules, self.action, arn, current):
            raise denied()
        if self.action == PUT_OBJECT:
            self._demand_beside_put(rules, arn)

    def _demand_beside_put(self, rules: BucketRules, arn: str) -> None:
        """What comes with an object. Whoever may write into another account's bucket is the
        object's writer and may give it tags and a list, unless that is denied."""
        headers, query = self._request.headers, self._request.query
        for header, action in _BESIDE_PUT.items():
            if header not in headers and header not in query:
                continue
            stranger = self.principal.account_id != rules.owner
            if stranger and action in _OF_WRITERS:
                question = self._question(rules, action, arn, ())
                principal = self.principal
                if not is_denied(question, rules, principal.policies, principal.session_policy):
                    continue
            elif self._permits(rules, action, arn, None):
                continue
            raise denied()

    def _permits(
        self,
        rules: BucketRules,
        action: str,
        arn: str,
        current: ObjectEntry | None,
        *,
        prefix: str | None = None,
    ) -> bool:
        existing: ObjectRules | None = None
        tags: Tags = ()
        if current is not None:
            owner = owner_of(current.record.owner, rules.owner)
            existing = ObjectRules(owner, current.record.acl)
            tags = current.record.tags
        question = self._question(rules, action, arn, tags, prefix)
        principal = self.principal
        return judge(question, rules, existing, principal.policies, principal.session_policy)

    def _question(
        self, rules: BucketRules, action: str, arn: str, tags: Tags, prefix: str | None = None
    ) -> Question:
        facts = RequestFacts(
            self._request,
            self.principal,
            rules.owner,
            self._context.region,
            self._context.clock.now_ns(),
            tags,
            prefix,
            self._version_id,
        )
        return Question(caller_of(self.principal), action, arn, facts)


def caller_of(principal: Principal) -> Caller:
    """The principal as policies know it."""
    if principal is ANONYMOUS or not principal.access_key:
        return ANYBODY
    return Caller(
        principal.account_id,
        principal.arn,
        principal.canonical_id,
        principal.user_id,
        principal.role_arn,
    )


def rules_of(entry: BucketEntry) -> BucketRules:
    """A bucket's rules as its record tells them."""
    record = entry.record
    block = record.public_access_block
    return BucketRules(
        record.owner,
        entry.policy,
        record.ownership,
        record.acl,
        PublicAccessBlock() if block is None else PublicAccessBlock(*block),
    )


def owner_of(writer: str, bucket_owner: str) -> str:
    """Whose an object is where objects are their writers': what nobody in particular wrote is the
    bucket owner's, for else it would be out of everybody's reach."""
    return bucket_owner if writer == ANONYMOUS_ACCOUNT_ID else writer


def denied() -> S3Error:
    """The answer to whoever may not."""
    return S3Error(ErrorCode.ACCESS_DENIED)


def with_admission(principal: Principal, admission: RequestAdmission) -> Principal:
    """The same principal, bringing its admission."""
    return msgspec.structs.replace(principal, admission=admission, plain_account="")


def admit(
    context: Context, request: S3Request, principal: Principal, action: str, *, name: str = ""
) -> Principal:
    """Who asks, with the admission that this request needs. Raises InvalidBucketOwnerAWSAccountID."""
    for header in (EXPECTED_OWNER, EXPECTED_SOURCE_OWNER):
        expected = _said(request, header)
        if expected is not None and _ACCOUNT_ID.fullmatch(expected) is None:
            raise S3Error(
                ErrorCode.INVALID_BUCKET_OWNER,
                "The value of the expected bucket owner parameter must be an AWS Account ID... "
                f"[{expected}]",
            )
    admission = RequestAdmission(context, request, principal, action, per_key=name == _DELETE_MANY)
    return with_admission(principal, admission)


def may(principal: Principal, entry: BucketEntry, action: str, key: str) -> bool:
    """Whether the caller may also do this to a key, beside what the operation's row demands."""
    admission = admission_of(principal)
    return admission is None or admission.may(entry, action, key)


def admission_of(principal: Principal) -> RequestAdmission | None:
    """The admission that a principal brings; None when all it asks for is plainly its own."""
    admission = principal.admission
    assert admission is None or isinstance(admission, RequestAdmission)
    return admission


def is_plain(context: Context, request: S3Request, principal: Principal) -> bool:
    """Whether the request can go without an admission: its owner's root asks, and nothing says that
    the owner should be another. A guess; the metadata repository knows better."""
    if request.bucket is None:
        return principal.plain_account == principal.account_id
    entry = context.metadata.buckets.cached.get(request.bucket)
    headers = request.headers
    return (
        entry is not None
        and entry.plain_owner == principal.plain_account
        and EXPECTED_OWNER not in headers
        and EXPECTED_SOURCE_OWNER not in headers
        and (
            not request.query
            or (EXPECTED_OWNER not in request.query and EXPECTED_SOURCE_OWNER not in request.query)
        )
    )


def _said(request: S3Request, header: str) -> str | None:
    """A header; some SDKs put it into the query of a presigned URL."""
    value = request.headers.get(header)
    return request.query.get(header) if value is None and request.query else value


async def demand_admission(context: Context, request: S3Request, principal: Principal) -> None:
    """Decide before the body is read, as the operation will again. Raises AccessDenied and what
    looking up raises."""
    assert request.bucket is not None
    if request.key is None or "versionId" in request.query or "uploadId" in request.query:
        await context.metadata.bucket(request.bucket, principal)
    else:
        await context.metadata.lookup(request.bucket, request.key, principal)


def refuse_of_anonymous(request: S3Request) -> None:
    """InvalidRequest for what S3 takes from nobody who did not sign."""
    for name in request.query:
        if name.startswith("response-"):
            raise S3Error(
                ErrorCode.INVALID_REQUEST,
                "Request specific response headers cannot be used for anonymous GET requests.",
            )


def demand_service(principal: Principal) -> None:
    """For what concerns no bucket that exists. Raises AccessDenied."""
    admission = admission_of(principal)
    assert admission is not None
    admission.to_service()


def demand_service_too(principal: Principal, action: str) -> None:
    """The same for what such a request does besides. Raises AccessDenied."""
    admission = admission_of(principal)
    if admission is not None:
        admission.to_service(action)
