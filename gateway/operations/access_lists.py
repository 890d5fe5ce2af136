"""Access control lists between requests and records: what a request asks for, whose a new object
becomes, and how a list is shown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from gateway.authorization import ANONYMOUS, denied, owner_of
from gateway.context import Context
from gateway.domain import acl
from gateway.domain.access import ENFORCED, PREFERRED
from gateway.metadata.entries import BucketEntry
from gateway.s3.access_documents import BY_EMAIL, CANONICAL_USER, GROUP, XSI, WantedGrant
from gateway.s3.errors import ErrorCode, S3Error, invalid_argument
from gateway.s3.message import Principal
from gateway.s3.xml import element

CANNED_HEADER: Final = "x-amz-acl"
GRANT_HEADERS: Final = {
    "x-amz-grant-read": acl.READ,
    "x-amz-grant-write": acl.WRITE,
    "x-amz-grant-read-acp": acl.READ_ACP,
    "x-amz-grant-write-acp": acl.WRITE_ACP,
    "x-amz-grant-full-control": acl.FULL_CONTROL,
}
"""In the order in which their grants are listed."""
_ALL_HEADERS: Final = frozenset({CANNED_HEADER, *GRANT_HEADERS})
_GRANTEE: Final = re.compile(
    r'\s*(id|emailAddress|uri)\s*=\s*(?:"([^"]*)"|([^",\s]+))\s*', re.IGNORECASE
)
_KINDS: Final = {"id": CANONICAL_USER, "emailaddress": BY_EMAIL, "uri": GROUP}


class AclAsked(NamedTuple):
    """What a request's headers (or document) ask for: a canned list, or grants."""

    canned: str | None
    grants: tuple[WantedGrant, ...] = ()


class ObjectAccess(NamedTuple):
    """Whose an object is (an account id), and its list."""

    owner: str
    grants: acl.Grants | None


def acl_asked(headers: Mapping[str, str], query: Mapping[str, str] = {}) -> AclAsked | None:
    """The list that headers ask for, which presigned requests may carry in the query; None when they
    ask for none. Raises InvalidArgument, InvalidRequest."""
    given: Mapping[str, str] = headers
    if _ALL_HEADERS.isdisjoint(headers):
        if not query or _ALL_HEADERS.isdisjoint(query):
            return None
        given = query
    canned = given.get(CANNED_HEADER)
    grants = tuple(
        grant
        for name, permission in GRANT_HEADERS.items()
        if name in given
        for grant in _header_grants(name, given[name], permission)
    )
    if canned is None:
        return AclAsked(None, grants)
    if grants:
        raise S3Error(
            ErrorCode.INVALID_REQUEST,
            "Specifying both Canned ACLs and Header Grants is not allowed",
        )
    if canned not in acl.CANNED:
        raise invalid_argument(CANNED_HEADER, canned, "The canned ACL is not valid.")
    return AclAsked(canned)


def _header_grants(name: str, text: str, permission: str) -> list[WantedGrant]:
    grants: list[WantedGrant] = []
    position = 0
    while position < len(text):
        found = _GRANTEE.match(text, position)
        if found is None or (found.end() < len(text) and text[found.end()] != ","):
            raise invalid_argument(name, text, "Argument format not recognized")
        value = found[2] if found[2] is not None else found[3]
        grants.append(WantedGrant(_KINDS[found[1].lower()], value, permission))
        position = found.end() + 1
    return grants


async def resolve(
    context: Context, asked: AclAsked, *, owner: str, bucket_owner: str, of_bucket: bool
) -> acl.Grants | None:
    """The list to store. Raises InvalidArgument, UnresolvableGrantByEmailAddress."""
    if asked.canned is not None:
        return acl.canned_grants(asked.canned, owner, bucket_owner, of_bucket=of_bucket)
    return await resolve_grants(context, asked.grants)


async def resolve_grants(context: Context, wanted: Sequence[WantedGrant]) -> acl.Grants:
    """Grants by account id or group. Raises as `resolve`, and MalformedACLError."""
    if len(wanted) > acl.GRANTS_MAX:
        raise S3Error(ErrorCode.MALFORMED_ACL)
    grants: list[tuple[str, str]] = []
    for grant in wanted:
        if grant.permission not in acl.PERMISSIONS:
            raise S3Error(ErrorCode.MALFORMED_ACL)
        each = (await _grantee(context, grant), grant.permission)
        if each not in grants:
            grants.append(each)
    return tuple(grants)


async def _grantee(context: Context, grant: WantedGrant) -> str:
    accounts = context.metadata.accounts
    if grant.kind == GROUP:
        group = acl.GROUP_OF_URI.get(grant.value)
        if group is None:
            raise invalid_argument("uri", grant.value, "Invalid group uri")
        return group
    if grant.kind == BY_EMAIL:
        found = await accounts.by_email(grant.value)
        if found is None:
            raise S3Error(ErrorCode.UNRESOLVABLE_GRANT_BY_EMAIL)
        return found
    found = await accounts.by_canonical_id(grant.value)
    if found is None:
        raise invalid_argument("CanonicalUser/ID", grant.value, "Invalid id")
    return found


def own_access(entry: BucketEntry, principal: Principal) -> ObjectAccess:
    """Whose a new object is that comes without a list.

    Source: S3 User Guide, "Controlling ownership of objects".
    """
    record = entry.record
    return _without_list(
        record.owner
        if record.ownership == ENFORCED
        else owner_of(principal.account_id, record.owner)
    )


@lru_cache(maxsize=4096)
def _without_list(owner: str) -> ObjectAccess:
    return ObjectAccess(owner, None)


async def access_of_new(
    context: Context, entry: BucketEntry, principal: Principal, asked: AclAsked | None
) -> ObjectAccess:
    """Whose a new object is, and its list. Raises AccessControlListNotSupported, AccessDenied (public
    lists are blocked), and as `resolve`.
    """
    if asked is None:
        return own_access(entry, principal)
    record = entry.record
    if record.ownership == ENFORCED:
        if not await _gives_bucket_owner_all(context, asked, record.owner):
            raise S3Error(ErrorCode.ACL_NOT_SUPPORTED)
        return ObjectAccess(record.owner, None)
    owner = owner_of(principal.account_id, record.owner)
    if record.ownership == PREFERRED and asked.canned == acl.BUCKET_OWNER_FULL_CONTROL:
        return ObjectAccess(record.owner, None)
    grants = await resolve(context, asked, owner=owner, bucket_owner=record.owner, of_bucket=False)
    demand_not_public(entry, grants)
    return ObjectAccess(owner, grants)


async def _gives_bucket_owner_all(context: Context, asked: AclAsked, owner: str) -> bool:
    if asked.canned is not None:
        return asked.canned == acl.BUCKET_OWNER_FULL_CONTROL
    return await resolve_grants(context, asked.grants) == ((owner, acl.FULL_CONTROL),)


def demand_not_public(entry: BucketEntry, grants: acl.Grants | None) -> None:
    """AccessDenied for a public list where the bucket blocks those."""
    block = entry.record.public_access_block
    if block is not None and block[0] and acl.is_public(grants):
        raise denied()


# Showing


class Person(NamedTuple):
    """An account as lists and listings show it."""

    canonical_id: str
    name: str


async def people(
    context: Context, account_ids: Iterable[str], caller: Principal
) -> dict[str, Person]:
    """The accounts by id. One that was deleted is shown by its id; the caller's own is not read."""
    wanted = sorted(set(account_ids) - {caller.account_id})
    found = await context.metadata.accounts.many(wanted)
    persons = {
        account_id: Person(record.canonical_id, record.name) if record else Person(account_id, "")
        for account_id, record in zip(wanted, found, strict=True)
    }
    persons[caller.account_id] = Person(caller.canonical_id, caller.name)
    if ANONYMOUS.account_id in persons:
        persons[ANONYMOUS.account_id] = Person(ANONYMOUS.canonical_id, ANONYMOUS.name)
    return persons


def person_element(name: str, person: Person) -> str:
    """`<Owner>` or `<Initiator>`."""
    return (
        f"<{name}>{element('ID', person.canonical_id)}"
        f"{element('DisplayName', person.name)}</{name}>"
    )


def acl_elements(owner: str, grants: acl.Grants | None, persons: Mapping[str, Person]) -> list[str]:
    """The children of an AccessControlPolicy; groups come first."""
    effective = acl.effective(grants, owner)
    ordered = sorted(effective, key=lambda grant: grant[0] not in acl.GROUPS)
    lines = [_grant_element(grantee, permission, persons) for grantee, permission in ordered]
    return [
        person_element("Owner", persons[owner]),
        f"<AccessControlList>{''.join(lines)}</AccessControlList>",
    ]


def _grant_element(grantee: str, permission: str, persons: Mapping[str, Person]) -> str:
    uri = acl.GROUPS.get(grantee)
    if uri is None:
        person = persons[grantee]
        kind = CANONICAL_USER
        inside = element("ID", person.canonical_id) + element("DisplayName", person.name)
    else:
        kind, inside = GROUP, element("URI", uri)
    return (
        f'<Grant><Grantee xmlns:xsi="{XSI}" xsi:type="{kind}">{inside}</Grantee>'
        f"<Permission>{permission}</Permission></Grant>"
    )


class Owned(Protocol):
    """A listed record."""

    @property
    def owner(self) -> str:
        """An account id."""
        ...


async def owner_elements(
    context: Context, entry: BucketEntry, records: Sequence[Owned], principal: Principal
) -> dict[str, str]:
    """`<Owner>` by the owner that a listed record names. Only others than the caller are read."""
    named = {record.owner for record in records}
    bucket_owner = entry.record.owner
    # Where lists do not count, everything is the bucket owner's.
    shown = {each: bucket_owner if entry.record.ownership == ENFORCED else each for each in named}
    persons = await people(context, shown.values(), principal)
    return {each: person_element("Owner", persons[shown[each]]) for each in named}
