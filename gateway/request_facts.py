"""The condition keys of a request: what policies may ask about it, looked up when they do.

Sources: IAM User Guide, "AWS global condition context keys"; Service Authorization Reference,
"Condition keys for Amazon S3".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from gateway.domain.iam_tags import of_key
from gateway.domain.tags import Tags
from gateway.s3.documents import parse_tagging
from gateway.s3.errors import S3Error
from gateway.s3.message import Principal, S3Request

_QUERY: Final = {
    "s3:prefix": "prefix",
    "s3:delimiter": "delimiter",
    "s3:max-keys": "max-keys",
    "s3:versionid": "versionId",
}
_HEADERS: Final = {
    **{
        f"s3:{name}": name
        for name in (
            *("x-amz-acl", "x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp"),
            *("x-amz-grant-write", "x-amz-grant-write-acp", "x-amz-metadata-directive"),
            *("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"),
            *("x-amz-server-side-encryption-customer-algorithm", "x-amz-storage-class"),
            *("x-amz-website-redirect-location", "x-amz-object-ownership"),
            *("x-amz-content-sha256", "if-match", "if-none-match", "x-amz-bucket-namespace"),
        )
    },
    "s3:object-lock-mode": "x-amz-object-lock-mode",
    "s3:object-lock-retain-until-date": "x-amz-object-lock-retain-until-date",
    "s3:object-lock-legal-hold": "x-amz-object-lock-legal-hold",
    "aws:referer": "referer",
    "aws:useragent": "user-agent",
}
_EXISTING_TAG: Final = "s3:existingobjecttag/"
_REQUEST_TAG: Final = "s3:requestobjecttag/"
_PRINCIPAL_TAG: Final = "aws:principaltag/"
_SOURCE_VERSION: Final = "?versionId="


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Implements `gateway.domain.policy.question.Facts` for one request and the object it finds.

    `prefix` stands for the query's own where the question is whether a key may be listed.
    """

    request: S3Request
    principal: Principal
    bucket_owner: str
    region: str
    now_ns: int
    existing_tags: Tags = ()
    prefix: str | None = None
    version_id: str | None = None

    def values(self, key: str) -> Sequence[str] | None:
        """The values of a condition key; None when the request has no such key."""
        if key.startswith(_EXISTING_TAG):
            return _one(dict(self.existing_tags).get(key[len(_EXISTING_TAG) :]))
        if key.startswith(_REQUEST_TAG):
            return _one(dict(self._request_tags()).get(key[len(_REQUEST_TAG) :]))
        if key.startswith(_PRINCIPAL_TAG):
            return of_key(self.principal.tags, key[len(_PRINCIPAL_TAG) :])
        if key == "s3:prefix" and self.prefix is not None:
            return (self.prefix,)
        if key == "s3:versionid" and self.version_id is not None:
            return (self.version_id,)
        argument = _QUERY.get(key)
        if argument is not None:
            return _one(self.request.query.get(argument))
        header = _HEADERS.get(key)
        if header is not None:
            return _one(self._header(header))
        rule = _RULES.get(key)
        return None if rule is None else rule(self)

    def _header(self, name: str) -> str | None:
        """A header, which presigned requests may carry in the query."""
        value = self.request.headers.get(name)
        if value is None and name.startswith("x-amz-"):
            value = self.request.query.get(name)
        return value

    def _request_tags(self) -> Tags:
        header = self._header("x-amz-tagging")
        if header is not None:
            return tuple(parse_qsl(header, keep_blank_values=True, max_num_fields=100))
        if "tagging" not in self.request.query or not self.request.document:
            return ()
        try:
            return tuple(parse_tagging(self.request.document))
        except (S3Error, ValueError):
            return ()  # refused as soon as it is decoded

    def request_tag_keys(self) -> Sequence[str] | None:
        """The keys of the tags that the request sets."""
        return tuple(key for key, _ in self._request_tags()) or None

    def copy_source(self) -> Sequence[str] | None:
        """bucket/key of a copy's source."""
        value = self._header("x-amz-copy-source")
        if value is None:
            return None
        path = value.partition(_SOURCE_VERSION)[0]
        text = path.encode("latin-1", "replace").decode("utf-8", "replace")
        return (unquote_plus(text).lstrip("/"),)

    def signature(self) -> tuple[str, str]:
        """(version, where it was) of the request's signature; empty for an unsigned one."""
        if not self.principal.access_key:
            return "", ""
        query, authorization = self.request.query, self.request.headers.get("authorization", "")
        if "X-Amz-Algorithm" in query:
            return "AWS4-HMAC-SHA256", "REST-QUERY-STRING"
        if "Signature" in query:
            return "AWS", "REST-QUERY-STRING"
        if not authorization:
            return "AWS4-HMAC-SHA256", "POST"
        version = "AWS4-HMAC-SHA256" if authorization.startswith("AWS4") else "AWS"
        return version, "REST-HEADER"

    def signature_age(self) -> Sequence[str] | None:
        """Milliseconds since a presigned request was signed."""
        try:
            signed = datetime.strptime(
                self.request.query.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ"
            ).replace(tzinfo=UTC)
        except ValueError:
            return None
        return (str(self.now_ns // 1_000_000 - int(signed.timestamp()) * 1000),)

    def principal_type(self) -> str:
        """Account, User, AssumedRole or Anonymous."""
        if not self.principal.access_key:
            return "Anonymous"
        if self.principal.role_arn:
            return "AssumedRole"
        return "User" if self.principal.user else "Account"


def _one(value: str | None) -> Sequence[str] | None:
    return None if value is None else (value,)


def _text(value: str) -> Sequence[str] | None:
    return (value,) if value else None


def _user_id(facts: RequestFacts) -> Sequence[str] | None:
    principal = facts.principal
    if not principal.access_key:
        return ("anonymous",)
    return (principal.user_id or principal.account_id,)


_RULES: Final[dict[str, Callable[[RequestFacts], Sequence[str] | None]]] = {
    "s3:x-amz-copy-source": RequestFacts.copy_source,
    "s3:requestobjecttagkeys": RequestFacts.request_tag_keys,
    "s3:signatureversion": lambda facts: _text(facts.signature()[0]),
    "s3:authtype": lambda facts: _text(facts.signature()[1]),
    "s3:signatureage": RequestFacts.signature_age,
    "s3:resourceaccount": lambda facts: _text(facts.bucket_owner),
    "aws:resourceaccount": lambda facts: _text(facts.bucket_owner),
    "aws:requestedregion": lambda facts: (facts.region,),
    "aws:sourceip": lambda facts: _text(facts.request.remote),
    "aws:securetransport": lambda facts: ("true" if facts.request.secure else "false",),
    "aws:currenttime": lambda facts: (
        datetime.fromtimestamp(facts.now_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    ),
    "aws:epochtime": lambda facts: (str(facts.now_ns // 1_000_000_000),),
    "aws:username": lambda facts: _text(facts.principal.user),
    "aws:userid": _user_id,
    "aws:principalarn": lambda facts: (
        (facts.principal.role_arn or facts.principal.arn,) if facts.principal.access_key else None
    ),
    "aws:principalaccount": lambda facts: (
        (facts.principal.account_id,) if facts.principal.access_key else None
    ),
    # Not AWS's: tells temporary credentials from lasting ones, as users of Ceph's gateway know it.
    "sts:authentication": lambda facts: ("false" if facts.principal.session is None else "true",),
    "aws:principaltype": lambda facts: (facts.principal_type(),),
}
"""Keys that are neither a header nor a query argument."""
