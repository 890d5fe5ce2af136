"""XML bodies of access control: lists, ownership controls, public access blocks. Bounded reading;
everything off raises MalformedXML, or MalformedACLError for what is wrong with a list."""

from typing import Final, NamedTuple

from lxml import etree

from gateway.s3.elements import boolean, malformed, name_of, parse, text_of, texts_of
from gateway.s3.errors import ErrorCode, S3Error

ACCESS_DOCUMENT_LIMIT_BYTES: Final = 128 * 1024
"""Bound of an AccessControlPolicy: 100 grants with long names."""
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
CANONICAL_USER: Final = "CanonicalUser"
BY_EMAIL: Final = "AmazonCustomerByEmail"
GROUP: Final = "Group"
_VALUE_OF: Final = {CANONICAL_USER: "ID", BY_EMAIL: "EmailAddress", GROUP: "URI"}
_BLOCK_SETTINGS: Final = (
    "BlockPublicAcls",
    "IgnorePublicAcls",
    "BlockPublicPolicy",
    "RestrictPublicBuckets",
)


class WantedGrant(NamedTuple):
    """A grant as a request names it: `kind` CanonicalUser, AmazonCustomerByEmail or Group."""

    kind: str
    value: str
    permission: str


class AclDocument(NamedTuple):
    """The body of PutBucketAcl and PutObjectAcl."""

    owner: str | None
    grants: tuple[WantedGrant, ...]


def parse_acl(text: bytes) -> AclDocument:
    """An AccessControlPolicy. Raises MalformedXML, MalformedACLError."""
    owner: str | None = None
    grants: list[WantedGrant] | None = None
    for child in parse(text, "AccessControlPolicy"):
        name = name_of(child)
        if name == "Owner":
            owner = {name_of(part): text_of(part).strip() for part in child}.get("ID")
        elif name == "AccessControlList" and grants is None:
            grants = [_grant(each) for each in child]
        else:
            raise S3Error(ErrorCode.MALFORMED_ACL)
    if grants is None:
        raise S3Error(ErrorCode.MALFORMED_ACL)
    return AclDocument(owner, tuple(grants))


def _grant(node: "etree._Element") -> WantedGrant:
    found = {name_of(part): part for part in node}
    if name_of(node) != "Grant" or set(found) != {"Grantee", "Permission"}:
        raise S3Error(ErrorCode.MALFORMED_ACL)
    grantee = found["Grantee"]
    parts = {name_of(part): text_of(part).strip() for part in grantee}
    kind = grantee.get(f"{{{XSI}}}type") or ""
    kind = kind.rpartition(":")[2]
    value = parts.get(_VALUE_OF.get(kind, ""))
    if not value:
        raise S3Error(ErrorCode.MALFORMED_ACL)
    return WantedGrant(kind, value, text_of(found["Permission"]).strip())


def parse_ownership(text: bytes) -> str:
    """The one rule of an OwnershipControls document. Raises MalformedXML."""
    rules = list(parse(text, "OwnershipControls"))
    if len(rules) != 1 or name_of(rules[0]) != "Rule" or len(rules[0]) != 1:
        raise malformed("OwnershipControls hold one Rule with one setting")
    (setting,) = rules[0]
    if name_of(setting) != "ObjectOwnership":
        raise malformed("a Rule holds ObjectOwnership")
    return text_of(setting).strip()


def parse_public_access_block(text: bytes) -> tuple[bool, bool, bool, bool]:
    """The four settings; what is not named is off. Raises MalformedXML."""
    texts = texts_of(parse(text, "PublicAccessBlockConfiguration"), _BLOCK_SETTINGS)
    found = {name: boolean(value) for name, value in texts.items()}
    first, second, third, fourth = (found.get(name, False) for name in _BLOCK_SETTINGS)
    return first, second, third, fourth


def public_access_block_elements(block: tuple[bool, bool, bool, bool]) -> list[str]:
    """The children of a PublicAccessBlockConfiguration."""
    return [
        f"<{name}>{'true' if on else 'false'}</{name}>"
        for name, on in zip(_BLOCK_SETTINGS, block, strict=True)
    ]
